"""TinyViT's fast distillation, first stage: stored logits of a large transformer teach TinyViT-5M on ImageNet-22k, 90 epochs.

The second stage is tinyvit-5m_finetune_img.py. Top-1 by the authors: alone 79.1, after both stages 80.7 (arXiv 2207.10666;
microsoft/Cream). Their teacher, CLIP ViT-L/14 fine-tuned on ImageNet-22k, is in no library; BEiTv2-Large is, with the same classes.
Like theirs, the store has the 100 largest logits of each view; the rest of the probability is spread over the other classes.

python -m mmcls_kd store configs/distillers/recipes/beitv2-l_distill_tinyvit-5m_in22k.py --epochs 90 --store logits_in22k --top-k 100
bash tools/dist_train.sh configs/distillers/recipes/beitv2-l_distill_tinyvit-5m_in22k.py 8 --cfg-options model.teacher_store=logits_in22k
"""

_base_ = [
    'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py',
    'mmpretrain::_base_/schedules/imagenet_bs1024_adamw_swin.py',
    'mmpretrain::_base_/default_runtime.py',
]
from mmcls_kd.configs import network_cfg, offer

custom_imports = dict(imports=['mmcls_kd'], allow_failed_imports=False)
randomness = dict(seed=0, diff_rank_seed=True)
data_preprocessor = dict(num_classes=21841)
student = network_cfg('mmpretrain::tinyvit/tinyvit-5m_8xb256_in1k.py')
student.head.num_classes = 21841
model = dict(
    type='ClassificationDistiller',
    teacher_cfg='timm:beitv2_large_patch16_224.in1k_ft_in22k',
    teacher_pretrained=True,
    student_cfg=student,
    distill_cfg=offer(dict(kd=dict(type='KDLoss', temp=1.0, alpha=1.0, divergence=True)), ['kd']),
)
train_dataloader = dict(
    batch_size=512,  # of 8 processes
    dataset=dict(
        _delete_=True,
        type='CustomDataset',
        data_root='data/imagenet22k',
        data_prefix='train',
        pipeline=_base_.train_pipeline,
    ),
)
optim_wrapper = dict(optimizer=dict(lr=2e-3, weight_decay=0.01))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, begin=0, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', begin=5, T_max=85, end=90, eta_min=1e-5, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=90)
val_dataloader = None
val_cfg = None
val_evaluator = None
test_dataloader = None
test_cfg = None
test_evaluator = None
auto_scale_lr = dict(base_batch_size=4096)
