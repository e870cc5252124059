#!/usr/bin/env bash
# Guess: a network with PyTorchModelHubMixin of huggingface_hub, saved with save_pretrained and loaded with from_pretrained, computes the same;
# an argument of its class that cannot be kept raises an error, or a warning.
# Behaviour: arguments that are no JSON (a module, a class, a dtype; a tuple comes back as a list) are left out of config.json without a word,
# and loading takes the class's default in their place. Where the argument has no weights of its own, an activation, say, or a function
# that normalises, all weights load strictly and the outputs differ. Why it matters: a distilled student is published with another
# activation than it was trained with; its accuracy falls, and nothing says why.
# Packages: huggingface_hub 2.4.0, safetensors 0.8.0, torch 2.14.1, numpy 2.4.6.
# Seen on 2026-11-29:
#   config.json: {'width': 16}
#   saved: GELU, loaded: ReLU; weights equal: True; largest difference of outputs: 0.13
#   warnings: 0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 huggingface_hub==2.4.0 safetensors==0.8.0 numpy==2.4.6
cat > "$folder/look.py" <<'END'
import json
import logging
import sys
import warnings
from pathlib import Path

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import nn

messages = []
logging.getLogger().addHandler(type('Keep', (logging.Handler,), dict(emit=lambda self, record: messages.append(record)))())
logging.getLogger('huggingface_hub').propagate = True


class Student(nn.Module, PyTorchModelHubMixin):
    def __init__(self, width: int = 8, activation: type[nn.Module] = nn.ReLU):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, width), activation(), nn.Linear(width, 3))

    def forward(self, inputs):
        return self.layers(inputs)


torch.manual_seed(0)
student = Student(16, activation=nn.GELU)
folder = Path(sys.argv[1])
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter('always')
    student.save_pretrained(folder)
    loaded = Student.from_pretrained(folder, strict=True)
config = json.loads((folder / 'config.json').read_text())
inputs = torch.randn(100, 4)
with torch.no_grad():
    difference = (student(inputs) - loaded(inputs)).abs().max().item()
names = [type(network.layers[1]).__name__ for network in (student, loaded)]
equal = all(torch.equal(value, loaded.state_dict()[name]) for name, value in student.state_dict().items())
said = len(messages) + sum('activation' in str(warning.message) for warning in caught)
print(f'config.json: {config}')
print(f'saved: {names[0]}, loaded: {names[1]}; weights equal: {equal}; largest difference of outputs: {difference:.2f}')
print(f'warnings: {said}')
if names != ['GELU', 'ReLU'] or not equal or said or difference < 0.01:
    sys.exit('changed: the argument is kept, refused or told of now')
END
"$folder/venv/bin/python" "$folder/look.py" "$folder/student"
