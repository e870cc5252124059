"""The pair on Glyphs with a weak and a strong view of each image, for MLKD and CRLD.

python tools/train.py configs/distillers/glyphs/res18-w12_distill_res18-w4_two-views_glyphs.py
"""

_base_ = ['../../glyphs/student.py', '../../_base_/methods/two_views.py']
from mmcls_kd.configs import offer

methods = ['mlkd']
train_pipeline = [
    dict(type='TwoViews', weak=[dict(type='RandomCrop', crop_size=28, padding=2)]),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
model = dict(
    _delete_=True,
    type='ClassificationDistiller',
    teacher_cfg='configs/glyphs/teacher.py',
    teacher_pretrained='configs/glyphs/teacher.pth',
    student_cfg='configs/glyphs/student.py',
    distill_cfg=offer(_base_.offered, methods),
)
