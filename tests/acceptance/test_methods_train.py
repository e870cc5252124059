"""Every method that the configs offer trains on a slice of Fashion-MNIST, under autocast and on two processes too."""

import re
from statistics import fmean

import pytest
import stores
import torch
from commands import DISTILLER
from mmengine.config import Config

from mmcls_kd.files.checkpoint import read_checkpoint
from mmcls_kd.files.paths import TOOLBOX
from mmcls_kd.recipe.methods import method_name

pytestmark = pytest.mark.filterwarnings('ignore')

TWO_VIEWS = 'configs/distillers/fashion_mnist/res18-w16_distill_res18-w4_two-views_fmnist.py'
SELF = 'configs/distillers/fashion_mnist/res18-w4_sd_fmnist.py'
CONFIG = """
_base_ = '{base}'
methods = {methods}
train_dataloader = dict(batch_size={batch}, dataset=dict(data_root='{data}', indices={images}))
val_cfg, val_dataloader, val_evaluator = None, None, None
train_cfg = dict(max_epochs={epochs})
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(max_keep_ckpts=2))
randomness = dict(_delete_=True, seed=0)
model = dict(distill_cfg={entries})
"""
SLICE = dict(images=1024, batch=32, epochs=2)
#: CRD's loss rises until it has seen each image a few times; and its authors draw more negatives than there are images.
OF_CRD = dict(images=256, batch=16, epochs=6)
#: And FT's first phase is left out, as warm-ups of 20 epochs are.
ENTRIES = dict(
    crd=dict(nce_k=64), ft=dict(paraphraser_steps=0), normdkd=dict(loss_weight=1.0), luminet=dict(loss_weight=0.5)
)


def offered(config):
    return {method_name(entry['methods'][0]): config for entry in Config.fromfile(TOOLBOX / config).model.distill_cfg}


METHODS = offered(SELF) | offered(DISTILLER) | offered(TWO_VIEWS)
#: What trains together on two processes: SimKD's and CRD's losses need the run for themselves.
TOGETHER = {
    'without a teacher': ['uskd', 'tfnkd'],
    'logits': ['wsld', 'dkd', 'kd', 'nkd', 'dist', 'lskd', 'ttm', 'wttm', 'ctkd', 'ofa_logit', 'wkd_logit'],
    'later logits': ['normkd', 'normdkd', 'rld', 'abkd', 'luminet'],
    'projections': ['srd', 'srd_correlation', 'pefd', 'vkd'],
    'features': ['srrl', 'mgd', 'ofa', 'rkd', 'pkt', 'cc', 'at', 'sp', 'nst', 'vid', 'fitnet', 'wkd_feature', 'reviewkd'],
    'two views': ['mlkd', 'crld'],
    'classifiers': ['catkd', 'sdd'],
    'later features': ['scalekd', 'ickd', 'semckd', 'afd', 'ft', 'norm'],
    'simkd': ['simkd'],
    'crd': ['crd'],
}


def of(methods):
    """How many images in batches of how many, and how many epochs, some methods are trained with."""
    return OF_CRD if methods == ['crd'] else SLICE


@pytest.fixture
def config(fashion, tmp_path):
    """Writes the config of some methods, for a number of processes."""

    def write(methods, processes=1, **settings):
        base = TOOLBOX / METHODS[methods[0]]
        entries = [group.to_dict() for group in Config.fromfile(base).model.distill_cfg]
        for group in entries:
            group['methods'][0].update(ENTRIES.get(method_name(group['methods'][0]), {}))
        settings = {**of(methods), **settings}
        settings['batch'] //= processes
        path = tmp_path / 'config.py'
        path.write_text(CONFIG.format(base=base, methods=methods, data=fashion, entries=entries, **settings))
        return path

    return write


def logged(log, name, epochs):
    """What was logged under a name, epoch by epoch."""
    found = re.findall(rf'Epoch\(train\) +\[(\d)\].* {name}: (-?[\d.]+)', log)
    return [[float(value) for epoch, value in found if epoch == str(number + 1)] for number in range(epochs)]


def assert_fall(log, methods):
    """The loss of each is lower in the last epoch than in the first."""
    plan = of(methods)
    for method in methods:
        epochs = logged(log, f'loss_{method}', plan['epochs'])
        assert {len(values) for values in epochs} == {plan['images'] // plan['batch']}
        assert fmean(epochs[-1]) < fmean(epochs[0]), method


def test_each_method_is_in_one_group():
    assert sorted(method for group in TOGETHER.values() for method in group) == sorted(METHODS)


@pytest.mark.slow
@pytest.mark.parametrize('method', METHODS)
def test_its_loss_falls(method, config, tmp_path):
    assert_fall(stores.run('train', config([method]), tmp_path / 'work'), [method])


@pytest.mark.slow
@pytest.mark.parametrize('group', TOGETHER)
def test_losses_fall_on_two_processes_under_autocast(group, config, tmp_path):
    methods = TOGETHER[group]
    assert_fall(stores.run_both('train', config(methods, 2), tmp_path / 'work', '--amp'), methods)


@pytest.mark.acceptance
@pytest.mark.parametrize('method', METHODS)
def test_its_loss_falls_on_two_processes_under_autocast(method, config, tmp_path):
    assert_fall(stores.run_both('train', config([method], 2), tmp_path / 'work', '--amp'), [method])


@pytest.mark.slow
def test_what_crd_remembers_is_the_same_after_a_resumed_run(config, tmp_path):
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    stores.run('train', config(['crd'], epochs=2), whole)
    stores.run('train', config(['crd'], epochs=2), parts, '--resume', whole / 'epoch_1.pth')
    first, second = (read_checkpoint(folder / 'epoch_2.pth')['state_dict'] for folder in (whole, parts))
    memories = [key for key in first if key.startswith('distill_losses.loss_crd.memory')]
    assert len(memories) == 2
    start = read_checkpoint(whole / 'epoch_1.pth')['state_dict']
    for key in memories:
        assert torch.equal(first[key], second[key])
        assert not torch.equal(first[key], start[key])
