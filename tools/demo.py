"""The demo: a small student alone and under NKD, same budget and seed, on Fashion-MNIST; then exported and tested.

Logs, checkpoints and results are left in work_dirs/demo/. What an interrupted demo has finished is not done again.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # a clone works without being installed

from rich.console import Console
from rich.table import Table

from mmcls_kd.files.checkpoint import read_checkpoint
from mmcls_kd.networks.weights import weights_of

STUDENT = 'configs/fashion_mnist/resnet18-w4_3e.py'
TEACHER = 'configs/fashion_mnist/resnet18-w16_9e.py'
TEACHER_WEIGHTS = 'configs/fashion_mnist/teacher.pth'
DISTILLER = 'configs/distillers/fashion_mnist/res18-w16_distill_res18-w4_fmnist.py'
LAST = 'epoch_3.pth'


class Progress:
    """Says before each training which one it is, and about how long all that are left will take."""

    def __init__(self, trainings: int) -> None:
        self.trainings, self.done, self.seconds = trainings, 0, 0.0

    def train(self, config: str, folder: Path, *options: str) -> float:
        """Train, or go on with a training that was interrupted; returns the seconds of this time."""
        left = (self.trainings - self.done) * self.seconds / self.done if self.done else 0
        when = f', about {max(left / 60, 1):.0f} min left' if self.done else ''
        print(f'--- training {self.done + 1} of {self.trainings}{when} ---', flush=True)
        seconds = 0.0
        if not (folder / LAST).is_file():
            resume = ['--resume'] if (folder / 'last_checkpoint').is_file() else []
            seconds = run('tools/train.py', config, '--work-dir', folder, *resume, *options, log=folder / 'train.log')
        self.done += 1
        self.seconds += seconds
        return seconds


def run(*command: object, log: Path | None = None) -> float:
    """Run a Python command from the toolbox's folder; returns its seconds.

    With a log file, everything goes there and only the lines of the epochs are shown.
    """
    words = [sys.executable, *map(str, command)]
    print('$ python', *words[1:], flush=True)
    start = time.monotonic()
    if log is None:
        subprocess.run(words, cwd=ROOT, check=True)
        return time.monotonic() - start
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open('a') as file:
        process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            file.write(line)
            if 'Epoch(train)' in line or 'accuracy/top1:' in line:
                print('   ', line.split('INFO - ')[-1].rstrip(), flush=True)
    if process.wait():
        sys.exit(f'demo.py: error: the command failed; the end of {log}:\n{"".join(log.read_text().splitlines(True)[-15:])}')
    return time.monotonic() - start


def test(config: str, checkpoint: object, folder: Path) -> tuple[float, int]:
    """Top-1 accuracy in percent and the number of parameters of a checkpoint, by tools/test.py and a plain config."""
    result = folder / 'metrics.json'
    arguments = ('--work-dir', folder, '--metrics', 'accuracy', '--out', result, '--out-item', 'metrics')
    run('tools/test.py', config, checkpoint, *arguments, log=folder / 'test.log')
    weights = weights_of(read_checkpoint(ROOT / checkpoint))
    buffers = ('running_mean', 'running_var', 'num_batches_tracked')
    parameters = sum(tensor.numel() for name, tensor in weights.items() if not name.endswith(buffers))
    return json.loads(result.read_text())['accuracy/top1'], parameters


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0], help='a run alone and one with NKD for each')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/demo'))
    args = parser.parse_args()
    folder = args.work_dir.resolve()

    run('tools/fetch_fashion_mnist.py')
    rows = [('teacher, shipped', *test(TEACHER, TEACHER_WEIGHTS, folder / 'teacher'), None)]
    progress = Progress(2 * len(args.seeds))
    for seed in args.seeds:
        alone, nkd = folder / f'alone_seed{seed}', folder / f'nkd_seed{seed}'
        options = ('--cfg-options', f'randomness.seed={seed}')
        seconds = progress.train(STUDENT, alone, *options)
        rows.append((f'student alone, seed {seed}', *test(STUDENT, alone / LAST, alone), seconds))

        seconds = progress.train(DISTILLER, nkd, *options)
        run('pth_transfer.py', '--dis_path', nkd / LAST, '--output_path', nkd / 'student.pth')
        rows.append((f'student with NKD, seed {seed}', *test(STUDENT, nkd / 'student.pth', nkd), seconds))

    table = Table('model', 'parameters', 'top-1 (%)', 'training time', title='Fashion-MNIST, 10,000 test images')
    for name, accuracy, parameters, seconds in rows:
        table.add_row(name, f'{parameters:,}', f'{accuracy:.2f}', f'{seconds / 60:.1f} min' if seconds else '')
    Console().print(table)


if __name__ == '__main__':
    main()
