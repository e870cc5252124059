"""ResNet-18 on CIFAR-100: under a ResNet-34, and by itself. The configs' own protocol, 200 epochs at a batch of 128.

The teacher comes first, a run of one's own:

python tools/train.py configs/resnet/resnet34_8xb16_cifar100.py --cfg-options train_dataloader.batch_size=128
python tools/study.py studies/cifar100.py --gpus 1
"""

title = 'CIFAR-100'
report = '../docs/published.md'
seeds = [0, 1, 2]

# Ours: half a point is twice the deviation of a published single run from our mean of three, if single runs have a standard
# deviation of 0.2, 2 × 0.2 × √(1 + 1/3). That 0.2 is assumed; our own seeds will show it.
_tolerance = 0.5

pairs = dict(
    resnet18=dict(
        title='ResNet-34 teaches ResNet-18',
        student='configs/resnet/resnet18_8xb16_cifar100.py',
        distillers=[
            'configs/distillers/cifar100/res34_distill_res18_cifar.py',
            'configs/distillers/cifar100/res18_sd_cifar.py',
        ],
        teacher='work_dirs/resnet34_8xb16_cifar100/epoch_200.pth',
        methods=['srrl', 'mgd', 'wsld', 'dkd', 'kd', 'nkd', 'uskd', 'tfnkd'],  # those of the original toolbox
        published=dict(uskd=dict(top1=79.90, tolerance=_tolerance, source="cls_KD, its authors' training log")),
    ),
)
