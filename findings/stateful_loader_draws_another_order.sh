#!/usr/bin/env bash
# Guess: StatefulDataLoader of torchdata, loaded with the state of an interrupted epoch, gives the rest of this epoch: each image once, in the old
# order. Its documentation calls it a drop-in replacement of torch's DataLoader that has a state, for resuming within an epoch.
# Behaviour: it keeps the random state of its own shuffle=True and winds a DistributedSampler forward rightly. The random samplers of torch
# (WeightedRandomSampler, SubsetRandomSampler, also in a BatchSampler, also with a seeded generator) draw a new order after loading, and
# it leaves out as many of the new order as were read of the old one. Of an epoch that is interrupted at its half, a quarter of the images is
# left out, and a quarter comes twice. No warning. A test in the first epoch does not show it: there, the program's seed gives the old order.
# Why it matters: balanced sampling and training on a split go by these samplers. A resumed run is another one than the uninterrupted,
# and sees some images more often, though the loader was chosen to prevent it.
# Packages: torchdata 0.11.0, torch 2.14.1, numpy 2.4.6.
# Seen on 2026-11-30, epochs of 1,000 images interrupted after 500; images left out of the whole epoch, with each program seeded alike:
#   shuffle=True                  first epoch: the same rest,   0 left out  second: the same rest,   0 left out
#   DistributedSampler            first epoch: the same rest,   0 left out  second: the same rest,   0 left out
#   SubsetRandomSampler           first epoch: the same rest,   0 left out  second: another rest, 248 left out
#   SubsetRandomSampler, seeded   first epoch: the same rest,   0 left out  second: another rest, 235 left out
#   in a BatchSampler             first epoch: the same rest,   0 left out  second: another rest, 248 left out
#   WeightedRandomSampler         first epoch: the same rest,   0 left out  second: another rest, 250 left out
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 torchdata==0.11.0 numpy==2.4.6
cat > "$folder/look.py" <<'END'
import sys

import torch
from torch.utils.data import BatchSampler, DistributedSampler, SubsetRandomSampler, WeightedRandomSampler
from torchdata.stateful_dataloader import StatefulDataLoader

IMAGES = 1000


def generator():
    return torch.Generator().manual_seed(0)


SAMPLERS = {
    'shuffle=True': lambda: dict(shuffle=True, batch_size=10),
    'DistributedSampler': lambda: dict(sampler=DistributedSampler(range(IMAGES), 1, 0), batch_size=10),
    'SubsetRandomSampler': lambda: dict(sampler=SubsetRandomSampler(range(IMAGES)), batch_size=10),
    'SubsetRandomSampler, seeded': lambda: dict(sampler=SubsetRandomSampler(range(IMAGES), generator()), batch_size=10),
    'in a BatchSampler': lambda: dict(batch_sampler=BatchSampler(SubsetRandomSampler(range(IMAGES)), 10, drop_last=False)),
    'WeightedRandomSampler': lambda: dict(
        sampler=WeightedRandomSampler(torch.ones(IMAGES), IMAGES, replacement=False), batch_size=10
    ),
}


def loader(name):
    """Return the loader of a program that starts."""
    torch.manual_seed(0)
    return StatefulDataLoader(range(IMAGES), **SAMPLERS[name]())


def epoch(batches):
    return [int(image) for batch in batches for image in batch]


def look(name, epochs):
    """Interrupt the next epoch at its half; return whether a new program goes on alike, and how many images are left out."""
    old = loader(name)
    for _ in range(epochs):
        epoch(old)
    batches = iter(old)
    first = epoch(next(batches) for _ in range(50))
    state = old.state_dict()
    rest = epoch(batches)
    new = loader(name)
    new.load_state_dict(state)
    resumed = epoch(new)
    return resumed == rest, IMAGES - len(set(first + resumed))


seen = {}
for name in SAMPLERS:
    seen[name] = [look(name, epochs) for epochs in (0, 1)]
    words = (f'{"the same" if same else "another"} rest, {left:3} left out' for same, left in seen[name])
    print(f'{name:28}  first epoch: {next(words)}  second: {next(words)}')
changed = []
for name, ((same, left), (same_later, left_later)) in seen.items():
    safe = name in ('shuffle=True', 'DistributedSampler')
    if not same or left or same_later != safe or (left_later > 100) == safe:
        changed.append(name)
if changed:
    sys.exit(f'changed: StatefulDataLoader resumes otherwise now ({", ".join(changed)})')
END
"$folder/venv/bin/python" -W ignore "$folder/look.py"
