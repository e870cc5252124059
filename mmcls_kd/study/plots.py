"""Draw a study's plots, of the numbers in its tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..files.atomic import atomic_path
from .records import Record
from .report import TITLES, drawn, picture
from .results import Line, Results
from .study_file import BASELINE, Study

#: Up to this many points the axis is linear; and its possible ticks.
LINEAR, TICKS = 10, [-50, -20, *range(-10, 11, 2), 20, 50]


def draw(study: Study, records: Sequence[Record]) -> list[Path]:
    """Draw each pair's differences to the student alone, of rows with several seeds; return the files."""
    results, files = Results(study, records), []
    for pair in study.pairs:
        if lines := sorted(drawn(results, pair), key=lambda line: line.against[BASELINE].mean):
            files.append(study.report.parent / picture(study, pair))
            diverged = [line.row for kind in ('row', 'weight') for line in results.of(pair, kind) if line.diverged]
            _differences(lines, results.lines[pair, BASELINE], study.pairs[pair].title, diverged, files[-1])
    return files


def _differences(lines: Sequence[Line], baseline: Line, title: str, diverged: Sequence[str], file: Path) -> None:
    """Draw for each row the difference of each seed, their mean and its 95% interval."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    alone = baseline.accuracies
    with rc_context({'svg.hashsalt': 'study', 'font.size': 9, 'text.parse_math': False}):  # the same file each time
        figure = Figure(figsize=(7, 1.2 + 0.26 * len(lines)), layout='constrained')
        axes = figure.add_subplot()
        axes.axvline(0, color='0.6', linewidth=1)
        for y, line in enumerate(lines):
            found = line.against[BASELINE]
            color = 'tab:blue' if found.significant else '0.45'
            each = [value - alone[seed] for seed, value in line.accuracies.items() if seed in alone]
            axes.plot(each, [y] * len(each), 'o', color=color, alpha=0.35, markersize=4, markeredgewidth=0)
            axes.errorbar(found.mean, y, xerr=found.half or 0, fmt='D', color=color, markersize=5, capsize=3)
        axes.set_yticks(range(len(lines)), [TITLES.get(line.row, line.row) for line in lines])
        axes.set_ylim(-0.7, len(lines) - 0.3)
        axes.set_xscale('symlog', linthresh=LINEAR, linscale=2)  # a row that collapsed leaves room for the others
        left, right = axes.get_xlim()
        axes.set_xticks([tick for tick in TICKS if left <= tick <= right], minor=False)
        axes.xaxis.set_major_formatter('{x:+g}')
        axes.minorticks_off()
        axes.grid(axis='x', color='0.9')
        axes.set_axisbelow(True)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel(
            'top-1 accuracy minus that of the student alone, in points: mean and 95% interval, dots are seeds;\n'
            f'blue: significant after correction for the number of rows; beyond ±{LINEAR} the scale is logarithmic'
            + (f';\nnot shown, as they diverged: {", ".join(diverged)}' if diverged else '')
        )
        with atomic_path(file) as unfinished:
            figure.savefig(unfinished, format='svg', facecolor='white', metadata={'Date': None})
