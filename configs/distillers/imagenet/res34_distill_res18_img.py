"""ResNet-34 teaches ResNet-18, on ImageNet. Top-1 by the authors: alone 69.90, NKD 71.96.

bash tools/dist_train.sh configs/distillers/imagenet/res34_distill_res18_img.py 8
"""

_base_ = ['../../resnet/resnet18_8xb32_in1k.py', '../../_base_/methods/imagenet_cnn.py']
from mmcls_kd.configs import offer, zoo_weights

custom_imports = dict(imports=['mmcls_kd'], allow_failed_imports=False)
methods = ['nkd']
randomness = dict(seed=0, diff_rank_seed=True)
model = dict(
    _delete_=True,
    type='ClassificationDistiller',
    teacher_cfg='configs/resnet/resnet34_8xb32_in1k.py',
    teacher_pretrained=zoo_weights('resnet34_8xb32_in1k'),
    student_cfg='configs/resnet/resnet18_8xb32_in1k.py',
    distill_cfg=offer(_base_.offered, methods),
)
