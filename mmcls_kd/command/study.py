"""Run a study: methods × seeds × pairs of networks, each trained, transferred and tested; then write its report."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from .arguments import add_trust, at_least_one, command_line, new_parser, program
from .exits import ended_when_asked, errors_in_one_line

#: Assumed mean speed of a GPU, :data:`mmcls_kd.study.flops.TFLOPS`.
TFLOPS = 23.4


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = new_parser(__doc__)
    parser.add_argument('study', help='the study file, e.g. studies/fashion_mnist.py')
    parser.add_argument('--jobs', type=at_least_one, help='runs at a time (default: one a processor; with --gpus one)')
    parser.add_argument('--gpus', type=at_least_one, help='devices of each run, which share its batch; several by torchrun')
    parser.add_argument('--threads', type=at_least_one, default=1, help='threads of each run')
    parser.add_argument('--only', nargs='+', default=['*'], metavar='KEY', help="runs by name, e.g. 'cnn/*' '*/seed0'")
    parser.add_argument('--data-root', help="folder of the data, in the place of the configs' own")
    parser.add_argument('--work-dir', type=Path, help='folder for the runs (default: work_dirs/studies/STUDY)')
    parser.add_argument('--slurm', metavar='PARTITION', help='with --commands: each is submitted to this partition')
    add_trust(parser)
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument('--list', action='store_true', help='list pending runs and exit')
    instead.add_argument('--report', action='store_true', help='make tables and plots of the results, and run nothing')
    instead.add_argument('--check', metavar='KEY', help='repeat a finished run and compare its result')
    instead.add_argument('--drop-outdated', action='store_true', help='drop results of runs that are planned otherwise now')
    instead.add_argument('--commands', type=Path, metavar='FILE', help='write a command for each pending run')
    instead.add_argument('--job', metavar='KEY', help='do this run, beside others, and leave its result in its folder')
    instead.add_argument('--collect', action='store_true', help='take the results that jobs have left in their folders')
    instead.add_argument(
        '--hours',
        nargs='?',
        type=float,
        const=TFLOPS,
        metavar='TFLOPS',
        help=f'estimate GPU hours, at this mean speed in TFLOP/s (default: {TFLOPS:g})',
    )
    return parser


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; refuse options that do not go together."""
    args = (parsed := parser()).parse_args(argv)
    if args.jobs is None:
        args.jobs = 1 if args.gpus else os.cpu_count() or 1
    if args.jobs > 1 and args.gpus:
        parsed.error('with --gpus one run goes at a time, as all would take the same devices; --commands is for several')
    if args.slurm and not args.commands:
        parsed.error('--slurm is for what --commands writes')
    if args.hours is not None and not args.hours > 0:
        parsed.error('--hours takes a number above 0')
    args.start = command_line('study', 'study.py', args.study)
    return args


def main(argv: Sequence[str] | None = None) -> int | str | None:
    """Run the study, or do one of the other jobs; return the exit code, or a message of failure."""
    args = parse_args(argv)
    with ended_when_asked('the same command goes on'):
        return run(args)


def run(args: argparse.Namespace) -> int | str | None:
    """Do the job of the command line."""
    from ..errors import EXIT_CODE, need_library
    from ..files.locks import locked

    with errors_in_one_line():
        for library in ('matplotlib', 'pandas', 'pydantic', 'scipy'):
            need_library(library, 'a study', extra='study')
        from ..study.execution import InterruptedStudyError
        from ..study.records import RUNNING
        from ..study.runner import StudyRunner

        runner = StudyRunner(args)
        for wanted, do in (
            (args.list, runner.list_pending),
            (args.report, runner.report),
            (args.commands, runner.write_commands),
            (args.collect, runner.collect),
            (args.hours, runner.estimate),
        ):
            if wanted:
                return do()
        with locked(runner.place.folder, RUNNING, shared=bool(args.job)):
            try:
                code = runner.run()
                return f'{program()}: {code}' if isinstance(code, str) else code
            except InterruptedStudyError as asked:
                print(f'{program()}: ended by {asked}; the same command goes on', file=sys.stderr)
                return EXIT_CODE
