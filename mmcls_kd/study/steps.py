"""The steps of a run: each is a tool's own program, in a fresh process forked from one that has everything imported."""

from __future__ import annotations

import json
import os
import resource
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from functools import cache
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from yapf.yapflib import yapf_api

from ..configs import TOOLBOX, loss_class, read_config
from ..teacher_store import writer as _store_teacher  # noqa: F401  the tools import it: so a forked process need not
from ..training import training_parser
from .plan import Run

#: What each step leaves in the run's folder: how long it took.
TIMES = 'times.jsonl'
#: The trained student.
STUDENT = 'student.pth'
#: The tests: of each a folder and a JSON file of its result.
TEST, HELD_OUT = 'test', 'held_out'
#: The scripts that this process has started.
_children: list[subprocess.Popen] = []
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def tool_path(tool: str) -> Path:
    """The program's file; an installed package has all of them in one folder."""
    return next(path for path in (TOOLBOX / tool, TOOLBOX / 'tools' / Path(tool).name) if path.is_file())


def data_options(data_root: str | None) -> list[str]:
    """Options that put every dataloader onto a folder."""
    return [] if data_root is None else [f'{loader}.dataset.data_root={data_root}' for loader in LOADERS]


#: The scripts that run a tool on several devices, and how many arguments stand before the devices' number.
SCRIPTS = {
    'tools/train.py': ('tools/dist_train.sh', 1),
    'tools/store_teacher.py': ('tools/dist_store_teacher.sh', 1),
    'tools/test.py': ('tools/dist_test.sh', 2),
}


def steps_of(run: Run, folder: Path, data_root: str | None = None, devices: int = 1) -> Iterator[tuple[str, list[str]]]:
    """What a run does: tools with their arguments, one after another.

    Args:
        run: The run.
        folder: Its folder.
        data_root: Folder of the data, in the place of the configs' own.
        devices: On how many devices; they share the batch.

    Raises:
        ValueError: If the batch cannot be shared evenly.
    """
    for tool, arguments in _steps(run, folder, data_root, devices):
        if devices > 1 and tool in SCRIPTS:
            script, before = SCRIPTS[tool]
            yield script, [*arguments[:before], str(devices), *arguments[before:]]
        else:
            yield tool, arguments


def _steps(run: Run, folder: Path, data_root: str | None, devices: int) -> Iterator[tuple[str, list[str]]]:
    """As :func:`steps_of`, each as on one device."""
    shared = ['--cfg-options', f'randomness.seed={run.seed}', *run.shared, *data_options(data_root)]
    test = run.student
    if run.weights is None:
        train = [run.config, '--work-dir', str(folder), *(['--methods', *run.methods] if run.methods else [])]
        options = [*shared, *run.options, *batch_options(run, devices)]
        if run.stored:
            store = str(folder / 'store')
            yield 'tools/store_teacher.py', [*train, '--store', store, '--epochs', str(epochs_of(run)), *options]
            options.append(f'model.teacher_store={store}')
        yield 'tools/train.py', [*train, '--resume', *options]
        weights = (folder / 'last_checkpoint').read_text().strip()
        if run.methods:
            student = str(folder / STUDENT)
            yield 'pth_transfer.py', ['--dis_path', weights, '--output_path', student]
            weights = student
        if _deploys(run):  # what predicts is more than the student: the config of the training knows it
            test = str(folder / Path(run.config).name)
    else:
        weights = run.weights
    for name in [TEST, HELD_OUT] if run.held_out else [TEST]:
        out = ['--work-dir', str(folder / name), '--out', str(folder / f'{name}.json'), '--out-item', 'metrics']
        yield 'tools/test.py', [test, weights, *out, *shared, *(run.held_out if name == HELD_OUT else ())]


def epochs_of(run: Run) -> int:
    """How long the training is."""
    return _settings(run.config, _options(run, 'train_cfg.')).train_cfg.max_epochs


def batch_options(run: Run, devices: int) -> list[str]:
    """The option that gives each device its share of the batch, where the config has another size.

    The learning rate belongs to the batch of all devices together. That is what the study's options say of
    ``train_dataloader.batch_size``, else the config's ``auto_scale_lr.base_batch_size``, else the config's batch.

    Raises:
        ValueError: If it cannot be shared evenly.
    """
    said = _options(run, 'train_dataloader.batch_size=')
    cfg = _settings(run.config, said)
    batch = cfg.train_dataloader.batch_size
    total = batch if said else cfg.get('auto_scale_lr', {}).get('base_batch_size', batch)
    if total % devices:
        raise ValueError(f'{run.key}: a batch of {total} images cannot be shared evenly by {devices} devices')
    return [] if total // devices == batch else [f'train_dataloader.batch_size={total // devices}']


def _options(run: Run, start: str) -> tuple[str, ...]:
    """The options of a training that begin so."""
    return tuple(option for option in (*run.shared, *run.options) if option.startswith(start))


@cache
def _settings(config: str, options: tuple[str, ...]) -> Config:
    """A config with options."""
    args = training_parser(None).parse_args([config, *(['--cfg-options', *options] if options else [])])
    cfg = read_config(config)
    cfg.merge_from_dict(args.cfg_options or {})
    return cfg


def _deploys(run: Run) -> bool:
    """Whether a method makes the predictions, not the student's network alone."""
    return any(hasattr(loss_class(loss), 'deployed') for loss in run.losses.values())


def perform(tool: str, arguments: Sequence[str], folder: str, threads: int) -> None:
    """Run a tool in this process, made for it; what it prints goes into a log in the run's folder. Ends the process.

    Args:
        tool: The program.
        arguments: Its command line.
        folder: The run's folder.
        threads: How many threads it may compute with.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started this one decides what becomes of it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    name = Path(tool).stem
    with (Path(folder) / f'{name}.log').open('a', buffering=1) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    sys.stdout = os.fdopen(1, 'w', buffering=1)
    sys.stderr = os.fdopen(2, 'w', buffering=1)
    warnings.simplefilter('ignore')
    yapf_api.FormatCode = _as_it_is  # laying out the config's text is a tenth of a run
    torch.set_num_threads(threads)
    start = time.monotonic()
    code = _main(tool, arguments)
    took = dict(step=name, wall=time.monotonic() - start, cpu=_cpu_seconds(), code=code)
    with (Path(folder) / TIMES).open('a') as file:
        file.write(f'{json.dumps(took)}\n')
    sys.stdout.flush()
    os._exit(code)


def _as_it_is(text: str, **_: Any) -> tuple[str, bool]:
    """In the place of what lays out a Python text."""
    return text, True


def _main(tool: str, arguments: Sequence[str]) -> int:
    """Call a tool's main function; its exit code."""
    path = tool_path(tool)
    if path.suffix == '.sh':
        print('$ bash', tool, *arguments, flush=True)
        return _shell(path, arguments)
    sys.argv = [str(path), *arguments]
    print('$ python', tool, *arguments, flush=True)
    try:
        runpy.run_path(str(path), run_name='__main__')
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, flush=True)
            return 1
        return ended.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _shell(script: Path, arguments: Sequence[str]) -> int:
    """Run a script, with this process's Python and a port of its own; its exit code. SIGTERM is passed on to it."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get('PATH', '')])
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    child = subprocess.Popen(['bash', str(script), *arguments], env={'PORT': port, **os.environ, 'PATH': path})
    _children.append(child)
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    return child.wait()


def _cpu_seconds() -> float:
    """What this process and its children have computed so far."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _end_with_parent() -> None:
    """Wait until the study is gone, however it ended, and end this process then: nobody would hear of its result."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        for child in _children:
            child.terminate()
        os._exit(1)
