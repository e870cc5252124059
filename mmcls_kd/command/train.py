"""Train a student under a distiller config, or any mmpretrain classifier; or on a folder of images, without a config."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .arguments import command_line
from .exits import RESUMES, ended_in_order, ended_when_asked, errors_in_one_line
from .loading import load_libraries
from .training import parser, prepare

#: Options that need ``--data``.
FOLDER_OPTIONS = (
    *('student', 'teacher', 'teacher_weights', 'student_weights', 'epochs', 'then', 'then_epochs', 'size'),
    *('val_fraction', 'seed', 'baseline', 'config_only'),
)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; refuse options that do not go together."""
    args = (parsed := parser(__doc__)).parse_args(argv)
    if (args.config is None) == (args.data is None):
        parsed.error('give a CONFIG, or --data FOLDER with --student NAME; exactly one of both')
    if args.data is not None:
        if not args.student:
            parsed.error('--data needs --student NAME')
        if args.teacher_weights and not args.teacher:
            parsed.error('--teacher-weights needs --teacher NAME')
        if args.launcher != 'none':
            parsed.error('--data is for one process: write the config by --config-only, and give that to the launcher')
        if args.no_validate or args.resume not in (None, 'auto'):
            parsed.error('--data goes with neither --no-validate nor the checkpoint of --resume')
        if args.config_only and (args.cfg_options or args.amp):
            parsed.error('--config-only trains nothing: give --cfg-options and --amp to the training of the config')
        if args.seed is not None and args.seed < 0:
            parsed.error(f'--seed {args.seed}: give 0 or more')
        args.command = shlex.join([*command_line('train', 'train.py'), *(sys.argv[1:] if argv is None else argv)])
    elif given := [name for name in FOLDER_OPTIONS if getattr(args, name) not in (None, False)]:
        parsed.error(f'--{given[0].replace("_", "-")} goes with --data FOLDER; in a config, it is a key')
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Train."""
    args = parse_args(argv)
    with ended_when_asked('nothing had begun; the same command starts'):
        train(args)


def train(args: argparse.Namespace) -> None:
    """Train from the first check to the closing line."""
    load_libraries()
    if args.data is not None:
        from .from_folder.runs import train_on_folder

        train_on_folder(args)
        return
    with ExitStack() as held:
        with errors_in_one_line():
            runner = prepare(args, held)
        with ended_when_asked(RESUMES), ended_in_order():
            runner.train()
            runner.logger.info(closing_line(runner))


#: Metrics of which the last line shows the best value, too.
MAIN_METRICS = ('accuracy/top1', 'multi-label/mAP', 'knn/top1', 'knn/agreement')


def best_by(runner: Any) -> dict[str, Callable]:
    """Return the metrics that ``save_best`` names, each with ``max`` or ``min``, which picks its best value."""
    from mmengine.hooks import CheckpointHook

    hooks = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook) and hook.save_best]
    return {
        name: min if rule == 'less' else max
        for hook in hooks
        for name, rule in zip(hook.key_indicators, hook.rules, strict=False)
        if name in hook.save_best
    }


def closing_line(runner: Any) -> str:
    """Return the result of a finished training and the commands that come next.

    Args:
        runner: Of the training.
    """
    from ..distillers.recipe import is_distiller

    scalars = runner.message_hub.log_scalars
    metrics = [name for name in scalars if name.startswith('val/') and not name.endswith('time')]
    better = {f'val/{name}': best for name, best in best_by(runner).items() if f'val/{name}' in metrics}
    better = better or {name: max for name in metrics if name.endswith(MAIN_METRICS)}
    metric = next(iter([*better, *metrics]), None)
    result = 'not validated'
    if metric:
        values = scalars[metric].data[0]
        result = f'{metric.removeprefix("val/")} {values[-1]:.2f}'
        if len(values) > 1 and metric in better:
            result += f' (best of {len(values)} validations: {better[metric](values):.2f})'
    checkpoint = str(runner.message_hub.get_info('last_ckpt', None) or Path(runner.work_dir, 'CHECKPOINT.pth'))
    if (here := Path(runner.work_dir, Path(checkpoint).name)).is_file():  # the folder may have been copied or moved
        checkpoint = str(here)
    config = str(Path(runner.work_dir, Path(runner.cfg.filename).name)) if runner.cfg.filename else 'CONFIG'
    commands, tested = [], checkpoint
    if is_distiller(runner.cfg.model):
        tested = str(Path(checkpoint).with_name('student.pth'))
        commands.append(command_line('transfer', 'pth_transfer.py', '--dis_path', checkpoint, '--output_path', tested))
    if runner.cfg.get('test_dataloader'):
        commands.append(command_line('test', 'test.py', config, tested))
    lines = [f'finished: {result}. Next:' if commands else f'finished: {result}; checkpoint: {checkpoint}']
    return '\n'.join([*lines, *(f'  {shlex.join(command)}' for command in commands)])
