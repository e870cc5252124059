"""Compare any rows of any studies: their learning curves, and the paired differences to one of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import close_names
from ..files.drawing import drawing, entry
from .records import RESULT, Record, read_records
from .report import difference_cell, mean_cell
from .statistics import compare, holm, summary

COLUMNS = ('row', 'seeds', 'last epoch', 'best epoch', 'minus the first', 'p')
#: Rows that differ in one of these differ in more than their methods.
PROTOCOL = ('student', 'shared', 'cpu', 'gpu')
Rows = dict[str, dict[int, Record]]


def read_rows(sources: Sequence[Path], wanted: Sequence[str]) -> Rows:
    """Read rows of studies: the results of each by seed, by name (PAIR/ROW).

    Sources are files of raw results and folders of runs. Where two have a row of one name, their names stand before it.
    The rows have the order of ``wanted``, which are names or patterns; without any, all rows are read.
    """
    found: dict[tuple[str, str], dict[int, Record]] = {}
    for source in sources:
        if not source.exists():
            raise FileNotFoundError(f'{source}: no such file or folder')
        folder = sorted(source.glob(f'*/*/seed*/{RESULT}'))
        records = [json.loads(path.read_text()) for path in folder] if source.is_dir() else read_records(source)
        for record in records:
            if record['kind'] != 'teacher':
                found.setdefault((source.stem, f'{record["pair"]}/{record["row"]}'), {})[record['seed']] = record
    names = [row for _, row in found]
    rows = {row if names.count(row) == 1 else f'{source}:{row}': records for (source, row), records in found.items()}
    for pattern in wanted:
        if not any(fnmatchcase(row, pattern) for row in rows):
            raise ValueError(f'no row {pattern!r}{close_names(pattern, rows)}; rows are {", ".join(sorted(rows))}')
    return {row: rows[row] for pattern in wanted or ['*'] for row in rows if fnmatchcase(row, pattern)}


def compare_rows(rows: Rows) -> tuple[list[list[str]], list[str]]:
    """Compare rows with the first of them, seed by seed.

    Return cells under :data:`COLUMNS`, and sentences on the limits of the comparison. p is of the paired t-test, corrected
    by Holm's method for the number of rows.
    """
    last, best = (
        {name: {s: r[key] for s, r in row.items() if not r['diverged']} for name, row in rows.items()}
        for key in ('last', 'best')
    )
    lost = [name for name, row in rows.items() if len(last[name]) < len(row)]
    first, *others = rows
    found = {name: compare(last[name], last[first]) for name in others if not {name, first} & set(lost)}
    tested = {name: one.p for name, one in found.items() if one and one.p is not None}
    corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
    cells = []
    for name, row in rows.items():
        means = [mean_cell(summary(of[name].values())) for of in (last, best)]
        p = f'{corrected[name]:.3f}' if name in corrected else ''
        cells.append([name, str(len(row)), *means, difference_cell(one) if (one := found.get(name)) else '', p])
    notes = [f'{name}: a training diverged; no comparison is made' for name in lost]
    for key in PROTOCOL:
        if len({str(record.get(key)) for row in rows.values() for record in row.values()}) > 1:
            notes.append(f'the rows do not share {key!r}: differences are not of the methods alone')
    return cells, notes


def draw_curves(rows: Rows) -> Any:
    """Draw each row's validation accuracy over epochs: the mean over its seeds, and each seed faintly."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with drawing():
        figure = Figure(figsize=(10, 4.6), layout='constrained')
        axes = figure.add_subplot()
        for i, (name, row) in enumerate(rows.items()):
            style: Any = dict(color=f'C{i % 10}', linestyle=('-', '--', ':', '-.')[i // 10 % 4])
            curves = pd.DataFrame([record['curve'] for record in row.values() if record['curve']]).T
            curves.index += 1  # a training that diverged is shorter
            for seed in curves:
                axes.plot(curves[seed].dropna(), alpha=0.2, **style)
            if len(mean := curves.dropna().mean(axis=1)):
                axes.plot(mean, marker='o', markersize=3, label=entry(f'{name} ({mean.iloc[-1]:.2f})'), **style)
        figure.legend(loc='outside right upper', fontsize=8)
    axes.set(xlabel='epoch', ylabel='validation accuracy (%)')
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure
