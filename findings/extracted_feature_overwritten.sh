#!/usr/bin/env bash
# Guess: the feature of a node that create_feature_extractor of torchvision returns is the output of that node, whichever other nodes are
# asked for.
# Behaviour: the output of a batch norm before an activation (bn1 of a torchvision ResNet's block) comes back as it is if no later node is
# asked for, else after ReLU: the extractor cuts off what nothing needs, and the activations that are left work in place, on the returned
# tensor. So its values depend on the rest of the list, without a word. bn2 is not affected: what is `out += identity` in the code becomes a
# sum into a new tensor in the traced graph, while a forward hook on the network itself keeps an overwritten bn2. Why it matters: methods
# that compare features before the activation (margins, hints on normalised maps) get non-negative ones as soon as the same extractor returns
# the logits too; and neither extractor nor hook is right for both nodes.
# Packages: torchvision 0.29.1, torch 2.14.1.
# Seen on 2026-11-29 (share of negative values):
#   layer1.0.bn1: computed by hand 0.49; extracted alone 0.49, with fc 0.00; a hook that does not copy 0.00
#   layer1.0.bn2: computed by hand 0.42; extracted alone 0.42, with fc 0.42; a hook that does not copy 0.00
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 torchvision==0.29.1
cat > "$folder/look.py" <<'END'
import sys

import torch
from torchvision.models import resnet18
from torchvision.models.feature_extraction import create_feature_extractor

torch.manual_seed(0)
network = resnet18().eval()
images = torch.randn(2, 3, 64, 64)


def extracted(*nodes):
    with torch.no_grad():
        return create_feature_extractor(network, list(nodes))(images)


def hooked(node):
    kept = []
    handle = network.get_submodule(node).register_forward_hook(lambda module, given, output: kept.append(output))
    with torch.no_grad():
        network(images)
    handle.remove()
    return kept[0]


def by_hand():
    with torch.no_grad():
        stem = network.maxpool(network.relu(network.bn1(network.conv1(images))))
        block = network.layer1[0]
        first = block.bn1(block.conv1(stem))
        return {'layer1.0.bn1': first, 'layer1.0.bn2': block.bn2(block.conv2(first.relu()))}


def negative(values):
    return (values < 0).float().mean().item()


shares = []
for node, truth in by_hand().items():
    found = truth, extracted(node)[node], extracted(node, 'fc')[node], hooked(node)
    shares.append([negative(values) for values in found])
    hand, alone, together, hook = shares[-1]
    print(f'{node}: computed by hand {hand:.2f}; extracted alone {alone:.2f}, with fc {together:.2f}; ', end='')
    print(f'a hook that does not copy {hook:.2f}')
    if not torch.allclose(found[0], found[1], atol=1e-6):
        sys.exit('changed: extracted alone, the feature is another now')
(_, _, first, first_hook), (truth, _, second, second_hook) = shares
if first or first_hook or second != truth or second_hook:
    sys.exit('changed: the feature does not depend on the other nodes as it did')
END
"$folder/venv/bin/python" -W ignore "$folder/look.py"
