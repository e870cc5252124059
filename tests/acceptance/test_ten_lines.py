"""A student that learns from a teacher in plain PyTorch is at least five points above the same student alone."""

import pytest
from ten_lines import compare


@pytest.mark.acceptance
@pytest.mark.parametrize('seed', [0, 1, 2])
def test_five_points_above_the_student_alone(fashion_mnist, seed):
    found = compare(fashion_mnist, seed)
    assert found['distilled'] >= found['alone'] + 5, found
