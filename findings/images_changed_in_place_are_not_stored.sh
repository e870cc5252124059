#!/usr/bin/env bash
# Guess: Dataset.map, Dataset.from_dict and from_generator of datasets store the image that they are given, as it is then.
# Behaviour: an image that Pillow opened from a file knows its file's name also after thumbnail(), paste() or drawing on it, which change it in place.
# datasets then stores the name instead of the pixels: the new data set shows the original, at its full size. to_parquet writes
# the original, too. resize(), crop() and convert() make another image without a name, so they work, as does a copy() before. The same function
# works on data sets that hold the images' bytes, and on streams. No warning. (litdata 0.2.76 does so in optimize() with a JPEG.)
# Why it matters: images shrunk with thumbnail() for training are as large and slow as before; and a face, a name or a label that was blackened
# is in the data set that is trained on and published.
# Packages: datasets 5.2.0, pillow 13.0.0, numpy 2.4.6.
# Seen on 2026-11-30; the same four changes each time: resize(), copy() and thumbnail(), thumbnail(), a black rectangle drawn over a part:
#   map:                                           unchanged after: shrunk, blackened
#   map of images that the data set holds itself:  unchanged after: nothing
#   map of a stream:                               unchanged after: nothing
#   from_dict:                                     unchanged after: shrunk, blackened
#   from_generator:                                unchanged after: shrunk, blackened
#   map, to_parquet:                               unchanged after: shrunk, blackened
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q datasets==5.2.0 pillow==13.0.0 numpy==2.4.6
mkdir "$folder/images"
cat > "$folder/look.py" <<'END'
import sys

import datasets
import numpy
from PIL import Image, ImageDraw

folder = sys.argv[1]
datasets.disable_progress_bars()
random = numpy.random.default_rng(0)
for number in range(3):
    Image.fromarray(random.integers(1, 256, (300, 400, 3), numpy.uint8)).save(f'{folder}/{number}.png')
paths = [f'{folder}/{number}.png' for number in range(3)]


def resized(image):
    return image.resize((64, 48))


def shrunk(image):
    image.thumbnail((64, 64))
    return image


def copied(image):
    return shrunk(image.copy())


def blackened(image):
    ImageDraw.Draw(image).rectangle((0, 0, 100, 100), fill=0)
    return image


def mapped(change, rows):
    return rows.map(lambda row: {'image': change(row['image'])})


def from_dict(change, rows):
    images = datasets.Features({'image': datasets.Image()})
    return datasets.Dataset.from_dict({'image': [change(Image.open(path)) for path in paths]}, features=images)


def from_generator(change, rows):
    def all_images():
        for path in paths:
            yield {'image': change(Image.open(path))}

    return datasets.Dataset.from_generator(all_images, cache_dir=f'{folder}/generated')


def written(change, rows):
    """Return what a parquet file has that is written from the changed images, to be published."""
    mapped(change, rows).to_parquet(f'{folder}/all.parquet')
    return datasets.Dataset.from_parquet(f'{folder}/all.parquet', cache_dir=f'{folder}/read')


files = datasets.load_dataset('imagefolder', data_dir=folder, split='train', cache_dir=f'{folder}/loaded')
in_memory = datasets.Dataset.from_dict({'image': [open(path, 'rb').read() for path in paths]})
in_memory = in_memory.cast_column('image', datasets.Image())
seen = {}
for name, way, rows in (
    ('map', mapped, files),
    ('map of images that the data set holds itself', mapped, in_memory),
    ('map of a stream', mapped, files.to_iterable_dataset()),
    ('from_dict', from_dict, None),
    ('from_generator', from_generator, None),
    ('map, to_parquet', written, files),
):
    kept = {}
    for change in (resized, copied, shrunk, blackened):
        image = next(iter(way(change, rows)))['image']
        kept[change.__name__] = numpy.asarray(image)[0, 0].any() if change is blackened else image.size != (64, 48)
    seen[name] = [change for change, lost in kept.items() if lost]
    print(f'{name + ":":46} unchanged after: {", ".join(seen[name]) or "nothing"}')
lost = ['shrunk', 'blackened']
for name, kept in seen.items():
    if kept != ([] if 'holds itself' in name or 'stream' in name else lost):
        sys.exit(f'changed: {name} deals otherwise with images that were changed in place now')
END
HF_HOME="$folder/home" HF_HUB_OFFLINE=1 "$folder/venv/bin/python" -W ignore "$folder/look.py" "$folder/images"
