#!/usr/bin/env bash
# Guess: ViTMAEModel in eval mode with mask_ratio=0 gives the features of an image: two calls agree, and its patch tokens come row by row,
# as those of ViTModel do.
# Behaviour: it still draws noise and sorts the patches by it in each call. The class token stays the same up to rounding, the patch tokens
# come in another random order each time; a feature map made of them is scrambled, without a warning. `ids_restore` in the output tells the
# order, and noise=arange as an argument keeps the rows. With the default mask_ratio=0.75, eval mode hides three quarters of the patches.
# Packages: transformers 5.24.0, torch 2.14.1.
# Seen on 2026-11-29:
#   mask_ratio=0, two calls: class token equal True, patch tokens equal False
#   put back by ids_restore: equal True; with noise=arange: equal to that True, two calls equal True
#   default mask_ratio: 4 of 16 patch tokens
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 transformers==5.24.0
cat > "$folder/look.py" <<'END'
import sys

import torch
from transformers import ViTMAEConfig, ViTMAEModel

torch.manual_seed(0)
sizes = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8)
model = ViTMAEModel(ViTMAEConfig(mask_ratio=0.0, **sizes)).eval()
image, rows = torch.randn(1, 3, 32, 32), torch.arange(16.0)[None]


def put_back(output):
    return output.last_hidden_state[:, 1:].gather(1, output.ids_restore[:, :, None].expand(-1, -1, 16))


def same(a, b):
    return torch.allclose(a, b, atol=1e-5)


with torch.no_grad():
    first, second = model(image), model(image)
    ordered, again = (model(image, noise=rows).last_hidden_state[:, 1:] for _ in range(2))
    masked = ViTMAEModel(ViTMAEConfig(**sizes)).eval()(image).last_hidden_state.shape[1] - 1
tokens = first.last_hidden_state, second.last_hidden_state
found = same(tokens[0][:, 0], tokens[1][:, 0]), same(tokens[0][:, 1:], tokens[1][:, 1:])
restored = same(put_back(first), put_back(second)), same(ordered, put_back(first)), same(ordered, again)
print('mask_ratio=0, two calls: class token equal {}, patch tokens equal {}'.format(*found))
print('put back by ids_restore: equal {}; with noise=arange: equal to that {}, two calls equal {}'.format(*restored))
print(f'default mask_ratio: {masked} of 16 patch tokens')
if (found, restored, masked) != ((True, False), (True, True, True), 4):
    sys.exit('changed: ViTMAEModel treats its patches otherwise in eval mode now')
END
"$folder/venv/bin/python" -W ignore "$folder/look.py"
