"""ResNet18 teaches ShuffleV2 on Tiny-ImageNet. Top-1 in mdistiller, of the best epoch: KD 62.26, KD with DOT 65.75.

python tools/train.py configs/distillers/tiny_imagenet/ResNet18_distill_ShuffleV2.py --methods kd \\
    --cfg-options model.teacher_pretrained=FILE
"""

_base_ = ['../../cifar100_benchmark/ShuffleV2_tiny_imagenet.py', '../../_base_/methods/cifar100_benchmark.py']
from mmcls_kd.configs import benchmark_pair

model = benchmark_pair(_base_.offered, 'ResNet18', 'ShuffleV2', 'tiny_imagenet', wsld=dict(num_classes=200))
