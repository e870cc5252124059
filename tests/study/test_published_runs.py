"""The studies of the published protocol, a few iterations of each pair on stand-in images in the layout of the real ones.

The protocol is the study files' own but for batch, epochs and number of images. Of each family the smallest student runs;
the others (DeiT-Small and -Base, ResNet-50 and -101, MobileNetV2, RegNet) are planned by test_committed_results.py, and
test_manuals.py trains their configs.
"""

import os
import re
import sys

import folders
import pytest
import torch
from commands import run, tool
from mmpretrain.registry import MODELS
from studies_kit import FILE, write_study

from mmcls_kd.backbones.cifar_benchmark import build
from mmcls_kd.files.paths import TOOLBOX
from mmcls_kd.networks.sources import network_cfg
from mmcls_kd.study.records import read_records

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings('ignore')]

SHORT = """
_base_ = '{study}'
report = '../published.md'
options = [
    'train_dataloader.batch_size=2', 'train_dataloader.dataset.indices=4', 'train_cfg.max_epochs=1',
    *(f'{{loader}}.num_workers=0' for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader')),
    *(f'{{loader}}.dataset.indices=2' for loader in ('val_dataloader', 'test_dataloader')),
]
pairs = dict({pairs})
"""
#: The warm-up of these alone is longer than a few iterations.
SCHEDULED = ('deit_t', 'shufflenetv2', 'swin_t')
TEACHERS = {
    'resnet18': 'configs/resnet/resnet34_8xb32_in1k.py',
    'deit_t': 'configs/deit3/deit3-small-p16_64xb64_in1k.py',
}
IMAGENET = [
    'resnet18/teacher/seed0',
    'resnet18/nkd-teacher-train/seed0',
    'mobilenetv1/uskd-log_prob/seed0',
    'deit_t/vitkd+nkd/seed0',
    'shufflenetv2/tfnkd/seed0',
    'swin_t/uskd/seed0',
]

#: The stand-ins have other checksums than the real files.
UNCHECKED = 'from mmpretrain.datasets import CIFAR100\nCIFAR100._check_integrity = lambda self: True\n'


def weights(config, path):
    """A checkpoint of a network as it starts."""
    torch.save(dict(state_dict=MODELS.build(network_cfg(config)).state_dict(), meta={}), path)
    return path


def shortened(folder, name, teachers):
    """A study file of the toolbox, made short, with these teachers."""
    settings = {pair: dict(teacher=str(path)) for pair, path in teachers.items()}
    for pair in SCHEDULED if name == 'imagenet' else ():
        settings.setdefault(pair, {})['options'] = ['param_scheduler=None']
    pairs = ', '.join(f'{pair}={said!r}' for pair, said in settings.items())
    return write_study(folder, SHORT.format(study=TOOLBOX / 'studies' / f'{name}.py', pairs=pairs), name)


def study(monkeypatch, *words):
    """Call the tool in this process; its steps have processes of their own."""
    monkeypatch.setattr(sys, 'argv', [str(TOOLBOX / 'tools/study.py'), *map(str, words)])
    assert not tool('study')()


def found(folder, name):
    return {record['key']: record for record in read_records(folder / f'studies/results/{name}.jsonl')}


def test_cifar100(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('PYTHONPATH', str(tmp_path), prepend=os.pathsep)
    (tmp_path / 'sitecustomize.py').write_text(UNCHECKED)
    teacher = weights('configs/resnet/resnet34_8xb16_cifar100.py', tmp_path / 'teacher.pth')
    path = shortened(tmp_path, 'cifar100', dict(resnet18=teacher))
    data = folders.cifar100(tmp_path / 'images')
    keys = [f'resnet18/{row}/seed0' for row in ('teacher', 'baseline', 'nkd', 'uskd')]
    study(monkeypatch, path, '--jobs', '1', '--data-root', data, '--only', *keys)
    assert set(found(tmp_path, 'cifar100')) == set(keys)
    assert all(len(found(tmp_path, 'cifar100')[key]['curve']) == 1 for key in keys[1:])


def test_cifar100_benchmark(tmp_path, monkeypatch):
    """A published teacher's file is tested and taught with; the training ends with its last and its best epoch."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('PYTHONPATH', str(tmp_path), prepend=os.pathsep)
    (tmp_path / 'sitecustomize.py').write_text(UNCHECKED)
    file = tmp_path / 'ckpt_epoch_240.pth'
    torch.save(dict(epoch=240, model=build('resnet56').state_dict(), accuracy=torch.tensor(72.34), optimizer={}), file)
    text = SHORT.replace('dict({pairs})', '{pairs}').replace('max_epochs=1', 'max_epochs=2')
    short = ['train_cfg.max_epochs=2', 'optim_wrapper.optimizer.lr=0.025']
    pairs = {'resnet56-resnet20': dict(teacher=str(file), rows=dict(mlkd=dict(options=short)))}
    name = 'cifar100_benchmark'
    path = write_study(tmp_path, text.format(study=TOOLBOX / f'studies/{name}.py', pairs=pairs), name)
    keys = [f'resnet56-resnet20/{row}/seed0' for row in ('teacher', 'baseline', 'kd', 'mlkd')]
    data = folders.cifar100(tmp_path / 'images')
    study(monkeypatch, path, '--jobs', '1', '--data-root', data, '--only', *keys)
    results = found(tmp_path, name)
    assert set(results) == set(keys)
    assert all(len(results[key]['curve']) == 2 for key in keys[1:])
    log = next((tmp_path / 'work_dirs').rglob('kd/seed0/train.log')).read_text()
    assert 'best of 2 validations' in log


def test_imagenet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    teachers = {pair: weights(config, tmp_path / f'{pair}.pth') for pair, config in TEACHERS.items()}
    path = shortened(tmp_path, 'imagenet', teachers)
    data = folders.imagenet_classes(tmp_path / 'images')
    study(monkeypatch, path, '--jobs', '1', '--data-root', data, '--only', *IMAGENET)
    assert set(found(tmp_path, 'imagenet')) == set(IMAGENET)


def test_two_devices_as_a_slurm_job(data, tmp_path, monkeypatch):
    """Training and test go through torchrun; ``sbatch`` is a stand-in that does at once what it is told to."""
    write_study(
        tmp_path, FILE.replace("'train_cfg.max_epochs=2'", "'train_cfg.max_epochs=1', 'train_dataloader.batch_size=64'")
    )
    monkeypatch.chdir(tmp_path)
    words = ['studies/small.py', '--gpus', '2', '--data-root', data]
    study(monkeypatch, *words, '--only', 'cnn/kd/seed0', '--commands', 'jobs.sh', '--slurm', 'day')
    sbatch = tmp_path / 'bin' / 'sbatch'
    sbatch.parent.mkdir()
    sbatch.write_text('#!/bin/sh\nfor last; do :; done\nexec sh -c "$last"\n')
    sbatch.chmod(0o755)
    run(tmp_path / 'jobs.sh', env={**os.environ, 'PATH': f'{sbatch.parent}:{os.environ["PATH"]}'}, cwd=tmp_path)
    kept = tmp_path / 'work_dirs/studies/small/cnn/kd/seed0'
    assert re.search(r'Epoch\(train\) +\[1\]\[4/4\]', (kept / 'dist_train.log').read_text())  # 256 images, twice 32 a step
    assert (kept / 'dist_test.log').is_file()
    study(monkeypatch, *words, '--collect')
    (record,) = read_records(tmp_path / 'studies/results/small.jsonl')
    assert record['last'] == record['curve'][-1]
