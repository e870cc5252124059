"""The CIFAR-100 benchmark's protocol, shortened from 240 epochs of 50,000 images to 200 steps, on CIFAR-shaped Fashion-MNIST.

The rate is divided by ten after the same shares of the training: 150, 180 and 210 of 240 epochs.
"""

_base_ = ['mmpretrain::_base_/default_runtime.py', 'datasets/fashion_mnist_32.py']
custom_imports = dict(imports=['mmcls_kd'], allow_failed_imports=False)
randomness = dict(seed=0)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))
train_dataloader = dict(dataset=dict(indices=6400))
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=5e-4))
param_scheduler = dict(type='MultiStepLR', by_epoch=False, milestones=[125, 150, 175], gamma=0.1)
train_cfg = dict(by_epoch=True, max_epochs=2, val_interval=1)
val_cfg = dict()
test_cfg = dict()
