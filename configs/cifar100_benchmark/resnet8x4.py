"""resnet8x4 alone on the CIFAR-100 distillation benchmark."""

_base_ = '../_base_/cifar100_benchmark.py'
model = dict(type='CifarClassifier', model_name='resnet8x4')
