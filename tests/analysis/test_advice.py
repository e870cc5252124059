"""What looks off, and what is then suggested."""

import math

import pytest
import torch

from mmcls_kd.analysis.advice import AT_THE_START, HIGH, LOW, advise, on_accuracy, on_size, on_softness, on_terms
from mmcls_kd.analysis.gradients import TASK, Term
from mmcls_kd.analysis.measures import entropy
from mmcls_kd.analysis.teacher_entropy import Softened


def term(ratio, weight=2.0, cosine=0.9, norm=1.0, value=1.0, name='loss_kd'):
    return Term(name, value, norm, ratio, cosine, weight)


def test_a_weight_within_the_band_is_fine():
    assert not list(on_terms([Term(TASK, 1.0, 1.0, 1.0, 1.0), term(LOW), term(1.0), term(HIGH)]))


def test_a_weak_term_is_told_by_how_much_to_multiply_its_weight():
    (found,) = on_terms([term(0.02)])
    assert found.about == 'loss_kd'
    assert '0.02 times that of the task loss: it is hardly felt' in found.finding
    assert 'multiply its loss_weight by 50 (loss_weight=100)' in found.suggestion
    assert found.note == AT_THE_START


def test_a_strong_term_likewise():
    (found,) = on_terms([term(40.0)])
    assert 'all that is felt' in found.finding
    assert 'multiply its loss_weight by 0.025 (loss_weight=0.05)' in found.suggestion


def test_a_term_against_the_task():
    (found,) = on_terms([term(1.0, cosine=-0.5)])
    assert 'cosine -0.50' in found.finding


def test_a_term_that_does_not_reach_the_student():
    without_weight, unread = on_terms([term(0.0, norm=0.0, weight=weight, cosine=None) for weight in (0.0, 2.0)])
    assert without_weight.suggestion == 'loss_weight=0: set it above 0'
    assert 'loss_weight=2: does it read what is trained' in unread.suggestion


@pytest.mark.parametrize('bad', [dict(norm=math.nan), dict(value=math.inf)])
def test_a_term_that_is_not_finite(bad):
    (found,) = on_terms([term(1.0, **bad)])
    assert 'not finite' in found.finding


def test_without_a_task_loss_weights_are_not_compared():
    assert not list(on_terms([Term(TASK, 0.0, 0.0, None, None), term(None, cosine=None)]))


@pytest.mark.parametrize(('teacher', 'student', 'said'), [(0.11, 0.1, 'guessing gives 10.00%'), (0.6, 0.9, 'below the')])
def test_a_teacher_that_does_not_know_the_data(teacher, student, said):
    (found,) = on_accuracy(teacher, student, classes=10, images=1000)
    assert said in found.finding
    assert 'model.teacher_pixels' in found.suggestion
    assert 'model.teacher_classes' in found.suggestion


def test_a_teacher_that_does():
    assert not list(on_accuracy(0.9, 0.1, classes=10, images=1000))
    assert not list(on_accuracy(0.90, 0.91, classes=10, images=1000))  # no more than chance


def one_hot(sure):
    return sure * torch.eye(10).repeat(3, 1)


def at(temp, sure=12.0):
    return dict(loss_kd=Softened(one_hot(sure), temp))


def test_a_one_hot_teacher_is_told_the_temperature_that_helps():
    (found,) = on_softness(one_hot(12.0), at(1.0))
    assert found.about == 'loss_kd'
    assert 'at temperature 1 the teacher is nearly one-hot' in found.finding
    temp = float(found.suggestion.split('at ')[1].split()[0])
    assert temp > 1
    assert entropy(one_hot(12.0), temp) >= 0.1 * math.log(10)
    assert not list(on_softness(one_hot(12.0), at(temp)))


def test_it_is_the_logits_of_the_method_that_count():
    assert not list(on_softness(one_hot(12.0), dict(loss_lskd=Softened(one_hot(1.0), 1.0))))


def test_without_a_temperature_none_is_to_be_raised():
    assert not list(on_softness(one_hot(12.0), {}))


def test_a_teacher_that_knows_nothing():
    (found,) = on_softness(one_hot(0.1), at(4.0, sure=0.1))
    assert 'nearly equal' in found.finding
    assert 'model.teacher_pretrained' in found.suggestion


def test_without_a_teacher_only_the_terms_count():
    assert advise([term(1.0)], None, 0.1, None, {}) == []
    assert [a.about for a in advise([term(0.001)], 0.1, 0.1, one_hot(12.0), at(1.0))] == [
        'loss_kd',
        'teacher',
        'loss_kd',
    ]


def test_a_size_of_images_that_fits_the_teacher_better():
    (found,) = on_size(0.42, {(160, 160): 0.8, (80, 80): 0.6}, images=1000)
    assert 'its accuracy is 42.00% on images as they come and 80.00% on 160 × 160' in found.finding
    assert 'teacher_pixels=dict(size=(160, 160))' in found.suggestion
    assert not list(on_size(0.79, {(160, 160): 0.8}, images=1000))
    assert not list(on_size(0.42, {}, images=1000))
