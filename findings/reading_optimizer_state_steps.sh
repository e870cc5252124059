#!/usr/bin/env bash
# Guess: get_optimizer_state_dict of torch.distributed.checkpoint, which training loops call to save a checkpoint, reads the optimizer and leaves
# it as it is, also before the first step (a first checkpoint at step 0, or a state that is to be filled by loading).
# Behaviour: an optimizer without a state makes a step inside of it, with gradients of zero and a learning rate of zero, and keeps what this step
# leaves behind. AdamW has counted a step, so its first ones are too short by a quarter; those of RAdam by half; SGD with dampening takes the first
# gradient for a second one, of a tenth of the length. ASGD does not move in its first step, and Rprop, which takes its step sizes from
# the first rate, begins at its least size and stands all but still. No warning, and the weights are untouched. (pytorch/pytorch#164929, for AdamW.)
# SGD without dampening is not affected. Why it matters: whether a first checkpoint is saved, or a run is
# looked for to resume, changes the training that follows, so that two runs of one seed and recipe differ, or one of them learns nothing.
# Packages: torch 2.14.1, numpy 2.4.6.
# Seen on 2026-11-30, lengths of the first three steps as shares of those without the call, loss without it and with it:
#   SGD            steps 1.000 1.000 1.000  loss after 20 steps 1.1495, with the call 1.1495
#   SGD_dampening  steps 0.100 0.190 0.272  loss after 20 steps 1.4434, with the call 1.5646
#   AdamW          steps 0.744 0.896 0.978  loss after 20 steps 1.0723, with the call 1.0763
#   RAdam          steps 0.526 0.706 0.797  loss after 20 steps 1.4748, with the call 1.4914
#   Rprop          steps 0.000 0.000 0.000  loss after 20 steps 1.0443, with the call 1.8397
#   ASGD           steps 0.000 1.025 1.025  loss after 20 steps 1.4714, with the call 1.4827
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 numpy==2.4.6
cat > "$folder/look.py" <<'END'
import sys

import torch
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict
from torch.nn.functional import cross_entropy

OPTIMIZERS = dict(
    SGD=lambda weights: torch.optim.SGD(weights, 0.1, momentum=0.9),
    SGD_dampening=lambda weights: torch.optim.SGD(weights, 0.1, momentum=0.9, dampening=0.9),
    AdamW=lambda weights: torch.optim.AdamW(weights, 0.1),
    RAdam=lambda weights: torch.optim.RAdam(weights, 0.1),
    Rprop=lambda weights: torch.optim.Rprop(weights, 0.1),
    ASGD=lambda weights: torch.optim.ASGD(weights, 0.1),
)
torch.manual_seed(0)
images, labels = torch.randn(64, 16), torch.randint(5, (64,))


def train(make, read):
    """Return the lengths of twenty steps, and the loss after them; the optimizer's state was read before them, or not."""
    torch.manual_seed(0)
    network = torch.nn.Linear(16, 5)
    optimizer = make(network.parameters())
    if read:
        get_optimizer_state_dict(network, optimizer)
    lengths = []
    for _ in range(20):
        before = network.weight.detach().clone()
        optimizer.zero_grad()
        cross_entropy(network(images), labels).backward()
        optimizer.step()
        lengths.append((network.weight.detach() - before).norm().item())
    return lengths, cross_entropy(network(images), labels).item()


seen = {}
for name, make in OPTIMIZERS.items():
    (plain, loss), (after, other) = (train(make, read) for read in (False, True))
    seen[name] = [mine / theirs for mine, theirs in zip(after, plain)]
    shares = ' '.join(f'{share:.3f}' for share in seen[name][:3])
    print(f'{name:13}  steps {shares}  loss after 20 steps {loss:.4f}, with the call {other:.4f}')
changed = [name for name, steps in seen.items() if name != 'SGD' and abs(steps[0] - 1) < 0.05]
if changed or max(seen['Rprop'][:3]) > 0.001 or abs(seen['SGD'][0] - 1) > 0.001:
    sys.exit(f'changed: reading the state of an optimizer has another effect on the training now (as without it: {changed})')
END
"$folder/venv/bin/python" -W ignore "$folder/look.py"
