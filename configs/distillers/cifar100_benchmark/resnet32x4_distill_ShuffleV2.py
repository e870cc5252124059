"""resnet32x4 teaches ShuffleV2 on the CIFAR-100 distillation benchmark.

python tools/train.py configs/distillers/cifar100_benchmark/resnet32x4_distill_ShuffleV2.py --methods kd \\
    --cfg-options model.teacher_pretrained=FILE
"""

_base_ = ['../../cifar100_benchmark/ShuffleV2.py', '../../_base_/methods/cifar100_benchmark.py']
from mmcls_kd.configs import benchmark_pair

model = benchmark_pair(
    _base_.offered,
    *('resnet32x4', 'ShuffleV2'),
    dkd=dict(beta=8.0),
    catkd=dict(loss_weight=600.0, resolution=4),
)
