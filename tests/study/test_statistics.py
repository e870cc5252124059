"""The statistics of studies: by hand, and against scipy and numpy."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mmcls_kd.study.statistics import compare, holm, summary

A = {0: 86.2, 1: 85.9, 2: 86.8, 3: 86.1, 4: 86.5}
B = {0: 85.0, 1: 85.3, 2: 85.2, 3: 85.4, 4: 84.9}


def test_mean_and_deviation():
    found = summary(list(A.values()))
    assert found.mean == pytest.approx(86.3)
    assert found.sd == pytest.approx(np.std(list(A.values()), ddof=1))
    assert summary([86.2]).sd is None


def test_a_paired_test_is_scipys():
    found = compare(A, B)
    test = stats.ttest_rel(list(A.values()), list(B.values()))
    interval = test.confidence_interval(0.95)
    assert found.p == pytest.approx(test.pvalue)
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((interval.low, interval.high))


def test_an_interval_by_hand():
    found = compare({0: 1.0, 1: 3.0}, {0: 0.0, 1: 0.0})  # differences 1 and 3: mean 2, deviation √2, error 1
    assert found.mean == 2
    assert found.half == pytest.approx(12.706205, abs=1e-5)  # t of one degree of freedom
    assert found.p == pytest.approx(2 * (0.5 - math.atan(2) / math.pi))  # a Cauchy distribution's tail


def test_seeds_are_paired():
    shuffled = {seed: B[seed] for seed in (3, 1, 4, 0, 2)}
    assert compare(A, shuffled) == compare(A, B)
    assert compare(A, {**B, 9: 0.0}) == compare(A, B)
    assert compare({0: 1.0}, {1: 1.0}) is None


def test_one_seed_has_a_difference_and_no_interval():
    found = compare({0: 2.0}, {0: 1.5, 1: 1.0})
    assert (found.mean, found.half, found.p) == (0.5, None, None)


def test_equal_differences():
    assert compare({0: 1.0, 1: 2.0}, {0: 1.0, 1: 2.0}).p == 1
    assert compare({0: 88.14 + 1e-13, 1: 87.2, 2: 86.0}, {0: 88.14, 1: 87.2, 2: 86.0}).p == 1
    two = compare({0: 2.0, 1: 3.0}, {0: 1.0, 1: 2.0})  # as by chance, of accuracies on a few images
    assert (two.mean, two.half, two.p) == (1, None, 0.5)
    six = compare(dict.fromkeys(range(6), 1.0), dict.fromkeys(range(6), 2.0))
    assert (six.mean, six.half) == (-1, None)
    assert six.p == pytest.approx(stats.binomtest(6, 6).pvalue)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_rejects_step_by_step(ps):
    """The rule as Holm gives it: in the order of p compare with α / (m − k), and stop at the first that is above."""
    alpha, corrected, going_on = 0.05, holm(ps), True
    for k, i in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        bound = alpha / (len(ps) - k)
        if abs(ps[i] - bound) < 1e-12:
            return
        going_on = going_on and ps[i] <= bound
        assert (corrected[i] <= alpha) == going_on
