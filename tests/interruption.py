"""Trains in child processes that are killed, and compares what a run left with what an undisturbed one left."""

import contextlib
import json
import os
import signal
import time
from pathlib import Path

import torch
from commands import DISTILLER, become
from processes import free_port

from mmcls_kd.engine.checkpoint_hook import AtomicBackend
from mmcls_kd.files.checkpoint import read_checkpoint
from mmcls_kd.files.paths import TOOLBOX

ITERATIONS, EPOCHS = 4, 3  # 128 images in batches of 32, in all processes together

CONFIG = """
_base_ = '{base}'
methods = ['nkd', 'mgd']
custom_hooks = [dict(type='EMAHook', momentum=0.1)]
model = dict(train_cfg=dict(augments=dict(type='Mixup', alpha=0.8)))
train_dataloader = dict(
    num_workers={workers}, batch_size={batch_size}, dataset=dict(data_root='{data}', indices=128))
val_dataloader = dict(batch_size=25, dataset=dict(data_root='{data}', indices=50))
train_cfg = {train_cfg}
default_hooks = dict(checkpoint=dict({checkpoint}, max_keep_ckpts=2), logger=dict(interval=1))
log_processor = dict(by_epoch={by_epoch})
randomness = dict(_delete_=True, seed=7)
"""
LOOPS = {
    'epochs': ('dict(max_epochs=3)', 'interval=1'),
    'epochs, saved every 3 iterations': ('dict(max_epochs=3)', 'interval=3, by_epoch=False'),
    'iterations': (
        'dict(_delete_=True, by_epoch=False, max_iters=12, val_interval=4)',
        'interval=3, by_epoch=False',
    ),
}


def write_config(path, data, loop='epochs', workers=0, processes=1):
    """A distiller's config with every source of randomness: flips and crops, mixup, masks; EMA and validation too."""
    train_cfg, checkpoint = LOOPS[loop]
    settings = dict(workers=workers, batch_size=32 // processes, data=data, train_cfg=train_cfg, checkpoint=checkpoint)
    settings['by_epoch'] = 'by_epoch' not in train_cfg
    path.write_text(CONFIG.format(base=TOOLBOX / DISTILLER, **settings))
    return path


def fork(arguments, log, environment, before=None, tool='tools/train.py'):
    """Start a tool in a child process, without importing everything again; returns the process's id.

    This process must not have used torch's threads.

    Args:
        arguments: Its command line.
        log: The file for its output.
        environment: Changes to the environment.
        before: Called in the child first.
        tool: The program.
    """
    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(BaseException):
            os.setpgid(0, 0)
            if before:
                before()
            os.environ.update(environment)
            with log.open('a') as file:
                code = become([TOOLBOX / tool, *arguments], file, file)
        os._exit(code)
    return child


class Run:
    """A training in one or more child processes.

    The children are forked, see :func:`fork`.

    Args:
        config: The config file.
        work_dir: The work directory; the output is in ``NAME.log`` beside it.
        arguments: More of the command line.
        processes: How many.
        before: Called in each child first.
    """

    def __init__(self, config, work_dir, *arguments, processes=1, before=None):
        self.log = work_dir.with_suffix('.log')
        self.start = self.log.stat().st_size if self.log.exists() else 0
        arguments = [config, '--work-dir', work_dir, *arguments]
        shared = dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(free_port()), WORLD_SIZE=str(processes))
        if processes > 1:
            arguments += ['--launcher', 'pytorch']
        self.children = []
        for rank in range(processes):
            environment = {**shared, 'RANK': str(rank), 'LOCAL_RANK': str(rank)} if processes > 1 else {}
            self.children.append(fork(arguments, self.log, environment, before))

    def output(self):
        """What this run printed."""
        return self.log.read_text()[self.start :] if self.log.exists() else ''

    def wait_for(self, text, count=1, seconds=120):
        """Wait until the output has a text so often; False if the run ended or the time went by without it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.output().count(text) >= count:
                return True
            if os.waitid(os.P_PID, self.children[0], os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return self.output().count(text) >= count
            time.sleep(0.01)
        return False

    def send(self, number, rank=None):
        """Send a signal to all processes, or to that of one rank; SIGKILL also takes their data workers."""
        for child in self.children if rank is None else [self.children[rank]]:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, number) if number == signal.SIGKILL else os.kill(child, number)

    def wait(self):
        """Wait for the end; the exit code of each process, negative for a signal."""
        return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in self.children]


def die_while_writing(name, share=0.5):
    """Makes a child kill itself in the middle of writing a checkpoint of this name; for ``before``."""

    def prepare():
        put = AtomicBackend.put

        def half(self, obj, filepath):
            if Path(filepath).name == name:
                unfinished = Path(filepath).with_name(f'.{name}.{os.getpid()}.unfinished')
                unfinished.write_bytes(obj[: int(len(obj) * share)])
                os.kill(os.getpid(), signal.SIGKILL)
            put(self, obj, filepath)

        AtomicBackend.put = half

    return prepare


def logged(work_dir):
    """Everything that the runs in a work directory logged but times, by step: losses, learning rates, metrics."""
    found = {}
    for path in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for line in path.read_text().splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:  # the last line of a run that was killed
                continue
            kind = 'validation' if 'accuracy/top1' in entry else 'training'
            values = {k: v for k, v in entry.items() if k not in ('time', 'data_time', 'memory')}
            before = found.setdefault((kind, entry['step']), values)
            assert before == values, f'{kind} {entry["step"]} was logged twice, and otherwise: {before} and {values}'
    return found


def last(work_dir):
    """The last checkpoint of a run."""
    return read_checkpoint((work_dir / 'last_checkpoint').read_text())


def assert_equal(a, b, name=''):
    """Two pieces of checkpoints are equal, to the last bit."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), f'{name} differs by up to {(a.double() - b.double()).abs().max()}'
    elif isinstance(a, dict):
        assert list(a) == list(b), name
        for key in a:
            assert_equal(a[key], b[key], f'{name}.{key}')
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), name
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f'{name}[{i}]')
    else:
        assert a == b, name


def assert_same_run(disturbed, undisturbed):
    """Weights, moving average, optimizer, schedules and all that was logged are equal."""
    a, b = last(disturbed), last(undisturbed)
    for part in ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers'):
        assert_equal(a[part], b[part], part)
    assert (a['meta']['epoch'], a['meta']['iter']) == (b['meta']['epoch'], b['meta']['iter'])
    assert logged(disturbed) == logged(undisturbed)
