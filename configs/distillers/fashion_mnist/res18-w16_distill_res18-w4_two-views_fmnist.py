"""The demo's pair with a weak and a strong view of each image, for MLKD and CRLD.

python tools/train.py configs/distillers/fashion_mnist/res18-w16_distill_res18-w4_two-views_fmnist.py
"""

_base_ = ['../../fashion_mnist/resnet18-w4_3e.py', '../../_base_/methods/two_views.py']
from mmcls_kd.configs import offer

custom_imports = dict(imports=['mmcls_kd'], allow_failed_imports=False)
methods = ['mlkd']
train_pipeline = [
    dict(
        type='TwoViews',
        weak=[
            dict(type='RandomCrop', crop_size=28, padding=2),
            dict(type='RandomFlip', prob=0.5, direction='horizontal'),
        ],
    ),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
model = dict(
    _delete_=True,
    type='ClassificationDistiller',
    teacher_cfg='configs/fashion_mnist/resnet18-w16_9e.py',
    teacher_pretrained='configs/fashion_mnist/teacher.pth',
    student_cfg='configs/fashion_mnist/resnet18-w4_3e.py',
    distill_cfg=offer(_base_.offered, methods),
)
