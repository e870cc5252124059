"""Fashion-MNIST: 60,000 training and 10,000 test images, 28 × 28, grey, 10 classes (arXiv 1708.07747)."""

data_preprocessor = dict(num_classes=10, mean=[72.94], std=[90.02], to_rgb=False)

train_pipeline = [
    dict(type='RandomCrop', crop_size=28, padding=2),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]

whole = dict(type='FashionMNIST', data_root='data/fashion_mnist', serialize_data=False)  # read in half of the time

train_dataloader = dict(
    batch_size=128,
    num_workers=0,  # for images this small the fastest on two cores
    persistent_workers=False,
    dataset=dict(**whole, split='train', pipeline=train_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=500,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        **whole,
        split='test',
        test_mode=True,  # without it mmpretrain reads the training images here
        pipeline=[dict(type='PackInputs')],
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = dict(type='Accuracy', topk=(1,))
test_dataloader = val_dataloader
test_evaluator = val_evaluator
