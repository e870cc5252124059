"""Runs the toolbox's programs on small data."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from mmcls_kd.configs import TOOLBOX

STUDENT = 'configs/fashion_mnist/resnet18-w4_3e.py'
DISTILLER = 'configs/distillers/fashion_mnist/res18-w16_distill_res18-w4_fmnist.py'


def run(*command, cwd=TOOLBOX, check=True, env=None):
    """Run a Python program of the toolbox (or a shell script); returns the finished process with its output."""
    words = [str(word) for word in command]
    program = ['bash'] if words[0].endswith('.sh') else [sys.executable, '-W', 'ignore']
    env = dict(os.environ if env is None else env)
    env['PATH'] = f'{Path(sys.executable).parent}{os.pathsep}{env["PATH"]}'  # the scripts call `python`
    done = subprocess.run([*program, *words], cwd=cwd, capture_output=True, text=True, env=env)
    done.output = done.stdout + done.stderr
    if check and done.returncode:
        raise AssertionError(f'{words} ended with {done.returncode}:\n{done.output[-3000:]}')
    return done


def tool(name):
    """A tool's main function, for a test that runs it in its own process."""
    spec = importlib.util.spec_from_file_location(f'{name}_tool', TOOLBOX / 'tools' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def data_options(root):
    """Options that put every dataloader onto a folder, with small batches and one epoch."""
    loaders = ('train_dataloader', 'val_dataloader', 'test_dataloader')
    return [
        *(f'{loader}.dataset.data_root={root}' for loader in loaders),
        'train_dataloader.batch_size=32',
        'val_dataloader.batch_size=50',
        'test_dataloader.batch_size=50',
        'train_cfg.max_epochs=1',
        'default_hooks.logger.interval=2',
    ]


def accuracy(text):
    """The last validation or test accuracy in a log."""
    return float(re.findall(r'accuracy/top1: ([\d.]+)', text)[-1])


def metrics(path):
    return json.loads(path.read_text())
