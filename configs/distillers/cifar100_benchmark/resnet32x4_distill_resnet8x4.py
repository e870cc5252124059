"""resnet32x4 teaches resnet8x4 on the CIFAR-100 distillation benchmark.

python tools/train.py configs/distillers/cifar100_benchmark/resnet32x4_distill_resnet8x4.py --methods kd \\
    --cfg-options model.teacher_pretrained=FILE
"""

_base_ = ['../../cifar100_benchmark/resnet8x4.py', '../../_base_/methods/cifar100_benchmark.py']
from mmcls_kd.configs import benchmark_pair

model = benchmark_pair(
    _base_.offered,
    *('resnet32x4', 'resnet8x4'),
    dkd=dict(beta=8.0),
    reviewkd=dict(loss_weight=dict(value=5.0, warmup=20)),
    catkd=dict(loss_weight=15.0, normalize=False),
    luminet=dict(alpha=33.0, task_weight=2.0, loss_weight=dict(value=1.0, warmup=20)),
)
