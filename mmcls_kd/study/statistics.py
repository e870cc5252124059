"""Means, intervals and tests of paired differences."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

LEVEL = 0.95
#: Digits of a difference of accuracies; the noise of floating point is beyond them.
DIGITS = 9


@dataclass(frozen=True)
class Summary:
    """Mean and standard deviation (n − 1) of several measurements; the latter is None of a single one."""

    mean: float
    sd: float | None


def summary(values: Collection[float]) -> Summary | None:
    """Return mean and standard deviation; None without any value.

    Example:
        >>> summary([1.0, 2.0, 3.0])
        Summary(mean=2.0, sd=1.0)
    """
    if not values:
        return None
    return Summary(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


@dataclass(frozen=True)
class Comparison:
    """Paired differences of two rows; of a single seed the mean alone.

    Attributes:
        mean: Mean difference.
        half: Half the width of its 95% interval, by Student's t; None without a spread.
        p: Of the paired t-test, two-sided, without a spread of the sign test; in a study corrected for the number of
            comparisons of its family.
    """

    mean: float
    half: float | None = None
    p: float | None = None

    @property
    def significant(self) -> bool:
        """Whether the difference is significant."""
        return self.p is not None and self.p < 1 - LEVEL


def compare(row: Mapping[int, float], other: Mapping[int, float]) -> Comparison | None:
    """Compare two rows, a measurement for each seed, by the seeds that both have; None if there is no such seed.

    Example:
        >>> compare({0: 3.0, 1: 4.0, 2: 5.0}, {0: 2.0, 1: 2.0, 3: 9.0}).mean
        1.5
    """
    both = pd.DataFrame({'row': pd.Series(row, dtype=float), 'other': pd.Series(other, dtype=float)}).dropna()
    if both.empty:
        return None
    differences = both.row - both.other
    mean = statistics.fmean(differences)
    if len(both) == 1:
        return Comparison(mean)
    if differences.round(DIGITS).nunique() == 1:  # accuracies have steps: few seeds that differ alike are no certainty
        return Comparison(mean, None, 2.0 ** (1 - len(both))) if round(mean, DIGITS) else Comparison(mean, 0.0, 1.0)
    test = stats.ttest_rel(both.row, both.other)
    low, high = test.confidence_interval(LEVEL)
    return Comparison(mean, float(high - low) / 2, float(test.pvalue))


def holm(ps: Sequence[float]) -> list[float]:
    """Return the p-values of a family of comparisons, corrected for their number by Holm's method.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    order = np.argsort(ps, kind='stable')
    scaled = np.minimum(1, np.sort(ps) * np.arange(len(ps), 0, -1))
    corrected = np.empty(len(ps))
    corrected[order] = np.maximum.accumulate(scaled)
    return corrected.tolist()
