"""Measure teacher, student and loss terms before a training: accuracy, calibration, gradients, and advice."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .arguments import at_least_one, training_parser
from .exits import ended_in_order, errors_in_one_line
from .loading import load_libraries


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = training_parser(__doc__)
    parser.add_argument('--images', type=at_least_one, help='validation images to use, evenly spread (default: all)')
    parser.add_argument('--batches', type=at_least_one, default=4, help='training batches for the gradients (default: 4)')
    parser.add_argument('--json', type=Path, help='write the numbers into this file')
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print; write the numbers."""
    args = parser().parse_args(argv)
    load_libraries()
    from ..checks.training import check_training
    from ..engine.config import count_samples, training_config
    from ..engine.folders import check_data_folders
    from ..engine.runtime import build_runner

    with tempfile.TemporaryDirectory() as folder:  # the runner wants one for its log; nothing of a run's is touched
        args.work_dir = folder
        with errors_in_one_line():
            from ..analysis.preflight import look, prepare, show
            from ..files.showing import screen, write_json

            if args.json and args.json.is_dir():
                raise ValueError(f'--json {args.json} is a folder: name a file in it')
            cfg = training_config(args)
            prepare(cfg)
            check_data_folders(cfg, ('train_dataloader', 'val_dataloader'))
            count_samples(cfg)
            runner = build_runner(cfg)
            check_training(runner)
            found = look(runner, args.images, args.batches, log=lambda line: print(line, file=sys.stderr))
            show(found, screen())
        if args.json:
            with ended_in_order(again='by the same command'):
                write_json(found, args.json)
