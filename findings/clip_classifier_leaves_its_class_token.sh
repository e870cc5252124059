#!/usr/bin/env bash
# Guess: CLIPForImageClassification and SiglipForImageClassification put a linear layer on the image embedding that CLIP and SigLIP are
# trained and known for: of CLIP the class token behind the last norm, of SigLIP the output of the attention pooling.
# Behaviour: both put it on the mean of the patch tokens. CLIP's class token reaches the scores only through the attention of earlier
# layers, and its last norm (post_layernorm) not at all; nor does SigLIP's attention pooling (vision_model.head). Their weights are loaded,
# counted as parameters, and get no gradient, which ends a training in several processes with unused parameters.
# Packages: transformers 5.24.0, torch 2.14.1.
# Seen on 2026-11-30:
#   CLIP    scores are those of the patches' mean: True   parts without gradient: post_layernorm
#   SigLIP  scores are those of the patches' mean: True   parts without gradient: head
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 torchvision==0.29.1 transformers==5.24.0
cat > "$folder/look.py" <<'END'
import sys

import torch
import transformers

transformers.logging.set_verbosity_error()
SIZES = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=4)
changed = []
for name, kind, prefix, unread in (('CLIP', 'CLIP', 1, 'post_layernorm'), ('SigLIP', 'Siglip', 0, 'head')):
    torch.manual_seed(0)
    config = getattr(transformers, f'{kind}Config')(vision_config=SIZES)
    config.num_labels = 3
    network = getattr(transformers, f'{kind}ForImageClassification')(config).eval()
    images = torch.randn(2, 3, 16, 16)
    scores = network(pixel_values=images).logits
    tokens = network.vision_model(pixel_values=images).last_hidden_state
    of_the_mean = torch.allclose(network.classifier(tokens[:, prefix:].mean(dim=1)), scores, atol=1e-6)
    scores.square().sum().backward()
    missing = sorted({path.split('.')[1] for path, value in network.named_parameters() if value.grad is None})
    print(f"{name:7} scores are those of the patches' mean: {of_the_mean}   parts without gradient: {' '.join(missing)}")
    if not of_the_mean or missing != [unread]:
        changed.append(name)
if changed:
    sys.exit(f'changed: the scores of {" and ".join(changed)} come from elsewhere now')
END
"$folder/venv/bin/python" -W ignore "$folder/look.py"
