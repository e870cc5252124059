"""Compare the rows of a study; p-values are corrected for the number of comparisons of their family."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from .plan import best_factor, sweep_results
from .records import KEYS, Record
from .statistics import Comparison, Summary, compare, holm, summary
from .study_file import BASELINE, KD, TEACHER, Study

#: The kinds of runs whose results are compared.
ROWS = ('row', 'weight', 'ablation')
#: The outcome of a run, and what may change it beside the run's settings.
OUTCOME, SURROUNDINGS = ('last', 'curve', 'held_out_accuracy', 'diverged'), ('cpu', 'gpu', 'threads', 'devices', 'software')
#: On another machine a run may differ from its row's mean by this many standard deviations.
SPREAD = 3


@dataclass(frozen=True)
class Line:
    """A row in numbers, with its raw results by seed.

    Attributes:
        kind: Kind of its runs, see :class:`.plan.Run`.
        changed: Keywords of its losses that differ from the config.
        against: Differences to other rows, by their names; none where a training of either diverged, as the remaining
            seeds are survivors.
    """

    pair: str
    row: str
    kind: str
    changed: Mapping[str, Mapping[str, Any]]
    records: pd.DataFrame
    against: dict[str, Comparison] = field(default_factory=dict)

    @property
    def diverged(self) -> dict[int, str]:
        """Messages of trainings that diverged, by seed."""
        return self.records['diverged'].dropna().to_dict()

    @property
    def accuracies(self) -> dict[int, float]:
        """Accuracy after the last epoch, in percent, by seed."""
        return self.records['last'].dropna().to_dict()

    @property
    def last(self) -> Summary | None:
        """Summary of the last epoch; None where every training diverged."""
        return summary(self.accuracies.values())

    @property
    def best(self) -> Summary | None:
        """Summary of the best epoch; None where every training diverged."""
        return summary(self.records['best'].dropna().tolist())


class Results:
    """All rows of a study, compared."""

    def __init__(self, study: Study, records: Sequence[Record]) -> None:
        self.study, self.records = study, records
        self.sweep = sweep_results(records)
        kept = [r for r in records if r['kind'] in ROWS and r['pair'] in study.pairs and not self._rejected(r)]
        table = pd.DataFrame(kept, columns=None if kept else KEYS).set_index('seed').sort_index(kind='stable')
        rows = table.groupby(['pair', 'row'], sort=False)
        self.lines = {at: Line(at[0], at[1], row['kind'].iloc[0], row['changed'].iloc[0], row) for at, row in rows}
        self._compare()

    def of(self, pair: str, kind: str) -> list[Line]:
        """Return a pair's rows of a kind: the student alone, KD, the others from the best on, those that diverged."""
        lines = [line for (p, _), line in self.lines.items() if p == pair and line.kind == kind]
        order = {BASELINE: 0, KD: 1}

        def place(line: Line) -> tuple[int, bool, float, str]:
            return order.get(line.row, 2), bool(line.diverged), -line.last.mean if line.last else 0, line.row

        return sorted(lines, key=place)

    def teacher(self, pair: str) -> float | None:
        """Return the accuracy of a pair's teacher, in percent."""
        found = [r['last'] for r in self.records if (r['kind'], r['pair'], r['row']) == ('teacher', pair, TEACHER)]
        return found[0] if found else None

    def chosen(self, pair: str, method: str) -> float | None:
        """Return the factor that the sweep found best; None where it is not complete."""
        found = self.sweep.get(f'{pair}/{method}', {})
        return best_factor(found) if self.study.sweep and set(found) == set(self.study.sweep.factors) else None

    @property
    def comparisons(self) -> int:
        """Number of comparisons that were tested."""
        return sum(difference.p is not None for line in self.lines.values() for difference in line.against.values())

    def _rejected(self, record: Record) -> bool:
        """Return whether it is of another weight than the one that the sweep found best."""
        return record['kind'] == 'weight' and record['factor'] != self.chosen(record['pair'], record['methods'][0])

    def _compare(self) -> None:
        """Compare rows; correct the p-values of each family together: a column of a table, or all ablations.

        A row that has not all of its seeds yet has no p-value: to test after each seed finds differences by chance.
        """
        ablated = {(a.pair, row): [a.against] for a in self.study.ablations.values() for row in a.rows}
        families: dict[Hashable, dict[tuple[str, str, str], float]] = defaultdict(dict)
        for (pair, row), line in self.lines.items():
            for name in ablated.get((pair, row), [BASELINE, KD]):
                other = self.lines.get((pair, name))
                if row in (name, BASELINE) or other is None or line.diverged or other.diverged:
                    continue
                if found := compare(line.accuracies, other.accuracies):
                    whole = {*self.study.seeds} <= {*line.accuracies} & {*other.accuracies}
                    line.against[name] = found = found if whole else Comparison(found.mean)
                    if found.p is not None:
                        family = line.kind if line.kind == 'ablation' else (line.kind, pair, name)
                        families[family][pair, row, name] = found.p
        for ps in families.values():
            for (pair, row, name), p in zip(ps, holm(list(ps.values())), strict=True):
                against = self.lines[pair, row].against
                against[name] = replace(against[name], p=p)


def agreement(recorded: Record, afresh: Record, row: Line | None) -> tuple[bool, str]:
    """Return whether a repeated run has the recorded result, and the reason.

    On the same processor and with the same software each epoch has to be the same. Others round otherwise, and a training
    carries that on: there the accuracy has to lie within three standard deviations of its row's mean.
    """
    if all(afresh[name] == recorded[name] for name in OUTCOME):
        return True, 'the same in every epoch'
    elsewhere = [name for name in SURROUNDINGS if afresh.get(name) != recorded.get(name)]
    if not elsewhere:
        return False, 'not the same'
    said = f'not the same, but recorded with another {" and ".join(elsewhere)}'
    if row is None or row.last is None or row.last.sd is None or row.diverged or afresh['diverged']:
        return False, f'{said}; its row has no spread to compare it with'
    agrees = abs(afresh['last'] - row.last.mean) <= SPREAD * row.last.sd
    where = 'within' if agrees else 'outside of'
    return agrees, f'{said}; {where} {SPREAD} standard deviations of its row, {row.last.mean:.2f} ± {row.last.sd:.2f}'
