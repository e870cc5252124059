"""Run a study: methods × seeds × pairs of networks, each through train.py, pth_transfer.py and test.py; then its report."""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone works without being installed

from mmcls_kd.extras import need_library
from mmcls_kd.runtime import errors_in_one_line
from mmcls_kd.study.desk import Desk, work
from mmcls_kd.study.execution import InterruptedStudyError
from mmcls_kd.study.records import alone


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('study', help='the study file, e.g. studies/fashion_mnist.py')
    parser.add_argument('--jobs', type=int, default=os.cpu_count(), help='runs at a time (default: one a processor)')
    parser.add_argument('--threads', type=int, default=1, help='threads that each computes with')
    parser.add_argument('--only', nargs='+', default=['*'], metavar='KEY', help="runs by name, e.g. 'cnn/*' '*/seed0'")
    parser.add_argument('--data-root', help="folder of the data, in the place of the configs' own")
    parser.add_argument('--work-dir', type=Path, help='folder for the runs (default: work_dirs/studies/STUDY)')
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument('--list', action='store_true', help='say what there is to do, and do nothing')
    instead.add_argument('--report', action='store_true', help='make tables and plots of the results, and run nothing')
    instead.add_argument('--check', metavar='KEY', help='do a finished run afresh and compare its result')
    instead.add_argument('--drop-outdated', action='store_true', help='drop results of runs that are planned otherwise now')
    args = parser.parse_args(argv)
    if args.jobs < 1 or args.threads < 1:
        parser.error('--jobs and --threads have to be at least 1')
    return args


def main():
    args = parse_args()
    with errors_in_one_line('study.py'):
        for library in ('scipy', 'matplotlib'):
            need_library(library, 'the report of a study', extra='study')
        desk = Desk(args)
        if args.list or args.report:
            return desk.show() if args.list else desk.report()
        with alone(desk.place.folder):
            try:
                return work(desk)
            except InterruptedStudyError as asked:
                print(f'study.py: ended by {asked}; the same command goes on', file=sys.stderr)
                return 75


if __name__ == '__main__':
    sys.exit(main())  # None for all well
