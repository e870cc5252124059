"""ResNet-18 teaches a ResNet-18 of a quarter of its width, on Fashion-MNIST: the demo.

python tools/train.py configs/distillers/fashion_mnist/res18-w16_distill_res18-w4_fmnist.py
"""

_base_ = ['../../fashion_mnist/resnet18-w4_3e.py', '../../_base_/methods/imagenet_cnn.py']
from mmcls_kd.configs import offer

custom_imports = dict(imports=['mmcls_kd'], allow_failed_imports=False)
methods = ['nkd']
channels = dict(student_channels=32, teacher_channels=128)
model = dict(
    _delete_=True,
    type='ClassificationDistiller',
    teacher_cfg='configs/fashion_mnist/resnet18-w16_9e.py',
    teacher_pretrained='configs/fashion_mnist/teacher.pth',
    student_cfg='configs/fashion_mnist/resnet18-w4_3e.py',
    distill_cfg=offer(_base_.offered, methods, srrl=channels, mgd=channels, wsld=dict(num_classes=10)),
)
