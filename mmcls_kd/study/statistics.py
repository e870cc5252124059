"""Means, intervals and tests of paired differences."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

LEVEL = 0.95


@dataclass(frozen=True)
class Summary:
    """Several measurements of one thing.

    Attributes:
        count: How many.
        mean: Their mean.
        sd: Their standard deviation (n − 1); None of one.
    """

    count: int
    mean: float
    sd: float | None


def summary(values: Sequence[float]) -> Summary:
    """Mean and standard deviation.

    Example:
        >>> summary([1.0, 2.0, 3.0])
        Summary(count=3, mean=2.0, sd=1.0)
    """
    return Summary(len(values), statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


@dataclass(frozen=True)
class Comparison:
    """Differences of two rows, each of one seed.

    Attributes:
        count: How many seeds both have.
        mean: Mean difference.
        half: Half the width of its 95% interval, by Student's t; None with fewer than two seeds.
        p: Of the paired t-test, two-sided; None with fewer than two seeds.
    """

    count: int
    mean: float
    half: float | None
    p: float | None


def compare(row: Mapping[int, float], other: Mapping[int, float]) -> Comparison | None:
    """Compare two rows by the seeds that both have; None if there is no such seed.

    Args:
        row: A measurement for each seed.
        other: What to compare with, likewise.

    Example:
        >>> compare({0: 3.0, 1: 4.0, 2: 5.0}, {0: 2.0, 1: 2.0, 3: 9.0}).mean
        1.5
    """
    differences = [row[seed] - other[seed] for seed in sorted(set(row) & set(other))]
    if not differences:
        return None
    found = summary(differences)
    if found.sd is None:
        return Comparison(found.count, found.mean, None, None)
    error = found.sd / math.sqrt(found.count)
    half = float(stats.t.ppf((1 + LEVEL) / 2, found.count - 1)) * error
    if error == 0:  # the same difference each time
        return Comparison(found.count, found.mean, 0.0, 0.0 if found.mean else 1.0)
    p = 2 * float(stats.t.sf(abs(found.mean) / error, found.count - 1))
    return Comparison(found.count, found.mean, half, p)


def holm(ps: Sequence[float]) -> list[float]:
    """P-values corrected for their number, by Holm's method: each may be compared with the level as if it were alone.

    Args:
        ps: P-values of a family of comparisons.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    corrected, highest = [0.0] * len(ps), 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[index]))
        corrected[index] = highest
    return corrected
