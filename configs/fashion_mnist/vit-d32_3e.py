"""A small vision transformer as a student: 4 blocks of 32 channels on 4 × 4 patches."""

_base_ = [
    'mmpretrain::_base_/default_runtime.py',
    '../_base_/datasets/fashion_mnist.py',
    '../_base_/schedules/fashion_mnist_vit_3e.py',
]

randomness = dict(seed=0)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))
train_pipeline = [dict(type='RandomFlip', prob=0.5, direction='horizontal'), dict(type='PackInputs')]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))  # shifted images are too hard to learn in so few steps
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='VisionTransformer',
        arch=dict(embed_dims=32, num_layers=4, num_heads=2, feedforward_channels=64),
        img_size=28,
        patch_size=7,
        in_channels=1,
        out_type='avg_featmap',
        with_cls_token=False,
    ),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=32, loss=dict(type='CrossEntropyLoss'), topk=(1,)),
)
