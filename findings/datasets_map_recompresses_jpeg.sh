#!/usr/bin/env bash
# Guess: Dataset.map with a function that looks at the image and returns one new column (a teacher's logits, a size, a hash) adds this column
# and leaves the image's bytes alone, as add_column and filter do.
# Behaviour: a JPEG that the function has looked at is written anew, at Pillow's quality of 75, though the function does not return it: the
# columns that were decoded go back to the encoder. The first such map is lossy, nothing is said, and to_parquet keeps the result. Images
# that are files on disk keep their path instead; those whose bytes are in the data set (parquet, so most published ones) are replaced, and
# lose their file name. With input_columns=['image'], or Image(decode=False), the bytes stay. Why it matters: a student that is trained on
# the data set with the new column sees other images than the teacher saw, and than the one validated on the untouched data.
# Packages: datasets 5.2.0, pyarrow 26.0.1, pillow 13.0.0.
# Seen on 2026-11-29, one picture of 128x128, JPEG of quality 95, in a parquet file:
#   loaded: 8608 bytes, the original True, name picture.jpg, mean difference 0.00
#   map that reads the label: 8608 bytes, the original True, name picture.jpg, mean difference 0.00
#   map that reads the image: 2848 bytes, the original False, name None, mean difference 4.43
#   the same, batched: 2848 bytes, the original False, name None, mean difference 4.43
#   with input_columns: 8608 bytes, the original True, name picture.jpg, mean difference 0.00
#   filter by the image: 8608 bytes, the original True, name picture.jpg, mean difference 0.00
#   those 2848 bytes are what Pillow saves at quality 75: True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q datasets==5.2.0 pyarrow==26.0.1 pillow==13.0.0
cat > "$folder/look.py" <<'END'
import io
import sys

import datasets
import numpy as np
from PIL import Image

folder = sys.argv[1]
datasets.disable_progress_bars()


def jpeg(picture, quality):
    written = io.BytesIO()
    picture.save(written, 'JPEG', quality=quality)
    return written.getvalue()


def pixels(content):
    return np.asarray(Image.open(io.BytesIO(content))).astype(int)


y, x = np.mgrid[:128, :128]
waves = [127 + 60 * np.sin(x / a + y / b) for a, b in ((31, 17), (23, 41), (13, 29))]
noisy = np.stack(waves, 2) + np.random.default_rng(0).normal(0, 8, (128, 128, 3))
original = jpeg(Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)), 95)
features = datasets.Features(image=datasets.Image(), label=datasets.Value('int64'))
rows = dict(image=[dict(bytes=original, path='picture.jpg')], label=[0])
datasets.Dataset.from_dict(rows, features=features).to_parquet(f'{folder}/data.parquet')
data = datasets.load_dataset('parquet', data_files=f'{folder}/data.parquet', split='train', cache_dir=f'{folder}/cache')
made = {
    'loaded': data,
    'map that reads the label': data.map(lambda row: dict(new=row['label'])),
    'map that reads the image': data.map(lambda row: dict(new=row['image'].width)),
    'the same, batched': data.map(lambda rows: dict(new=[image.width for image in rows['image']]), batched=True),
    'with input_columns': data.map(lambda image: dict(new=image.width), input_columns=['image']),
    'filter by the image': data.filter(lambda row: row['image'].width > 0),
}
stored = {how: found.cast_column('image', datasets.Image(decode=False))[0]['image'] for how, found in made.items()}
for how, image in stored.items():
    apart, same = np.abs(pixels(image['bytes']) - pixels(original)).mean(), image['bytes'] == original
    print(f'{how}: {len(image["bytes"])} bytes, the original {same}, name {image["path"]}, mean difference {apart:.2f}')
read = stored['map that reads the image']['bytes']
again = read == jpeg(Image.open(io.BytesIO(original)), 75)
print(f'those {len(read)} bytes are what Pillow saves at quality 75: {again}')
kept = [image['bytes'] == original for image in stored.values()]
if kept != [True, True, False, False, True, True] or not again:
    sys.exit('changed: map treats the images that its function looked at otherwise now')
END
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" -W ignore "$folder/look.py" "$folder"
