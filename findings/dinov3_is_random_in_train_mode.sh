#!/usr/bin/env bash
# Guess: a network whose dropouts and drop path are all 0 gives the same output in train mode as in eval mode, and twice the same.
# Behaviour: transformers' DINOv3 does not. In train mode it scales the coordinates of its rotary position embedding by a random factor,
# anew in each pass (pos_embed_rescale, 2.0 in a config of one's own and in those of the released models), without a module that shows it.
# Two passes differ, an image's output depends on the state of torch's generator, and a student or a teacher in train mode is augmented
# unasked. timm's DINOv3 has no such step.
# Packages: transformers 5.24.0, timm 1.0.31, torch 2.14.1.
# Seen on 2026-11-30, largest difference of two passes of the same images:
#   transformers  eval 0.0e+00  train above 1e-4  (dropouts 0.0 0.0), with pos_embed_rescale=None train 0.0e+00
#   timm          eval 0.0e+00  train 0.0e+00
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 torchvision==0.29.1 transformers==5.24.0 timm==1.0.31
cat > "$folder/look.py" <<'END'
import sys

import timm
import torch
from transformers import DINOv3ViTConfig, DINOv3ViTModel

SIZES = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8)
images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def difference(network, training):
    """Return the largest difference of two passes."""
    network.train(training)
    torch.manual_seed(0)
    with torch.no_grad():
        outputs = [network(images) for _ in range(2)]
    first, second = (getattr(output, 'last_hidden_state', output) for output in outputs)
    return float((first - second).abs().max())


torch.manual_seed(0)
config = DINOv3ViTConfig(**SIZES)
network = DINOv3ViTModel(config)
still = DINOv3ViTModel(DINOv3ViTConfig(**SIZES, pos_embed_rescale=None))
other = timm.create_model('vit_small_patch16_dinov3', img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2)
found = [difference(network, False), difference(network, True), difference(still, True), difference(other, False), difference(other, True)]
dropouts = config.attention_dropout, config.drop_path_rate
moved = 'above 1e-4' if found[1] > 1e-4 else f'{found[1]:.1e}'
print(f'transformers  eval {found[0]:.1e}  train {moved}  (dropouts {dropouts[0]} {dropouts[1]}), with pos_embed_rescale=None train {found[2]:.1e}')
print(f'timm          eval {found[3]:.1e}  train {found[4]:.1e}')
if dropouts != (0.0, 0.0) or config.pos_embed_rescale != 2.0 or [value > 1e-4 for value in found] != [False, True, False, False, False]:
    sys.exit('changed: in train mode DINOv3 is as in eval mode now, or timm has such a step too')
END
"$folder/venv/bin/python" -W ignore "$folder/look.py"
