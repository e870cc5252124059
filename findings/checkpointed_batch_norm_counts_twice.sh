#!/usr/bin/env bash
# Guess: gradient checkpointing costs time and saves memory, and changes nothing else: a network trains as without it.
# Behaviour: the second forward of a checkpointed part, in the backward pass, updates the running statistics of its batch norms again. Each
# batch counts twice there: a momentum of 0.1 works as 0.19, and num_batches_tracked goes up by two, so that a momentum of None weighs
# otherwise, too. Batch norms outside of the checkpointed parts, such as the stem's, count once. Gradients are the same; what differs is the
# network in eval mode. So it is in timm (set_grad_checkpointing) and in mmpretrain (with_cp=True).
# Packages: timm 1.0.31, onedl-mmpretrain 1.3.6, onedl-mmengine 0.10.12, onedl-mmcv 2.3.6, torch 2.14.1.
# Seen on 2026-11-30, after one training step:
#   timm        same gradients True   stem counts 1 batch, running mean as without   stages count 2, running mean 1.90 times
#   mmpretrain  same gradients True   stem counts 1 batch, running mean as without   stages count 2, running mean 1.90 times
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 torchvision==0.29.1 onedl-mmengine==0.10.12 onedl-mmcv==2.3.6 onedl-mmpretrain==1.3.6 timm==1.0.31
cat > "$folder/look.py" <<'END'
import sys

import timm
import torch
from mmpretrain.models.backbones import ResNet


def of_timm(checkpointed):
    network = timm.create_model('resnet18', num_classes=3)
    network.set_grad_checkpointing(checkpointed)
    return network


def of_mmpretrain(checkpointed):
    return ResNet(18, base_channels=16, stem_channels=16, with_cp=checkpointed)


def trained(build, checkpointed):
    """Return the gradients and the buffers of a network after one step."""
    torch.manual_seed(0)
    network = build(checkpointed)
    network.train()
    torch.manual_seed(1)
    output = network(1 + torch.randn(8, 3, 64, 64))
    (output if isinstance(output, torch.Tensor) else output[-1]).square().mean().backward()
    return {name: value.grad for name, value in network.named_parameters()}, dict(network.named_buffers())


changed = []
for name, build in (('timm', of_timm), ('mmpretrain', of_mmpretrain)):
    (gradients, plain), (others, twice) = (trained(build, checkpointed) for checkpointed in (False, True))
    same = all(torch.allclose(value, others[key], rtol=1e-4, atol=1e-6) for key, value in gradients.items())
    stem = torch.equal(plain['bn1.running_mean'], twice['bn1.running_mean'])
    inner = 'layer2.0.bn1.'
    counts = [int(twice[f'{place}num_batches_tracked']) for place in ('bn1.', inner)]
    factor = float((twice[f'{inner}running_mean'] / plain[f'{inner}running_mean']).median())
    print(
        f'{name:10}  same gradients {same}   stem counts {counts[0]} batch, running mean {"as without" if stem else "different"}   '
        f'stages count {counts[1]}, running mean {factor:.2f} times'
    )
    if (same, stem, counts, round(factor, 2)) != (True, True, [1, 2], 1.9):
        changed.append(name)
if changed:
    sys.exit(f'changed: batch norms under gradient checkpointing are otherwise now in {" and ".join(changed)}')
END
"$folder/venv/bin/python" -W ignore "$folder/look.py"
