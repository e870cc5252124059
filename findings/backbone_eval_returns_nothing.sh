#!/usr/bin/env bash
# Guess: as with every module of torch, network.eval() and network.train() return the network, so they may stand in a chain.
# Behaviour: mmpretrain's backbones override train() without returning anything, and eval() calls it: both return None. A network.eval()(images)
# fails at once; a kept `backbone = build(...).eval()` is None, and fails far from there. An ImageClassifier returns itself.
# Packages: onedl-mmpretrain 1.3.6, onedl-mmengine 0.10.12, onedl-mmcv 2.3.6, torch 2.14.1.
# Seen on 2026-11-30:
#   ResNet None, VisionTransformer None, ConvNeXt None, MobileNetV2 None, SwinTransformer None
#   ImageClassifier around a ResNet: the network
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 torchvision==0.29.1 onedl-mmengine==0.10.12 onedl-mmcv==2.3.6 onedl-mmpretrain==1.3.6
cat > "$folder/look.py" <<'END'
import sys

from mmpretrain.models import ImageClassifier, backbones

SMALL = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)
SETTINGS = dict(
    ResNet=dict(depth=18),
    VisionTransformer=dict(arch=SMALL, img_size=32, patch_size=8),
    ConvNeXt=dict(arch='atto'),
    MobileNetV2=dict(widen_factor=0.25),
    SwinTransformer=dict(arch=dict(embed_dims=12, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1])),
)


def returned(network):
    """Say what eval() returns; train() returns the same."""
    found = network.eval(), network.train()
    return 'None' if found == (None, None) else 'the network' if found == (network, network) else str(found)


seen = {name: returned(getattr(backbones, name)(**settings)) for name, settings in SETTINGS.items()}
print(', '.join(f'{name} {what}' for name, what in seen.items()))
whole = returned(ImageClassifier(backbone=dict(type='ResNet', depth=18)))
print(f'ImageClassifier around a ResNet: {whole}')
if set(seen.values()) != {'None'} or whole != 'the network':
    sys.exit('changed: eval() returns something else now')
END
"$folder/venv/bin/python" -W ignore "$folder/look.py"
