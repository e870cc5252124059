"""ResNet-18 teaches a ResNet-18 of a third of its width, on Glyphs.

python tools/train.py configs/distillers/glyphs/res18-w12_distill_res18-w4_glyphs.py --methods kd
"""

_base_ = ['../../glyphs/student.py', '../../_base_/methods/cifar100_benchmark.py']
from mmcls_kd.configs import offer

methods = ['kd']
offered = dict(_base_.offered)
offered.pop('fsp')  # it needs as many channels in both
channels = dict(student_channels=32, teacher_channels=96)
soon = dict(warmup=157, by_epoch=False)  # of 3,752 steps: half the share of the benchmark's 20 of 240 epochs
model = dict(
    _delete_=True,
    type='ClassificationDistiller',
    teacher_cfg='configs/glyphs/teacher.py',
    teacher_pretrained='configs/glyphs/teacher.pth',
    student_cfg='configs/glyphs/student.py',
    distill_cfg=offer(
        offered,
        methods,
        srrl=channels,
        mgd=channels,
        **{name: dict(loss_weight=dict(value=1.0, **soon)) for name in ('dkd', 'reviewkd', 'sdd', 'normdkd', 'rld')},
        luminet=dict(loss_weight=dict(value=0.5, **soon)),
    ),
)
