#!/usr/bin/env bash
# Guess: KDLoss of torchdistill is alpha times the cross entropy plus beta, by default 1 - alpha, times the squared temperature times the divergence, as
# its documentation has it. With alpha=0 (the labels' loss is a term of its own, with its own weight) the second part is left as it is.
# Behaviour: with alpha=0, alpha=None, or without labels, it returns the bare divergence: neither the squared temperature nor beta count. At
# temperature 4, alpha=0 has a 16th of the loss and of the gradient that alpha=0.000001 has, and at 8 a 64th; beta may be any number. At
# temperature 1 nothing shows. No warning. The weight of the term in the sum, multiplied by the squared temperature, makes up for it.
# Why it matters: the square keeps the pull of the teacher alike at all temperatures. Without it the teacher nearly falls silent beside the labels
# (weights of 1 and 1 act as 1 and 1/16), and "distillation does not help"; a search over the temperature searches over the weight
# as well; and alpha=0 does not stand in line with 0.1 and 0.2.
# Packages: torchdistill 1.1.5, torch 2.14.1, torchvision 0.29.1, numpy 2.4.6, scipy 1.17.1.
# Seen on 2026-11-30, loss, and length of its gradient in the student's logits, as shares of those by the formula:
#   temperature 1  alpha=0.5: 1.000 1.000  alpha=0.000001: 1.000 1.000  alpha=0: 1.000 1.000  alpha=0, beta=0.5: 2.000 2.000  no labels: 1.000 1.000
#   temperature 2  alpha=0.5: 1.000 1.000  alpha=0.000001: 1.000 1.000  alpha=0: 0.250 0.250  alpha=0, beta=0.5: 0.500 0.500  no labels: 0.250 0.250
#   temperature 4  alpha=0.5: 1.000 1.000  alpha=0.000001: 1.000 1.000  alpha=0: 0.063 0.062  alpha=0, beta=0.5: 0.125 0.125  no labels: 0.063 0.062
#   temperature 8  alpha=0.5: 1.000 1.000  alpha=0.000001: 1.000 1.000  alpha=0: 0.016 0.016  alpha=0, beta=0.5: 0.031 0.031  no labels: 0.016 0.016
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 torchvision==0.29.1 torchdistill==1.1.5 numpy==2.4.6 scipy==1.17.1
cat > "$folder/look.py" <<'END'
import math
import sys

import torch
from torch.nn.functional import cross_entropy, log_softmax, softmax
from torchdistill.losses.mid_level import KDLoss

torch.manual_seed(0)
teacher = 5 * torch.randn(64, 10)
student = torch.randn(64, 10)
labels = torch.randint(10, (64,))
PLACE = ('.', 'output')


def with_gradient(loss):
    """Return the loss of the student's logits and the length of its gradient."""
    logits = student.clone().requires_grad_()
    value = loss(logits)
    value.backward()
    return value.item(), logits.grad.norm().item()


def formula(temperature, alpha, beta=None):
    def loss(logits):
        rest = 1 - alpha if beta is None else beta
        target = softmax(teacher / temperature, 1)
        divergence = (target * (target.log() - log_softmax(logits / temperature, 1))).sum(1).mean()
        hard = alpha * cross_entropy(logits, labels) if alpha else 0
        return hard + rest * temperature**2 * divergence

    return loss


def library(temperature, targets, **weights):
    criterion = KDLoss(*PLACE, *PLACE, temperature, **weights)
    return lambda logits: criterion({'.': {'output': logits}}, {'.': {'output': teacher}}, targets)


CASES = {
    'alpha=0.5': (labels, {'alpha': 0.5}),
    'alpha=0.000001': (labels, {'alpha': 1e-6}),
    'alpha=0': (labels, {'alpha': 0}),
    'alpha=0, beta=0.5': (labels, {'alpha': 0, 'beta': 0.5}),
    'no labels': (None, {'alpha': 0}),
}
changed = []
for temperature in (1, 2, 4, 8):
    words = []
    for name, (targets, weights) in CASES.items():
        pairs = zip(with_gradient(library(temperature, targets, **weights)), with_gradient(formula(temperature, **weights)))
        shares = [got / right for got, right in pairs]
        words.append(f'{name}: {shares[0]:.3f} {shares[1]:.3f}')
        expected = 1 / temperature**2 / weights.get('beta', 1) if weights['alpha'] == 0 else 1
        if not all(math.isclose(share, expected, rel_tol=0.001) for share in shares):
            changed.append(f'temperature {temperature}, {name}')
    print(f'temperature {temperature}  {"  ".join(words)}')
if changed:
    sys.exit(f'changed: KDLoss weighs its parts otherwise now ({"; ".join(changed)})')
END
"$folder/venv/bin/python" -W ignore "$folder/look.py"
