"""Execute a study's runs, several at a time, and collect their results."""

from __future__ import annotations

import json
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
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any

import mmengine
import mmpretrain
import torch

from .. import __version__
from ..errors import DivergenceError
from ..files.paths import TOOLBOX
from ..files.showing import write_json
from .plan import Run
from .records import RESULT, Record
from .sharing import announcement, reserve
from .steps import HELD_OUT, STUDENT, TEST, TIMES, Steps, epochs_of, steps_of, store_of

#: The settings of a run, in its folder.
RUN = 'run.json'
ACCURACY = 'accuracy/top1'
#: More than images could count; the noise of float32 is beyond them.
DIGITS = 4


class InterruptedStudyError(Exception):
    """The study was asked to end."""


@dataclass(frozen=True)
class Failure:
    """A run that failed, the log of its last step, and the reason: the log's last line."""

    run: Run
    log: Path
    reason: str


@dataclass(frozen=True)
class Place:
    """Location of a study's runs, each with a folder below ``folder``; threads and devices of one run."""

    folder: Path
    data_root: str | None = None
    threads: int = 1
    devices: int = 1
    trust: bool = False

    def of(self, run: Run) -> Path:
        """Return the folder of a run."""
        return self.folder / run.pair / run.row / f'seed{run.seed}'


def execute(
    runs: Sequence[Run],
    place: Place,
    jobs: int,
    finished: Callable[[Run, Record, float], None],
    failed: Callable[[Failure], None],
) -> None:
    """Execute runs, ``jobs`` at a time; pass on each result with its seconds, and each failure, as soon as it is there.

    SIGINT or SIGTERM raises :class:`InterruptedStudyError`, after the runs in progress have ended in order.
    """
    steps = Steps(place.threads)
    queue = Queue(runs, place, steps)
    with _interruptible(), ThreadPoolExecutor(jobs) as pool:
        try:
            for ended in as_completed([pool.submit(_perform_next, queue, place, steps) for _ in runs]):
                if isinstance(result := ended.result(), Failure):
                    failed(result)
                else:
                    finished(*result)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            steps.end()


class Queue:
    """The runs that wait, in their order; one whose teacher is being stored by another run is passed over.

    Attributes:
        unstored: By the name of a shared teacher the failure to store it, which is that of all its runs.
    """

    def __init__(self, runs: Sequence[Run], place: Place, steps: Steps) -> None:
        self.runs, self.place, self.steps = list(runs), place, steps
        self.unstored: dict[str, Failure] = {}
        self._lock = Lock()

    def take(self, held: ExitStack) -> Run:
        """Return the next run that may begin; ``held`` keeps others from storing its teacher, if it has to do so."""
        with self._lock:
            while not self.steps.ended:
                for run in self.runs:
                    store = store_of(run, self.place.of(run)) if run.shared_store else None
                    if store is None or store.name in self.unstored or reserve(store, epochs_of(run), held):
                        self.runs.remove(run)
                        return run
                time.sleep(0.2)
        raise InterruptedError('the study was asked to end')


def _perform_next(queue: Queue, place: Place, steps: Steps) -> tuple[Run, Record, float] | Failure:
    """Execute the next run, unless its shared teacher could not be stored."""
    with ExitStack() as held:
        run = queue.take(held)
        if failure := queue.unstored.get(run.store_name):
            return replace(failure, run=run)
        result = _perform(run, place, steps, held)
        if run.shared_store and isinstance(result, Failure) and 'store_teacher' in result.log.name:
            queue.unstored[run.store_name] = result
        return result


def _perform(run: Run, place: Place, steps: Steps, held: ExitStack) -> tuple[Run, Record, float] | Failure:
    """Execute a run, unless an earlier study has done it; return its result and the seconds that it took.

    After its first step, which stores its teacher if need be, ``held`` is closed, unless the step failed.
    """
    start, folder = time.monotonic(), place.of(run)
    log, diverged = folder, None
    try:
        before = _read(folder / RUN)
        if before and before.get('digest') != run.digest:  # of other settings
            shutil.rmtree(folder)
        if not _read(folder / RESULT):
            write_json(dict(key=run.key, digest=run.digest, **asdict(run)), folder / RUN)
            for tool, arguments in steps_of(run, folder, place.data_root, place.devices):
                log = folder / f'{Path(tool).stem}.log'
                code = steps.perform(tool, [*arguments, *['--trust'] * place.trust], folder)
                if not code:
                    held.close()
                    if run.shared_store and 'store_teacher' in tool:
                        print(announcement(run.key, folder.parents[2], run.store_name), flush=True)
                if code == DivergenceError.exit_code:
                    diverged = _last_line(log).partition('error: ')[2].partition(' (')[0]
                    break
                if code:
                    raise RuntimeError(f'ended with exit code {code}')
        return run, collect(run, folder, place, diverged), time.monotonic() - start
    except (RuntimeError, OSError, ValueError, LookupError) as error:
        return Failure(run, log, _last_line(log) or str(error))


def _last_line(log: Path) -> str:
    lines = log.read_text(errors='replace').split('\n') if log.is_file() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), '')


@contextmanager
def _interruptible() -> Iterator[None]:
    """Raise :class:`InterruptedStudyError` on SIGINT and SIGTERM."""

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
    """Read a JSON file; None where there is none, or none that is whole."""
    with suppress(FileNotFoundError, json.JSONDecodeError):
        return json.loads(path.read_text())
    return None


def collect(run: Run, folder: Path, place: Place, diverged: str | None = None) -> Record:
    """Collect the result of a run; it stays in the run's folder, and files that are no longer needed go.

    A training that diverged, with the message ``diverged``, has no tests.
    """
    if result := _read(folder / RESULT):
        return result
    last = None if diverged else _tested(folder, TEST)
    curve = _curve(folder)
    best = max(curve, key=lambda step: (curve[step], -step)) if curve and not diverged else None
    times = [json.loads(line) for line in (folder / TIMES).read_text().splitlines()]
    record = {
        'key': run.key,
        **{key: value for key, value in asdict(run).items() if key not in ('losses', 'stored_features')},
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
    write_json(record, folder / RESULT)
    return record


def finished_before(run: Run, place: Place) -> Record | None:
    """Return the result that an earlier study or a job has left in a run's folder; None where there is none."""
    folder = place.of(run)
    return _read(folder / RESULT) if (_read(folder / RUN) or {}).get('digest') == run.digest else None


def _tested(folder: Path, test: str) -> float:
    """Return the accuracy that a test has left."""
    return round(json.loads((folder / f'{test}.json').read_text())[ACCURACY], DIGITS)


def _curve(folder: Path) -> dict[int, float]:
    """Return the logged accuracy after each epoch; a training that was resumed has several files."""
    curve = {}
    for path in sorted(folder.glob('*/vis_data/scalars.json')):
        for line in path.read_text().splitlines():
            with suppress(json.JSONDecodeError):  # the last line of a run that was killed
                entry = json.loads(line)
                if ACCURACY in entry:
                    curve[entry['step']] = round(entry[ACCURACY], DIGITS)
    return curve


def surroundings() -> dict[str, Any]:
    """Return versions and machine, without its name."""
    versions = dict(torch=torch.__version__, mmengine=mmengine.__version__, mmpretrain=mmpretrain.__version__)
    gpu = dict(gpu=torch.cuda.get_device_name()) if torch.cuda.is_available() else {}
    software = dict(python=platform.python_version(), mmcls_kd=__version__, **versions)
    return dict(commit=_commit(), software=software, cpu=_cpu(), **gpu)


def _commit() -> str | None:
    """Return the commit of the checkout; a plus sign marks local changes of the programs."""

    def git(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run(['git', '-C', str(TOOLBOX), *words], capture_output=True, text=True, check=False)

    with suppress(OSError):
        commit = git('rev-parse', '--short=12', 'HEAD').stdout.strip()
        changed = git('diff', '--quiet', 'HEAD', '--', 'mmcls_kd', 'tools', 'configs', 'pth_transfer.py').returncode
        return commit + '+' * bool(changed) if commit else None
    return None


def _cpu() -> str:
    """Return the processor's name, with family and model on Linux: virtual machines hide the rest of a name."""
    facts: dict[str, str] = {}
    with suppress(OSError):
        for line in Path('/proc/cpuinfo').read_text().splitlines():
            key, _, value = line.partition(':')
            facts.setdefault(key.strip(), value.strip())
    numbers = [f'{key.removeprefix("cpu ")} {facts[key]}' for key in ('cpu family', 'model') if key in facts]
    return ', '.join([facts.get('model name', platform.machine()), *numbers, f'{os.cpu_count()} cores'])


def tidy(folder: Path, data_root: str | None = None) -> None:
    """Remove the files that only an unfinished run needs; remove folders and host from its config and logs."""
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
            if path.suffix == '.log':  # mmengine logs it; elsewhere a word may equal a host's name by chance
                text = host.sub('HOST', text)
            if text != before:
                path.write_text(text)


def remaining(runs: Sequence[Run], seconds: Mapping[str, Sequence[float]], jobs: int) -> float:
    """Estimate the seconds that runs will take, by those of finished runs of their pairs, or of all pairs."""
    known = [value for values in seconds.values() for value in values]
    return sum(statistics.fmean(seconds.get(run.pair) or known) for run in runs) / jobs
