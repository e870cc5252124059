#!/usr/bin/env bash
# Guess: torch.compile compiles again when a network changes under it: a forward hook that is registered on a part after the first call (to keep a
# teacher's feature) is called from then on, just as a part that is replaced later counts.
# Behaviour: hooks are not guarded. What was compiled before goes on without the hook, and without a warning. Only a recompilation for another reason
# takes it in, and for the inputs of this one alone: here for the first smaller batch. The kept feature is then that of this batch, and
# stays so, whichever images come after. Hooks that change an output (a mask, an adapter) are left out alike. net.compile() and the default
# backend do the same; removing a hook is noticed. Register before the first call, or set torch._dynamo.config.skip_nnmodule_hook_guards = False.
# (PyTorch's page on modules says that hooks must not change later.) Why it matters: a compiled teacher that was evaluated before it distils gives
# no features, or stale ones from the last batch of an epoch, which no error shows where sizes fit or are averaged.
# Packages: torch 2.14.1, numpy 2.4.6.
# Seen on 2026-11-30, number of images of the kept feature after each batch:
#   after batches of [8, 3, 8, 8] images with the hook:
#   not compiled, hook after a batch of 8:        feature of [8, 3, 8, 8] images, last output times 2
#   hook before the first batch:                  feature of [8, 3, 8, 8] images, last output times 2
#   hook after a batch of 8:                      feature of [0, 3, 3, 3] images, last output times 1
#   hook after batches of 8 and 3:                feature of [0, 0, 0, 0] images, last output times 1
#   net.compile(), hook after batches of 8 and 3: feature of [0, 0, 0, 0] images, last output times 1
#   hooks guarded, hook after batches of 8 and 3: feature of [8, 3, 8, 8] images, last output times 2
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 numpy==2.4.6
cat > "$folder/look.py" <<'END'
import sys

import torch
from torch import nn

GIVEN = [8, 3, 8, 8]
COMPILE = dict(backend='eager')  # the default backend, inductor, does the same, and needs a C++ compiler
WAYS = {
    'not compiled, hook after a batch of 8': [8],
    'hook before the first batch': [],
    'hook after a batch of 8': [8],
    'hook after batches of 8 and 3': [8, 3],
    'net.compile(), hook after batches of 8 and 3': [8, 3],
    'hooks guarded, hook after batches of 8 and 3': [8, 3],
}


def look(name):
    """Return of how many images the kept feature is after each batch, by what factor the hook changed the last output."""
    torch._dynamo.reset()
    torch._dynamo.config.skip_nnmodule_hook_guards = 'guarded' not in name
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5, bias=False)).eval()
    run = net
    if 'net.compile' in name:
        net.compile(**COMPILE)
    elif 'not compiled' not in name:
        run = torch.compile(net, **COMPILE)
    for size in WAYS[name]:
        run(torch.randn(size, 3, 8, 8))
    features = {}

    def keep_and_double(_part, _inputs, output):
        features['relu'] = output
        return 2 * output

    handle = net[2].register_forward_hook(keep_and_double)
    kept = []
    for size in GIVEN:
        images = torch.randn(size, 3, 8, 8)
        output = run(images)
        kept.append(len(features.get('relu', [])))
    handle.remove()
    plain = net[4](net[3](net[2](net[1](net[0](images)))))
    return kept, (output.norm() / plain.norm()).item()


print(f'after batches of {GIVEN} images with the hook:')
seen = {}
for name in WAYS:
    seen[name], factor = look(name)
    print(f'{name + ":":45} feature of {seen[name]} images, last output times {factor:.0f}')
expected = [GIVEN, GIVEN, [0, 3, 3, 3], [0] * 4, [0] * 4, GIVEN]
changed = [name for (name, sizes), these in zip(seen.items(), expected, strict=True) if sizes != these]
if changed:
    sys.exit(f'changed: torch.compile deals otherwise with a hook now ({"; ".join(changed)})')
END
"$folder/venv/bin/python" -W ignore "$folder/look.py"
