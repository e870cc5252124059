"""Gradients of loss terms: against formulas, and without a trace in what was looked at."""

import random

import numpy as np
import pytest
import torch
from mmpretrain.registry import MODELS
from networks import batch, build, method, resnet
from torch import nn

from mmcls_kd.analysis.gradients import TASK, gradient_terms

T, ALPHA = 2.0, 0.3


@MODELS.register_module()
class FlatForGradients(nn.Module):
    """One linear layer on all pixels."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3 * 8 * 8, 10, bias=False)

    def forward(self, images):
        return self.linear(images.flatten(1) / 50)


def flat():
    return dict(type='ModuleClassifier', model=dict(type='FlatForGradients'))


def linear_distiller(monkeypatch, **keywords):
    monkeypatch.setattr('mmcls_kd.features.dry_run.SIZES', (8,))
    torch.manual_seed(0)
    normal = dict(mean=[128.0] * 3, std=[64.0] * 3)
    kd = method('KDLoss', temp=T, alpha=ALPHA, **keywords)
    return build(kd, student=flat(), teacher=flat(), data_preprocessor=normal)


def by_formula(model, images):
    """The gradients of task loss and KD: (q − p)ᵀ x / N, times what weighs them."""
    data = model.data_preprocessor(images, True)
    x = data['inputs'].flatten(1).double() / 50
    label = torch.stack([s.gt_label for s in data['data_samples']]).flatten()
    z_s, z_t = (x @ network.model.linear.weight.detach().double().T for network in (model.student, model.teacher))
    one_hot = torch.nn.functional.one_hot(label, 10)
    task = (1 - ALPHA) * (z_s.softmax(1) - one_hot).T @ x / len(x)
    kd = ALPHA * T * ((z_s / T).softmax(1) - (z_t / T).softmax(1)).T @ x / len(x)
    return task.flatten(), kd.flatten()


def test_norms_ratio_and_cosine_are_those_of_the_formulas(monkeypatch):
    model, batches = linear_distiller(monkeypatch), [batch(4, size=8), batch(6, size=8)]
    task, kd = gradient_terms(model, batches)
    expected = [by_formula(model, images) for images in batches]
    norms = [[float(g.norm()) for g in pair] for pair in expected]
    assert (task.name, kd.name) == (TASK, 'loss_kd')
    assert (task.ratio, task.cosine, task.weight, kd.weight) == (1.0, pytest.approx(1), None, 1.0)
    assert task.norm == pytest.approx(np.mean([n[0] for n in norms]), rel=1e-5)
    assert kd.norm == pytest.approx(np.mean([n[1] for n in norms]), rel=1e-5)
    assert kd.ratio == pytest.approx(kd.norm / task.norm)
    cosines = [float(a @ b / a.norm() / b.norm()) for a, b in expected]
    assert kd.cosine == pytest.approx(np.mean(cosines), rel=1e-4)


def test_a_weight_counts_as_after_its_warm_up(monkeypatch):
    whole = gradient_terms(linear_distiller(monkeypatch, loss_weight=8.0), [batch(4, size=8)])[1]
    warming = gradient_terms(linear_distiller(monkeypatch, loss_weight=dict(value=8.0, warmup=20)), [batch(4, size=8)])[1]
    once = gradient_terms(linear_distiller(monkeypatch), [batch(4, size=8)])[1]
    assert whole.norm == pytest.approx(8 * once.norm, rel=1e-5)
    assert warming.norm == pytest.approx(whole.norm, rel=1e-5)
    assert warming.weight == 8.0


def test_a_weight_of_0_gives_no_gradient(monkeypatch):
    term = gradient_terms(linear_distiller(monkeypatch, loss_weight=0.0), [batch(4, size=8)])[1]
    assert (term.norm, term.ratio, term.cosine) == (0, 0, None)


def test_statistics_memories_and_random_states_stay_as_they_were():
    crd = method('CRDLoss', num_samples=50, nce_k=8, feat_dim=4)
    model = build(crd, teacher_mode='train').eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    teachers = {name: value.clone() for name, value in model.teacher.state_dict().items()}
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    first, second = (gradient_terms(model, [batch(4)] * 2) for _ in range(2))
    assert first == second
    assert first[1].norm > 0
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(value, teachers[name]) for name, value in model.teacher.state_dict().items())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert random.getstate() == before[2]
    assert not model.training
    assert all(p.grad is None for p in model.parameters())


def test_the_memory_of_one_batch_is_not_that_of_the_next():
    model = build(method('CRDLoss', num_samples=50, nce_k=8, feat_dim=4))
    once, twice = (gradient_terms(model, [batch(4)] * count)[1] for count in (1, 2))
    assert twice.value == pytest.approx(once.value, rel=1e-6)


def test_a_classifier_has_the_task_loss_alone():
    (task,) = gradient_terms(MODELS.build(resnet(4)), [batch(4)])
    assert task.name == TASK
    assert task.norm > 0


def test_simkd_has_no_task_loss():
    model = build(method('SimKD', 'loss_simkd'))
    task, simkd = gradient_terms(model, [batch(4)])
    assert task.norm == 0
    assert (simkd.ratio, simkd.cosine) == (None, None)
    assert simkd.norm > 0


def test_no_batch_is_refused():
    with pytest.raises(ValueError, match='no training batch'):
        gradient_terms(MODELS.build(resnet(4)), [])
