"""resnet8 of the CIFAR-100 benchmark on CIFAR-shaped Fashion-MNIST, its protocol shortened."""

_base_ = '../_base_/fashion_mnist_32.py'
model = dict(type='CifarClassifier', model_name='resnet8', num_classes=10)
