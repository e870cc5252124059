"""A student of ten labels an image is at least three points of mAP above itself alone where a teacher takes part."""

from pathlib import Path

import pytest
from multi_label import compare

DATA = Path(__file__).resolve().parents[2] / 'data' / 'fashion_mnist'


@pytest.mark.acceptance
@pytest.mark.parametrize('seed', [0, 1, 2])
def test_three_points_of_map_above_the_student_alone(seed):
    if not DATA.is_dir():
        pytest.skip(f'{DATA} is not there: python tools/fetch_fashion_mnist.py fetches it')
    found = compare(DATA, seed)
    assert found['distilled'] >= found['alone'] + 3, found
