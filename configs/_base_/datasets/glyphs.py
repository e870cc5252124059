"""Glyphs: 30,000 training and 10,000 test images, 28 × 28, grey, 100 classes of letters and digits (docs/glyphs.md)."""

data_preprocessor = dict(num_classes=100, mean=[19.86], std=[55.44], to_rgb=False)

train_pipeline = [
    dict(type='RandomCrop', crop_size=28, padding=2),  # no flip: it would turn b into d
    dict(type='PackInputs'),
]

whole = dict(type='Glyphs', data_root='data/glyphs', serialize_data=False)  # read in half of the time

train_dataloader = dict(
    batch_size=64,
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
