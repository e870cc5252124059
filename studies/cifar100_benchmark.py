"""The CIFAR-100 distillation benchmark: 21 pairs, 38 methods in 43 rows, five seeds, and published numbers.

The seventeen methods of _numbers have a row in each pair whose networks they fit; those of _further in the pairs of their
numbers; those of _unpublished in the pairs of their authors' settings.

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
_luminet = dict(source='LumiNet, README', epoch='unknown', tolerance=_other)
_wkd = dict(source='WKD, README, with weights by pair; here ours', epoch='unknown', tolerance=_other)
_sdd = dict(source='SDD, scripts, mean of two runs', epoch='unknown', tolerance=_other)

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
# Rows of the pairs with a number alone, in the same order. AB's of MobileNetV2 are left out (66.06 of vgg13, 67.20 of
# ResNet50): its stages end without a ReLU.
_further = [
    ('ab', _r, [72.50, 72.38, 69.47, 69.53, 70.98, 73.17, 70.94, _, _, 70.65, 73.55, 74.31, 73.34]),
    ('ft', _r, [73.25, 71.59, 69.84, 70.22, 72.37, 72.86, 70.58, 61.78, 60.99, 70.29, 71.75, 72.50, 72.03]),
    ('fsp', _r, [72.91, _, 69.95, 70.11, 71.89, 72.62, 70.23]),
    ('semckd+kd', _norm, [_, 74.41, _, _, _, 76.23, 74.43, _, _, _, _, 77.62, _]),
    ('norm', _norm, [75.65, 74.82, 71.35, 71.55, 73.67, 76.49, 73.95, 68.94, 70.56, 75.17, 77.42, 78.07, 77.06]),
    ('norm+kd', _norm, [76.26, 75.42, 71.61, 72.00, 73.95, 76.98, 74.46, 69.38, 71.17, 75.67, 77.79, 78.32, 77.63]),
    ('luminet', _luminet, [76.38, 75.12, 72.29, _, 74.20, 77.50, 74.94, 70.50, 70.97, _, 76.66, 77.55, 76.95]),
    ('wkd_logit', _wkd, [_, _, _, _, _, 76.53, _, _, _, _, _, _, 76.72]),
    ('wkd_feature', _wkd, [_, _, _, _, _, 76.77, _, _, _, _, _, _, 77.36]),
    ('wkd_logit+wkd_feature', _wkd, [_, _, _, _, _, 77.28, _, _, _, _, _, _, 77.50]),
    ('sdd', _sdd, [_, _, _, _, _, _, 74.40, 70.32, 71.51, 75.65, 77.60, 78.08, 77.11]),
    ('kd+dot', _m, [_, _, _, _, _, 75.12, 73.77, _, _, _, _, 75.55, _]),
    ('dkd+ls', _lskd, [76.39, 74.89, 72.32, 71.85, 74.29, 77.01, 74.81, 69.98, 70.45, _, _, 77.37, _]),
    ('ctkd+ls', _lskd, [76.08, 74.58, 71.34, 71.39, 74.01, 76.67, 74.47, 68.98, 69.36, _, _, 76.18, _]),
    ('mlkd', _lskd, [76.63, 75.35, 72.19, 71.89, 74.11, 77.08, 75.18, 70.57, 71.04, _, _, 78.44, _]),
]
# LSKD's numbers of the four pairs that follow.
_later = {
    'kd': [74.90, 77.70, 73.97, 68.36],
    'dkd': [75.70, 78.46, 75.56, 69.28],
    'ctkd': [74.57, 77.66, 74.61, 68.34],
    'lskd': [75.26, 77.92, 77.11, 69.23],
    'dkd+ls': [76.19, 78.95, 76.75, 70.01],
    'ctkd+ls': [75.16, 77.99, 77.03, 69.53],
    'mlkd': [76.52, 79.26, 77.33, 70.78],
}
# Rows that are more than a method as its config has it: several methods, LSKD's standardised logits with the weights of its
# code, DOT as optimizer, SemCKD beside task and KD of weight 1.
_dot = ['optim_wrapper.type=DOTWrapper', 'optim_wrapper.optimizer.type=DOT', 'optim_wrapper.optimizer.delta=0.075']
_rows = {
    'semckd+kd': dict(methods=['semckd', 'kd'], settings=dict(kd=dict(alpha=1.0, task_weight=1.0))),
    'norm+kd': dict(methods=['norm', 'kd'], settings=dict(norm=dict(task_weight=1.0))),
    'wkd_logit+wkd_feature': dict(methods=['wkd_logit', 'wkd_feature']),
    'kd+dot': dict(methods=['kd'], options=_dot),
    'dkd+ls': dict(methods=['dkd'], settings=dict(dkd=dict(standardize=True, alpha=9.0, beta=81.0))),
    'ctkd+ls': dict(methods=['ctkd'], settings=dict(ctkd=dict(standardize=True, alpha=9.0, task_weight=0.1))),
}
# MLKD's budget in LSKD's configs, epochs and learning rate: of these pairs, and of the others.
_mlkd_of = {
    'vgg13-MobileNetV2': (480, 0.01),
    'ResNet50-MobileNetV2': (480, 0.01),
    'wrn_40_2-MobileNetV2': (480, 0.005),
    'resnet32x4-ShuffleV2': (960, 0.001),
}
_mlkd = (480, 0.025)
# Methods whose authors report on this benchmark: their numbers are not in the sources above, their settings are published.
# They are the same for all pairs (here the first thirteen, CRLD's those of MLKD), or are those of these pairs.
_unpublished = dict.fromkeys(('normkd', 'rld', 'srd', 'ickd', 'pefd', 'afd'), _names[:13])
_unpublished |= dict(
    ofd=[name for name in _names[:13] if not name.endswith('MobileNetV2')],
    catkd=[name for name in _names[:13] if name not in ('resnet110-resnet20', 'ResNet50-vgg8')],
    abkd=['resnet56-resnet20'],
    ttm=['vgg13-vgg8'],
)
# Where one source is silent and another is not.
_others = {
    'resnet110-resnet20': dict(dkd=(71.06, _lskd)),
    'resnet32x4-resnet8x4': dict(ctkd=(73.39, _lskd)),
    'vgg13-MobileNetV2': dict(ctkd=(68.50, _lskd)),
    'ResNet50-MobileNetV2': dict(ctkd=(68.67, _lskd)),
    'resnet32x4-ShuffleV2': dict(ctkd=(75.37, _lskd)),
    'resnet32x4-MobileNetV2': dict(sdd=(70.12, _sdd)),
    'wrn_40_2-vgg8': dict(sdd=(74.79, _sdd)),
    'ResNet50-ShuffleV1': dict(sdd=(78.04, _sdd)),
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
    later = [(row, _lskd, [_] * 13 + values) for row, values in _later.items()]
    for row, source, values in (*_numbers, *_further, *later):
        if place < len(values) and values[place]:
            found[row] = dict(source, top1=values[place])
    return found | {row: dict(source, top1=top1) for row, (top1, source) in _others.get(name, {}).items()}


def mlkd(name):
    """Return MLKD's row: the released code with its budget; the config has the protocol's."""
    epochs, rate = _mlkd_of.get(name, _mlkd)
    options = [f'train_cfg.max_epochs={epochs}', f'optim_wrapper.optimizer.lr={rate}']
    return dict(methods=['mlkd'], settings=dict(mlkd=dict(mask='released')), options=options)


def pair(place, name):
    """Return a pair of the study."""
    teacher, student = name.split('-')
    numbers = published(name, place, teacher, student)
    config = f'configs/distillers/cifar100_benchmark/{teacher}_distill_{student}'
    rows = {row: said for row, said in (*_rows.items(), ('mlkd', mlkd(name))) if row in numbers}
    methods = [method for method, *_ in _numbers if method != 'reviewkd' or name not in _unequal]
    methods += [row for row in numbers if row not in ('teacher', 'baseline', *methods, *rows)]
    methods += [method for method, names in _unpublished.items() if name in names] + ['crld'] * ('mlkd' in rows)
    return dict(
        title=f'{teacher} teaches {student}',
        student=f'configs/cifar100_benchmark/{student}.py',
        distillers=[f'{config}.py', *([f'{config}_two-views.py'] if 'mlkd' in rows else [])],
        teacher=f'data/cifar_teachers/{teacher}_vanilla/ckpt_epoch_240.pth',
        methods=methods,
        rows=rows,
        published=numbers,
    )


pairs = {name: pair(place, name) for place, name in enumerate(_names)}
