#!/usr/bin/env bash
# Guess: RandAugment(n=1, m=1) of kornia hardly changes an image and m=29 changes it most, as the magnitude of torchvision's RandAugment does,
# which has the same scale of 30.
# Behaviour: m=1 changes pixels more than m=9 and m=15. Kornia's four operations on colour run from a factor of 0.1 to one of 1.9, so they do
# nothing at m=15. Below it contrast and brightness only darken, for every image alike (torchvision draws the sign): m=1 multiplies all
# values by 0.16 for contrast, and takes 0.84 off them for brightness, which leaves black. Solarize inverts nearly the whole image at m=1 and
# nearly none at m=29. Why it matters: who weakens RandAugment for a small student, or brings m=9 along from another library, trains on
# black and flat pictures; and a search over m finds no trend.
# Packages: kornia 0.9.0, torchvision 0.29.1, torch 2.14.1.
# Seen on 2026-11-29 (mean change of a pixel between 0 and 1 over 1,500 draws of one operation):
#   m=1: mean change by kornia 0.132, by torchvision 0.010
#     grey of 0.5 by brightness: kornia 0.00, torchvision 0.49 or 0.51; by contrast: kornia 0.08, torchvision 0.50
#   m=9: mean change by kornia 0.125, by torchvision 0.072
#     grey of 0.5 by brightness: kornia 0.14, torchvision 0.37 or 0.63; by contrast: kornia 0.32, torchvision 0.50
#   m=15: mean change by kornia 0.109, by torchvision 0.108
#     grey of 0.5 by brightness: kornia 0.50, torchvision 0.27 or 0.72; by contrast: kornia 0.50, torchvision 0.50
#   m=29: mean change by kornia 0.194, by torchvision 0.174
#     grey of 0.5 by brightness: kornia 1.00, torchvision 0.06 or 0.94; by contrast: kornia 0.92, torchvision 0.50
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 torchvision==0.29.1 kornia==0.9.0
cat > "$folder/look.py" <<'END'
import sys

import torch
from kornia.augmentation.auto import RandAugment
from torchvision.transforms import v2

torch.manual_seed(0)
small = torch.rand(1, 3, 4, 4)
image = torch.nn.functional.interpolate(small, (32, 32), mode='bicubic').clamp(0, 1)
grey = torch.full((1, 3, 8, 8), 0.5)
DRAWS = 1500


def change(transform):
    torch.manual_seed(0)
    return sum((transform(image) - image).abs().mean().item() for _ in range(DRAWS)) / DRAWS


def by_kornia(name, m):
    return RandAugment(n=1, m=m, policy=[[(name, 0.1, 1.9)]])(grey).mean().item()


def by_torchvision(name, m):
    transform = v2.RandAugment(num_ops=1, magnitude=m)
    transform._AUGMENTATION_SPACE = {name: transform._AUGMENTATION_SPACE[name]}
    return ' or '.join(f'{value:.2f}' for value in sorted({round(transform(grey).mean().item(), 2) for _ in range(50)}))


rows = {}
for m in (1, 9, 15, 29):
    changes = change(RandAugment(n=1, m=m)), change(v2.RandAugment(num_ops=1, magnitude=m))
    rows[m] = *changes, by_kornia('brightness', m), by_kornia('contrast', m)
    print(f'm={m}: mean change by kornia {changes[0]:.3f}, by torchvision {changes[1]:.3f}')
    print(f'  grey of 0.5 by brightness: kornia {rows[m][2]:.2f}, torchvision {by_torchvision("Brightness", m)}', end='; ')
    print(f'by contrast: kornia {rows[m][3]:.2f}, torchvision {by_torchvision("Contrast", m)}')
kornia, torchvision, bright, contrast = zip(*rows.values())
if kornia[0] <= kornia[2] or list(torchvision) != sorted(torchvision) or bright[0] > 0.01 or contrast[0] > 0.1 or not 0.49 < bright[2] < 0.51:
    sys.exit("changed: the strength of kornia's RandAugment goes otherwise now")
END
"$folder/venv/bin/python" -W ignore "$folder/look.py"
