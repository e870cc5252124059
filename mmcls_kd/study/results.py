"""What the raw results of a study say: each row in numbers, each comparison corrected for the number of its family."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .plan import best_factor, sweep_results
from .records import Record
from .statistics import LEVEL, Comparison, Summary, compare, holm, summary
from .study_file import BASELINE, KD, TEACHER, Study

#: The kinds of runs whose results are compared.
ROWS = ('row', 'weight', 'ablation')
#: What comes of a run, and what it may depend on beside what is said of it.
OUTCOME, SURROUNDINGS = ('last', 'curve', 'held_out_accuracy', 'diverged'), ('cpu', 'gpu', 'threads', 'devices', 'software')
#: Of how many standard deviations of its row a run may differ from the row's mean, where it rounds otherwise.
SPREAD = 3


@dataclass(frozen=True)
class Difference:
    """A row compared with another one.

    Attributes:
        found: The comparison.
        p: Its p-value, corrected for the number of comparisons of its family; None with fewer than two seeds.
    """

    found: Comparison
    p: float | None = None

    @property
    def significant(self) -> bool:
        """Whether it is one, after correction."""
        return self.p is not None and self.p < 1 - LEVEL


@dataclass(frozen=True)
class Line:
    """A row in numbers.

    Attributes:
        pair: The pair.
        row: The row's name.
        kind: What kind of runs they are, see :class:`.plan.Run`.
        changed: What of its losses differs from the config.
        records: Its results, by seed; of a training that diverged there is none.
        against: By the name of another row, how it differs; nothing where a training of either diverged: the others are
            lucky ones.
        diverged: How trainings diverged, by seed.
    """

    pair: str
    row: str
    kind: str
    changed: Mapping[str, Mapping[str, Any]]
    records: dict[int, Record]
    against: dict[str, Difference]
    diverged: dict[int, str]

    @property
    def accuracies(self) -> dict[int, float]:
        """Accuracy after the last epoch, in percent, by seed."""
        return {seed: record['last'] for seed, record in self.records.items()}

    @property
    def last(self) -> Summary | None:
        """Of the last epoch; None where every training diverged."""
        return summary(list(self.accuracies.values())) if self.records else None

    @property
    def best(self) -> Summary | None:
        """Of the best epoch; likewise."""
        return summary([record['best'] for record in self.records.values()]) if self.records else None


class Results:
    """All lines of a study, compared.

    Args:
        study: The study.
        records: Its raw results.
    """

    def __init__(self, study: Study, records: Sequence[Record]) -> None:
        self.study, self.records = study, records
        self.sweep = sweep_results(records)
        self.lines = {(line.pair, line.row): line for line in self._lines()}
        self._correct()

    def of(self, pair: str, kind: str) -> list[Line]:
        """A pair's lines of a kind: the student alone, KD, the others from the best on, those that diverged."""
        lines = [line for (p, _), line in self.lines.items() if p == pair and line.kind == kind]
        order = {BASELINE: 0, KD: 1}

        def place(line: Line) -> tuple[int, bool, float, str]:
            return order.get(line.row, 2), bool(line.diverged), -line.last.mean if line.last else 0, line.row

        return sorted(lines, key=place)

    def teacher(self, pair: str) -> float | None:
        """Accuracy of a pair's teacher, in percent."""
        found = [r['last'] for r in self.records if r['kind'] == 'teacher' and r['pair'] == pair and r['row'] == TEACHER]
        return found[0] if found else None

    def chosen(self, pair: str, method: str) -> float | None:
        """The factor that the sweep found best; None where it is not complete."""
        found = self.sweep.get(f'{pair}/{method}', {})
        return best_factor(found) if self.study.sweep and set(found) == set(self.study.sweep.factors) else None

    @property
    def comparisons(self) -> int:
        """The number of comparisons that were tested."""
        return sum(difference.p is not None for line in self.lines.values() for difference in line.against.values())

    def _lines(self) -> Iterator[Line]:
        groups: dict[tuple[str, str], dict[int, Record]] = {}
        for record in sorted(self.records, key=lambda record: record['seed']):
            if record['kind'] in ROWS and record['pair'] in self.study.pairs and not self._rejected(record):
                groups.setdefault((record['pair'], record['row']), {})[record['seed']] = record
        accuracies = {at: {seed: record['last'] for seed, record in records.items()} for at, records in groups.items()}
        lost = {at for at, records in groups.items() if any(record['diverged'] for record in records.values())}
        ablated = {(a.pair, row): a.against for a in self.study.ablations.values() for row in a.rows}
        for (pair, row), records in groups.items():
            diverged = {seed: record['diverged'] for seed, record in records.items() if record['diverged']}
            others: Iterable[str] = [ablated[pair, row]] if (pair, row) in ablated else [BASELINE, KD]
            found = {
                other: compare(accuracies[pair, row], accuracies[pair, other])
                for other in others
                if row not in (other, BASELINE) and (pair, other) in accuracies and not lost & {(pair, row), (pair, other)}
            }
            first = next(iter(records.values()))
            yield Line(
                pair,
                row,
                first['kind'],
                first['changed'],
                {seed: record for seed, record in records.items() if seed not in diverged},
                {other: Difference(one) for other, one in found.items() if one},
                diverged,
            )

    def _rejected(self, record: Record) -> bool:
        """Whether it is of another weight than the one that the sweep found best."""
        return record['kind'] == 'weight' and record['factor'] != self.chosen(record['pair'], record['methods'][0])

    def _correct(self) -> None:
        """Correct the p-values of each family together: what one column of one table asks, or all ablations."""
        families: dict[Hashable, list[tuple[Line, str, float]]] = defaultdict(list)
        for line in self.lines.values():
            for other, difference in line.against.items():
                if (p := difference.found.p) is not None:
                    question = line.kind if line.kind == 'ablation' else (line.kind, line.pair, other)
                    families[question].append((line, other, p))
        for family in families.values():
            corrected = holm([p for _, _, p in family])
            for (line, other, _), p in zip(family, corrected, strict=True):
                line.against[other] = replace(line.against[other], p=p)


def agreement(recorded: Record, afresh: Record, row: Line | None) -> tuple[bool, str]:
    """Whether a run done afresh has the recorded result, and in words.

    On the same processor and with the same software each epoch has to be the same. Others round otherwise, and a training
    carries that on: there the accuracy has to lie within three standard deviations of its row's mean.

    Args:
        recorded: The recorded result.
        afresh: The new one.
        row: The row in numbers, None if there is none.
    """
    if all(afresh[name] == recorded[name] for name in OUTCOME):
        return True, 'the same in every epoch'
    elsewhere = [name for name in SURROUNDINGS if afresh.get(name) != recorded.get(name)]
    if not elsewhere:
        return False, 'not the same'
    said = f'not the same, but recorded with another {" and ".join(elsewhere)}'
    if row is None or row.last is None or row.last.sd is None or row.diverged or afresh['diverged']:
        return False, f'{said}; its row has no spread to compare it with'
    off = abs(afresh['last'] - row.last.mean)
    where = 'within' if off <= SPREAD * row.last.sd else 'outside of'
    return (
        where == 'within',
        f'{said}; {where} {SPREAD} standard deviations of its row, {row.last.mean:.2f} ± {row.last.sd:.2f}',
    )
