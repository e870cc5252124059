"""The demo's teacher: ResNet-18 with 16 channels at the base, 701,178 parameters.

python tools/train.py configs/fashion_mnist/resnet18-w16_9e.py     (`make teacher` trains it and writes teacher.pth)
"""

_base_ = './resnet18-w4_3e.py'

model = dict(
    backbone=dict(stem_channels=16, base_channels=16, strides=(1, 2, 2, 2)),
    head=dict(in_channels=128),
)
train_cfg = dict(max_epochs=9)
param_scheduler = dict(total_steps=9 * 469)
default_hooks = dict(checkpoint=dict(published_keys=['state_dict']))  # a second file at the end, weights alone
