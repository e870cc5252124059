"""wrn_40_2 teaches wrn_16_2 on the CIFAR-100 distillation benchmark.

python tools/train.py configs/distillers/cifar100_benchmark/wrn_40_2_distill_wrn_16_2.py --methods kd \\
    --cfg-options model.teacher_pretrained=FILE
"""

_base_ = ['../../cifar100_benchmark/wrn_16_2.py', '../../_base_/methods/cifar100_benchmark.py']
from mmcls_kd.configs import benchmark_pair

model = benchmark_pair(
    _base_.offered,
    *('wrn_40_2', 'wrn_16_2'),
    dkd=dict(beta=6.0),
    catkd=dict(loss_weight=12.0, normalize=False),
)
