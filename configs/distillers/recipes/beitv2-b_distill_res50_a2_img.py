"""VanillaKD: BEiTv2-Base teaches ResNet-50 by plain KD under strategy A2 (300 epochs), on ImageNet.

The authors' ResNet-50 has 83.08 after a longer training than this (arXiv 2305.15781; Hao840/vanillaKD). Both terms have weight 1
there, and the task loss is the mean over the classes, which mmpretrain's is the sum over.

bash tools/dist_train.sh configs/distillers/recipes/beitv2-b_distill_res50_a2_img.py 8
"""

_base_ = ['mmpretrain::resnet/resnet50_8xb256-rsb-a2-300e_in1k.py']
from mmcls_kd.configs import network_cfg, offer, zoo_weights

custom_imports = dict(imports=['mmcls_kd'], allow_failed_imports=False)
randomness = dict(seed=0, diff_rank_seed=True)
student = network_cfg('mmpretrain::resnet/resnet50_8xb256-rsb-a2-300e_in1k.py')
student.head.loss.loss_weight = 2 / 1000  # KD halves the task loss; a thousand classes
model = dict(
    _delete_=True,
    type='ClassificationDistiller',
    teacher_cfg='mmpretrain::beitv2/benchmarks/beit-base-p16_8xb64_in1k.py',
    teacher_pretrained=zoo_weights('beit-base-p16_beitv2-in21k-pre_3rdparty_in1k'),
    student_cfg=student,
    distill_cfg=offer(dict(kd=dict(type='KDLoss', temp=1.0, alpha=0.5, loss_weight=2.0)), ['kd']),
)
