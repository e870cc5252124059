#!/usr/bin/env bash
# Guess: a pruner that takes channels out of a network does so by weights and ratio, whichever of its parameters are frozen (requires_grad=False),
# and leaves the rest as it was: frozen what was frozen, in training mode what was in training mode.
# Behaviour: torch-pruning finds the layers by the gradients' graph. A network that is frozen altogether, such as a copy of a teacher that is to
# become the student, is not pruned at all; one with a frozen stem keeps all channels there. Where a trainable layer comes before, frozen ones are
# pruned, and they come back trainable: all weights and biases of frozen batch norms learn from then on, if the optimizer is made from what requires
# gradients, as it has to be after pruning. Making the pruner, for which no step is needed, leaves the network in eval mode. No
# warning of any of these. Why it matters: a student as large as its teacher; layers trained that a recipe freezes; and in a loop that calls
# train() once and prunes on its way, batch norms that no longer learn the statistics of the smaller network.
# Packages: torch-pruning 1.6.1, torch 2.14.1, torchvision 0.29.1.
# Seen on 2026-11-30, a ResNet-18, pruning ratio 0.5:
#   frozen: nothing     stem 64 to 32 channels, last stage 512 to 256   frozen parameters that train afterwards:  0 of  0   still in training mode: False
#   frozen: norms       stem 64 to 32 channels, last stage 512 to 256   frozen parameters that train afterwards: 40 of 40   still in training mode: False
#   frozen: stem        stem 64 to 64 channels, last stage 512 to 256   frozen parameters that train afterwards:  0 of  3   still in training mode: False
#   frozen: everything  stem 64 to 64 channels, last stage 512 to 512   frozen parameters that train afterwards:  0 of 62   still in training mode: False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 torchvision==0.29.1 torch-pruning==1.6.1
cat > "$folder/look.py" <<'END'
import sys

import torch
import torch_pruning
import torchvision


def nothing(network):
    return []


def norms(network):
    return [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]


def stem(network):
    return [network.conv1, network.bn1]


def everything(network):
    return [network]


def prune(freeze):
    """Return the channels of the stem and of the last stage, whether the pruner left training mode, and how many frozen parameters train."""
    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=5).train()
    for module in freeze(network):
        module.requires_grad_(False)
    frozen = [name for name, parameter in network.named_parameters() if not parameter.requires_grad]
    pruner = torch_pruning.pruner.MagnitudePruner(
        network,
        torch.randn(1, 3, 64, 64),
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=0.5,
        ignored_layers=[network.fc],
    )
    trains = network.training
    pruner.step()
    live = sum(network.get_parameter(name).requires_grad for name in frozen)
    return network.conv1.out_channels, network.layer4[1].conv2.out_channels, trains, live, len(frozen)


changed = []
for freeze, expected in (
    (nothing, (32, 256, False, 0, 0)),
    (norms, (32, 256, False, 40, 40)),
    (stem, (64, 256, False, 0, 3)),
    (everything, (64, 512, False, 0, 62)),
):
    first, last, trains, live, frozen = found = prune(freeze)
    print(
        f'frozen: {freeze.__name__:10}  stem 64 to {first} channels, last stage 512 to {last}   '
        f'frozen parameters that train afterwards: {live:2} of {frozen:2}   still in training mode: {trains}'
    )
    if found != expected:
        changed.append(freeze.__name__)
if changed:
    sys.exit(f"changed: other modes, channels or frozen parameters now, frozen: {', '.join(changed)}")
END
"$folder/venv/bin/python" -W ignore "$folder/look.py"
