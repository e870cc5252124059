"""The steps of a run: each is a tool's own program, in a process of its own; see :mod:`.worker`."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock, get_ident
from typing import Any

from ..files.paths import TOOLBOX
from ..recipe.methods import loss_class
from .contents import known_config
from .plan import Run
from .sharing import STORES, is_stored
from .worker import READY

#: Wall and processor time of each step, in the run's folder.
TIMES = 'times.jsonl'
#: The trained student.
STUDENT = 'student.pth'
#: The tests: of each a folder and a JSON file of its result.
TEST, HELD_OUT = 'test', 'held_out'
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
#: The scripts that run a tool on several devices, and how many arguments stand before the number of devices.
SCRIPTS = {
    'tools/train.py': ('tools/dist_train.sh', 1),
    'tools/store_teacher.py': ('tools/dist_store_teacher.sh', 1),
    'tools/test.py': ('tools/dist_test.sh', 2),
}
#: Seconds that a step has to end after it was asked to; Slurm gives a job 120 (see :func:`.runner.write_commands`).
PATIENCE = 100
#: Become a script, which Linux asks to end with its parent: a study that was killed leaves no step behind.
BECOME = f'import ctypes, os, sys; ctypes.CDLL(None).prctl(1, {signal.SIGTERM:d}); os.execvp(sys.argv[1], sys.argv[1:])'
#: Become a worker; the working directory is no place for modules of a program.
WORKER = (
    'import sys; del sys.path[0]; from mmcls_kd.command.loading import load_libraries; '
    'from mmcls_kd.study.worker import main; main(load_libraries)'
)


def steps_of(run: Run, folder: Path, data_root: str | None = None, devices: int = 1) -> Iterator[tuple[str, list[str]]]:
    """Yield the tools of a run with their arguments, one after another; refuse a batch that devices cannot share evenly."""
    for tool, arguments in _steps(run, folder, data_root, devices):
        if devices > 1 and tool in SCRIPTS:
            script, before = SCRIPTS[tool]
            yield script, [*arguments[:before], str(devices), *arguments[before:]]
        else:
            yield tool, arguments


def _steps(run: Run, folder: Path, data_root: str | None, devices: int) -> Iterator[tuple[str, list[str]]]:
    """Yield the steps as on one device."""
    data = [] if data_root is None else [f'{loader}.dataset.data_root={data_root}' for loader in LOADERS]
    shared = ['--cfg-options', f'randomness.seed={run.seed}', *run.shared, *data]
    test, weights = run.student, run.weights
    if weights is None:
        train = [run.config, '--work-dir', str(folder), *(['--methods', *run.methods] if run.methods else [])]
        options = [*shared, *run.placed, *run.options, *batch_options(run, devices)]
        if store := store_of(run, folder):
            if not is_stored(store, epochs := epochs_of(run)):
                features = ['--with', *run.stored_features] if run.stored_features else []
                yield 'tools/store_teacher.py', [*train, '--store', str(store), '--epochs', str(epochs), *features, *options]
            options.append(f'model.teacher_store={store}')
        yield 'tools/train.py', [*train, '--resume', *options]
        weights = (folder / 'last_checkpoint').read_text().strip()
        if run.methods:
            student = str(folder / STUDENT)
            yield 'pth_transfer.py', ['--dis_path', weights, '--output_path', student]
            weights = student
        if any(hasattr(loss_class(loss), 'deployed') for loss in run.losses.values()):
            test = str(folder / Path(run.config).name)  # more than the student predicts: the training's config knows it
    for name in [TEST, HELD_OUT] if run.held_out else [TEST]:
        out = ['--work-dir', str(folder / name), '--out', str(folder / f'{name}.json'), '--out-item', 'metrics']
        yield 'tools/test.py', [test, weights, *out, *shared, *(run.held_out if name == HELD_OUT else ())]


def store_of(run: Run, folder: Path) -> Path | None:
    """Return the store of a run in its folder: its own, or one of several runs, see :mod:`.sharing`; None without one."""
    if run.shared_store:
        return folder.parents[2] / STORES / run.store_name
    return folder / 'store' if run.stored else None


def epochs_of(run: Run) -> int:
    """Return the number of epochs of the training."""
    return known_config(run.config, _options(run, 'train_cfg.')).train_cfg.max_epochs


def batch_options(run: Run, devices: int) -> list[str]:
    """Return the option that gives each device its share of the batch, where it differs from the config's.

    The learning rate belongs to the batch of all devices together. That is what the study's options say of
    ``train_dataloader.batch_size``, else the config's ``auto_scale_lr.base_batch_size``, else the config's batch.
    """
    said = _options(run, 'train_dataloader.batch_size=')
    cfg = known_config(run.config, said)
    batch = cfg.train_dataloader.batch_size
    total = batch if said else cfg.get('auto_scale_lr', {}).get('base_batch_size', batch)
    if total % devices:
        raise ValueError(f'{run.key}: a batch of {total} images cannot be shared evenly by {devices} devices')
    return [] if total // devices == batch else [f'train_dataloader.batch_size={total // devices}']


def _options(run: Run, start: str) -> tuple[str, ...]:
    """Return the options of a training with this beginning."""
    return tuple(option for option in (*run.shared, *run.options) if option.startswith(start))


class Steps:
    """The steps in progress, each with a number of threads to compute, and waited for by a thread of its own."""

    def __init__(self, threads: int) -> None:
        self.threads, self.ended = threads, False
        self._running: dict[int, int] = {}  # by thread the process that is to be asked to end
        self._workers: dict[int, subprocess.Popen] = {}
        self._lock = Lock()

    def perform(self, tool: str, arguments: Sequence[str], folder: Path) -> int:
        """Run a tool and wait for it; its output goes to a log, its times to :data:`TIMES`. Return its exit code.

        Once the study was asked to end, it raises ``InterruptedError`` instead.
        """
        name, start = Path(tool).stem, time.monotonic()
        is_script = tool.endswith('.sh')
        # an installed package has all programs in one folder
        path = next(path for path in (TOOLBOX / tool, TOOLBOX / 'tools' / Path(tool).name) if path.is_file())
        log = (folder / f'{name}.log').absolute()
        with log.open('a') as file:
            print('$', 'bash' if is_script else 'python', tool, *arguments, file=file)
        program = self._program if is_script or sys.platform != 'linux' else self._fork
        try:
            code, cpu = program([str(path), *arguments], log)
        finally:
            with self._lock:
                self._running.pop(get_ident(), None)
        with (folder / TIMES).open('a') as file:
            file.write(f'{json.dumps(dict(step=name, wall=time.monotonic() - start, cpu=cpu, code=code))}\n')
        return code

    def _program(self, words: list[str], log: Path) -> tuple[int, float]:
        """Run a program in a process of its own; return its exit code and processor time."""
        is_script = words[0].endswith('.sh')
        words = ['bash' if is_script else sys.executable, *words]
        if sys.platform == 'linux':
            words = [sys.executable, '-ISc', BECOME, *words]
        with log.open('a') as file, self._starting(log):
            process = self._start(words, is_script, stdout=file, stderr=file)
            self._running[get_ident()] = process.pid
        _, status, used = os.wait4(process.pid, 0)  # Popen.wait would not tell the processor time
        process.returncode = code = os.waitstatus_to_exitcode(status)
        return code, used.ru_utime + used.ru_stime

    def _fork(self, words: list[str], log: Path) -> tuple[int, float]:
        """Run a Python program in a fork of this thread's worker; return its exit code and processor time."""
        with self._starting(log):
            worker = self._workers.get(get_ident())
            if is_new := worker is None or worker.poll() is not None:
                pipes: Any = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
                with log.open('a') as file:  # for the error of an import
                    worker = self._start([sys.executable, '-c', WORKER], stderr=file, **pipes)
                self._workers[get_ident()] = worker
            self._running[get_ident()] = worker.pid
        assert worker.stdin
        assert worker.stdout
        if is_new:
            any(line.strip() == READY for line in iter(worker.stdout.readline, ''))
        with suppress(BrokenPipeError):  # of a worker that is gone, which has no answer then
            os.write(worker.stdin.fileno(), f'{json.dumps(dict(words=words, log=str(log)))}\n'.encode())
        if fork := worker.stdout.readline():
            with self._lock:
                self._running[get_ident()] = int(fork)
        if not (answer := worker.stdout.readline().split()):  # the worker is gone, and with it the fork
            with worker:
                return worker.wait() or 1, 0.0
        return os.waitstatus_to_exitcode(int(answer[0])), float(answer[1])

    @contextmanager
    def _starting(self, log: Path) -> Iterator[None]:
        """Keep :meth:`end` waiting while a process starts; refuse to start one after it."""
        with self._lock:
            if self.ended:
                raise InterruptedError(f'{log.stem} was not started')
            yield

    def _start(self, words: list[str], is_script: bool = False, **streams: Any) -> subprocess.Popen:
        return subprocess.Popen(words, env=self._env(is_script), start_new_session=True, **streams)

    def _env(self, is_script: bool = False) -> dict[str, str]:
        """Return the environment of a step; a script gets a port of its own."""
        known = dict(os.environ, OMP_NUM_THREADS=str(self.threads), PYTHONWARNINGS='ignore')
        paths = dict(PATH=Path(sys.executable).parent, PYTHONPATH=TOOLBOX)  # of a clone that is not installed
        known |= {key: os.pathsep.join(filter(None, [str(path), known.get(key)])) for key, path in paths.items()}
        if is_script and 'PORT' not in known:
            with socket.socket() as free:
                free.bind(('127.0.0.1', 0))
                known['PORT'] = str(free.getsockname()[1])
        return known

    def end(self) -> None:
        """Ask all steps to end, upon which a training saves its state; after :data:`PATIENCE` seconds kill them."""
        with self._lock:
            self.ended = True
        self._signal(signal.SIGTERM, os.kill)
        deadline = time.monotonic() + PATIENCE
        while self._running and time.monotonic() < deadline:
            time.sleep(0.02)
        self._signal(signal.SIGKILL, os.killpg)
        for worker in list(self._workers.values()):
            with worker:
                worker.kill()

    def _signal(self, number: int, kill: Callable[[int, int], None]) -> None:
        with self._lock:
            for pid in self._running.values():
                with suppress(ProcessLookupError):
                    kill(pid, number)
