"""Compare trainings: learning curves, classes, closeness to the teacher, calibration, features; figures and a page."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .arguments import add_trust, at_least_one, new_parser, program
from .exits import ended_in_order, errors_in_one_line


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = new_parser(__doc__)
    parser.add_argument(
        'work_dirs',
        nargs='+',
        type=Path,
        metavar='WORK_DIR',
        help="work directory of a training; or a study's raw results (.jsonl) or folder of runs, to compare its rows",
    )
    parser.add_argument('--out', type=Path, help='folder for figures and report.html (default: analysis/ in the first one)')
    parser.add_argument('--names', nargs='+', help='names of the runs (default: the names of their folders)')
    parser.add_argument('--images', type=at_least_one, help='validation images to use, evenly spread (default: all)')
    parser.add_argument('--checkpoints', type=at_least_one, default=12, help='maximum number a run (default: 12)')
    parser.add_argument('--data-root', help="folder of the data, in the place of the configs' own")
    parser.add_argument('--no-teacher', action='store_true', help='leave out the parts that need the teacher')
    parser.add_argument(
        '--rows', nargs='+', default=[], help='rows of studies, e.g. cnn/kd cnn/nkd; the first is compared with'
    )
    add_trust(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Compare rows of studies, or trainings."""
    args = parser().parse_intermixed_args(argv)
    with errors_in_one_line():
        if of_studies(args):
            compare_studies(args)
            return
        entrants, distillers = prepare(args)
    with errors_in_one_line(), ended_in_order(again='by the same command'):
        compare_trainings(args, entrants, distillers)


def of_studies(args: argparse.Namespace) -> bool:
    """Return whether all sources are of studies; refuse a mixture."""
    from ..errors import need_library
    from ..study.records import is_of_study

    found = [is_of_study(source) for source in args.work_dirs]
    if any(found):
        for library in ('matplotlib', 'pandas', 'scipy'):
            need_library(library, 'the comparison of rows', extra='study')
    if any(found) and not all(found):
        other = args.work_dirs[found.index(False)]
        raise ValueError(f'{other} is no study: name results of studies alone, or work directories of trainings alone')
    if args.rows and not any(found):
        raise ValueError('--rows is for studies: name the raw results of one (.jsonl)')
    return all(found)


def compare_studies(args: argparse.Namespace) -> None:
    """Compare rows of studies, of which there are no checkpoints any more."""
    from ..files.atomic import atomic_path
    from ..files.showing import show
    from ..study.curves import COLUMNS, compare_rows, draw_curves, read_rows

    rows = read_rows(args.work_dirs, args.rows)
    first = args.work_dirs[0]
    out = args.out or (first if first.is_dir() else first.parent) / 'analysis'
    make_folder(out)
    cells, notes = compare_rows(rows)
    with atomic_path(out / 'curves.png') as file:
        draw_curves(rows).savefig(file, format='png', dpi=110)
    show('Rows', COLUMNS, cells, notes)
    print(f'curves: {out / "curves.png"}')


def prepare(args: argparse.Namespace) -> Any:
    """Read and check the trainings before any work; return the entrants and their distillers."""
    from ..errors import need_library

    for library, name in (('matplotlib', 'matplotlib'), ('sklearn', 'scikit-learn')):
        need_library(library, f'{program()} (by {name})', extra='analysis')
    from mmengine.logging import MMLogger

    from ..analysis.compare import enter
    from ..analysis.runs import names_of, read_run
    from ..files.checkpoint import check_end
    from ..networks.loading import guard_loading

    MMLogger.get_current_instance().setLevel('ERROR')
    guard_loading(args.trust)
    args.out = args.out or args.work_dirs[0] / 'analysis'
    if args.out.exists() and not args.out.is_dir():
        raise ValueError(f'--out {args.out} is a file: name a folder')
    names = names_of(args.work_dirs, args.names)
    runs = [read_run(folder, name) for folder, name in zip(args.work_dirs, names, strict=True)]
    for run in runs:
        for path in run.some_checkpoints(args.checkpoints).values():
            check_end(path)
    found = enter(runs, args.data_root, args.images, not args.no_teacher)
    make_folder(args.out)
    return found


def make_folder(path: Path) -> None:
    """Make the folder of ``--out``, or refuse it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f'--out {path}: the folder can’t be made ({error.strerror}): name another one') from error


def compare_trainings(args: argparse.Namespace, entrants: Any, distillers: Any) -> None:
    """Compare trainings, and write figures, numbers and the page."""
    from ..analysis.compare import compare
    from ..analysis.figures import draw
    from ..analysis.page import COLUMNS, cells, write_page
    from ..files.showing import show, write_json

    def tell(line: str) -> None:
        print(line, file=sys.stderr)

    found = compare(entrants, distillers, args.checkpoints, tell)
    files = draw(found, args.out, tell)
    write_json(found.as_dict(), args.out / 'numbers.json')
    write_page(found, files, args.out / 'report.html')
    rows = [cells(row, found.unit) for row in found.rows()]
    show(f'On {found.images} validation images', COLUMNS, rows, found.notes)
    print(f'report: {args.out / "report.html"}')
