"""wrn_40_2 teaches ShuffleV1 on the CIFAR-100 distillation benchmark.

python tools/train.py configs/distillers/cifar100_benchmark/wrn_40_2_distill_ShuffleV1.py --methods kd \\
    --cfg-options model.teacher_pretrained=FILE
"""

_base_ = ['../../cifar100_benchmark/ShuffleV1.py', '../../_base_/methods/cifar100_benchmark.py']
from mmcls_kd.configs import benchmark_pair

model = benchmark_pair(
    _base_.offered,
    *('wrn_40_2', 'ShuffleV1'),
    dkd=dict(beta=8.0),
    catkd=dict(loss_weight=80.0, resolution=4),
    luminet=dict(alpha=35.0, task_weight=2.0, loss_weight=dict(value=1.0, warmup=20)),
)
