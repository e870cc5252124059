"""The student on Glyphs distils itself.

python tools/train.py configs/distillers/glyphs/res18-w4_sd_glyphs.py
"""

_base_ = ['../../glyphs/student.py', '../../_base_/methods/cifar100_self.py']
from mmcls_kd.configs import offer

methods = ['uskd']
model = dict(
    _delete_=True,
    type='ClassificationDistiller',
    teacher_cfg=None,
    student_cfg='configs/glyphs/student.py',
    distill_cfg=offer(_base_.offered, methods, uskd=dict(channel=16)),
)
