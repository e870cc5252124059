"""OFA-KD: DeiT-Tiny teaches ResNet-18, at all exits and with the enhanced target, on ImageNet.

The schedule is the authors' for convolutional students (arXiv 2310.19444; Hao840/OFAKD, configs/imagenet/cnn.yaml).

bash tools/dist_train.sh configs/distillers/recipes/deit-t_distill_res18_ofa_img.py 8
"""

_base_ = ['../imagenet/res34_distill_res18_img.py']
from mmcls_kd.configs import network_cfg, offer, zoo_weights

methods = ['ofa']
student = network_cfg('mmpretrain::resnet/resnet18_8xb32_in1k.py')
student.head.loss = dict(type='LabelSmoothLoss', label_smooth_val=0.1, num_classes=1000, mode='original')
model = dict(
    teacher_cfg='mmpretrain::deit/deit-tiny_4xb256_in1k.py',
    teacher_pretrained=zoo_weights('deit-tiny_4xb256_in1k'),
    student_cfg=dict(_delete_=True, **student),
    distill_cfg=offer(_base_.offered, methods),
)
train_dataloader = dict(batch_size=64)  # of 8 processes
optim_wrapper = dict(optimizer=dict(nesterov=True))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, begin=0, end=3, convert_to_iter_based=True),
    dict(type='MultiStepLR', by_epoch=True, milestones=[30, 60, 90], gamma=0.1),
]
auto_scale_lr = dict(base_batch_size=512)
