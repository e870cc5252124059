"""vgg13 teaches vgg8 on the CIFAR-100 distillation benchmark.

python tools/train.py configs/distillers/cifar100_benchmark/vgg13_distill_vgg8.py --methods kd \\
    --cfg-options model.teacher_pretrained=FILE
"""

_base_ = ['../../cifar100_benchmark/vgg8.py', '../../_base_/methods/cifar100_benchmark.py']
from mmcls_kd.configs import benchmark_pair

model = benchmark_pair(
    _base_.offered,
    *('vgg13', 'vgg8'),
    dkd=dict(beta=6.0),
    catkd=dict(loss_weight=4.5, normalize=False),
    luminet=dict(temp=8.0, alpha=70.0, loss_weight=dict(value=1.0, warmup=20)),
    sdd=dict(loss=dict(type='DKDLoss', temp=4.0, alpha=1.0, beta=6.0), scales=[1, 2]),
)
