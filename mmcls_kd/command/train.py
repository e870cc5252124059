"""Train a student under a distiller config, or any mmpretrain classifier."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .arguments import command_line, training_parser
from .exits import ended_in_order, ended_when_asked, errors_in_one_line
from .loading import load_libraries

BUSY = 'another training is running in this folder; wait for its end, or give this one a folder of its own (--work-dir)'


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = training_parser(__doc__)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='resume from this checkpoint, or from the latest one in the work directory if none is named',
    )
    parser.add_argument('--no-validate', action='store_true', help='do not validate during training')
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the learning rate with the total batch size')
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Train."""
    args = parser().parse_args(argv)
    with ended_when_asked('nothing had begun; the same command starts'):
        train(args)


def train(args: argparse.Namespace) -> None:
    """Train from the first check to the closing line."""
    load_libraries()
    from ..checks.training import check_training
    from ..engine.config import count_samples, training_config
    from ..engine.folders import check_data_folders, check_idx_files
    from ..engine.runtime import build_runner, join_processes
    from ..engine.setup import decided_by_first, find_resume_point
    from ..files.locks import locked

    with ExitStack() as held:
        with errors_in_one_line():
            cfg = training_config(args)
            check_data_folders(cfg, ('train_dataloader', 'val_dataloader'))
            check_idx_files(cfg, ('train_dataloader', 'val_dataloader'))
            count_samples(cfg)
            join_processes(cfg)
            decided_by_first(lambda: held.enter_context(locked(Path(cfg.work_dir), BUSY)))
            find_resume_point(cfg)
            runner = build_runner(cfg)
            check_training(runner)
            runner.dump_config()
        with ended_in_order():
            runner.train()
            runner.logger.info(closing_line(runner))


def closing_line(runner: Any) -> str:
    """Return the result of a finished training and the commands that come next.

    Args:
        runner: Of the training.
    """
    from ..distillers.recipe import is_distiller

    scalars = runner.message_hub.log_scalars
    metrics = [name for name in scalars if name.startswith('val/') and not name.endswith('time')]
    metric = next((name for name in metrics if name.endswith('accuracy/top1')), next(iter(metrics), None))
    result = 'not validated'
    if metric:
        values = scalars[metric].data[0]
        result = f'{metric.removeprefix("val/")} {values[-1]:.2f}'
        if len(values) > 1 and metric.endswith('accuracy/top1'):
            result += f' (best of {len(values)} validations: {max(values):.2f})'
    checkpoint = str(runner.message_hub.get_info('last_ckpt', None) or Path(runner.work_dir, 'CHECKPOINT.pth'))
    config = str(Path(runner.work_dir, Path(runner.cfg.filename).name)) if runner.cfg.filename else 'CONFIG'
    commands = [command_line('test', 'test.py', config, checkpoint)]
    if is_distiller(runner.cfg.model):
        student = str(Path(checkpoint).with_name('student.pth'))
        transfer = command_line('transfer', 'pth_transfer.py', '--dis_path', checkpoint, '--output_path', student)
        commands = [transfer, command_line('test', 'test.py', config, student)]
    return '\n'.join([f'finished: {result}. Next:', *(f'  {shlex.join(command)}' for command in commands)])
