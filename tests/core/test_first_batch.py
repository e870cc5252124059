"""Slips of a training loop that a distiller notices in the first batch, and names that stand for several settings."""

import logging

import pytest
import torch
from torch import nn

from mmcls_kd import Distiller
from mmcls_kd.dis_losses import KDLoss, kd_loss
from mmcls_kd.recipe.wrappers import CurriculumTemperature


def network(width):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5))


@pytest.mark.parametrize(('labels', 'said'), [([0, 5], 'from 0 to 5'), ([-2, 2], 'from -2 to 2')])
def test_labels_outside_of_the_classes_are_refused(labels, said):
    distiller = Distiller(network(4), network(8), 'dist')
    with pytest.raises(ValueError, match=f'labels go {said}, and the student has 5 classes'):
        distiller(torch.randn(2, 3, 8, 8), torch.tensor(labels))


@pytest.mark.parametrize('indices', [[0], [[0], [1]], [0.0, 1.0], [True, False], 0])
def test_indices_that_are_not_one_a_sample_are_refused(indices):
    distiller = Distiller(network(4), network(8), dict(type='CRDLoss', nce_k=2), num_samples=4)
    with pytest.raises(ValueError, match=r'for 2 images: give the index of each sample in the training set, \(2,\), as int'):
        distiller(torch.randn(2, 3, 8, 8), torch.tensor([0, 1]), torch.tensor(indices))


class Auxiliary(nn.Module):
    """A network that returns its features, too, in training."""

    def __init__(self):
        super().__init__()
        self.network = network(4)

    def forward(self, images):
        logit = self.network(images)
        return (logit, images) if self.training else logit


def test_a_student_with_several_outputs_in_training():
    distiller = Distiller(Auxiliary(), network(8), 'dist').train()
    with pytest.raises(ValueError, match="in training too, but returns <class 'tuple'>; give a module"):
        distiller(torch.randn(2, 3, 8, 8), torch.tensor([0, 1]))


def test_a_student_in_eval_mode_is_told_of_once(monkeypatch):
    told = []
    monkeypatch.setattr(logging.getLogger('mmcls_kd.distiller'), 'warning', told.append)
    distiller, batch = Distiller(network(4), network(8), 'dist'), (torch.randn(2, 3, 8, 8), torch.tensor([0, 1]))
    distiller(*batch)
    distiller.student.eval()
    with torch.no_grad():
        distiller(*batch)
    assert told == []
    distiller(*batch)
    distiller(*batch)
    assert told == ['the student is in eval mode: call distiller.train() before each epoch of training']


@pytest.mark.parametrize(('whole', 'loss', 'count'), [(False, 'fitnet', 1), (True, 'fitnet', 0), (False, 'dist', 0)])
def test_an_optimizer_without_the_losses_parameters_is_told_of_once(whole, loss, count, monkeypatch):
    told = []
    monkeypatch.setattr(logging.getLogger('mmcls_kd.distiller'), 'warning', told.append)
    taps = dict(feat_mid_s='0', feat_mid_t='0')
    distiller = Distiller(network(4), network(8), dict(one=loss, two='ctkd'), taps=taps if loss == 'fitnet' else None)
    distiller.distill_losses['two'].theta.requires_grad_(False)  # fixed on purpose
    distiller.set_epoch(0)
    optimizer = torch.optim.SGD(distiller.parameters() if whole else distiller.student.parameters(), lr=0.1)
    for i in range(6):
        distiller(torch.randn(2, 3, 8, 8), torch.tensor([0, 1]))['loss'].backward()
        if i % 2:  # gathered gradients: nothing moves yet
            optimizer.step()
    assert len(told) == count
    assert not told or told[0].startswith('one: parameters of the loss stay as they are while the student learns: give ')


def test_ctkd_is_kd_with_a_learnt_temperature():
    distiller = Distiller(network(4), network(8), ['ctkd', 'dist'])
    loss = distiller.distill_losses['ctkd']
    assert isinstance(loss, CurriculumTemperature)
    assert isinstance(loss.loss, KDLoss)
    logits = torch.randn(2, 3, 5)
    expected = kd_loss(*logits, temp=1 + 20 / (1 + torch.tensor(-1.0).exp()), divergence=True)
    torch.testing.assert_close(loss(logit_s=logits[0], logit_t=logits[1]), expected)


@pytest.mark.parametrize(('loss', 'name'), [('uskd', 'feat_mid'), ('vitkd', 'tokens_low_s')])
def test_a_feature_that_a_network_lacks_is_not_taken_for_a_misspelt_one(loss, name):
    with pytest.raises(ValueError, match=f"unknown input '{name}', a feature that is not found in this student; available"):
        Distiller(network(4), network(8), loss)
