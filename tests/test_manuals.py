"""Every command of nkd.md and vitkd.md runs, with options appended that shorten it.

Four images in data/imagenet's layout stand in for ImageNet, random weights for downloaded teachers. As slow tests, one
command of each script runs as written, with two processes for several GPUs; of the others the program that their script
starts runs in this process (tests/engine/test_ddp.py trains each kind of config on two). What trains the largest
networks, and all commands as written, are acceptance tests.
"""

import os
import re
import runpy
import shlex
import sys
from pathlib import Path

import folders
import pytest
from commands import run
from mmpretrain.datasets import CIFAR100
from processes import free_port

from mmcls_kd.command.arguments import training_parser
from mmcls_kd.engine.config import training_config
from mmcls_kd.files.paths import TOOLBOX

pytestmark = pytest.mark.filterwarnings('ignore')

MANUALS = ('nkd.md', 'vitkd.md')
#: Of the same parts as others, but larger; tests/test_configs.py takes a step of each.
LARGER = ('deit-b3_', 'deit-l3_', 'res50_sd', 'res101_sd')
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def commands(manual):
    """The commands in a manual's bash blocks, in order, each once."""
    blocks = re.findall(r'^```bash\n(.*?)^```', (TOOLBOX / manual).read_text(), re.MULTILINE | re.DOTALL)
    lines = '\n'.join(blocks).replace('\\\n', ' ').splitlines()
    return list(dict.fromkeys(' '.join(line.split()) for line in lines if line.strip() and not line.startswith('#')))


def checkpoint_names():
    """Which file each work directory must hold after training, by the commands that use it."""
    text = ' '.join(' '.join(commands(manual)) for manual in MANUALS)
    return dict(re.findall(r'(work_dirs/\S+)/(epoch_\d+\.pth)', text))


def shortening(words):
    """The options that make a command short; they do not change what it does."""
    config = next(word for word in words if 'configs/' in word or word.startswith('mmpretrain::'))
    options = [f'{loader}.{key}' for loader in LOADERS for key in ('batch_size=2', 'num_workers=0')]
    if 'train' in Path(words[1]).name:
        work_dir = words[words.index('--work-dir') + 1] if '--work-dir' in words else f'work_dirs/{Path(config).stem}'
        name = checkpoint_names().get(work_dir, 'epoch_1.pth')
        options += ['train_cfg.max_epochs=1', 'param_scheduler=None', f'default_hooks.checkpoint.filename_tmpl={name}']
        if 'distillers' in config and 'cifar' not in config:
            options.append('model.teacher_pretrained=False')
    return ['--cfg-options', *options]


ALL = [command for manual in MANUALS for command in commands(manual)]
#: One for each script.
SCRIPTS = [next(c for c in ALL if c.startswith(f'bash tools/{script}')) for script in ('dist_train.sh', 'dist_test.sh')]
SHORT = [command for command in ALL if not any(name in command for name in LARGER)]


def checkout(root):
    """Make a folder that looks like a checkout with data in place."""
    for name in ('configs', 'tools', 'mmcls_kd', 'pth_transfer.py'):
        (root / name).symlink_to(TOOLBOX / name)
    folders.imagenet(root / 'data' / 'imagenet', train=4, val=3)
    folders.cifar100(root / 'data' / 'cifar100')
    return root


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """Where the commands run here."""
    return checkout(tmp_path_factory.mktemp('checkout'))


@pytest.fixture(scope='module')
def place_of_scripts(tmp_path_factory):
    """Where they run as written."""
    return checkout(tmp_path_factory.mktemp('checkout'))


def run_script(words, cwd):
    """Run a script that starts two processes."""
    words[next(i for i, word in enumerate(words) if word.isdigit())] = '2'
    env = {**os.environ, 'PORT': str(free_port()), 'CUDA_VISIBLE_DEVICES': '', 'PYTHONWARNINGS': 'ignore'}
    run(*words[1:], *shortening(words), cwd=cwd, env=env)


def run_here(words, cwd, monkeypatch):
    """Run a program, or what a script starts, in this process."""
    if words[0] == 'bash':
        words = ['python', words[1].replace('dist_', '').replace('.sh', '.py'), *(w for w in words[2:] if not w.isdigit())]
    assert words[0] == 'python'
    extra = [] if words[1] == 'pth_transfer.py' else shortening(words)
    monkeypatch.chdir(cwd)
    monkeypatch.setattr(CIFAR100, '_check_integrity', lambda self: True)
    monkeypatch.setattr(sys, 'argv', [*words[1:], *extra])
    runpy.run_path(words[1], run_name='__main__')  # a program that refuses ends with SystemExit and fails the test


@pytest.mark.slow
@pytest.mark.parametrize('command', SHORT, ids=str)
def test_command(command, place, monkeypatch):
    if command in SCRIPTS:
        run_script(shlex.split(command), place)
    else:
        run_here(shlex.split(command), place, monkeypatch)


@pytest.mark.acceptance
@pytest.mark.parametrize('command', ALL, ids=str)
def test_command_as_written(command, place_of_scripts, monkeypatch):
    if command.startswith('bash'):
        run_script(shlex.split(command), place_of_scripts)
    else:
        run_here(shlex.split(command), place_of_scripts, monkeypatch)


@pytest.mark.parametrize('command', [command for command in ALL if 'train' in command and command not in SHORT], ids=str)
def test_what_trains_the_largest_networks_is_understood(command):
    words = shlex.split(command)
    assert Path(TOOLBOX / words[1]).is_file()
    training_config(training_parser('').parse_args([word for word in words[2:] if not word.isdigit()]))


def test_the_manuals_have_commands():
    assert all(len(commands(manual)) > 10 for manual in MANUALS)
    assert len(SHORT) > 30
