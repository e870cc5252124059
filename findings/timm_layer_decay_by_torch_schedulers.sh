#!/usr/bin/env bash
# Guess: timm's create_optimizer_v2(network, layer_decay=0.65) gives each layer its own learning rate, the lower the nearer to the images.
# Its documentation says that the learning rates are scaled.
# Behaviour: all groups of the optimizer have the same learning rate. The factor stands beside it (lr_scale), and nothing but timm's own
# schedulers multiplies by it. Without a scheduler, or with one of torch (so in Lightning, Hugging Face's Trainer, a loop of one's own), layer
# decay has no effect at all: the weights are bit for bit those of a training without it. No warning, and the groups and their factors
# look right when printed. (huggingface/pytorch-image-models#2532 asked for a change.) Multiplying each group's lr by its lr_scale before a
# torch scheduler is made helps. Why it matters: the first layers of a pretrained network are fine-tuned at a rate many times that of
# the recipe (0.65 over twelve blocks: 270 times), and layer decay seems to make no difference.
# Packages: timm 1.0.31, torch 2.14.1, torchvision 0.29.1.
# Seen on 2026-11-30, a ViT of 4 blocks, layer_decay=0.5, four steps of AdamW by each scheduler:
#   no scheduler                 lr of the patch embedding 1.0000 of the head's; weights after the training as without layer decay: True
#   torch's cosine               lr of the patch embedding 1.0000 of the head's; weights after the training as without layer decay: True
#   torch's, multiplied by hand  lr of the patch embedding 0.0312 of the head's; weights after the training as without layer decay: False
#   timm's cosine                lr of the patch embedding 0.0312 of the head's; weights after the training as without layer decay: False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 torchvision==0.29.1 timm==1.0.31
cat > "$folder/look.py" <<'END'
import sys

import timm
import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch.optim.lr_scheduler import CosineAnnealingLR

EPOCHS, RATE = 4, 1e-3


def no_scheduler(_):
    return lambda epoch: None


def of_torch(optimizer):
    scheduler = CosineAnnealingLR(optimizer, EPOCHS)
    return lambda epoch: scheduler.step()


def of_torch_by_hand(optimizer):
    for group in optimizer.param_groups:
        group['lr'] *= group.get('lr_scale', 1)
    return of_torch(optimizer)


def of_timm(optimizer):
    return CosineLRScheduler(optimizer, t_initial=EPOCHS).step


def train(schedule, layer_decay):
    """Return the learning rates of the patch embedding and of the head in the second epoch, and the weights after all."""
    torch.manual_seed(0)
    network = timm.create_model(
        'vit_tiny_patch16_224', img_size=32, embed_dim=24, depth=4, num_heads=2, num_classes=5, drop_path_rate=0.0
    )
    optimizer = create_optimizer_v2(network, opt='adamw', lr=RATE, weight_decay=0.05, layer_decay=layer_decay)
    step = schedule(optimizer)
    group_of = {parameter: group for group in optimizer.param_groups for parameter in group['params']}
    images, labels = torch.randn(8, 3, 32, 32), torch.randint(5, (8,))
    for epoch in range(EPOCHS):
        if epoch == 1:
            rates = [group_of[parameter]['lr'] for parameter in (network.patch_embed.proj.weight, network.head.weight)]
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
        step(epoch + 1)
    return rates, torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


changed = []
for title, schedule, works in (
    ('no scheduler', no_scheduler, False),
    ("torch's cosine", of_torch, False),
    ("torch's, multiplied by hand", of_torch_by_hand, True),
    ("timm's cosine", of_timm, True),
):
    (first, last), weights = train(schedule, 0.5)
    _, plain = train(schedule, None)
    same = torch.equal(weights, plain)
    print(
        f"{title:27}  lr of the patch embedding {first / last:.4f} of the head's; "
        f'weights after the training as without layer decay: {same}'
    )
    if same == works or (first < last) != works:
        changed.append(title)
if changed:
    sys.exit(f'changed: layer decay is applied otherwise now with {", ".join(changed)}')
END
"$folder/venv/bin/python" -W ignore "$folder/look.py"
