"""CIFAR-100 as the distillation benchmark takes it: its mean and deviation, crops of images padded with zeros, flips.

mmpretrain's data set downloads the images where there is a network; they are RGB.
"""

data_preprocessor = dict(
    num_classes=100,
    mean=[129.3105, 124.1085, 112.404],  # 255 times .5071, .4867, .4408
    std=[68.2125, 65.4075, 70.4055],  # 255 times .2675, .2565, .2761
    to_rgb=False,
)
crop_and_flip = [
    dict(type='RandomCrop', crop_size=32, padding=4),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
]
train_pipeline = [*crop_and_flip, dict(type='PackInputs')]
two_views_pipeline = [dict(type='TwoViews', weak=crop_and_flip), dict(type='PackInputs')]  # for methods/two_views.py
train_dataloader = dict(
    batch_size=64,
    num_workers=2,
    dataset=dict(type='CIFAR100', data_root='data/cifar100', split='train', pipeline=train_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=2,
    dataset=dict(type='CIFAR100', data_root='data/cifar100', split='test', pipeline=[dict(type='PackInputs')]),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_evaluator = val_evaluator
