"""The common part of all trainings by a command: options, and a runner after all checks."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .arguments import at_least_one, training_parser

BUSY = 'another training is running in this folder; wait for its end, or give this one a folder of its own (--work-dir)'


def parser(description: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of ``train``."""
    parser = training_parser(description, config_nargs='?')
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
    """Add the options of a training on a folder of images, see :class:`~mmcls_kd.command.from_folder.making.Order`."""
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


def prepare(args: argparse.Namespace, held: ExitStack) -> Any:
    """Return the runner of a training, with all checked; ``held`` keeps the lock of its work directory."""
    from ..checks.training import check_training
    from ..engine.config import count_samples, training_config
    from ..engine.folders import check_data_folders
    from ..engine.runtime import build_runner, join_processes
    from ..engine.setup import decided_by_first, find_resume_point
    from ..files.locks import locked

    cfg = training_config(args)
    check_data_folders(cfg, ('train_dataloader', 'val_dataloader'))
    count_samples(cfg)
    join_processes(cfg)
    decided_by_first(lambda: held.enter_context(locked(Path(cfg.work_dir), BUSY)))
    find_resume_point(cfg)
    runner = build_runner(cfg)
    check_training(runner)
    runner.dump_config()
    return runner
