"""ResNet-50 teaches MobileNetV1, on ImageNet. Top-1 by the authors: alone 69.21, NKD 72.58.

bash tools/dist_train.sh configs/distillers/imagenet/res50_distill_mv1_img.py 8
"""

_base_ = ['../../mobilenet_v1/mobilenet_v1.py', '../../_base_/methods/imagenet_cnn.py']
from mmcls_kd.configs import offer, zoo_weights

custom_imports = dict(imports=['mmcls_kd'], allow_failed_imports=False)
methods = ['nkd']
randomness = dict(seed=0, diff_rank_seed=True)
optim_wrapper = dict(clip_grad=dict(max_norm=5.0))
model = dict(
    _delete_=True,
    type='ClassificationDistiller',
    teacher_cfg='configs/resnet/resnet50_8xb32_in1k.py',
    teacher_pretrained=zoo_weights('resnet50_8xb32_in1k'),
    student_cfg='configs/mobilenet_v1/mobilenet_v1.py',
    distill_cfg=offer(
        _base_.offered,
        methods,
        wkd_logit=dict(gamma=25.0),
        reviewkd=dict(loss_weight=dict(value=8.0, warmup=1)),
    ),
)
