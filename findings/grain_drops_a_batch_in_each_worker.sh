#!/usr/bin/env bash
# Guess: DataLoader of grain with the operation Batch(128, drop_remainder=True) drops at most 127 images of an epoch, those that fill no batch,
# whatever worker_count is, as torch's DataLoader(drop_last=True) does. Workers change the speed, not the batches.
# Behaviour: each worker makes batches of its own share of the images, and drops its own rest: up to 127 for each worker. Where a share is smaller
# than a batch nothing is left: the loop over the loader ends at once, without a warning or an error. Without drop_remainder there are
# as many small batches as workers. The docstrings of DataLoader and Batch do not say so.
# Why it matters: a validation set of 1,000 images is measured on 896, 768, 512 or none of them, by the number of workers, which is set by the
# machine. Accuracies of two machines are of other images, and the last, of no images, is NaN, or an error far from here. If the images come by
# class, whole classes are missing. Batch in the main process, or give no drop_remainder and weight each batch by its images.
# Packages: grain 0.2.18, absl-py 2.5.1, numpy 2.4.6.
# Seen on 2026-11-30, 1,000 images of 10 classes in order, batches of 128:
#   workers 0, drop the rest: 7 batches,  896 images of  9 classes, smaller batches: 0
#   workers 2, drop the rest: 6 batches,  768 images of  8 classes, smaller batches: 0
#   workers 4, drop the rest: 4 batches,  512 images of  6 classes, smaller batches: 0
#   workers 8, drop the rest: 0 batches,    0 images of  0 classes, smaller batches: 0
#   workers 0, keep the rest: 8 batches, 1000 images of 10 classes, smaller batches: 1
#   workers 4, keep the rest: 8 batches, 1000 images of 10 classes, smaller batches: 4
#   workers 8, keep the rest: 8 batches, 1000 images of 10 classes, smaller batches: 8
#   workers 8, drop, batches made outside: 7 batches,  896 images of  9 classes
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q grain==0.2.18 absl-py==2.5.1 numpy==2.4.6
cat > "$folder/look.py" <<'END'
import sys

from absl import flags, logging

logging.set_verbosity(logging.ERROR)  # it misses JAX's profiler

import grain
import numpy

IMAGES, BATCH = 1000, 128


class Images:
    """Images that are only their own numbers, 100 of each class."""

    def __len__(self):
        return IMAGES

    def __getitem__(self, number):
        return numpy.int64(number)


def look(workers, drop, batch=BATCH):
    """Return the sizes of an epoch's batches, and the number of classes in them."""
    sampler = grain.samplers.IndexSampler(IMAGES, shard_options=grain.sharding.NoSharding(), num_epochs=1)
    operations = [grain.transforms.Batch(batch, drop_remainder=drop)] if batch else []
    loader = grain.DataLoader(data_source=Images(), sampler=sampler, operations=operations, worker_count=workers)
    images = [one for one in loader]
    if not batch:  # in the main process, by hand
        images = [images[start : start + BATCH] for start in range(0, IMAGES - BATCH + 1 if drop else IMAGES, BATCH)]
    return [len(one) for one in images], len({int(number) // 100 for one in images for number in one})


def main():
    flags.FLAGS(sys.argv[:1])
    seen = {}
    for workers, drop in ((0, True), (2, True), (4, True), (8, True), (0, False), (4, False), (8, False)):
        sizes, classes = seen[workers, drop] = look(workers, drop)
        print(f'workers {workers}, {"drop" if drop else "keep"} the rest: {len(sizes)} batches, {sum(sizes):4} images '
              f'of {classes:2} classes, smaller batches: {sum(size < BATCH for size in sizes)}')
    sizes, classes = look(8, True, None)
    print(f'workers 8, drop, batches made outside: {len(sizes)} batches, {sum(sizes):4} images of {classes:2} classes')
    lost = [IMAGES - sum(seen[workers, True][0]) for workers in (0, 2, 4, 8)]
    if lost != [104, 232, 488, 1000] or [len(set(seen[workers, False][0])) for workers in (0, 8)] != [2, 1]:
        sys.exit('changed: the workers of grain make other batches now')


if __name__ == '__main__':
    main()
END
JAX_PLATFORMS=cpu "$folder/venv/bin/python" -W ignore "$folder/look.py"
