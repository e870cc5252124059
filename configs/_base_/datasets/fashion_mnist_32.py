"""Fashion-MNIST in the shape of CIFAR: padded to 32 × 32, three equal channels, augmented as on the CIFAR-100 benchmark."""

_base_ = 'fashion_mnist.py'
data_preprocessor = dict(mean=[72.94] * 3, std=[90.02] * 3)
cifar_shaped = [
    dict(type='NumpyToPIL'),
    dict(type='torchvision/Pad', padding=2),
    dict(type='torchvision/Grayscale', num_output_channels=3),
    dict(type='PILToNumpy'),
]
crop_and_flip = [
    dict(type='RandomCrop', crop_size=32, padding=4),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
]
test_pipeline = [*cifar_shaped, dict(type='PackInputs')]
train_dataloader = dict(batch_size=64, dataset=dict(pipeline=[*cifar_shaped, *crop_and_flip, dict(type='PackInputs')]))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
