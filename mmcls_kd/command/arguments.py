"""The options that commands share, and the name of the program; nothing here imports torch or mmengine."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ..configs.options import option_value

LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')


def program() -> str:
    """Return the name of the program that runs, for usage and messages: ``train.py``, or ``mmcls_kd train``."""
    return Path(sys.argv[0]).name


def command_line(verb: str, tool: str, *words: str) -> list[str]:
    """Return the command line of a verb, started in the same way as the program that runs.

    In a clone, ``tool`` is the verb's program: beside the one that runs, or one folder above.
    """
    start, _, of_package = program().partition(' ')
    if of_package:
        return [*(['mmcls-kd'] if start == 'mmcls-kd' else ['python', '-m', start]), verb, *words]
    here = Path(sys.argv[0]).parent
    path = next((path for path in (here / tool, here.parent / tool) if path.is_file()), Path(tool))
    return ['python', str(path), *words]


def new_parser(description: str | None, **keywords: Any) -> argparse.ArgumentParser:
    """Return a parser without any option that bears the program's name."""
    return argparse.ArgumentParser(prog=program(), description=description, **keywords)


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add ``--trust``."""
    parser.add_argument('--trust', action='store_true', help='allow pickled objects (weights_only=False)')


def config_parser(description: str | None, config_nargs: str | None = None, **keywords: Any) -> argparse.ArgumentParser:
    """Return a parser of the options that reading a config takes, see :func:`new_parser`."""
    parser = new_parser(description, **keywords)
    parser.add_argument('config', nargs=config_nargs, help='config file: a path, mmcls_kd::PATH or mmpretrain::PATH')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=Options,
        metavar='KEY=VALUE',
        help='override settings of the config, e.g. train_cfg.max_epochs=3 or key="[(a,b),(c,d)]"',
    )
    add_trust(parser)
    parser.set_defaults(work_dir=None, launcher='none', local_rank=0)
    return parser


def base_parser(description: str | None, **keywords: Any) -> argparse.ArgumentParser:
    """Return a parser of the options that training and testing share, named as in mmpretrain's tools."""
    parser = config_parser(description, **keywords)
    parser.add_argument('--work-dir', help='folder for logs and checkpoints (default: work_dirs/CONFIG)')
    parser.add_argument('--amp', action='store_true', help='mixed precision (bfloat16 on a CPU)')
    parser.add_argument('--no-pin-memory', action='store_true', help='do not pin the memory of loaded batches')
    parser.add_argument('--launcher', choices=LAUNCHERS, default='none', help='launcher that started the processes')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by some launchers')
    return parser


def training_parser(description: str | None, **keywords: Any) -> argparse.ArgumentParser:
    """Return a parser of the options of a training: model, data and schedule, named as in mmpretrain's tools."""
    parser = base_parser(description, **keywords)
    parser.add_argument(
        '--methods', '--method', nargs='+', help='distillation methods to switch on, e.g. --methods vitkd nkd'
    )
    parser.add_argument('--no-persistent-workers', action='store_true', help='restart the data workers every epoch')
    return parser


def at_least_one(word: str) -> int:
    """Return a positive number of a command line, as argparse's ``type``."""
    if int(word) < 1:
        raise argparse.ArgumentTypeError('must be at least 1')
    return int(word)


class Options(argparse.Action):
    """``KEY=VALUE ...`` as a dict."""

    def __call__(self, _parser: Any, namespace: Any, values: Any, _option: str | None = None) -> None:
        """Add the words of the command line; refuse a word of another form."""
        options = dict(getattr(namespace, self.dest, None) or {})
        for word in values:
            key, equals, text = word.partition('=')
            if not equals:
                raise argparse.ArgumentError(self, f'{word!r} is not of the form KEY=VALUE')
            try:
                options[key] = option_value(text)
            except ValueError as error:
                raise argparse.ArgumentError(self, str(error)) from error
        setattr(namespace, self.dest, options)
