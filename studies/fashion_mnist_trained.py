"""Every method on Fashion-MNIST, trained: two pairs, five seeds, eight epochs of all 60,000 images.

python tools/study.py studies/fashion_mnist_trained.py
"""

title = 'Fashion-MNIST, trained'
report = '../docs/results_trained.md'
compared_with = 'fashion_mnist.py'
seeds = [0, 1, 2, 3, 4]

# the budget of every run: eight epochs of all images in batches of 128, the learning rate of the student's own config
options = [
    'train_cfg.max_epochs=8',
    'train_cfg.val_interval=4',
    'param_scheduler.total_steps=3752',
]
shared_teacher = 'maps'  # one stored teacher a seed for methods on logits or vectors, others for those on maps (to 25 GB)
_settings = dict(crd=dict(nce_k=1024))  # the authors' 16,384 among 50,000 images would take hours here

pairs = dict(
    cnn=dict(
        title='ResNet-18 teaches a ResNet-18 of a quarter of its width',
        student='configs/fashion_mnist/resnet18-w4_3e.py',
        distillers=[
            'configs/distillers/fashion_mnist/res18-w16_distill_res18-w4_fmnist.py',
            'configs/distillers/fashion_mnist/res18-w4_sd_fmnist.py',
            'configs/distillers/fashion_mnist/res18-w16_distill_res18-w4_two-views_fmnist.py',
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
        # after eight epochs the teacher would be no more than 1.3 points better than a student of as many
        teacher='configs/fashion_mnist/vit_teacher_40e.pth',
        settings=_settings,
        rows={'vitkd+nkd': dict(methods=['vitkd', 'nkd'])},
    ),
)
