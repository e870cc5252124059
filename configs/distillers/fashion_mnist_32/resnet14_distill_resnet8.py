"""resnet14 teaches resnet8, both of the CIFAR-100 benchmark, on CIFAR-shaped Fashion-MNIST.

python tools/train.py configs/distillers/fashion_mnist_32/resnet14_distill_resnet8.py --methods kd
"""

_base_ = ['../../fashion_mnist_32/resnet8.py', '../../_base_/methods/cifar100_benchmark.py']
from mmcls_kd.configs import offer

own = dict(
    crd=dict(nce_k=1024),  # of 6,400 images
    dkd=dict(loss_weight=dict(value=1.0, warmup=17, by_epoch=False)),  # the same share of the training
    wsld=dict(num_classes=10),
)
network = dict(type='CifarClassifier', num_classes=10)
model = dict(
    _delete_=True,
    type='ClassificationDistiller',
    teacher_cfg=dict(model_name='resnet14', **network),
    teacher_pretrained='configs/fashion_mnist_32/teacher.pth',
    student_cfg=dict(model_name='resnet8', **network),
    distill_cfg=offer(_base_.offered, ['kd'], **own),
)
