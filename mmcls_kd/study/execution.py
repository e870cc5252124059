"""Runs a study's runs, several at a time, and collects their results."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Any

import mmengine
import mmpretrain
import torch

from .. import __version__
from ..checkpoint import atomic_path
from ..configs import TOOLBOX
from ..errors import DivergenceError
from .plan import Run
from .records import Record
from .steps import HELD_OUT, STUDENT, TEST, TIMES, perform, steps_of

#: What a run is, and what came of it, in its folder.
RUN, RESULT = 'run.json', 'result.json'
ACCURACY = 'accuracy/top1'
#: For glibc: freed memory stays with the process, in huge pages. Each step asks for the same amount again, and a tenth of a
#: small training on a CPU went into getting it.
MALLOC = ':'.join(f'glibc.malloc.{name}' for name in ('hugetlb=1', 'mmap_threshold=1000000000', 'trim_threshold=2000000000'))
#: Seconds that a step has to end after it was asked to; Slurm gives a job 120 (see :meth:`.desk.Desk.commands`).
PATIENCE = 100
#: More than images could count; what float32 adds is left out.
DIGITS = 4


class InterruptedStudyError(Exception):
    """The study was asked to end."""


@dataclass(frozen=True)
class Failure:
    """A run that did not end well.

    Attributes:
        run: The run.
        log: Where to read why.
        reason: The last line of it.
    """

    run: Run
    log: Path
    reason: str


@dataclass(frozen=True)
class Place:
    """Where a study runs.

    Attributes:
        folder: Each run gets a folder below it.
        data_root: Folder of the data, in the place of the configs' own.
        threads: How many threads a run may compute with.
        devices: On how many devices a run goes.
    """

    folder: Path
    data_root: str | None = None
    threads: int = 1
    devices: int = 1

    def of(self, run: Run) -> Path:
        """The folder of a run."""
        return self.folder / run.pair / run.row / f'seed{run.seed}'


class Job:
    """A run in progress.

    Args:
        run: The run.
        place: Where.
        context: What starts processes.
    """

    def __init__(self, run: Run, place: Place, context: Any) -> None:
        self.run, self.place, self.context = run, place, context
        self.folder = place.of(run)
        self.log = self.folder
        self.steps: Iterator[tuple[str, list[str]]] = iter(())
        self.process: Any = None
        self.diverged: str | None = None
        self.start = time.monotonic()

    def begin(self) -> bool:
        """Make the folder ready and start the first step; False if an earlier study has done all of it."""
        said = dict(key=self.run.key, digest=self.run.digest)
        before = _read(self.folder / RUN)
        if before and before.get('digest') != self.run.digest:  # of other settings
            shutil.rmtree(self.folder)
        if _read(self.folder / RESULT):
            return False
        with atomic_path(self.folder / RUN) as unfinished:
            unfinished.write_text(json.dumps({**said, **asdict(self.run)}, indent=1))
        self.steps = steps_of(self.run, self.folder, self.place.data_root, self.place.devices)
        return self.advance()

    def advance(self) -> bool:
        """Start the next step; False if there is none, or the training diverged.

        Raises:
            RuntimeError: If the step before ended with another error.
        """
        if self.process is not None and self.process.exitcode:
            if self.process.exitcode == DivergenceError.exit_code:
                self.diverged = self.last_words().partition('error: ')[2].partition(' (')[0]
                return False
            raise RuntimeError(f'ended with exit code {self.process.exitcode}')
        step = next(self.steps, None)
        if step is None:
            return False
        tool, arguments = step
        self.log = self.folder / f'{Path(tool).stem}.log'
        self.process = self.context.Process(
            target=perform, args=(tool, arguments, str(self.folder), self.place.threads), daemon=False
        )
        self.process.start()
        return True

    def ask_to_end(self) -> None:
        """Ask the step to end: a training saves its state."""
        if self.process is not None and self.process.is_alive():
            self.process.terminate()

    def wait(self, deadline: float) -> None:
        """Wait until the step has ended; from a time of :func:`time.monotonic` on no longer."""
        if self.process is not None:
            self.process.join(max(0.0, deadline - time.monotonic()))
            if self.process.is_alive():
                self.process.kill()
                self.process.join()

    def failure(self, error: Exception) -> Failure:
        """How it failed."""
        return Failure(self.run, self.log, self.last_words() or str(error))

    def last_words(self) -> str:
        """The last line of the step's log, empty if there is none."""
        lines = self.log.read_text(errors='replace').split('\n') if self.log.is_file() else []
        return next((line.strip() for line in reversed(lines) if line.strip()), '')


def execute(
    runs: Sequence[Run],
    place: Place,
    jobs: int,
    finished: Callable[[Run, Record, float], None],
    failed: Callable[[Failure], None],
) -> None:
    """Run each run; the result of each goes to ``finished`` as soon as it is there, with the seconds that it took.

    Args:
        runs: The runs, in order.
        place: Where.
        jobs: How many at a time.
        finished: Called with each result.
        failed: Called with each failure; the others go on.

    Raises:
        InterruptedStudyError: On SIGINT or SIGTERM, after the runs in progress have ended in order.
    """
    context = fork_server(place.threads)
    waiting, active = list(reversed(runs)), list[Job]()

    def settle(job: Job, step: Callable[[], bool]) -> None:
        """Start a job's next step; one that is through, or failed, leaves."""
        try:
            if step():
                return
            active.remove(job)
            finished(job.run, collect(job.run, job.folder, place, job.diverged), time.monotonic() - job.start)
        except (RuntimeError, OSError, ValueError, StopIteration, KeyError) as error:
            active.remove(job) if job in active else None
            failed(job.failure(error))

    with _interruptible():
        try:
            while waiting or active:
                while waiting and len(active) < jobs:
                    active.append(job := Job(waiting.pop(), place, context))
                    settle(job, job.begin)
                if active:
                    connection.wait([job.process.sentinel for job in active])
                for job in [job for job in active if not job.process.is_alive()]:
                    job.process.join()
                    settle(job, job.advance)
        finally:
            for job in active:
                job.ask_to_end()
            deadline = time.monotonic() + PATIENCE  # one for all: Slurm does not wait for each
            for job in active:
                job.wait(deadline)


def fork_server(threads: int) -> Any:
    """What starts processes: a process of its own imports everything once, and is forked for each step."""
    os.environ.setdefault('OMP_NUM_THREADS', str(threads))
    os.environ.setdefault('GLIBC_TUNABLES', MALLOC)
    paths = [str(TOOLBOX), os.environ.get('PYTHONPATH', '')]  # of a clone that is not installed
    os.environ['PYTHONPATH'] = os.pathsep.join(path for path in paths if path)
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['mmcls_kd.study.steps'])
    return context


@contextmanager
def _interruptible() -> Iterator[None]:
    """In the ``with`` block SIGINT and SIGTERM raise :class:`InterruptedStudyError`."""

    def note(number: int, _frame: Any) -> None:
        raise InterruptedStudyError(signal.Signals(number).name)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# ---- results


def _read(path: Path) -> dict[str, Any] | None:
    """What a JSON file holds; None where there is none, or none that is whole."""
    with suppress(FileNotFoundError, json.JSONDecodeError):
        return json.loads(path.read_text())
    return None


def collect(run: Run, folder: Path, place: Place, diverged: str | None = None) -> Record:
    """The result of a run that is through; it stays in the run's folder, and what is no longer needed goes.

    Args:
        run: The run.
        folder: Its folder.
        place: Where it ran.
        diverged: How the training diverged, after which there was nothing to test; None if it did not.

    Raises:
        FileNotFoundError: If a step has left no result.
    """
    if result := _read(folder / RESULT):
        return result
    last = None if diverged else _tested(folder, TEST)
    curve = _curve(folder)
    best = max(curve, key=lambda step: (curve[step], -step)) if curve and not diverged else None
    times = [json.loads(line) for line in (folder / TIMES).read_text().splitlines()]
    record = {
        'key': run.key,
        **{key: value for key, value in asdict(run).items() if key not in ('losses',)},
        'digest': run.digest,
        'last': last,
        'best': curve[best] if best is not None else last,
        'best_epoch': best,
        'held_out_accuracy': _tested(folder, HELD_OUT) if run.held_out and not diverged else None,
        'diverged': diverged,
        'curve': [curve[step] for step in sorted(curve)],
        'seconds': round(sum(step['cpu'] for step in times), 1),
        'folder': str(Path(*folder.parts[-3:])),
        'threads': place.threads,
        'devices': place.devices,
        **surroundings(),
    }
    if run.weights is None and not run.methods and not diverged:  # the student alone: its checkpoint is the student
        shutil.copy((folder / 'last_checkpoint').read_text().strip(), folder / STUDENT)
    tidy(folder, place.data_root)
    with atomic_path(folder / RESULT) as unfinished:
        unfinished.write_text(json.dumps(record, indent=1))
    return record


def finished_before(run: Run, place: Place) -> Record | None:
    """The result that an earlier study or a job of its own has left in a run's folder; None where there is none."""
    folder = place.of(run)
    return _read(folder / RESULT) if (_read(folder / RUN) or {}).get('digest') == run.digest else None


def _tested(folder: Path, test: str) -> float:
    """The accuracy that a test has left."""
    return round(json.loads((folder / f'{test}.json').read_text())[ACCURACY], DIGITS)


def _curve(folder: Path) -> dict[int, float]:
    """Accuracy after each epoch, as the training logged it; one that was resumed has several files."""
    curve = {}
    for path in sorted(folder.glob('*/vis_data/scalars.json')):
        for line in path.read_text().splitlines():
            with suppress(json.JSONDecodeError):  # the last line of a run that was killed
                entry = json.loads(line)
                if ACCURACY in entry:
                    curve[entry['step']] = round(entry[ACCURACY], DIGITS)
    return curve


def surroundings() -> dict[str, Any]:
    """Versions and machine, without its name."""
    versions = dict(torch=torch.__version__, mmengine=mmengine.__version__, mmpretrain=mmpretrain.__version__)
    gpu = dict(gpu=torch.cuda.get_device_name()) if torch.cuda.is_available() else {}
    software = dict(python=platform.python_version(), mmcls_kd=__version__, **versions)
    return dict(commit=_commit(), software=software, cpu=_cpu(), **gpu)


def _commit() -> str | None:
    """The commit of the checkout; a plus sign says that what the runs are made of differs from it."""

    def git(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run(['git', '-C', str(TOOLBOX), *words], capture_output=True, text=True, check=False)

    with suppress(OSError):
        commit = git('rev-parse', '--short=12', 'HEAD').stdout.strip()
        changed = git('diff', '--quiet', 'HEAD', '--', 'mmcls_kd', 'tools', 'configs', 'pth_transfer.py').returncode
        return commit + '+' * bool(changed) if commit else None
    return None


def _cpu() -> str:
    """What the processor is."""
    with suppress(OSError):
        for line in Path('/proc/cpuinfo').read_text().splitlines():
            if line.startswith('model name'):
                return f'{line.partition(":")[2].strip()}, {os.cpu_count()} cores'
    return f'{platform.machine()}, {os.cpu_count()} cores'


def tidy(folder: Path, data_root: str | None = None) -> None:
    """Remove what only an unfinished run needs, and where on which machine it ran from its config and logs."""
    for path in (*folder.glob('*.pth'), folder / 'last_checkpoint'):
        if path.name != STUDENT:
            path.unlink(missing_ok=True)
    shutil.rmtree(folder / 'store', ignore_errors=True)
    host = re.compile(rf'(?<![\w-]){re.escape(socket.gethostname())}(?![\w-])')
    names = {f'{Path.cwd()}/': '', f'{TOOLBOX}/': ''}
    if data_root:
        names[str(Path(data_root).resolve())] = Path(data_root).name
    for path in folder.rglob('*'):
        if path.suffix in ('.py', '.log', '.json', '.jsonl') and path.is_file():
            text = before = path.read_text(errors='replace')
            for name in sorted(names, key=len, reverse=True):
                text = text.replace(name, names[name])
            if path.suffix == '.log':  # mmengine logs it; elsewhere a word that is a host's name too is not meant
                text = host.sub('HOST', text)
            if text != before:
                path.write_text(text)


def remaining(runs: Sequence[Run], seconds: Mapping[str, Sequence[float]], jobs: int) -> float | None:
    """Seconds that runs will take, by what runs of the same pair have taken; None if nothing is known.

    Args:
        runs: What is left.
        seconds: What runs took, by pair.
        jobs: How many run at a time.
    """
    known = [value for values in seconds.values() for value in values]
    if not known:
        return None
    return sum(statistics.fmean(seconds.get(run.pair) or known) for run in runs) / jobs
