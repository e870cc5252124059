"""ScaleKD: Swin-Large teaches ResNet-50 for 300 epochs under strong augmentation, on ImageNet.

Top-1 by the authors: alone 78.64, ScaleKD 82.03 (arXiv 2411.06786; deep-optimization/ScaleKD).

bash tools/dist_train.sh configs/distillers/recipes/swin-l_distill_res50_scalekd_img.py 8
"""

_base_ = [
    'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py',
    'mmpretrain::_base_/schedules/imagenet_bs1024_adamw_swin.py',
    'mmpretrain::_base_/default_runtime.py',
]
from mmcls_kd.configs import offer, zoo_weights

custom_imports = dict(imports=['mmcls_kd'], allow_failed_imports=False)
randomness = dict(seed=0, diff_rank_seed=True)
methods = dict(
    scalekd=dict(type='ScaleKDLoss', alpha=0.08, beta=[0.06, 0.06], heads=[16, 24]),
    kd=dict(type='KDLoss', temp=1.0, alpha=0.5),
)
model = dict(
    type='ClassificationDistiller',
    teacher_cfg='mmpretrain::swin_transformer/swin-large_16xb64_in1k.py',
    teacher_pretrained=zoo_weights('swin-large_in21k-pre-3rdparty_in1k'),
    student_cfg='mmpretrain::resnet/resnet50_8xb32_in1k.py',
    distill_cfg=offer(methods, ['scalekd', 'kd']),
)
train_dataloader = dict(batch_size=128)  # of 8 processes
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, begin=0, end=20, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', begin=20, T_max=280, end=300, eta_min=1e-5, convert_to_iter_based=True),
]
