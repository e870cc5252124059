"""A student of ten labels an image is at least three points of mAP above itself alone where a teacher takes part."""

import pytest
from multi_label import compare


@pytest.mark.acceptance
@pytest.mark.parametrize('seed', [0, 1, 2])
def test_three_points_of_map_above_the_student_alone(fashion_mnist, seed):
    found = compare(fashion_mnist, seed)
    print(seed, found)
    assert found['distilled'] >= found['alone'] + 3, found
