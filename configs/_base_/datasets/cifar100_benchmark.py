"""CIFAR-100 as the distillation benchmark takes it: its mean and deviation, crops of images padded with zeros, flips."""

_base_ = 'mmpretrain::_base_/datasets/cifar100_bs16.py'
data_preprocessor = dict(
    mean=[129.3105, 124.1085, 112.404],  # 255 times .5071, .4867, .4408
    std=[68.2125, 65.4075, 70.4055],  # 255 times .2675, .2565, .2761
)
train_dataloader = dict(batch_size=64)
val_dataloader = dict(batch_size=64)
test_dataloader = dict(batch_size=64)
val_evaluator = dict(topk=(1, 5))
test_evaluator = dict(topk=(1, 5))
