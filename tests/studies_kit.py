"""Small studies, and raw results that never ran, for the tests of studies."""

import random

from mmcls_kd.study.plan import Planner
from mmcls_kd.study.study_file import read_study

FILE = """
title = 'Small'
report = '../results.md'
seeds = [0, 1, 2]
options = ['train_cfg.max_epochs=2']
pairs = dict(
    cnn=dict(
        title='Small teaches smaller',
        student='configs/fashion_mnist/resnet18-w4_3e.py',
        distillers=[
            'configs/distillers/fashion_mnist/res18-w16_distill_res18-w4_fmnist.py',
            'configs/distillers/fashion_mnist/res18-w4_sd_fmnist.py',
        ],
        settings=dict(mgd=dict(alpha_mgd=0.5)),
        rows={'kd+nkd': dict(methods=['kd', 'nkd'])},
    ),
)
ablations = dict(
    mode=dict(
        title='Mode', pair='cnn', against='nkd',
        rows={'nkd-train': dict(methods=['nkd'], options=['model.teacher_mode=train'])},
    ),
)
sweep = dict(factors=[1 / 3, 1, 3], seed=1, options=['test_dataloader.dataset.split=train'])
"""
DOCUMENT = """# Results

What a person wrote.

<!-- study small: summary -->
<!-- end -->

<!-- study small: cnn -->
<!-- end -->

Between.

<!-- study small: cnn weights -->
<!-- end -->

<!-- study small: mode -->
<!-- end -->
"""


def write_study(folder, text=FILE, name='small'):
    """A study file in a folder of its own; returns its path."""
    path = folder / 'studies' / f'{name}.py'
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def small_study(folder, text=FILE):
    """The study of such a file, and its planner."""
    study = read_study(write_study(folder, text))
    return study, Planner(study)


def lost(record):
    """The result as if the training had diverged."""
    nothing = dict(last=None, best=None, best_epoch=None, held_out_accuracy=None, curve=[])
    return {**record, **nothing, 'diverged': 'loss_kd became NaN or infinite in epoch 1, iteration 7'}


def made_up(run):
    """A result of a run: a number that its key decides."""
    drawn = random.Random(run.key)
    last = round(80 + 3 * (run.row != 'baseline') + drawn.gauss(0, 0.5), 2)
    keys = ('kind', 'pair', 'row', 'seed', 'methods', 'changed', 'factor', 'held_out')
    known = {key: getattr(run, key) for key in keys}
    curve = [last - 1, last]
    held_out = round(last + drawn.gauss(0, 0.5), 2) if run.held_out else None
    told = dict(last=last, best=last, best_epoch=2, curve=curve, held_out_accuracy=held_out, diverged=None, seconds=50.0)
    record = dict(key=run.key, digest=run.digest, **known, **told)
    return {
        **record,
        'methods': list(run.methods),
        'held_out': list(run.held_out),
        'cpu': 'a processor',
        'software': {'torch': '2'},
        'commit': 'abc',
    }
