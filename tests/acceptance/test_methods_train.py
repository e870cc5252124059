"""Every method that the configs offer trains on a slice of Fashion-MNIST, under autocast and on two processes too."""

import re
from statistics import fmean

import pytest
import stores
import torch
from commands import DISTILLER, run
from mmengine.config import Config

from mmcls_kd.checkpoint import read_checkpoint
from mmcls_kd.configs import TOOLBOX, method_name

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings('ignore')]

SELF = 'configs/distillers/fashion_mnist/res18-w4_sd_fmnist.py'
SLICE = (1024, 32)
CONFIG = """
_base_ = '{base}'
methods = ['{method}']
train_dataloader = dict(batch_size={batch}, dataset=dict(data_root='{data}', indices={images}))
val_cfg, val_dataloader, val_evaluator = None, None, None
train_cfg = dict(max_epochs=2)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(max_keep_ckpts=2))
randomness = dict(_delete_=True, seed=0)
model = dict(distill_cfg={entries})
"""
#: CRD's authors draw more negatives than this slice has images; and its loss rises until it has seen each image a few times.
ENTRIES = dict(crd=dict(nce_k=512))
SLICES = dict(crd=(4096, 16))  # images and batch


def offered(config):
    return {method_name(entry['methods'][0]): config for entry in Config.fromfile(TOOLBOX / config).model.distill_cfg}


METHODS = offered(SELF) | offered(DISTILLER)
each_method = pytest.mark.parametrize('method', METHODS)


@pytest.fixture(scope='module')
def fashion(tmp_path_factory):
    """The folder with Fashion-MNIST."""
    folder = tmp_path_factory.mktemp('fashion_mnist')
    run('tools/fetch_fashion_mnist.py', '--root', folder)
    return folder


@pytest.fixture
def config(method, fashion, tmp_path):
    """Writes the config of a method, for a number of processes."""

    def write(processes=1):
        base = TOOLBOX / METHODS[method]
        entries = [group.to_dict() for group in Config.fromfile(base).model.distill_cfg]
        for group in entries:
            group['methods'][0].update(ENTRIES.get(method_name(group['methods'][0]), {}))
        path = tmp_path / f'{method}_{processes}.py'
        images, batch = SLICES.get(method, SLICE)
        settings = dict(base=base, method=method, batch=batch // processes, data=fashion, images=images, entries=entries)
        path.write_text(CONFIG.format(**settings))
        return path

    return write


def logged(log, name):
    """What was logged under a name, epoch by epoch."""
    found = re.findall(rf'Epoch\(train\) +\[(\d)\].* {name}: (-?[\d.]+)', log)
    return [[float(value) for epoch, value in found if epoch == number] for number in '12']


def assert_falls(log, method):
    first, second = logged(log, f'loss_{method}')
    images, batch = SLICES.get(method, SLICE)
    assert len(first) == len(second) == images // batch
    assert fmean(second) < fmean(first)


@each_method
def test_its_loss_falls(method, config, tmp_path):
    assert_falls(stores.run('train', config(), tmp_path / 'work'), method)


@each_method
def test_its_loss_falls_on_two_processes_under_autocast(method, config, tmp_path):
    assert_falls(stores.run_both('train', config(2), tmp_path / 'work', '--amp'), method)


@pytest.mark.parametrize('method', ['crd'])
def test_what_it_remembers_is_the_same_after_a_resumed_run(method, config, tmp_path):
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    stores.run('train', config(), whole)
    stores.run('train', config(), parts, '--resume', whole / 'epoch_1.pth')
    first, second = (read_checkpoint(folder / 'epoch_2.pth')['state_dict'] for folder in (whole, parts))
    memories = [key for key in first if key.startswith('distill_losses.loss_crd.memory')]
    assert len(memories) == 2
    start = read_checkpoint(whole / 'epoch_1.pth')['state_dict']
    for key in memories:
        assert torch.equal(first[key], second[key])
        assert not torch.equal(first[key], start[key])
