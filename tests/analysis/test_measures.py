"""Measures against scikit-learn, scipy-free numpy, and numbers that can be counted."""

import math

import numpy as np
import pytest
import torch
from kit import labels, logits
from sklearn.metrics import accuracy_score, recall_score

from mmcls_kd.analysis import measures

N, C = 400, 7


@pytest.fixture(scope='module')
def pair():
    return logits(N, C, 3.0, seed=1).float(), logits(N, C, 2.0, seed=2).float(), labels('hard', N, C, seed=3)


def softmax(logit):
    powers = np.exp(logit - logit.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def test_accuracy_and_agreement(pair):
    teacher, student, label = pair
    named, other = teacher.numpy().argmax(1), student.numpy().argmax(1)
    assert measures.accuracy(teacher, label) == pytest.approx(accuracy_score(label, named), abs=1e-12)
    assert measures.agreement(teacher, student) == pytest.approx(accuracy_score(named, other), abs=1e-12)


def test_accuracy_of_each_class(pair):
    teacher, _, label = pair
    found = measures.class_accuracies(teacher, label).numpy()
    expected = recall_score(label.numpy(), teacher.numpy().argmax(1), average=None, labels=range(C))
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_a_class_without_images_has_no_accuracy():
    found = measures.class_accuracies(torch.eye(3), torch.tensor([0, 0, 2]))
    assert found[[0, 2]].tolist() == [0.5, 1.0]
    assert found[1].isnan()


def test_divergence_goes_from_teacher_to_student(pair):
    teacher, student, _ = pair
    p, q = softmax(teacher.double().numpy()), softmax(student.double().numpy())
    assert measures.divergence(teacher, student) == pytest.approx((p * np.log(p / q)).sum(1).mean(), rel=1e-6)
    assert measures.divergence(teacher, student) != pytest.approx(measures.divergence(student, teacher), rel=1e-2)
    assert measures.divergence(teacher, teacher) == pytest.approx(0, abs=1e-12)


def test_divergence_stays_finite_at_large_logits():
    assert measures.divergence(torch.tensor([[200.0, -200.0]]), torch.tensor([[-200.0, 200.0]])) == pytest.approx(400)


@pytest.mark.parametrize('temp', [1.0, 4.0])
def test_entropy(pair, temp):
    p = softmax(pair[0].double().numpy() / temp)
    assert measures.entropy(pair[0], temp) == pytest.approx(-(p * np.log(p)).sum(1).mean(), rel=1e-6)


def test_entropy_of_the_extremes():
    assert measures.entropy(torch.tensor([[500.0, 0.0, 0.0]])) == pytest.approx(0, abs=1e-12)
    assert measures.entropy(torch.zeros(2, 5)) == pytest.approx(math.log(5))


def calibration_by_a_loop(logit, label, bins):
    """The error, and how many images each interval has."""
    p = softmax(logit.double().numpy())
    confidence, right = p.max(1), p.argmax(1) == label.numpy()
    error, counts = 0.0, []
    for i in range(bins):
        inside = (confidence >= i / bins) & ((confidence < (i + 1) / bins) if i < bins - 1 else (confidence <= 1))
        counts.append(inside.sum())
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return error, counts


def test_calibration_by_a_loop(pair):
    teacher, _, label = pair
    error, counts = calibration_by_a_loop(teacher, label, 10)
    found = measures.calibration(teacher, label, bins=10)
    assert found.error == pytest.approx(error, rel=1e-12)
    assert found.confidence == pytest.approx(softmax(teacher.double().numpy()).max(1).mean(), rel=1e-12)
    assert found.counts.tolist() == counts


def test_a_confidence_of_1_is_in_the_last_interval():
    logit, label = torch.tensor([[3.0, 0.0], [3.0, 0.0], [60.0, 0.0], [60.0, 0.0]]), torch.tensor([0, 0, 0, 1])
    found = measures.calibration(logit, label)
    assert softmax(logit.double().numpy()).max() == 1
    assert found.error == pytest.approx(calibration_by_a_loop(logit, label, measures.BINS)[0], rel=1e-12)
    assert found.counts.tolist() == [0] * 14 + [4]


def test_the_bins_give_the_error(pair):
    found = measures.calibration(pair[1], pair[2])
    gaps = (found.accuracies - found.confidences).abs().nan_to_num()
    assert float((found.counts.double() / N * gaps).sum()) == pytest.approx(found.error, rel=1e-12)
    assert found.counts.sum() == N


def test_calibration_of_a_sure_network():
    found = measures.calibration(torch.tensor([[50.0, 0.0]] * 4), torch.tensor([0, 0, 0, 1]))
    assert found.error == pytest.approx(0.25)
    assert found.accuracies[-1] == 0.75
    assert found.accuracies[:-1].isnan().all()


def test_class_correlation(pair):
    found = measures.class_correlation(pair[0]).numpy()
    np.testing.assert_allclose(found, np.corrcoef(pair[0].double().numpy(), rowvar=False), atol=1e-12)


def test_distance_of_correlations(pair):
    first, second = (np.corrcoef(logit.double().numpy(), rowvar=False) for logit in pair[:2])
    pairs = [abs(first[i, k] - second[i, k]) for i in range(C) for k in range(C) if i != k]
    assert measures.correlation_distance(*pair[:2]) == pytest.approx(np.mean(pairs), rel=1e-9)
    logit = pair[0].double()
    assert measures.correlation_distance(logit, 3 * logit + 1) == pytest.approx(0, abs=1e-12)


def test_a_constant_logit_has_no_correlation():
    logit = torch.tensor([[1.0, 2.0, 5.0], [1.0, 3.0, 4.0]])
    found = measures.class_correlation(logit)
    assert found[0].isnan().all()
    assert found[1, 2] == pytest.approx(-1)
