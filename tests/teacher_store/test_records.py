"""Records: what is stored of logits, and the logits that losses see, against slow ones in float64."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import logits, seeded

from mmcls_kd.teachers.records import decode, encode, record_type

HALF = 2.0**-11  # how far a float16 may be from what it rounds, in units of it
EXACT = dict(rtol=0, atol=0)


def rest_of(row, k):
    """The log-sum-exp of all but the k largest numbers of a list; -inf of none."""
    others = sorted(row)[: len(row) - k]
    most = max(others)
    return most + math.log(math.fsum(math.exp(x - most) for x in others))


def seen_of(row, k):
    """The logits that a loss should see of a list of logits: the k largest in float16, the others' probability evenly."""
    order = sorted(range(len(row)), key=lambda i: -row[i])
    even = rest_of(row, k) - math.log(len(row) - k) if k < len(row) else 0.0
    seen = [even] * len(row)
    for i in order[:k]:
        seen[i] = float(np.float16(np.float32(row[i])))
    return seen


class TestType:
    @pytest.mark.parametrize(('classes', 'k'), [(2, 1), (10, 3), (100, 50), (1000, 10), (1000, 999), (65536, 100)])
    def test_a_record_is_within_the_promised_size(self, classes, k):
        assert record_type(classes, k).itemsize == 4 * k + 4 <= 4 * k + 16

    @pytest.mark.parametrize('classes', [1, 10, 1000, 70000])
    def test_all_logits_need_no_classes(self, classes):
        assert record_type(classes, classes).itemsize == 2 * classes

    def test_many_classes_need_larger_numbers(self):
        assert record_type(2**16, 5)['class'].base == np.uint16
        assert record_type(2**16 + 1, 5)['class'].base == np.uint32
        assert record_type(2**16 + 1, 5).itemsize == 6 * 5 + 4

    @pytest.mark.parametrize('k', [-1, 0, 11])
    def test_a_k_that_cannot_be_is_refused(self, k):
        with pytest.raises(ValueError, match=rf'top-k of {k} logits: choose from 1 to 10, the number of classes'):
            record_type(10, k)
        with pytest.raises(ValueError, match='choose from 1 to 10'):
            encode(torch.zeros(2, 10), k)


@pytest.mark.parametrize('k', [1, 3, 9, 10])
@pytest.mark.parametrize('scale', [0.01, 1.0, 20.0])
def test_against_the_slow_one(k, scale):
    logit = logits(6, 10, scale, seed=k, dtype=torch.float32)
    records = encode(logit, k)
    assert records.dtype == record_type(10, k)
    assert records.shape == (6,)
    rows = logit.double().tolist()
    if k < 10:
        np.testing.assert_allclose(records['rest'], [rest_of(row, k) for row in rows], rtol=1e-6, atol=1e-6 * scale)
    expected = torch.tensor([seen_of(row, k) for row in rows], dtype=torch.float32)
    torch.testing.assert_close(decode(records, 10), expected, rtol=1e-6, atol=2e-6 * max(scale, 1))


def test_the_largest_are_stored_by_their_classes_and_come_back_in_the_order_of_these():
    logit = torch.tensor([[0.5, 4.0, -1.0, 2.0], [7.0, -7.0, 6.0, 5.0]])
    records = encode(logit, 2)
    assert [set(row) for row in records['class'].tolist()] == [{1, 3}, {0, 2}]
    seen = decode(records, 4)
    assert seen[0, [1, 3]].tolist() == [4.0, 2.0]
    assert seen[1, [0, 2]].tolist() == [7.0, 6.0]
    assert seen[0, 0] == seen[0, 2] < 2
    assert seen[1, 1] == seen[1, 3] < 6


def test_all_logits_come_back_as_float16_has_them():
    logit = logits(50, 37, 5.0, dtype=torch.float32)
    assert torch.equal(decode(encode(logit, 37), 37), logit.half().float())
    assert not torch.equal(logit.half().float(), logit)  # else nothing would have been rounded


def test_with_one_class_left_out_that_class_keeps_its_logit():
    logit = logits(20, 8, 3.0, seed=2, dtype=torch.float32)
    records = encode(logit, 7)
    torch.testing.assert_close(torch.from_numpy(records['rest'].copy()), logit.min(dim=1).values, **EXACT)
    seen = decode(records, 8)
    least = logit.argmin(dim=1, keepdim=True)
    torch.testing.assert_close(seen.gather(1, least), logit.gather(1, least), **EXACT)


def test_classes_beyond_sixteen_bits():
    classes = 2**16 + 1000
    logit = torch.zeros(3, classes)
    wanted = torch.tensor([[classes - 1, 0], [2**16, 2**16 - 1], [2**16 + 1, 1]])
    logit.scatter_(1, wanted, torch.tensor([[9.0, 8.0]]).expand(3, 2))
    records = encode(logit, 2)
    assert [set(row) for row in records['class'].tolist()] == [set(row) for row in wanted.tolist()]
    torch.testing.assert_close(decode(records, classes), logit, rtol=0, atol=1e-5)
    whole = encode(logit, classes)
    assert whole.itemsize == 2 * classes
    assert torch.equal(decode(whole, classes), logit)


@pytest.mark.parametrize('k', [1, 4, 9, 10])
def test_logits_of_200_stay_finite(k):
    signs = torch.where(torch.rand(40, 10, generator=seeded(0)) < 0.5, -200.0, 200.0)
    logit = signs + logits(40, 10, 1.0, dtype=torch.float32)
    seen = decode(encode(logit, k), 10)
    assert seen.isfinite().all()
    expected = torch.tensor([seen_of(row, k) for row in logit.double().tolist()], dtype=torch.float32)
    torch.testing.assert_close(seen, expected, rtol=1e-6, atol=1e-4)
    both = seen.softmax(dim=1), logit.softmax(dim=1)
    if k >= 9:  # as near as float16 has logits of 200: in steps of an eighth
        torch.testing.assert_close(*both, rtol=0.14, atol=1e-6)


@pytest.mark.parametrize('k', [2, 4])
@pytest.mark.parametrize('bad', [float('nan'), float('inf'), -float('inf'), 7e4, -7e4])
def test_what_float16_cannot_hold_is_refused(bad, k):
    logit = torch.tensor([[1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]])
    logit[1, 0] = bad
    if k == 4 or bad != bad or bad > 0:
        with pytest.raises(ValueError, match='logits that float16 cannot hold'):
            encode(logit, k)
    else:  # it belongs to the rest, whose sum it does not move
        assert encode(logit, k)['rest'].tolist() == pytest.approx([math.log(math.e + math.e**2), 2.0])


def test_the_largest_logit_of_a_float16_is_taken():
    logit = torch.tensor([[65504.0, -65504.0, 0.0]])
    assert torch.equal(decode(encode(logit, 3), 3), logit)


def test_lower_precision_is_stored_as_it_is():
    logit = logits(4, 6, dtype=torch.float32)
    for dtype in (torch.float16, torch.bfloat16):
        assert torch.equal(decode(encode(logit.to(dtype), 6), 6), logit.to(dtype).float())


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_the_shares_of_the_kept_and_of_the_rest_are_those_of_the_teacher(data):
    classes = data.draw(st.integers(2, 30))
    k = data.draw(st.integers(1, classes))
    row = data.draw(st.lists(st.floats(-50, 50, width=32), min_size=classes, max_size=classes))
    logit = torch.tensor([row], dtype=torch.float32)
    seen = decode(encode(logit, k), classes)
    assert seen.shape == (1, classes)
    kept = logit.topk(k, dim=1).values
    moved = (kept.abs() * HALF).max().item() + 1e-5  # of a logit, and so at most of the log of a sum
    exact, ours = (z.double().logsumexp(dim=1).item() for z in (logit, seen))
    assert abs(exact - ours) <= moved
    stored = seen.topk(k, dim=1).values.sort(dim=1).values
    if k < classes and (kept.min() - logit.sort(dim=1).values[0, classes - k - 1]).item() > 0.1 * 50:
        torch.testing.assert_close(stored, kept.half().float().sort(dim=1).values, **EXACT)
    if k < classes:
        share = torch.tensor(rest_of(row, k) - exact, dtype=torch.float64).exp()
        others = np.ones(classes, bool)
        others[encode(logit, k)['class'][0]] = False
        assert others.sum() == classes - k
        even = seen[0, torch.from_numpy(others)]
        assert even.unique().numel() == 1
        assert (even.double() - ours).exp().sum().item() == pytest.approx(share.item(), rel=2 * moved + 1e-4, abs=1e-9)
