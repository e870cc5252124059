"""The CIFAR-100 benchmark's protocol, shortened, on CIFAR-shaped real images: resnet14 teaches resnet8, five seeds.

python tools/study.py studies/fashion_mnist_32.py
"""

title = 'Fashion-MNIST in the shape of CIFAR'
report = '../docs/cifar100_benchmark.md'
seeds = [0, 1, 2, 3, 4]
pairs = dict(
    resnet8=dict(
        title='resnet14 teaches resnet8',
        student='configs/fashion_mnist_32/resnet8.py',
        distillers=[
            'configs/distillers/fashion_mnist_32/resnet14_distill_resnet8.py',
            'configs/distillers/fashion_mnist_32/resnet14_distill_resnet8_two-views.py',
        ],
        methods=['kd', 'dkd', 'crd', 'srd', 'mlkd'],
    ),
)
