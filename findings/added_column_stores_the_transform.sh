#!/usr/bin/env bash
# Guess: a transform that is set with with_transform or set_transform of datasets is applied when rows are read, once, and never stored.
# add_column adds a column and leaves the others; flatten_indices, which makes a shuffled or chosen part fast to read, stores the rows as they are.
# Behaviour: flatten_indices stores what the transform returns, and the new data set still has the transform: it is applied to its own results.
# add_column calls flatten_indices where the data set is a part (of train_test_split, shuffle or filter), and does not where it is whole, so
# the same line is right before a split and wrong after it. A random augmentation is drawn once and frozen, and drawn again on top of it. No
# warning: shapes, types and labels stay. map with a function, which adds a column as well, leaves the images alone. with_format(None) before,
# and the transform after, helps.
# Why it matters: a split with its augmentation gets a teacher's logits by add_column, and from then on shows images that are normalised, darkened
# or cropped twice, to the student alone; the teacher saw them once. The stored file of a public data set is one of augmented images.
# Packages: datasets 5.2.0, pyarrow 26.0.1, pillow 13.0.0, numpy 2.4.6.
# Seen on 2026-11-30, images of grey 200, a transform that halves the grey and turns half of the images at random; grey as read (right is
# 100), grey as stored (right is 200), and how many of 64 images are stored turned (right is 0):
#   split                                         read 100  stored 200  turned 0
#   split, map                                    read 100  stored 200  turned 0
#   whole, add_column                             read 100  stored 200  turned 0
#   split, add_column                             read  50  stored 100  turned 25
#   shuffled, add_column                          read  50  stored 100  turned 39
#   filtered, add_column                          read  50  stored 100  turned 30
#   split, flatten_indices                        read  50  stored 100  turned 28
#   split, flatten_indices without the transform  read 100  stored 200  turned 0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q datasets==5.2.0 pyarrow==26.0.1 pillow==13.0.0 numpy==2.4.6
cat > "$folder/look.py" <<'END'
import io
import random
import sys

import datasets
import numpy
from PIL import Image, ImageOps

datasets.disable_progress_bars()
IMAGES = 64
random.seed(0)


def encoded():
    """Return a PNG image of grey 200 with a black row at its top."""
    grey = numpy.full((16, 16), 200, numpy.uint8)
    grey[0] = 0
    file = io.BytesIO()
    Image.fromarray(grey).save(file, 'PNG')
    return dict(bytes=file.getvalue(), path=None)


def augment(batch):
    """Halve the grey of each image, and turn half of them upside down."""
    images = [image.point(lambda grey: grey // 2) for image in batch['image']]
    return batch | dict(image=[ImageOps.flip(image) if random.random() < 0.5 else image for image in images])


features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=['cat', 'dog']))
whole = datasets.Dataset.from_dict(dict(image=[encoded()] * IMAGES * 2, label=[0, 1] * IMAGES), features=features)
whole = whole.with_transform(augment)
split = whole.train_test_split(0.5, seed=0)['train']
logits = numpy.zeros((IMAGES, 2)).tolist()


def look(data):
    """Return the grey of images as read and as stored, and how many are stored upside down."""
    read = numpy.stack([numpy.asarray(image) for image in data[:IMAGES]['image']])
    stored = numpy.stack([numpy.asarray(image) for image in data.with_format(None)[:IMAGES]['image']])
    return int(read[:, 8].max()), int(stored[:, 8].max()), int((stored[:, -1].max(1) == 0).sum())


CASES = {
    'split': split,
    'split, map': split.map(lambda row: dict(logits=[0.0, 0.0]), load_from_cache_file=False),
    'whole, add_column': whole.add_column('logits', logits * 2),
    'split, add_column': split.add_column('logits', logits),
    'shuffled, add_column': whole.shuffle(seed=0).add_column('logits', logits * 2),
    'filtered, add_column': whole.filter(lambda row: row['label'] == 1).add_column('logits', logits),
    'split, flatten_indices': split.flatten_indices(),
    'split, flatten_indices without the transform': split.with_format(None).flatten_indices().with_transform(augment),
}
WRONG = {'split, add_column', 'shuffled, add_column', 'filtered, add_column', 'split, flatten_indices'}
changed = []
for name, data in CASES.items():
    read, stored, turned = look(data)
    print(f'{name:45} read {read:3}  stored {stored:3}  turned {turned}')
    if (read, stored, turned > 0) != ((50, 100, True) if name in WRONG else (100, 200, False)):
        changed.append(name)
if changed:
    sys.exit(f'changed: the transform is stored otherwise now ({"; ".join(changed)})')
END
HF_HOME="$folder/cache" HF_HUB_OFFLINE=1 "$folder/venv/bin/python" -W ignore "$folder/look.py"
