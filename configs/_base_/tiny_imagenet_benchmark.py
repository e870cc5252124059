"""The protocol of DOT's authors (mdistiller) on Tiny-ImageNet, for one device: 200 epochs, batches of 256 images of 64 × 64."""

_base_ = ['cifar100_benchmark.py']
data_preprocessor = dict(
    num_classes=200,
    mean=[122.451, 114.2655, 101.3625],  # 255 times .4802, .4481, .3975
    std=[58.701, 57.7575, 57.681],  # 255 times .2302, .2265, .2262
    to_rgb=True,
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    # any angle up to 20 degrees to either side, black corners
    dict(type='Rotate', magnitude_range=(0, 20), magnitude_std='inf', prob=1.0, random_negative_prob=0.5, pad_val=0),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
train_dataloader = dict(
    batch_size=256,
    dataset=dict(_delete_=True, type='TinyImageNet', data_root='data/tiny-imagenet-200', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=256,
    dataset=dict(
        _delete_=True, type='TinyImageNet', data_root='data/tiny-imagenet-200', split='val', pipeline=test_pipeline
    ),
)
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=0.2))
param_scheduler = dict(milestones=[60, 120, 160])
train_cfg = dict(max_epochs=200)
auto_scale_lr = dict(base_batch_size=256)
