"""Check the data of a config before a training: every image, label and class; at most an index of shards is written."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from .arguments import at_least_one, config_parser, program
from .exits import errors_in_one_line
from .loading import load_libraries


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = config_parser(__doc__)
    cpus = os.cpu_count() or 1
    parser.add_argument('--workers', type=at_least_one, default=cpus, help='images read at a time (default: CPUs)')
    return parser


def run_config(args: argparse.Namespace) -> Any:
    """Return the config with the command line's options, which reach into a distiller's networks."""
    from ..distillers.recipe import Recipe
    from ..engine.config import load_config, merge_options

    cfg = load_config(args)
    if recipe := Recipe.of(cfg):
        recipe.inline_networks()
    merge_options(cfg, args.cfg_options)
    return cfg


def main(argv: Sequence[str] | None = None) -> None:
    """Check, print each fault, and fail if there is any."""
    args = parser().parse_args(argv)
    with errors_in_one_line(interrupted='the data are not checked to their end'):
        check(args)


def check(args: argparse.Namespace) -> None:
    """Check all data sets."""
    load_libraries()
    from ..checks.data import DataCheck, counted
    from ..engine.config import DATALOADERS
    from ..engine.folders import check_data_folders

    cfg = run_config(args)
    check_data_folders(cfg, DATALOADERS, contents=False)  # whose faults DataCheck finds all of
    data = DataCheck(cfg, args.workers)
    faults = data.run()
    sys.stdout.flush()  # the last line, on the other stream, comes last
    if faults:
        sys.exit(f'{program()}: error: {counted(faults, "fault")} in the data ({data.faults_by_name()})')
    print(f'{program()}: all is well')
