#!/usr/bin/env bash
# Guess: val, train = stream.take(200), stream.skip(200) of a shuffled IterableDataset are two parts without a common image, however often they
# are read. datasets' guide to streaming advises to shuffle first and split then, and to call set_epoch for another order in each epoch.
# Behaviour: the two advices together mix the parts. take and skip count in the order of the epoch, and set_epoch gives the stream below them
# another order: from the second epoch on, training reads images of the validation of the first. A loader that accelerate has prepared
# (so Hugging Face's Trainer) calls set_epoch by itself. The number of workers does the same within an epoch: each worker takes and skips its
# share of its own shards, so a validation with other workers than the training has images of it. Each part has the right number of images,
# no image comes twice, and nothing is said. Splitting first and shuffling the training part keeps them apart. Why it matters: the
# validation accuracy of a streamed training rises by images that it was trained on.
# Packages: datasets 5.2.0, accelerate 1.15.0, torch 2.14.1.
# Seen on 2026-11-30, of 1,000 images in 8 shards, validation images that the training has read by the end of epochs 1, 2 and 3:
#   shuffled, then split: set_epoch [0, 31, 58], a loader by accelerate [0, 31, 58]
#   split, then shuffled: set_epoch [0, 0, 0]
#   shuffled, then split, first epoch, workers of validation and training: 2 and 2: 0, 0 and 2: 53, 0 and 4: 97, 2 and 4: 89
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 datasets==5.2.0 accelerate==1.15.0
cat > "$folder/look.py" <<'END'
import sys

from accelerate import Accelerator
from datasets import Dataset
from torch.utils.data import DataLoader

IMAGES, VALIDATION = 1000, 200


def whole():
    return Dataset.from_dict({'image': list(range(IMAGES))})


def parts(shuffle_first):
    """Return validation and training of a stream, which is shuffled before it is split, or afterwards."""
    stream = whole().to_iterable_dataset(num_shards=8)
    if shuffle_first:
        stream = stream.shuffle(seed=0, buffer_size=100)
        return stream.take(VALIDATION), stream.skip(VALIDATION)
    return stream.take(VALIDATION), stream.skip(VALIDATION).shuffle(seed=0, buffer_size=100)


def loader(data, workers=0):
    return DataLoader(data, batch_size=10, num_workers=workers)


def seen(batches):
    return {image for batch in batches for image in batch['image'].tolist()}


def seen_by_epochs(validation, train, prepare=None):
    """Return the number of validation images that the training has seen by the end of each epoch."""
    held_out, so_far, counts = seen(loader(validation)), set(), []
    batches = prepare(loader(train)) if prepare else loader(train)
    for epoch in range(3):
        if not prepare:
            train.set_epoch(epoch)
        so_far |= seen(batches)
        counts.append(len(held_out & so_far))
    return counts


by_hand = seen_by_epochs(*parts(shuffle_first=True))
prepared = seen_by_epochs(*parts(shuffle_first=True), Accelerator(cpu=True).prepare_data_loader)
afterwards = seen_by_epochs(*parts(shuffle_first=False))
print(f'shuffled, then split: set_epoch {by_hand}, a loader by accelerate {prepared}')
print(f'split, then shuffled: set_epoch {afterwards}')
validation, train = parts(shuffle_first=True)
trained = {workers: seen(loader(train, workers)) for workers in (0, 2, 4)}
validated = {workers: seen(loader(validation, workers)) for workers in (0, 2, 4)}
common = {(v, t): len(validated[v] & trained[t]) for v in validated for t in trained}
print(
    'shuffled, then split, first epoch, workers of validation and training: '
    + ', '.join(f'{v} and {t}: {common[v, t]}' for v, t in ((2, 2), (0, 2), (0, 4), (2, 4)))
)
of_one_epoch = [count for (v, t), count in common.items() if v == t]
others = [count for (v, t), count in common.items() if v != t]
leaks = by_hand[0] == prepared[0] == 0 < min(*by_hand[1:], *prepared[1:])
if not leaks or any(afterwards) or any(of_one_epoch) or not all(others):
    sys.exit('changed: the parts of a shuffled stream stay apart now, or those of the other order do not')
END
"$folder/venv/bin/python" -W ignore "$folder/look.py"
