#!/usr/bin/env bash
# Guess: LoRA adapters on the linear layers of a transformer take part in eval mode as they did in training: the accuracy of the trained
# network is the same before and after merge_and_unload().
# Behaviour: not within nn.TransformerEncoderLayer. In eval mode torch runs the layer by one fused function (its fast path), which reads the
# weights of linear1 and linear2. peft's layers show the weight of the layer that they wrap, so the adapters are left out: loss and
# gradients in training are those of the adapted network, each validation measures the network before the training, and nothing is
# said. Merged, or with torch.backends.mha.set_fastpath_enabled(False), the adapters count. With target_modules='all-linear',
# those on the attention's out_proj never learn, in either mode: nn.MultiheadAttention reads that weight by itself. (huggingface/peft#761 tells
# of an error in eval mode, where self_attn is adapted, too.) Why it matters: a student that has learned everything is validated as if its
# layers had learned nothing, and the best checkpoint is chosen by that.
# Packages: peft 0.21.2, torch 2.14.1.
# Seen on 2026-11-30, accuracy on the training images (5 classes), in train mode, then in eval mode:
#   linear1, linear2: train 1.00, eval 0.30, without adapters 0.30, fast path off 1.00, merged 1.00
#   all-linear but head and embedding: train 1.00, eval 0.30, without adapters 0.30, fast path off 1.00, merged 1.00
#     adapters that are still zero after training (out_proj): 2 of 6
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 peft==0.21.2
cat > "$folder/look.py" <<'END'
import sys

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

torch.manual_seed(0)
images, labels = torch.randn(64, 6, 8), torch.randint(5, (64,))


class Net(nn.Module):
    """A transformer for images as 6 patches of 8 values."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Linear(8, 32)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, dropout=0, batch_first=True), 2)
        self.head = nn.Linear(32, 5)

    def forward(self, images):
        return self.head(self.encoder(self.embedding(images)).mean(1))


def trained(**settings):
    torch.manual_seed(0)
    network = get_peft_model(Net(), LoraConfig(r=8, **settings))
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], 1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
    return network


@torch.no_grad()
def accuracy(network):
    return (network(images).argmax(1) == labels).double().mean().item()


def look(**settings):
    """Return accuracies of a trained network, and the number of its adapters that never left zero."""
    network = trained(**settings)
    adapters = {name: weight for name, weight in network.named_parameters() if 'lora_B' in name}
    unused = [name for name, weight in adapters.items() if not weight.any()]
    values = dict(train=accuracy(network.train()), eval=accuracy(network.eval()))
    with network.disable_adapter():
        values['without adapters'] = accuracy(network)
    torch.backends.mha.set_fastpath_enabled(False)
    values['fast path off'] = accuracy(network)
    torch.backends.mha.set_fastpath_enabled(True)
    values['merged'] = accuracy(network.merge_and_unload().eval())
    return values, len(unused), len(adapters)


def told(values):
    return ', '.join(f'{name} {value:.2f}' for name, value in values.items())


feed_forward, _, _ = look(target_modules=['linear1', 'linear2'])
print(f'linear1, linear2: {told(feed_forward)}')
everywhere, unused, count = look(target_modules='all-linear', exclude_modules=['head', 'embedding'])
print(f'all-linear but head and embedding: {told(everywhere)}')
print(f'  adapters that are still zero after training (out_proj): {unused} of {count}')
left_out = all(
    v['eval'] == v['without adapters'] < 0.5 < 0.9 < min(v['train'], v['fast path off'], v['merged'])
    for v in (feed_forward, everywhere)
)
if not left_out or unused != 2:
    sys.exit("changed: adapters inside of torch's encoder layers take part in eval mode now, or all of them learn")
END
"$folder/venv/bin/python" -W ignore "$folder/look.py"
