#!/usr/bin/env bash
# Guess: a scheduler that lowers the learning rate on a plateau (ReduceLROnPlateau of torch, ReduceOnPlateauLR of mmengine, reduce_on_plateau of
# optax) does so wherever the loss stops to fall. Whether the loss is 1 - cosine or -cosine, which have the same gradient, changes at most the
# size of the least improvement that counts, threshold=0.001 of the best.
# Behaviour: below zero the sign of this margin turns round. A loss counts as better if it is less than the best times (1 - threshold), which
# for a best of -0.8 is -0.7992: what is a little worse counts as an improvement, and becomes the new best. So does the same value again: a loss
# that stands still at -1 never lowers the rate, at 0 or 1 it does. The larger the threshold, the more is let through, though it is raised to ask
# for more. So it is in mode 'max' with a negative metric, such as a log likelihood. No warning; the documentation gives the formula, not what
# it does. threshold_mode='abs' (threshold_rule in mmengine; rtol=0 and atol in optax) is right, and Keras's callback takes it so.
# (pytorch/pytorch#47513, google-deepmind/optax#1767)
# Why it matters: losses on embeddings are often negative cosines. Training then stays at its first learning rate to the end.
# Packages: torch 2.14.1, onedl-mmengine 0.10.12, optax 0.2.8, jax 0.10.2, numpy 2.4.6.
# Seen on 2026-11-30, a student of a teacher's embeddings, 40 epochs, patience 3, threshold 0.001 and 0.01; times that the rate was lowered,
# and the angle between student and teacher at the end, on other images:
#   torch     0.001  1 - cosine 6 times, 11.09 degrees; -cosine 0 times, 11.35 degrees
#             0.01   1 - cosine 6 times, 11.05 degrees; -cosine 0 times, 11.35 degrees
#             loss that stands still at 1, 0, -1: 4, 4, 0 times
#   mmengine  the same
#   optax     0.001  1 - cosine 9 times, 11.07 degrees; -cosine 0 times, 11.35 degrees
#             0.01   1 - cosine 10 times, 11.05 degrees; -cosine 0 times, 11.35 degrees
#             loss that stands still at 1, 0, -1: 6, 6, 0 times
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 onedl-mmengine==0.10.12 optax==0.2.8 jax==0.10.2 numpy==2.4.6
cat > "$folder/look.py" <<'END'
import logging
import sys

import jax.numpy
import optax
import torch
from mmengine.optim import ReduceOnPlateauLR
from optax.contrib import reduce_on_plateau
from torch.optim.lr_scheduler import ReduceLROnPlateau

logging.disable(logging.WARNING)
EPOCHS, BATCH, FIRST, FACTOR, PATIENCE = 40, 50, 0.05, 0.3, 3


class Optax:
    """optax's scheduler, which scales updates, as one that sets the learning rate of a torch optimizer."""

    def __init__(self, optimizer, threshold):
        self.group = optimizer.param_groups[0]
        self.scheduler = reduce_on_plateau(factor=FACTOR, patience=PATIENCE, rtol=threshold)
        self.state = self.scheduler.init(jax.numpy.zeros(1))

    def step(self, loss):
        update, self.state = self.scheduler.update(jax.numpy.ones(1), self.state, value=jax.numpy.asarray(loss))
        self.group['lr'] = FIRST * float(update[0])


def by_mmengine(optimizer, threshold):
    scheduler = ReduceOnPlateauLR(optimizer, 'loss', factor=FACTOR, patience=PATIENCE, threshold=threshold)
    return lambda loss: scheduler.step(dict(loss=loss))


LIBRARIES = {
    'torch': lambda optimizer, threshold: ReduceLROnPlateau(optimizer, factor=FACTOR, patience=PATIENCE, threshold=threshold).step,
    'mmengine': by_mmengine,
    'optax': lambda optimizer, threshold: Optax(optimizer, threshold).step,
}
torch.set_num_threads(1)
torch.manual_seed(0)
teacher = torch.randn(32, 16)
images, others = torch.randn(1000, 32), torch.randn(1000, 32)
noisy = images @ teacher + 6 * torch.randn(1000, 16)
start = torch.randn(32, 16) / 6


def trained(make, threshold, constant):
    """Return how often the rate was lowered when the loss is `constant` - cosine, and the student's angle to the teacher."""
    torch.manual_seed(1)
    student = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([student], FIRST)
    step, rates = make(optimizer, threshold), []
    for _ in range(EPOCHS):
        for part in torch.randperm(1000).split(BATCH):
            optimizer.zero_grad()
            loss = constant - torch.cosine_similarity(images[part] @ student, noisy[part]).mean()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            cosine = torch.cosine_similarity(others @ student, others @ teacher)
        step(constant - cosine.mean().item())
        rates.append(round(optimizer.param_groups[0]['lr'], 9))
    return len(set(rates)) - 1, cosine.clamp(max=1).acos().rad2deg().mean().item()


def still(make, value):
    """Return how often the rate is lowered in 20 epochs without any change of the loss."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], FIRST)
    step, rates = make(optimizer, 1e-4), []
    for _ in range(20):
        step(value)
        rates.append(round(optimizer.param_groups[0]['lr'], 9))
    return len(set(rates)) - 1


changed = []
for name, make in LIBRARIES.items():
    told = []
    for threshold in (0.001, 0.01):
        (shifted, shifted_angle), (negative, angle) = trained(make, threshold, 1), trained(make, threshold, 0)
        told.append(f'1 - cosine {shifted} times, {shifted_angle:.2f} degrees; -cosine {negative} times, {angle:.2f} degrees')
        if shifted < 3 or negative or angle < shifted_angle + 0.1:
            changed.append(name)
    steady = [still(make, value) for value in (1.0, 0.0, -1.0)]
    if not steady[0] or steady[2]:
        changed.append(name)
    print(f'{name:8}', *told, f'loss that stands still at 1, 0, -1: {steady[0]}, {steady[1]}, {steady[2]} times', sep='\n  ')
if changed:
    sys.exit(f'changed: a plateau below zero is noticed now ({", ".join(changed)})')
END
"$folder/venv/bin/python" -W ignore "$folder/look.py"
