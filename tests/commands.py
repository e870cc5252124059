"""Runs the toolbox's programs on small data."""

import contextlib
import importlib.util
import json
import os
import re
import runpy
import subprocess
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope

from mmcls_kd.files.paths import TOOLBOX

STUDENT = 'configs/fashion_mnist/resnet18-w4_3e.py'
DISTILLER = 'configs/distillers/fashion_mnist/res18-w16_distill_res18-w4_fmnist.py'


def become(words, out, err):
    """Turn a forked child into a Python program, its output in open files; returns its exit code.

    It differs from a new interpreter in what is imported already, which takes one five seconds.
    """
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    sys.stdout, sys.stderr = (open(number, 'w', buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
    warnings.simplefilter('ignore')
    for kind in (MMLogger, MessageHub, DefaultScope):  # the parent's, who writes to the parent's output
        kind._instance_dict.clear()
    sys.argv = [str(word) for word in words]
    sys.path[:0] = [
        str(Path(sys.argv[0]).resolve().parent),
        *filter(None, os.environ.get('PYTHONPATH', '').split(os.pathsep)),
    ]
    try:
        runpy.run_path(sys.argv[0], run_name='__main__')
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
            return 1
        return ended.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _run_in_child(words, cwd, env):
    """Run a Python program in a forked child; returns its exit code and what it wrote to output and error output."""
    with tempfile.TemporaryFile('w+') as out, tempfile.TemporaryFile('w+') as err:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', DeprecationWarning)  # a process with threads forks: xdist's wait for messages
            child = os.fork()
        if child == 0:
            code = 1
            with contextlib.suppress(BaseException):
                os.chdir(cwd)
                os.environ.clear()
                os.environ.update(env)
                code = become(words, out, err)
            os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return [code, *(file.seek(0) or file.read() for file in (out, err))]


def run(*command, cwd=TOOLBOX, check=True, env=None):
    """Run a Python program of the toolbox (or a shell script); returns the finished process with its output.

    A program runs in a forked child, see :func:`become`: this process must not have used torch's threads.
    """
    words = [str(word) for word in command]
    env = dict(os.environ if env is None else env)
    env['PATH'] = f'{Path(sys.executable).parent}{os.pathsep}{env["PATH"]}'  # the scripts call `python`
    if words[0].endswith('.sh'):
        done = subprocess.run(['bash', *words], cwd=cwd, capture_output=True, text=True, env=env)
    else:
        done = subprocess.CompletedProcess(words, *_run_in_child(words, cwd, env))
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
