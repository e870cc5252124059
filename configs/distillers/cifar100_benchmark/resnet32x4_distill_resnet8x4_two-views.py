"""resnet32x4 teaches resnet8x4 by two views of each image on the CIFAR-100 distillation benchmark.

python tools/train.py configs/distillers/cifar100_benchmark/resnet32x4_distill_resnet8x4_two-views.py --methods mlkd \\
    --cfg-options model.teacher_pretrained=FILE
"""

_base_ = ['../../cifar100_benchmark/resnet8x4.py', '../../_base_/methods/two_views.py']
from mmcls_kd.configs import benchmark_pair

model = benchmark_pair(_base_.offered, 'resnet32x4', 'resnet8x4', methods=['mlkd'])
train_dataloader = dict(dataset=dict(pipeline=_base_.two_views_pipeline))
