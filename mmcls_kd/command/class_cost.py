"""Write the distances between classes, by a distiller's teacher on training images: the cost that WKDLogitLoss needs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from .arguments import training_parser
from .exits import ended_in_order, errors_in_one_line
from .loading import load_libraries


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = training_parser(__doc__)
    parser.add_argument('--output', type=Path, required=True, help='the file to write')
    parser.add_argument('--images', type=int, help='number of training images to use (default: all)')
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Write the cost."""
    args = parser().parse_args(argv)
    load_libraries()
    from ..analysis.prototypes import Prototypes, prepare
    from ..checks.training import check_labels, load_data
    from ..engine.config import training_config
    from ..engine.folders import check_data_folders
    from ..engine.models import unwrapped
    from ..engine.runtime import build_runner

    with errors_in_one_line():
        if args.output.is_dir():
            raise ValueError(f'--output {args.output} is a folder: name a file in it')
        args.output.parent.mkdir(parents=True, exist_ok=True)
        cfg = training_config(args)
        prepare(cfg)
        check_data_folders(cfg, ('train_dataloader',))
        runner = build_runner(cfg)
        loader = load_data(runner)['train_dataloader']
        check_labels(loader.dataset, unwrapped(runner).num_classes, 'train_dataloader')
        prototypes = Prototypes(runner, loader, args.images)
    with ended_in_order(again='by the same command'):
        prototypes.add_all()
        prototypes.write_cost(args.output)
