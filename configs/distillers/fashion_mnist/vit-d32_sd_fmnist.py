"""The small vision transformer distils itself, on Fashion-MNIST.

python tools/train.py configs/distillers/fashion_mnist/vit-d32_sd_fmnist.py
"""

_base_ = ['../../fashion_mnist/vit-d32_3e.py', '../../_base_/methods/imagenet_self.py']
from mmcls_kd.configs import offer

custom_imports = dict(imports=['mmcls_kd'], allow_failed_imports=False)
methods = ['uskd']
model = dict(
    _delete_=True,
    type='ClassificationDistiller',
    teacher_cfg=None,
    student_cfg='configs/fashion_mnist/vit-d32_3e.py',
    distill_cfg=offer(_base_.offered, methods, uskd=dict(num_classes=10)),
)
