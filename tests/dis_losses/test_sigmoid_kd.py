"""Sigmoid KD against loops over probabilities, and its gradient in closed form."""

import math

import pytest
import torch
from kit import assert_close, logits

from mmcls_kd.dis_losses import SigmoidKDLoss, sigmoid_kd_loss


def slow(logit_s, logit_t, temp, reduction):
    """KL(Bernoulli(p) ‖ Bernoulli(q)) of each image and label, by Python's floats."""
    total = 0.0
    for row_s, row_t in zip(logit_s.tolist(), logit_t.tolist(), strict=True):
        kl = 0.0
        for z_s, z_t in zip(row_s, row_t, strict=True):
            p, q = 1 / (1 + math.exp(-z_t / temp)), 1 / (1 + math.exp(-z_s / temp))
            kl += p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
        total += kl if reduction == 'sum' else kl / len(row_s)
    return temp**2 * total / len(logit_s)


@pytest.mark.parametrize('temp', [1.0, 2.0, 4.0])
@pytest.mark.parametrize('reduction', ['sum', 'mean'])
@pytest.mark.parametrize(('n', 'c'), [(1, 1), (3, 7), (5, 2)])
def test_the_sum_over_labels_of_the_binary_divergence(n, c, temp, reduction):
    logit_s, logit_t = logits(n, c, 3, seed=1).requires_grad_(), logits(n, c, 3, seed=2)
    value = sigmoid_kd_loss(logit_s, logit_t, temp, reduction)
    assert_close(value.detach(), torch.tensor(slow(logit_s, logit_t, temp, reduction), dtype=torch.float64))
    value.backward()
    expected = temp * ((logit_s / temp).sigmoid() - (logit_t / temp).sigmoid()) / (n * (c if reduction == 'mean' else 1))
    assert_close(logit_s.grad, expected.detach())
    assert torch.equal(SigmoidKDLoss(temp, reduction, 3.0)(logit_s, logit_t), 3 * value)


def test_it_is_that_of_two_classes_with_logits_z_and_0():
    """One logit z is the softmax of (0, z): KD's divergence there is this loss."""
    from mmcls_kd.dis_losses import kd_loss

    z_s, z_t = logits(6, 1, 4, seed=3), logits(6, 1, 4, seed=4)
    pairs = [torch.cat([torch.zeros_like(z), z], dim=1) for z in (z_s, z_t)]
    assert_close(sigmoid_kd_loss(z_s, z_t, 2.0), kd_loss(*pairs, temp=2.0, alpha=1.0, divergence=True))


def test_finite_far_from_0_and_nothing_at_equal_logits():
    logit_s = torch.tensor([[200.0, -200.0, 200.0, 0.0]], requires_grad=True)
    logit_t = torch.tensor([[-200.0, 200.0, 200.0, 0.0]])
    value = sigmoid_kd_loss(logit_s, logit_t)
    value.backward()
    assert_close(value.detach(), torch.tensor(400.0))
    assert_close(logit_s.grad, torch.tensor([[1.0, -1.0, 0.0, 0.0]]))
    assert sigmoid_kd_loss(logit_t, logit_t) == 0


def test_another_reduction_is_refused():
    with pytest.raises(ValueError, match="reduction='batchmean': choose 'sum' or 'mean'"):
        SigmoidKDLoss(reduction='batchmean')
