"""wrn_40_2 teaches MobileNetV2 on the CIFAR-100 distillation benchmark.

python tools/train.py configs/distillers/cifar100_benchmark/wrn_40_2_distill_MobileNetV2.py --methods kd \\
    --cfg-options model.teacher_pretrained=FILE
"""

_base_ = ['../../cifar100_benchmark/MobileNetV2.py', '../../_base_/methods/cifar100_benchmark.py']
from mmcls_kd.configs import benchmark_pair

model = benchmark_pair(
    _base_.offered,
    *('wrn_40_2', 'MobileNetV2'),
    sdd=dict(loss=dict(type='DKDLoss', temp=4.0, alpha=1.0, beta=6.0)),
)
