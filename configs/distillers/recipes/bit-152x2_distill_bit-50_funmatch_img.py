"""Function matching: BiT-M R152x2 teaches BiT R50 without labels, for 1,200 epochs of mixed images, on ImageNet.

Top-1 by the authors 82.8 (arXiv 2106.05237; google-research/big_vision). The labels are read for the logged accuracy alone. Every
batch is mixed; mmpretrain draws one ratio a batch. Their weight decay is not multiplied by the learning rate: 3e-4 / 0.03.

bash tools/dist_train.sh configs/distillers/recipes/bit-152x2_distill_bit-50_funmatch_img.py 8
"""

_base_ = ['mmpretrain::_base_/datasets/imagenet_bs64.py', 'mmpretrain::_base_/default_runtime.py']
from mmcls_kd.configs import offer

custom_imports = dict(imports=['mmcls_kd'], allow_failed_imports=False)
randomness = dict(seed=0, diff_rank_seed=True)
data_preprocessor = dict(mean=[127.5] * 3, std=[127.5] * 3)
model = dict(
    type='ClassificationDistiller',
    teacher_cfg='timm:resnetv2_152x2_bit.goog_teacher_in21k_ft_in1k',
    teacher_pretrained=True,
    student_cfg='timm:resnetv2_50x1_bit',
    train_cfg=dict(augments=dict(type='Mixup', alpha=1.0)),
    distill_cfg=offer(dict(kd=dict(type='KDLoss', temp=1.0, alpha=1.0, divergence=True)), ['kd']),
)
train_dataloader = dict(batch_size=512)  # of 8 processes
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=0.03, weight_decay=0.01),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, begin=0, end=16, convert_to_iter_based=True),  # their 5,000 steps
    dict(type='CosineAnnealingLR', begin=16, T_max=1184, end=1200, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=1200, val_interval=10)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=4096)
