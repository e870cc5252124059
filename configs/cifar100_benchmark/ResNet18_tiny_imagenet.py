"""ResNet18 alone on Tiny-ImageNet."""

_base_ = '../_base_/tiny_imagenet_benchmark.py'
model = dict(type='CifarClassifier', model_name='ResNet18', num_classes=200)
