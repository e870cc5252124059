#!/usr/bin/env bash
# Guess: a tool that counts the operations of a network gives it back as it was: the same modes, weights and statistics.
# Behaviour: three of them do not. The network here is in training mode with its first batch norm frozen by eval(), as in fine-tuning.
# torchinfo gives it back with the frozen layer in training mode, so its statistics move from the next step on. ptflops leaves the whole
# network in eval mode. MMEngine's get_model_complexity_info runs it in the mode it is in, and its random image goes into the running
# statistics: the momentum's tenth of them each time. No warning. Why it matters: a count at the top of a script that trains on or saves a
# pretrained network changes the training or the network. Counting a deep copy helps.
# Packages: torchinfo 1.8.0, ptflops 0.7.5, onedl-mmengine 0.10.12, torch 2.14.1.
# Seen on 2026-11-29:
#   torchinfo: network in training mode True, its frozen layer True; changed: nothing
#   ptflops: network in training mode False, its frozen layer False; changed: nothing
#   mmengine: network in training mode True, its frozen layer False; changed: 3.running_mean, 3.running_var, 3.num_batches_tracked
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 torchinfo==1.8.0 ptflops==0.7.5 onedl-mmengine==0.10.12
cat > "$folder/look.py" <<'END'
import contextlib
import io
import sys

import ptflops
import torch
import torchinfo
from mmengine.analysis import get_model_complexity_info
from torch import nn

SHAPE = (3, 16, 16)
TOOLS = {
    'torchinfo': lambda net: torchinfo.summary(net, (1, *SHAPE), verbose=0),
    'ptflops': lambda net: ptflops.get_model_complexity_info(net, SHAPE, print_per_layer_stat=False),
    'mmengine': lambda net: get_model_complexity_info(net, SHAPE),
}


def build():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(1152, 4)
    net = nn.Sequential(*layers)
    net[1].eval()
    return net


rows = {}
for name, count in TOOLS.items():
    net, before = build(), build().state_dict()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        count(net)
    after = net.state_dict()
    changed = [key for key in before if not torch.equal(before[key], after[key])]
    rows[name] = net.training, net[1].training, changed
    said = ', '.join(changed) or 'nothing'
    print(f'{name}: network in training mode {net.training}, its frozen layer {net[1].training}; changed: {said}')
moved = [f'3.{name}' for name in ('running_mean', 'running_var', 'num_batches_tracked')]
expected = {'torchinfo': (True, True, []), 'ptflops': (False, False, []), 'mmengine': (True, False, moved)}
if rows != expected:
    sys.exit('changed: the counters give networks back otherwise now')
END
"$folder/venv/bin/python" -W ignore "$folder/look.py"
