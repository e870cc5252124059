"""The small transformer's teacher: 6 blocks of 64 channels.

python tools/train.py configs/fashion_mnist/vit-d64_8e.py     (`make teacher` trains it and writes vit_teacher.pth)
"""

_base_ = './vit-d32_3e.py'

model = dict(
    backbone=dict(arch=dict(embed_dims=64, num_layers=6, num_heads=4, feedforward_channels=128)),
    head=dict(in_channels=64),
)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
train_cfg = dict(max_epochs=8)
param_scheduler = dict(eta_max=2e-3, total_steps=8 * 469)
default_hooks = dict(checkpoint=dict(published_keys=['state_dict']))  # a second file at the end, weights alone
