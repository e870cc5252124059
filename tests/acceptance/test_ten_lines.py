"""A student that learns from a teacher in plain PyTorch is at least five points above the same student alone."""

from pathlib import Path

import pytest
from ten_lines import compare

DATA = Path(__file__).resolve().parents[2] / 'data' / 'fashion_mnist'


@pytest.mark.acceptance
@pytest.mark.parametrize('seed', [0, 1, 2])
def test_five_points_above_the_student_alone(seed):
    if not DATA.is_dir():
        pytest.skip(f'{DATA} is not there: python tools/fetch_fashion_mnist.py fetches it')
    found = compare(DATA, seed)
    assert found['distilled'] >= found['alone'] + 5, found
