#!/usr/bin/env bash
# Guess: an image classifier of transformers that is given class probabilities as labels (of a teacher, of mixup) trains by their cross entropy, as
# torch's cross_entropy does with them; the documentation of `labels` says cross entropy wherever there are several classes.
# Behaviour: float labels make it a problem of several labels an image: it trains by the binary cross entropy of each score's sigmoid, averaged
# over the classes. The choice falls at the first loss and stays in the config (problem_type), which is saved with the weights, so that the
# pipeline of the published network reports sigmoids that do not sum to 1. No warning. config.problem_type cannot ask for cross entropy:
# 'single_label_classification' takes class indices alone. The loss has to be computed from the logits. Why it matters: with many classes
# nearly all of that loss says "not this one", and the mean over the classes divides its gradient by their number, so that the same data
# with probabilities in place of indices train far slower, to another optimum, and soft labels seem to do harm.
# Packages: transformers 5.24.0, torch 2.14.1, torchvision 0.29.1, pillow 13.0.0.
# Seen on 2026-11-30, of probabilities for 100 classes, the loss of an untrained network:
#   ViT       loss 0.694  cross entropy 4.612  binary cross entropy 0.694  gradient 0.086 of the cross entropy's  problem_type multi_label_classification
#   ResNet    loss 0.730  cross entropy 4.715  binary cross entropy 0.730  gradient 0.088 of the cross entropy's  problem_type multi_label_classification
#   ConvNeXt  loss 0.695  cross entropy 4.616  binary cross entropy 0.695  gradient 0.085 of the cross entropy's  problem_type multi_label_classification
#   saved and loaded, the pipeline's scores of an image sum to 50.0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 torchvision==0.29.1 transformers==5.24.0 pillow==13.0.0
cat > "$folder/look.py" <<'END'
import sys
import tempfile

import torch
from PIL import Image
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    pipeline,
)

CLASSES, IMAGES = 100, 64
NETWORKS = dict(
    ViT=(
        ViTForImageClassification,
        ViTConfig,
        dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=16),
    ),
    ResNet=(
        ResNetForImageClassification,
        ResNetConfig,
        dict(embedding_size=8, hidden_sizes=[8, 32], depths=[1, 1], layer_type='basic'),
    ),
    ConvNeXt=(ConvNextForImageClassification, ConvNextConfig, dict(hidden_sizes=[8, 8, 8, 32], depths=[1, 1, 1, 1])),
)


def gradient_of(loss, logits):
    return torch.autograd.grad(loss, logits, retain_graph=True)[0].norm().item()


changed = []
for name, (network_class, config_class, settings) in NETWORKS.items():
    torch.manual_seed(0)
    network = network_class(config_class(**settings, num_labels=CLASSES)).eval()
    images = torch.randn(IMAGES, 3, 32, 32)
    probabilities = torch.softmax(3 * torch.randn(IMAGES, CLASSES), 1)
    outputs = network(pixel_values=images, labels=probabilities)
    soft, binary = (
        cross_entropy(outputs.logits, probabilities),
        binary_cross_entropy_with_logits(outputs.logits, probabilities),
    )
    share = gradient_of(outputs.loss, outputs.logits) / gradient_of(soft, outputs.logits)
    kept = network.config.problem_type
    print(
        f'{name:8}  loss {outputs.loss.item():.3f}  cross entropy {soft.item():.3f}  binary cross entropy {binary.item():.3f}  '
        f"gradient {share:.3f} of the cross entropy's  problem_type {kept}"
    )
    if (
        not torch.allclose(outputs.loss, binary)
        or torch.allclose(outputs.loss, soft)
        or kept != 'multi_label_classification'
    ):
        changed.append(name)
    if name == 'ViT':
        published = network

processor = ViTImageProcessor(size=dict(height=32, width=32))
with tempfile.TemporaryDirectory() as folder:
    published.save_pretrained(folder)
    processor.save_pretrained(folder)
    scores = pipeline('image-classification', folder, device='cpu')(Image.new('RGB', (32, 32), 'green'), top_k=CLASSES)
total = sum(one['score'] for one in scores)
print(f"saved and loaded, the pipeline's scores of an image sum to {total:.1f}")
if total < 2:
    changed.append('the pipeline')
if changed:
    sys.exit(f'changed: float labels are dealt with otherwise now by {", ".join(changed)}')
END
"$folder/venv/bin/python" -W ignore "$folder/look.py" 2> "$folder/errors" || { cat "$folder/errors"; exit 1; }
