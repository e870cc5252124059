#!/usr/bin/env bash
# Guess: RandomErasing(value='random') of torchvision.transforms.v2 fills the rectangle of a uint8 image with random pixels; v2 takes uint8
# images for all its transforms, and recommends them for speed.
# Behaviour: it draws normal numbers of deviation 1 and converts them to uint8 as they are: two thirds of the erased values are 0, nearly all
# others 1, 2, 254 or 255 (negative ones wrap around). So the rectangle is black with white specks, not noise, and after the usual
# normalisation a fifth of its values lie at the brightest end; RandomErasing of the normalised float image, where it stood in pipelines of
# the first version, gives noise of the images' own scale. Why it matters: moving it forward among the transforms of uint8 images changes
# the augmentation of a published recipe, without an error or a warning.
# Packages: torchvision 0.29.1, torch 2.14.1.
# Seen on 2026-11-29 (400 images of one grey, share of the erased values):
#   uint8: 0: 0.68, 1 or 2: 0.16, 254 or 255: 0.16, from 3 to 253: 0.00
#   float, normalised: between -1 and 1: 0.68, mean -0.00, deviation 1.00
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 torchvision==0.29.1
cat > "$folder/look.py" <<'END'
import sys

import torch
from torchvision.transforms import v2

torch.manual_seed(0)
erase = v2.RandomErasing(p=1, value='random')


def erased(image):
    changed = []
    for _ in range(400):
        after = erase(image)
        rows, columns = (after != image).any(0).nonzero().T  # of float images all values in the rectangle differ
        changed.append(after[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].flatten())
    return torch.cat(changed)


def share(chosen):
    return chosen.float().mean().item()


values = erased(torch.full((3, 32, 32), 100, dtype=torch.uint8))
black, low, high = share(values == 0), share((values == 1) | (values == 2)), share(values >= 254)
between = share((values >= 3) & (values < 254))
print(f'uint8: 0: {black:.2f}, 1 or 2: {low:.2f}, 254 or 255: {high:.2f}, from 3 to 253: {between:.2f}')
noise = erased(torch.full((3, 32, 32), 0.3))
print(f'float, normalised: between -1 and 1: {share(noise.abs() < 1):.2f}, mean {noise.mean():.2f}, deviation {noise.std():.2f}')
if black < 0.6 or between > 0.02 or not 0.95 < noise.std() < 1.05:
    sys.exit('changed: the noise of uint8 images is another now')
END
"$folder/venv/bin/python" -W ignore "$folder/look.py"
