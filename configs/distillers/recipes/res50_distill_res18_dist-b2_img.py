"""DIST under its strategy B2: a strongly trained ResNet-50 teaches ResNet-18 for 450 epochs, on ImageNet.

Top-1 by the authors: teacher 80.1, alone 73.4, KD at T 4 72.6, DIST 74.5 (arXiv 2205.10536; hunto/DIST_KD). The optimizer's epsilon
is that of timm's EfficientNet recipe; the authors' dropout of 0.2 is EfficientNet's and has no place in a ResNet.

bash tools/dist_train.sh configs/distillers/recipes/res50_distill_res18_dist-b2_img.py 8
"""

_base_ = ['../imagenet/res34_distill_res18_img.py']
from mmcls_kd.configs import offer

methods = ['dist']
model = dict(teacher_cfg='timm:resnet50.a1_in1k', teacher_pretrained=True, distill_cfg=offer(_base_.offered, methods))
bgr_mean, bgr_std = [103.53, 116.28, 123.675], [57.375, 57.12, 58.395]
train_dataloader = dict(
    batch_size=96,  # of 8 processes
    dataset=dict(
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='RandomResizedCrop', scale=224, backend='pillow', interpolation='bicubic'),
            dict(type='RandomFlip', prob=0.5, direction='horizontal'),
            dict(
                type='RandAugment',
                policies='timm_increasing',
                num_policies=2,
                total_level=10,
                magnitude_level=9,
                magnitude_std=0.5,
                hparams=dict(pad_val=[104, 116, 124], interpolation='bicubic'),
            ),
            dict(type='RandomErasing', erase_prob=0.2, mode='rand', fill_color=bgr_mean, fill_std=bgr_std),
            dict(type='PackInputs'),
        ]
    ),
)
optim_wrapper = dict(
    optimizer=dict(
        _delete_=True, type='timm.optim.RMSpropTF', lr=0.048, alpha=0.9, momentum=0.9, eps=1e-3, weight_decay=1e-5
    ),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, begin=0, end=3, convert_to_iter_based=True),
    dict(type='StepLR', by_epoch=False, step_size=4003, gamma=0.97),  # 2.4 epochs of 1,668 steps
]
custom_hooks = [dict(type='EMAHook', momentum=1e-4, priority='ABOVE_NORMAL')]  # of decay 0.9999
train_cfg = dict(max_epochs=450)
auto_scale_lr = dict(base_batch_size=768)
