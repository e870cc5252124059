"""Run a study: methods × seeds × pairs of networks, each through train.py, pth_transfer.py and test.py; then its report."""

import argparse
import os
import signal
import sys
from pathlib import Path

if __name__ == '__main__':  # asked to end while importing, which takes seconds
    signal.signal(signal.SIGTERM, lambda *_: os._exit(75))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone works without being installed

from mmcls_kd.engine.runtime import ended_when_asked, errors_in_one_line
from mmcls_kd.errors import need_library
from mmcls_kd.files.locks import alone
from mmcls_kd.study.records import RUNNING

#: Assumed mean speed of a GPU, :data:`mmcls_kd.study.flops.TFLOPS`.
TFLOPS = 23.4


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('study', help='the study file, e.g. studies/fashion_mnist.py')
    parser.add_argument('--jobs', type=int, help='runs at a time (default: one a processor; with --gpus one)')
    parser.add_argument('--gpus', type=int, help='devices of each run, which share its batch; several by torchrun')
    parser.add_argument('--threads', type=int, default=1, help='threads that each computes with')
    parser.add_argument('--only', nargs='+', default=['*'], metavar='KEY', help="runs by name, e.g. 'cnn/*' '*/seed0'")
    parser.add_argument('--data-root', help="folder of the data, in the place of the configs' own")
    parser.add_argument('--work-dir', type=Path, help='folder for the runs (default: work_dirs/studies/STUDY)')
    parser.add_argument('--slurm', metavar='PARTITION', help='with --commands: each is submitted to this partition')
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument('--list', action='store_true', help='list pending runs and exit')
    instead.add_argument('--report', action='store_true', help='make tables and plots of the results, and run nothing')
    instead.add_argument('--check', metavar='KEY', help='do a finished run afresh and compare its result')
    instead.add_argument('--drop-outdated', action='store_true', help='drop results of runs that are planned otherwise now')
    instead.add_argument('--commands', type=Path, metavar='FILE', help='write a command for each run that is to be done')
    instead.add_argument('--job', metavar='KEY', help='do this run, beside others, and leave its result in its folder')
    instead.add_argument('--collect', action='store_true', help='take the results that jobs have left in their folders')
    instead.add_argument(
        '--hours',
        nargs='?',
        type=float,
        const=TFLOPS,
        metavar='TFLOPS',
        help=f'estimate GPU hours, at so many TFLOP/s in the mean (default: {TFLOPS:g})',
    )
    args = parser.parse_args(argv)
    if args.jobs is None:
        args.jobs = 1 if args.gpus else os.cpu_count()
    if args.jobs < 1 or args.threads < 1 or (args.gpus is not None and args.gpus < 1):
        parser.error('--jobs, --threads and --gpus have to be at least 1')
    if args.jobs > 1 and args.gpus:
        parser.error('with --gpus one run goes at a time, as all would take the same devices; --commands is for several')
    if args.slurm and not args.commands:
        parser.error('--slurm is for what --commands writes')
    if args.hours is not None and not args.hours > 0:
        parser.error('--hours takes a number above 0')
    return args


def main():
    args = parse_args()
    with ended_when_asked('study.py', 'the same command goes on'), errors_in_one_line('study.py'):
        for library in ('matplotlib', 'pandas', 'pydantic', 'scipy'):
            need_library(library, 'a study', extra='study')
        from mmcls_kd.study.execution import InterruptedStudyError
        from mmcls_kd.study.runner import StudyRunner

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
        with alone(runner.place.folder, RUNNING, shared=bool(args.job)):
            try:
                return runner.run()
            except InterruptedStudyError as asked:
                print(f'study.py: ended by {asked}; the same command goes on', file=sys.stderr)
                return 75


if __name__ == '__main__':
    sys.exit(main())  # None for all well
