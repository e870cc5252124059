#!/usr/bin/env bash
# Guess: load_dataset('imagefolder') reads train/CLASS/*.png and validation/CLASS/*.png as two splits, whatever the classes are called, as
# torchvision's ImageFolder on each of the two folders does.
# Behaviour: it looks for the words of splits (train, training, test, testing, eval, val, dev, ...) anywhere in a path below the data folder.
# With a class called "train" (CIFAR-100, COCO and Pascal VOC have one) its validation images are in the training split too: training on
# validation images. With a class "test_tube" (or "test", "dev board") there is a third split of this class alone, made of images of the
# other two. Without folders of splits, bus/, car/ and train/ load as the images of train/ alone, and without labels. No warning
# in any case. Patterns by split (data_files=dict(train='train/**', ...)) load right.
# Packages: datasets 5.2.0, pyarrow 26.0.1, pillow 13.0.0.
# Seen on 2026-11-29 (three images a class and split):
#   splits of bus, car, van: train 9, validation 9; validation images in train: 0
#   splits of bus, car, train: train 12, validation 9; validation images in train: 3
#   splits of bus, car, test_tube: train 9, validation 9, test 6; validation images in train: 0
#   the second by patterns: train 9, validation 9; validation images in train: 0
#   bus, car, van alone: train 9, labels True
#   bus, car, train alone: train 3, labels False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q datasets==5.2.0 pyarrow==26.0.1 pillow==13.0.0
cat > "$folder/look.py" <<'END'
import sys
from pathlib import Path

import datasets
from PIL import Image

root = Path(sys.argv[1])
datasets.disable_progress_bars()
MARKS = dict(train=10, validation=200)


def write(folder, classes, mark=0):
    for name in classes:
        (folder / name).mkdir(parents=True)
        for i in range(3):
            Image.new('RGB', (8, 8), (mark, 0, i)).save(folder / name / f'{i}.png')
    return folder


def load(folder, **keywords):
    return datasets.load_dataset('imagefolder', data_dir=str(folder), cache_dir=str(root / 'cache'), **keywords)


def with_splits(number, classes, **keywords):
    for split, mark in MARKS.items():
        write(root / number / split, classes, mark)
    data = load(root / number, **keywords)
    leaked = sum(image.getpixel((0, 0))[0] == MARKS['validation'] for image in data['train']['image'])
    return {split: len(rows) for split, rows in data.items()}, leaked


patterns = {split: f'{split}/**' for split in MARKS}
rows = {
    'splits of bus, car, van': with_splits('a', ['bus', 'car', 'van']),
    'splits of bus, car, train': with_splits('b', ['bus', 'car', 'train']),
    'splits of bus, car, test_tube': with_splits('c', ['bus', 'car', 'test_tube']),
    'the second by patterns': with_splits('d', ['bus', 'car', 'train'], data_files=patterns),
}
for what, (sizes, leaked) in rows.items():
    print(f'{what}: {", ".join(f"{split} {size}" for split, size in sizes.items())}; validation images in train: {leaked}')
alone = []
for classes in (['bus', 'car', 'van'], ['bus', 'car', 'train']):
    data = load(write(root / classes[-1], classes))
    alone.append((*((split, len(rows)) for split, rows in data.items()), 'label' in data['train'].features))
    print(f'{", ".join(classes)} alone: train {len(data["train"])}, labels {alone[-1][-1]}')
usual = dict(train=9, validation=9)
expected = [(usual, 0), (dict(usual, train=12), 3), (dict(usual, test=6), 0), (usual, 0)]
if list(rows.values()) != expected or alone != [(('train', 9), True), (('train', 3), False)]:
    sys.exit('changed: classes whose names are words of splits load otherwise now')
END
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" -W ignore "$folder/look.py" "$folder"
