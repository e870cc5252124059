"""A small vision transformer teaches a smaller one, on Fashion-MNIST.

python tools/train.py configs/distillers/fashion_mnist/vit-d64_distill_vit-d32_fmnist.py
"""

_base_ = [
    '../../fashion_mnist/vit-d32_3e.py',
    '../../_base_/methods/imagenet_vit.py',
    '../../_base_/methods/maps.py',
]
from mmcls_kd.configs import offer

custom_imports = dict(imports=['mmcls_kd'], allow_failed_imports=False)
methods = ['vitkd', 'nkd']
mgd = dict(type='MGDLoss', alpha_mgd=7e-5, lambda_mgd=0.15)  # as on ImageNet's CNNs
model = dict(
    _delete_=True,
    type='ClassificationDistiller',
    teacher_cfg='configs/fashion_mnist/vit-d64_8e.py',
    teacher_pretrained='configs/fashion_mnist/vit_teacher.pth',
    student_cfg='configs/fashion_mnist/vit-d32_3e.py',
    distill_cfg=offer(
        dict(**_base_.offered, mgd=mgd, **_base_.on_maps),
        methods,
        wsld=dict(num_classes=10),
        fitnet=dict(norm_act=False),  # tokens have negative values
    ),
)
