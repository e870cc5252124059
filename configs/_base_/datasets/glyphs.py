"""Glyphs: 30,000 training and 10,000 test images, 28 × 28, grey, 100 classes of letters and digits (docs/glyphs.md)."""

_base_ = 'fashion_mnist.py'
data_preprocessor = dict(num_classes=100, mean=[19.86], std=[55.44])
glyphs = dict(type='Glyphs', data_root='data/glyphs')
train_pipeline = [
    dict(type='RandomCrop', crop_size=28, padding=2),  # no flip: it would turn b into d
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=64, dataset=dict(**glyphs, pipeline=train_pipeline))
val_dataloader = dict(dataset=glyphs)
test_dataloader = dict(dataset=glyphs)
