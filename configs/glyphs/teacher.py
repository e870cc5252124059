"""The teacher on Glyphs: ResNet-18 with 12 channels at the base, 404,032 parameters.

python tools/train.py configs/glyphs/teacher.py     (`make glyphs_teacher` trains it and writes teacher.pth)
"""

_base_ = './student.py'

model = dict(backbone=dict(stem_channels=12, base_channels=12), head=dict(in_channels=96))
train_cfg = dict(max_epochs=10)
param_scheduler = dict(total_steps=10 * 469)
default_hooks = dict(checkpoint=dict(published_keys=['state_dict']))  # a second file at the end, weights alone
