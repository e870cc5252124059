#!/usr/bin/env bash
# Guess: the batch norms of transformers' image classifiers average over many batches, as torch's, timm's and torchvision's do (momentum 0.1).
# Behaviour: EfficientNet, MobileNetV1 and MobileNetV2 pass TensorFlow's decay (0.99, 0.9997, 0.997) as torch's momentum, which counts the
# other way round: the running statistics are those of the last batch of the training. A network that ends an epoch with a small rest of
# the images is tested by the statistics of these few. Some of EfficientNet's norms have torch's own momentum, 0.1.
# Packages: transformers 5.24.0, torch 2.14.1.
# Seen on 2026-11-30, of running means that begin at 0, after 99 batches about 1.0 and a last one about 5.0 (the mean of all is 1.04):
#   EfficientNet   momentum 0.99 0.1  running mean 4.96
#   MobileNetV1    momentum 0.9997    running mean 5.00
#   MobileNetV2    momentum 0.997     running mean 4.99
#   ResNet         momentum 0.1       running mean 1.40
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 torchvision==0.29.1 transformers==5.24.0
cat > "$folder/look.py" <<'END'
import sys

import torch
import transformers

KINDS = {
    'EfficientNet': dict(width_coefficient=0.1),
    'MobileNetV1': dict(depth_multiplier=0.25),
    'MobileNetV2': dict(depth_multiplier=0.25),
    'ResNet': dict(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type='basic'),
}
seen = {}
for kind, settings in KINDS.items():
    config = getattr(transformers, f'{kind}Config')(**settings)
    network = getattr(transformers, f'{kind}ForImageClassification')(config)
    norms = [part for part in network.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    momenta = sorted({norm.momentum for norm in norms}, reverse=True)
    norm = next(part for part in norms if part.momentum == momenta[0]).train()
    torch.manual_seed(0)
    for level in [1.0] * 99 + [5.0]:
        norm(level + 0.01 * torch.randn(8, norm.num_features, 4, 4))
    seen[kind] = (momenta, round(float(norm.running_mean.mean()), 2))
    print(f'{kind:14} momentum {" ".join(map(str, momenta)):8}  running mean {seen[kind][1]:.2f}')
expected = {
    'EfficientNet': ([0.99, 0.1], 4.96),
    'MobileNetV1': ([0.9997], 5.0),
    'MobileNetV2': ([0.997], 4.99),
    'ResNet': ([0.1], 1.4),
}
if seen != expected:
    sys.exit(f'changed: {seen}')
END
"$folder/venv/bin/python" -W ignore "$folder/look.py"
