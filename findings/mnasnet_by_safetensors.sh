#!/usr/bin/env bash
# Guess: weights that safetensors has written and read again, equal by name, shape and value, load strictly into the network that they
# come from; so does a copy of a state dict as a plain dict.
# Behaviour: torchvision's MNASNet refuses both. It wants the version that torch keeps beside the tensors, in an attribute of the dict
# (`_metadata`), which neither a copy nor safetensors' format has. safetensors' own load_model fails alike. A file by torch.save has it.
# Others of torchvision (eight were tried) don't ask. Why it matters: whoever cleans names of a state dict ('module.', ...), or converts files
# to safetensors, loses this network's weights, and the message names neither.
# Packages: torchvision 0.29.1, torch 2.14.1, safetensors 0.8.0.
# Seen on 2026-11-28:
#   as torch.save wrote it: loaded
#   as a plain dict: ValueError
#   by safetensors: ValueError
#   by safetensors' load_model: ValueError
#   others that refuse a plain dict: none of 8
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 torchvision==0.29.1 safetensors==0.8.0 numpy packaging
cat > "$folder/look.py" <<'END'
import sys

import torch
import torchvision
from safetensors.torch import load_file, load_model, save_file

folder = sys.argv[1]


OTHERS = 'alexnet densenet121 efficientnet_b0 mobilenet_v3_small regnet_y_400mf resnet18 shufflenet_v2_x1_0 swin_t'.split()
build = torchvision.models.get_model


def outcome(load):
    try:
        load()
    except Exception as error:
        return type(error).__name__
    return 'loaded'


net, fresh = build('mnasnet0_5'), build('mnasnet0_5')
state = net.state_dict()
torch.save(state, f'{folder}/a.pth')
save_file(state, f'{folder}/a.safetensors')
read = load_file(f'{folder}/a.safetensors')
assert read.keys() == state.keys() and all(torch.equal(read[key], state[key]) for key in state)
seen = {
    'as torch.save wrote it': outcome(lambda: fresh.load_state_dict(torch.load(f'{folder}/a.pth'))),
    'as a plain dict': outcome(lambda: fresh.load_state_dict(dict(state))),
    'by safetensors': outcome(lambda: fresh.load_state_dict(read)),
    "by safetensors' load_model": outcome(lambda: load_model(fresh, f'{folder}/a.safetensors')),
}
refusing = []
for name in OTHERS:
    other = build(name)
    if outcome(lambda: other.load_state_dict(dict(other.state_dict()))) != 'loaded':
        refusing.append(name)
for how, what in seen.items():
    print(f'{how}: {what}')
print(f'others that refuse a plain dict: {", ".join(refusing) or "none"} of {len(OTHERS)}')
if list(seen.values()) != ['loaded', 'ValueError', 'ValueError', 'ValueError'] or refusing:
    sys.exit('changed: MNASNet, safetensors or torch treat versions of state dicts otherwise now')
END
"$folder/venv/bin/python" -W ignore "$folder/look.py" "$folder"
