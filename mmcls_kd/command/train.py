"""Train a student under a distiller config, or any mmpretrain classifier; or on a folder of images, without a config."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .arguments import at_least_one, command_line, training_parser
from .exits import ended_in_order, ended_when_asked, errors_in_one_line
from .loading import load_libraries

#: Options that need ``--data``.
FOLDER_OPTIONS = (
    *('student', 'teacher', 'teacher_weights', 'student_weights', 'epochs', 'then', 'then_epochs', 'size'),
    *('val_fraction', 'seed', 'baseline', 'config_only'),
)
BUSY = 'another training is running in this folder; wait for its end, or give this one a folder of its own (--work-dir)'


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = training_parser(__doc__, config_nargs='?')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='resume from this checkpoint, or from the latest one in the work directory if none is named',
    )
    parser.add_argument('--no-validate', action='store_true', help='do not validate during training')
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the learning rate with the total batch size')
    add_folder_options(parser)
    return parser


def add_folder_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a training on a folder of images, see :class:`~mmcls_kd.from_folder.making.Order`."""
    group = parser.add_argument_group('a folder of images instead of a config')
    group.add_argument('--data', metavar='FOLDER', help='class folders, below train/ and val/ or to be split')
    group.add_argument(
        '--student', metavar='NAME', help='timm:NAME, torchvision:NAME, hf:NAME, a name of mmpretrain, a config'
    )
    group.add_argument(
        '--teacher', metavar='NAME', nargs='+', action='extend', help='the same; without one, the student is trained alone'
    )
    group.add_argument(
        '--teacher-weights', metavar='FILE', nargs='+', action='extend', help='(default: the weights published with it)'
    )
    group.add_argument('--student-weights', metavar='FILE', help="weights to start from, or 'pretrained' (default: random)")
    group.add_argument('--epochs', type=at_least_one, help='(default: by the number of images)')
    group.add_argument(
        '--then', choices=('linear', 'finetune'), help='put a classifier on the student of a teacher without classes'
    )
    group.add_argument('--then-epochs', type=at_least_one, metavar='N', help='(default: as many as of the distillation)')
    group.add_argument('--size', type=at_least_one, metavar='PIXELS', help='size of the images (default: by the images)')
    group.add_argument('--val-fraction', type=float, metavar='SHARE', help='share of a split for validation (default: 0.2)')
    group.add_argument('--seed', type=int, help='seed of split and training (default: 0)')
    group.add_argument('--baseline', action='store_true', help='train the student alone, too, on the same budget')
    group.add_argument('--config-only', action='store_true', help='write the config, and train nothing')


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; refuse options that do not go together."""
    args = (parsed := parser()).parse_args(argv)
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
        from .folder_runs import train_on_folder

        train_on_folder(args)
        return
    with ExitStack() as held:
        with errors_in_one_line():
            runner = prepare(args, held)
        with ended_in_order():
            runner.train()
            runner.logger.info(closing_line(runner))


def prepare(args: argparse.Namespace, held: ExitStack) -> Any:
    """Return the runner of a training, with all checked; ``held`` keeps the lock of its work directory."""
    from ..checks.training import check_training
    from ..engine.config import count_samples, training_config
    from ..engine.folders import check_data_folders, check_idx_files
    from ..engine.runtime import build_runner, join_processes
    from ..engine.setup import decided_by_first, find_resume_point
    from ..files.locks import locked

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
    return runner


#: Metrics of which the last line shows the best value, too.
MAIN_METRICS = ('accuracy/top1', 'multi-label/mAP')


def closing_line(runner: Any) -> str:
    """Return the result of a finished training and the commands that come next.

    Args:
        runner: Of the training.
    """
    from ..distillers.recipe import is_distiller

    scalars = runner.message_hub.log_scalars
    metrics = [name for name in scalars if name.startswith('val/') and not name.endswith('time')]
    metric = next((name for name in metrics if name.endswith(MAIN_METRICS)), next(iter(metrics), None))
    result = 'not validated'
    if metric:
        values = scalars[metric].data[0]
        result = f'{metric.removeprefix("val/")} {values[-1]:.2f}'
        if len(values) > 1 and metric.endswith(MAIN_METRICS):
            result += f' (best of {len(values)} validations: {max(values):.2f})'
    checkpoint = str(runner.message_hub.get_info('last_ckpt', None) or Path(runner.work_dir, 'CHECKPOINT.pth'))
    config = str(Path(runner.work_dir, Path(runner.cfg.filename).name)) if runner.cfg.filename else 'CONFIG'
    commands = [command_line('test', 'test.py', config, checkpoint)]
    if is_distiller(runner.cfg.model):
        student = str(Path(checkpoint).with_name('student.pth'))
        transfer = command_line('transfer', 'pth_transfer.py', '--dis_path', checkpoint, '--output_path', student)
        commands = [transfer, command_line('test', 'test.py', config, student)]
    return '\n'.join([f'finished: {result}. Next:', *(f'  {shlex.join(command)}' for command in commands)])
