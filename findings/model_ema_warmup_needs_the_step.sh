#!/usr/bin/env bash
# Guess: ModelEmaV3(network, decay=0.9999, use_warmup=True) of timm begins with a small decay and raises it with each update(network);
# update_after_step=500 makes the average begin after 500 updates. The older averages of timm, and torch's, are updated by the same call.
# Behaviour: it does not count its updates. Both settings work by the number of the step, the second argument of update, which may be left out;
# then the decay is 0.9999 from the first update on, and neither setting has any effect. (With the number, the first update copies the weights,
# whatever the settings; without it, it does not.) No warning, and the documentation of the class does not mention it. Why it matters: after a
# training of 2,000 steps the average is four fifths of the weights that the network began with, so that a new network's average is at chance and
# averaging seems to do harm, though the warm-up is set that prevents this.
# Packages: timm 1.0.31, torch 2.14.1, torchvision 0.29.1.
# Seen on 2026-11-30, a weight that is 0 when the average is made and 1 in 2,000 updates, in the average:
#   no warm-up              update(network): 0.18   update(network, step): 1.00
#   use_warmup=True         update(network): 0.18   update(network, step): 1.00
#   update_after_step=500   update(network): 0.18   update(network, step): 1.00
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 torchvision==0.29.1 timm==1.0.31
cat > "$folder/look.py" <<'END'
import sys

import torch
from timm.utils import ModelEmaV3

STEPS = 2000


def average(numbered, **settings):
    """Return the average of a weight that is 0 when the average is made, and 1 from the first step on."""
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(network.weight)
    kept = ModelEmaV3(network, decay=0.9999, **settings)
    torch.nn.init.ones_(network.weight)
    for step in range(1, STEPS + 1):
        kept.update(network, **(dict(step=step) if numbered else {}))
    return kept.module.weight.item()


changed = []
for title, settings in (
    ('no warm-up', {}),
    ('use_warmup=True', dict(use_warmup=True)),
    ('update_after_step=500', dict(update_after_step=500)),
):
    without, by_number = (average(numbered, **settings) for numbered in (False, True))
    print(f'{title:22}  update(network): {without:.2f}   update(network, step): {by_number:.2f}')
    if not 0.1 < without < 0.3 or by_number < 0.9:
        changed.append(title)
if changed:
    sys.exit(f'changed: the average begins otherwise now: {", ".join(changed)}')
END
"$folder/venv/bin/python" -W ignore "$folder/look.py"
