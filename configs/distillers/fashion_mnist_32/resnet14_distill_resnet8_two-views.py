"""resnet14 teaches resnet8 by a weak and a strong view of each image, on CIFAR-shaped Fashion-MNIST.

python tools/train.py configs/distillers/fashion_mnist_32/resnet14_distill_resnet8_two-views.py
"""

_base_ = ['../../fashion_mnist_32/resnet8.py', '../../_base_/methods/two_views.py']
from mmcls_kd.configs import offer

methods = ['mlkd']
two_views = dict(type='TwoViews', weak=_base_.crop_and_flip)
train_dataloader = dict(dataset=dict(pipeline=[*_base_.cifar_shaped, two_views, dict(type='PackInputs')]))
network = dict(type='CifarClassifier', num_classes=10)
model = dict(
    _delete_=True,
    type='ClassificationDistiller',
    teacher_cfg=dict(model_name='resnet14', **network),
    teacher_pretrained='configs/fashion_mnist_32/teacher.pth',
    student_cfg=dict(model_name='resnet8', **network),
    distill_cfg=offer(_base_.offered, methods),
)
