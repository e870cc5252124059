"""resnet56 teaches resnet20 on the CIFAR-100 distillation benchmark.

python tools/train.py configs/distillers/cifar100_benchmark/resnet56_distill_resnet20.py --methods kd \\
    --cfg-options model.teacher_pretrained=FILE
"""

_base_ = ['../../cifar100_benchmark/resnet20.py', '../../_base_/methods/cifar100_benchmark.py']
from mmcls_kd.configs import benchmark_pair

model = benchmark_pair(
    _base_.offered,
    *('resnet56', 'resnet20'),
    dkd=dict(beta=2.0),
    abkd=dict(alpha=0.8, beta=0.3),
    catkd=dict(loss_weight=0.7, normalize=False),
)
