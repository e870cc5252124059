"""ResNet50 teaches MobileNetV2 on the CIFAR-100 distillation benchmark.

python tools/train.py configs/distillers/cifar100_benchmark/ResNet50_distill_MobileNetV2.py --methods kd \\
    --cfg-options model.teacher_pretrained=FILE
"""

_base_ = ['../../cifar100_benchmark/MobileNetV2.py', '../../_base_/methods/cifar100_benchmark.py']
from mmcls_kd.configs import benchmark_pair

model = benchmark_pair(
    _base_.offered,
    *('ResNet50', 'MobileNetV2'),
    dkd=dict(beta=8.0),
    catkd=dict(loss_weight=40.0),
    luminet=dict(temp=8.0, alpha=70.0, task_weight=2.0, loss_weight=dict(value=1.0, warmup=20)),
)
