"""Compare trainings: learning curves, classes, closeness to the teacher, calibration, features; figures and a page."""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone works without being installed

from mmengine.logging import MMLogger
from rich.console import Console
from rich.table import Table

from mmcls_kd.checkpoint import atomic_path, guard_loading
from mmcls_kd.extras import need_library
from mmcls_kd.runtime import at_least_one, ended_in_order, errors_in_one_line


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('work_dirs', nargs='+', type=Path, metavar='WORK_DIR', help='work directory of a training')
    parser.add_argument('--out', type=Path, help='folder for figures and report.html (default: analysis/ in the first one)')
    parser.add_argument('--names', nargs='+', help='what to call the runs (default: the names of their folders)')
    parser.add_argument('--images', type=at_least_one, help='validation images to use, evenly spread (default: all)')
    parser.add_argument('--checkpoints', type=at_least_one, default=12, help='of a run to look at, at most (default: 12)')
    parser.add_argument('--data-root', help="folder of the data, in the place of the configs' own")
    parser.add_argument('--no-teacher', action='store_true', help='leave out what needs the teacher')
    parser.add_argument('--trust', action='store_true', help='let checkpoints run code while they are read')
    return parser.parse_args(argv)


def prepare(args):
    """All that can be refused, before any work."""
    for library, name in (('matplotlib', 'matplotlib'), ('sklearn', 'scikit-learn'), ('torchmetrics', 'torchmetrics')):
        need_library(library, f'analyze.py (by {name})', extra='analysis')
    from mmcls_kd.analysis.after import enter
    from mmcls_kd.analysis.runs import names_of, read_run

    MMLogger.get_current_instance().setLevel('ERROR')
    guard_loading(args.trust)
    args.out = args.out or args.work_dirs[0] / 'analysis'
    if args.out.exists() and not args.out.is_dir():
        raise ValueError(f'--out {args.out} is a file: name a folder')
    names = names_of(args.work_dirs, args.names)
    runs = [read_run(folder, name) for folder, name in zip(args.work_dirs, names, strict=True)]
    return enter(runs, args.data_root, args.images, not args.no_teacher)


def work(args, entrants, distillers) -> None:
    from mmcls_kd.analysis.after import compare
    from mmcls_kd.analysis.figures import draw
    from mmcls_kd.analysis.page import COLUMNS, cells, write_page

    def tell(line):
        print(line, file=sys.stderr)

    found = compare(entrants, distillers, args.checkpoints, tell)
    files = draw(found, args.out, tell)
    with atomic_path(args.out / 'numbers.json') as file:
        file.write_text(json.dumps(found.as_dict(), indent=1) + '\n')
    write_page(found, files, args.out / 'report.html')
    table = Table(*COLUMNS, title=f'On {found.images} validation images', title_justify='left')
    for column in table.columns[1:]:
        column.justify = 'right'
    for row in found.rows():
        table.add_row(*cells(row, found.unit))
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    for note in found.notes:
        console.print(note, markup=False)
    print(f'report: {args.out / "report.html"}')


def main() -> None:
    args = parse_args()
    with errors_in_one_line('analyze.py'):
        entrants, distillers = prepare(args)
    with errors_in_one_line('analyze.py'), ended_in_order('analyze.py', again='by the same command'):
        work(args, entrants, distillers)


if __name__ == '__main__':
    main()
