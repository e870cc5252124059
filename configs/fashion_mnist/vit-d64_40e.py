"""The small transformer's teacher, trained five times as long and on shifted images: 91.03 top-1.

python tools/train.py configs/fashion_mnist/vit-d64_40e.py     (`make teacher` trains it and writes vit_teacher_40e.pth)
"""

_base_ = './vit-d64_8e.py'

train_pipeline = [
    dict(type='RandomCrop', crop_size=28, padding=2),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
train_cfg = dict(max_epochs=40, val_interval=4)
param_scheduler = dict(total_steps=40 * 469)
