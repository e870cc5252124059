#!/usr/bin/env bash
# Guess: frozen_stages=1 means the same in every backbone of mmpretrain: the stem and the first stage stay as they are in training, and the
# second stage trains.
# Behaviour: it depends on the backbone. In ResNet and ConvNeXt it is so. MobileNetV2 and ShuffleNetV2 go on updating the statistics of the
# stem's batch norm. DenseNet and TinyViT train the stem, weights and all, in front of a stage that is frozen. CSPResNet, HorNet, VAN and
# SwinTransformerV2 freeze two stages. Nothing is said.
# Packages: onedl-mmpretrain 1.3.6, onedl-mmengine 0.10.12, onedl-mmcv 2.3.6, torch 2.14.1.
# Seen on 2026-11-30, after one step of SGD with weight decay:
#   ResNet              stem stays       stage 1 stays  stage 2 trains
#   ConvNeXt            stem stays       stage 1 stays  stage 2 trains
#   MobileNetV2         stem statistics  stage 1 stays  stage 2 trains
#   ShuffleNetV2        stem statistics  stage 1 stays  stage 2 trains
#   DenseNet            stem trains      stage 1 stays  stage 2 trains
#   TinyViT             stem trains      stage 1 stays  stage 2 trains
#   CSPResNet           stem stays       stage 1 stays  stage 2 stays
#   HorNet              stem stays       stage 1 stays  stage 2 stays
#   VAN                 stem stays       stage 1 stays  stage 2 stays
#   SwinTransformerV2   stem stays       stage 1 stays  stage 2 stays
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 torchvision==0.29.1 onedl-mmengine==0.10.12 onedl-mmcv==2.3.6 onedl-mmpretrain==1.3.6
cat > "$folder/look.py" <<'END'
import sys

import torch
from mmpretrain.models import backbones

SMALL_SWIN = dict(embed_dims=12, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], extra_norm_every_n_blocks=0)
# settings; the modules of the stem, of the first stage and of the second; what is seen of each
NETWORKS = dict(
    ResNet=(dict(depth=18, base_channels=8, stem_channels=8), ('conv1', 'bn1'), 'layer1', 'layer2', 'stays stays trains'),
    ConvNeXt=(dict(arch='atto'), 'downsample_layers.0', 'stages.0', 'stages.1', 'stays stays trains'),
    MobileNetV2=(dict(widen_factor=0.25), 'conv1', 'layer1', 'layer2', 'statistics stays trains'),
    ShuffleNetV2=(dict(widen_factor=0.5), 'conv1', 'layers.0', 'layers.1', 'statistics stays trains'),
    DenseNet=(dict(arch='121'), 'stem', 'stages.0', 'stages.1', 'trains stays trains'),
    TinyViT=(dict(arch='5m', img_size=(64, 64)), 'patch_embed', 'stages.0', 'stages.1', 'trains stays trains'),
    CSPResNet=(dict(depth=50), 'stem', 'stages.0', 'stages.1', 'stays stays stays'),
    HorNet=(dict(arch='tiny'), 'downsample_layers.0', 'stages.0', 'stages.1', 'stays stays stays'),
    VAN=(dict(arch='tiny'), 'patch_embed1', 'blocks1', 'blocks2', 'stays stays stays'),
    SwinTransformerV2=(
        dict(arch=SMALL_SWIN, img_size=64, window_size=2), 'patch_embed', 'stages.0', 'stages.1', 'stays stays stays',
    ),
)


def train_a_step(network):
    """Return the names of the tensors that one step of training changes."""
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.train()
    live = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(live, lr=0.1, weight_decay=0.1)
    network(torch.randn(4, 3, 64, 64))[-1].square().mean().backward()
    optimizer.step()
    return {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}


def fate(modules, network, changed):
    """Return whether the parameters of these modules train, their statistics move alone, or all stays."""
    inside = {name for name in changed if name.startswith(tuple(f'{module}.' for module in modules))}
    if inside & dict(network.named_parameters()).keys():
        return 'trains'
    return 'statistics' if inside else 'stays'


differs = []
for name, (settings, stem, first, second, expected) in NETWORKS.items():
    torch.manual_seed(0)
    network = getattr(backbones, name)(**settings, frozen_stages=1)
    changed = train_a_step(network)
    parts = (stem if isinstance(stem, tuple) else (stem,), (first,), (second,))
    seen = [fate(modules, network, changed) for modules in parts]
    print(f'{name:18}  stem {seen[0]:10}  stage 1 {seen[1]}  stage 2 {seen[2]}')
    if seen != expected.split():
        differs.append(name)
if differs:
    sys.exit(f'changed: frozen_stages=1 freezes other parts now of {", ".join(differs)}')
END
"$folder/venv/bin/python" -W ignore "$folder/look.py"
