"""Every method on Fashion-MNIST: two pairs, five seeds, one budget.

python tools/study.py studies/fashion_mnist.py
"""

title = 'Fashion-MNIST'
report = '../docs/results.md'
seeds = [0, 1, 2, 3, 4]

# the budget of every run: three epochs of 6,000 of the 60,000 training images, in batches of 64
options = [
    'train_dataloader.dataset.indices=6000',
    'train_dataloader.batch_size=64',
    'train_cfg.max_epochs=3',
    'param_scheduler.total_steps=282',
]
_settings = dict(
    crd=dict(nce_k=1024),  # the authors' 16,384 among 50,000 images would take hours here
    ft=dict(paraphraser_steps=70),  # a quarter of the training; with 1,000, the student would learn nothing from it
)
pairs = dict(
    cnn=dict(
        title='ResNet-18 teaches a ResNet-18 of a quarter of its width',
        student='configs/fashion_mnist/resnet18-w4_3e.py',
        distillers=[
            'configs/distillers/fashion_mnist/res18-w16_distill_res18-w4_fmnist.py',
            'configs/distillers/fashion_mnist/res18-w4_sd_fmnist.py',
        ],
        settings=_settings,
    ),
    vit=dict(
        title='A vision transformer teaches one of half its width',
        student='configs/fashion_mnist/vit-d32_3e.py',
        distillers=[
            'configs/distillers/fashion_mnist/vit-d64_distill_vit-d32_fmnist.py',
            'configs/distillers/fashion_mnist/vit-d32_sd_fmnist.py',
        ],
        settings=_settings,
        rows={'vitkd+nkd': dict(methods=['vitkd', 'nkd'])},
    ),
)

ablations = dict(
    teacher_mode=dict(
        title='teacher in train mode',
        pair='cnn',
        against='nkd',
        rows={'nkd-teacher-train': dict(methods=['nkd'], options=['model.teacher_mode=train'])},
    ),
    rank_by=dict(
        title='USKD ranks as the released code',
        pair='cnn',
        against='uskd',
        rows={'uskd-rank-log_prob': dict(methods=['uskd'], settings=dict(uskd=dict(rank_by='log_prob')))},
    ),
    teacher_store=dict(
        title='stored teacher',
        pair='cnn',
        against='nkd',
        rows={'nkd-stored': dict(methods=['nkd'], stored=True)},
    ),
)

# for each method, with the first pair that offers it, two further weights; the best of the three is chosen by images of
# the training set that no run trains on
sweep = dict(
    factors=[1 / 3, 1, 3],
    options=[f'test_dataloader.dataset.{setting}' for setting in ('split=train', 'test_mode=False', 'indices=-10000')],
)
