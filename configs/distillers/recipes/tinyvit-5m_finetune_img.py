"""TinyViT's fast distillation, second stage: the student of the first one is fine-tuned on ImageNet for 30 epochs, without a teacher.

beitv2-l_distill_tinyvit-5m_in22k.py says more. The authors also shrink the learning rate by 0.8 a layer, and keep the statistics of
the batch norms; mmpretrain's TinyViT offers neither.

python pth_transfer.py --dis_path work_dirs/beitv2-l_distill_tinyvit-5m_in22k/epoch_90.pth --output_path tinyvit-5m_in22k.pth
bash tools/dist_train.sh configs/distillers/recipes/tinyvit-5m_finetune_img.py 8
"""

_base_ = [
    'mmpretrain::_base_/models/tinyvit/tinyvit-5m.py',
    'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py',
    'mmpretrain::_base_/schedules/imagenet_bs1024_adamw_swin.py',
    'mmpretrain::_base_/default_runtime.py',
]

randomness = dict(seed=0, diff_rank_seed=True)
model = dict(
    backbone=dict(init_cfg=dict(_delete_=True, type='Pretrained', checkpoint='tinyvit-5m_in22k.pth', prefix='backbone.'))
)
train_dataloader = dict(batch_size=128)  # of 8 processes
optim_wrapper = dict(optimizer=dict(lr=5e-4, weight_decay=1e-8))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, begin=0, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', begin=5, T_max=25, end=30, eta_min=1e-5, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=30)
