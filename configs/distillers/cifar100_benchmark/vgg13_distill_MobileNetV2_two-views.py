"""vgg13 teaches MobileNetV2 by two views of each image on the CIFAR-100 distillation benchmark.

python tools/train.py configs/distillers/cifar100_benchmark/vgg13_distill_MobileNetV2_two-views.py --methods mlkd \\
    --cfg-options model.teacher_pretrained=FILE
"""

_base_ = ['../../cifar100_benchmark/MobileNetV2.py', '../../_base_/methods/two_views.py']
from mmcls_kd.configs import benchmark_pair

model = benchmark_pair(_base_.offered, 'vgg13', 'MobileNetV2', methods=['mlkd'])
train_dataloader = dict(dataset=dict(pipeline=_base_.two_views_pipeline))
