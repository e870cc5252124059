"""resnet110 teaches resnet32 on the CIFAR-100 distillation benchmark.

python tools/train.py configs/distillers/cifar100_benchmark/resnet110_distill_resnet32.py --methods kd \\
    --cfg-options model.teacher_pretrained=FILE
"""

_base_ = ['../../cifar100_benchmark/resnet32.py', '../../_base_/methods/cifar100_benchmark.py']
from mmcls_kd.configs import benchmark_pair

model = benchmark_pair(
    _base_.offered,
    *('resnet110', 'resnet32'),
    dkd=dict(beta=2.0),
    catkd=dict(loss_weight=1.8, normalize=False),
)
