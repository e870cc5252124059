"""Train a small student alone and under NKD on Fashion-MNIST, with the same budget and seed; export and test both.

Logs, checkpoints and results are left in work_dirs/demo/. Finished parts of an interrupted demo are not repeated.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from .arguments import new_parser, program
from .exits import errors_in_one_line

STUDENT = 'configs/fashion_mnist/resnet18-w4_3e.py'
TEACHER = 'configs/fashion_mnist/resnet18-w16_9e.py'
TEACHER_WEIGHTS = 'configs/fashion_mnist/teacher.pth'
DISTILLER = 'configs/distillers/fashion_mnist/res18-w16_distill_res18-w4_fmnist.py'
LAST = 'epoch_3.pth'
PACKAGE = ('-m', 'mmcls_kd')
ROOT = Path(__file__).resolve().parents[2]
#: Folder of the data: the clone, which need not be installed; None for the current one.
CLONE = ROOT if (ROOT / 'setup.py').is_file() else None


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = new_parser(__doc__)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0], help='seeds; each takes a run alone and one with NKD')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/demo'))
    return parser


class Progress:
    """Number of the training and estimate of the time left, printed before each training."""

    def __init__(self, trainings: int) -> None:
        self.trainings, self.done = trainings, 0
        self.times: list[float] = []  # of whole trainings, in seconds

    def train(self, config: str, folder: Path, *options: str) -> str:
        """Train, or resume an interrupted training; return the time of this run for the table."""
        left = (self.trainings - self.done) * mean(self.times) if self.times else 0
        when = f', about {max(left / 60, 1):.0f} min left' if self.times else ''
        print(f'--- training {self.done + 1} of {self.trainings}{when} ---', flush=True)
        self.done += 1
        if (folder / LAST).is_file():
            return 'earlier run'
        resume = ['--resume'] if (folder / 'last_checkpoint').is_file() else []
        seconds = run(*PACKAGE, 'train', config, '--work-dir', folder, *resume, *options, log=folder / 'train.log')
        if not resume:
            self.times.append(seconds)
        return f'{seconds / 60:.1f} min'


def run(*command: object, log: Path | None = None) -> float:
    """Run a Python command; return its seconds.

    With a log file, all output goes there, and only the lines of the epochs are shown.
    """
    words = [sys.executable, *map(str, command)]
    print('$ python', *words[1:], flush=True)
    start = time.monotonic()
    if log is None:
        subprocess.run(words, cwd=CLONE, check=True)
        return time.monotonic() - start
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open('a') as file:
        process = subprocess.Popen(words, cwd=CLONE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            file.write(line)
            if 'Epoch(train)' in line or 'accuracy/top1:' in line:
                print('   ', line.split('INFO - ')[-1].rstrip(), flush=True)
    if process.wait():
        end = ''.join(log.read_text().splitlines(True)[-15:])
        sys.exit(f'{program()}: error: the command failed; the end of {log}:\n{end}')
    return time.monotonic() - start


def test(config: str, checkpoint: str | Path, folder: Path) -> tuple[float, int]:
    """Return top-1 accuracy in percent and number of parameters of a checkpoint, tested with a plain config."""
    from ..files.checkpoint import read_checkpoint
    from ..files.paths import find_file
    from ..networks.weights import weights_of

    result = folder / 'metrics.json'
    arguments = ('--work-dir', folder, '--metrics', 'accuracy', '--out', result, '--out-item', 'metrics')
    run(*PACKAGE, 'test', config, checkpoint, *arguments, log=folder / 'test.log')
    weights = weights_of(read_checkpoint(find_file(checkpoint)))
    buffers = ('running_mean', 'running_var', 'num_batches_tracked')
    parameters = sum(tensor.numel() for name, tensor in weights.items() if not name.endswith(buffers))
    return json.loads(result.read_text())['accuracy/top1'], parameters


def show(rows: Sequence[tuple[str, float, int, str]]) -> None:
    """Print the table of results."""
    from ..files.showing import show

    cells = [(name, f'{parameters:,}', f'{accuracy:.2f}', took) for name, accuracy, parameters, took in rows]
    show('Fashion-MNIST, 10,000 test images', ('model', 'parameters', 'top-1 (%)', 'training time'), cells)


def main(argv: Sequence[str] | None = None) -> None:
    """Train, transfer and test; print the table."""
    from ..files.paths import TOOLBOX

    args = parser().parse_args(argv)
    with errors_in_one_line(interrupted='the same command resumes'):
        folder = args.work_dir.resolve()
        run(TOOLBOX / 'tools' / 'fetch_fashion_mnist.py')
        rows = [('teacher, shipped', *test(TEACHER, TEACHER_WEIGHTS, folder / 'teacher'), '')]
        progress = Progress(2 * len(args.seeds))
        for seed in args.seeds:
            alone, nkd = folder / f'alone_seed{seed}', folder / f'nkd_seed{seed}'
            options = ('--cfg-options', f'randomness.seed={seed}')
            took = progress.train(STUDENT, alone, *options)
            rows.append((f'student alone, seed {seed}', *test(STUDENT, alone / LAST, alone), took))

            took = progress.train(DISTILLER, nkd, *options)
            run(*PACKAGE, 'transfer', '--dis_path', nkd / LAST, '--output_path', nkd / 'student.pth')
            rows.append((f'student with NKD, seed {seed}', *test(STUDENT, nkd / 'student.pth', nkd), took))
        show(rows)
