"""The CIFAR-100 distillation benchmark: 21 pairs, each method, five seeds, with the published numbers beside what comes out.

The teachers come first (docs/cifar100_benchmark.md), into data/cifar_teachers:

python tools/study.py studies/cifar100_benchmark.py --hours
python tools/study.py studies/cifar100_benchmark.py --gpus 1 --only 'resnet32x4-resnet8x4/*'
python tools/study.py studies/cifar100_benchmark.py --gpus 1 --commands jobs.sh --slurm PARTITION
"""

title = 'CIFAR-100 distillation benchmark'
report = '../docs/cifar100_benchmark_results.md'
seeds = [0, 1, 2, 3, 4]

# The tolerances are ours. 0.3 for means of five runs under the same protocol: twice the deviation of a difference of two
# such means, if single runs have a standard deviation of 0.24 (2 × 0.24 × √(2/5)). 0.5 for numbers of other code. 0.05 for
# teachers, whose published weights are tested and not trained.
_same, _other, _tested = 0.3, 0.5, 0.05
_r = dict(source='RepDistiller, README', epoch='last', tolerance=_same)
_m = dict(source='mdistiller, README', epoch='best', tolerance=_other)
_lskd = dict(source='LSKD, README', epoch='best', tolerance=_other)
_norm = dict(source='NORM, README', epoch='unknown', tolerance=_other)
_dist = dict(source='DIST, README', epoch='unknown', tolerance=_other)
_ctkd = dict(source='CTKD, README', epoch='unknown', tolerance=_other)

_names = [
    *('wrn_40_2-wrn_16_2', 'wrn_40_2-wrn_40_1', 'resnet56-resnet20', 'resnet110-resnet20', 'resnet110-resnet32'),
    *('resnet32x4-resnet8x4', 'vgg13-vgg8'),
    *('vgg13-MobileNetV2', 'ResNet50-MobileNetV2', 'ResNet50-vgg8'),
    *('resnet32x4-ShuffleV1', 'resnet32x4-ShuffleV2', 'wrn_40_2-ShuffleV1'),
    *('resnet32x4-wrn_16_2', 'resnet32x4-wrn_40_2', 'wrn_40_2-resnet8x4', 'wrn_40_2-MobileNetV2'),
    *('resnet32x4-vgg8', 'resnet32x4-MobileNetV2', 'wrn_40_2-vgg8', 'ResNet50-ShuffleV1'),
]
_teachers = dict(wrn_40_2=75.61, resnet56=72.34, resnet110=74.31, resnet32x4=79.42, vgg13=74.64, ResNet50=79.34)
_students = dict(wrn_16_2=73.26, wrn_40_1=71.98, resnet20=69.06, resnet32=71.14, resnet8x4=72.50, vgg8=70.36)
_students |= dict(MobileNetV2=64.60, ShuffleV1=70.50, ShuffleV2=71.82)
_ = None

# The first thirteen pairs in the order above: seven of one architecture, six across.
_numbers = [
    ('kd', _r, [74.92, 73.54, 70.66, 70.67, 73.08, 73.33, 72.98, 67.37, 67.35, 73.81, 74.07, 74.45, 74.83]),
    ('fitnet', _r, [73.58, 72.24, 69.21, 68.99, 71.06, 73.50, 71.02, 64.14, 63.16, 70.69, 73.59, 73.54, 73.73]),
    ('at', _r, [74.08, 72.77, 70.55, 70.22, 72.31, 73.44, 71.43, 59.40, 58.58, 71.84, 71.73, 72.73, 73.32]),
    ('sp', _r, [73.83, 72.43, 69.67, 70.04, 72.69, 72.94, 72.68, 66.30, 68.08, 73.34, 73.48, 74.56, 74.52]),
    ('cc', _r, [73.56, 72.21, 69.63, 69.48, 71.48, 72.97, 70.71, 64.86, 65.43, 70.25, 71.14, 71.29, 71.38]),
    ('vid', _r, [74.11, 73.30, 70.38, 70.16, 72.61, 73.09, 71.23, 65.56, 67.57, 70.30, 73.38, 73.40, 73.61]),
    ('rkd', _r, [73.35, 72.22, 69.61, 69.25, 71.82, 71.90, 71.48, 64.52, 64.43, 71.50, 72.28, 73.21, 72.21]),
    ('pkt', _r, [74.54, 73.45, 70.34, 70.25, 72.61, 73.64, 72.88, 67.13, 66.52, 73.01, 74.10, 74.69, 73.89]),
    ('nst', _r, [73.68, 72.24, 69.60, 69.53, 71.96, 73.30, 71.53, 58.16, 64.96, 71.28, 74.12, 74.68, 74.89]),
    ('crd', _r, [75.48, 74.14, 71.16, 71.46, 73.48, 75.51, 73.94, 69.73, 69.11, 74.30, 75.11, 75.65, 76.05]),
    ('srrl', _norm, [_, 74.64, _, _, _, 75.39, _, _, _, _, 75.18, _, _]),
    ('reviewkd', _norm, [76.12, 75.09, 71.89, _, 73.89, 75.63, 74.84, 70.37, 69.89, _, 77.45, 77.78, 77.14]),
    ('simkd', _norm, [_, 75.56, _, _, _, 78.08, _, _, _, _, 77.18, _, _]),
    ('dkd', _m, [76.24, 74.81, 71.97, _, 74.11, 76.32, 74.68, 69.71, 70.35, _, 76.45, 77.07, 76.70]),
    ('dist', _dist, [_, 74.43, 71.75, _, _, 76.31, _, _, 68.66, _, 76.34, 77.35, _]),
    ('ctkd', _ctkd, [75.45, 73.93, 71.19, 70.99, 73.52, _, 73.52, _, _, _, _, _, _]),
    ('lskd', _lskd, [76.11, 74.37, 71.43, 71.48, 74.17, 76.62, 74.36, 68.61, 69.02, _, _, 75.56, _]),
]
# Where one source is silent and another is not.
_others = {
    'resnet110-resnet20': dict(dkd=(71.06, _lskd)),
    'resnet32x4-resnet8x4': dict(ctkd=(73.39, _lskd)),
    'vgg13-MobileNetV2': dict(ctkd=(68.50, _lskd)),
    'ResNet50-MobileNetV2': dict(ctkd=(68.67, _lskd)),
    'resnet32x4-ShuffleV2': dict(ctkd=(75.37, _lskd)),
    'resnet32x4-wrn_16_2': dict(kd=(74.90, _lskd), lskd=(75.26, _lskd), dkd=(75.70, _lskd)),
    'resnet32x4-wrn_40_2': dict(kd=(77.70, _lskd), lskd=(77.92, _lskd), dkd=(78.46, _lskd)),
    'wrn_40_2-resnet8x4': dict(kd=(73.97, _lskd), lskd=(77.11, _lskd), dkd=(75.56, _lskd)),
    'wrn_40_2-MobileNetV2': dict(kd=(68.36, _lskd), lskd=(69.23, _lskd), dkd=(69.28, _lskd)),
}
# Networks with different numbers of stages, which ReviewKD does not compare.
_unequal = {
    *('resnet32x4-vgg8', 'resnet32x4-MobileNetV2', 'wrn_40_2-vgg8', 'wrn_40_2-MobileNetV2', 'ResNet50-ShuffleV1'),
}


def published(name, place, teacher, student):
    """Return the published numbers of a pair by row."""
    found = {'teacher': dict(_r, top1=_teachers[teacher], tolerance=_tested)}
    if student in _students:
        found['baseline'] = dict(_r, top1=_students[student])
    for method, source, values in _numbers:
        if place < len(values) and values[place]:
            found[method] = dict(source, top1=values[place])
    return found | {method: dict(source, top1=top1) for method, (top1, source) in _others.get(name, {}).items()}


def pair(place, name):
    """Return a pair of the study."""
    teacher, student = name.split('-')
    return dict(
        title=f'{teacher} teaches {student}',
        student=f'configs/cifar100_benchmark/{student}.py',
        distillers=[f'configs/distillers/cifar100_benchmark/{teacher}_distill_{student}.py'],
        teacher=f'data/cifar_teachers/{teacher}_vanilla/ckpt_epoch_240.pth',
        methods=[method for method, *_ in _numbers if method != 'reviewkd' or name not in _unequal],
        published=published(name, place, teacher, student),
    )


pairs = {name: pair(place, name) for place, name in enumerate(_names)}
