"""The student on Glyphs: ResNet-18 with 4 channels at the base, 47,544 parameters."""

_base_ = [
    'mmpretrain::_base_/default_runtime.py',
    '../_base_/datasets/glyphs.py',
    '../_base_/schedules/glyphs_8e.py',
]

custom_imports = dict(imports=['mmcls_kd'], allow_failed_imports=False)
randomness = dict(seed=0)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))
model = dict(
    type='ImageClassifier',
    backbone=dict(type='ResNet_CIFAR', depth=18, in_channels=1, stem_channels=4, base_channels=4, strides=(2, 2, 2, 1)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=100, in_channels=32, loss=dict(type='CrossEntropyLoss'), topk=(1,)),
)
