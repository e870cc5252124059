"""Store a teacher's logits, and vectors that the methods read, or other features, for the views that a training will see.

model.teacher_store=DIR then trains without the teacher.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from .arguments import training_parser
from .exits import ended_in_order, ended_when_asked, errors_in_one_line
from .loading import load_libraries

BUSY = 'another program is storing into this folder; wait for its end, or give this one a folder of its own (--store)'


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = training_parser(__doc__)
    parser.add_argument('--epochs', type=int, required=True, help='number of epochs of views to store')
    parser.add_argument('--store', help='folder of the store (default: teacher_store in the work directory)')
    parser.add_argument('--top-k', type=int, help='number of logits of each view to store (default: all)')
    parser.add_argument(
        '--with',
        nargs='+',
        default=[],
        dest='features',
        metavar='NAME',
        help='features to store beside the vectors that the methods of the config read, such as vector feat (default: none)',
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Store."""
    args = parser().parse_args(argv)
    with ended_when_asked('what is stored stays; the same command goes on'):
        store(args)


def store(args: argparse.Namespace) -> None:
    """Store from the first check to the last shard."""
    load_libraries()
    from ..checks.training import load_data
    from ..engine.config import count_samples, training_config
    from ..engine.folders import check_data_folders
    from ..engine.runtime import build_runner, join_processes
    from ..engine.setup import decided_by_first
    from ..files.locks import locked
    from ..teacher_store.writer import StoreWriter, prepare

    with ExitStack() as held:
        with errors_in_one_line():
            cfg = training_config(args)
            prepare(cfg, args.epochs)
            check_data_folders(cfg, ('train_dataloader',))
            count_samples(cfg)
            join_processes(cfg)
            folder = Path(args.store or Path(cfg.work_dir, 'teacher_store'))
            decided_by_first(lambda: held.enter_context(locked(folder, BUSY)))
            runner = build_runner(cfg)
            load_data(runner)
            writer = StoreWriter(runner, folder, args.epochs, args.top_k, args.features)
            writer.announce()
            writer.check_space()
        with ended_in_order(again='by the same command'):
            writer.write()
