"""The teacher's logits as each method takes them: its temperature, standardised or not, the target left out or not."""

import math

import pytest
import torch
from kit import logits
from networks import build, method

from mmcls_kd.analysis.teacher_entropy import softened, temperatures
from mmcls_kd.dis_losses.common import standardize_classes

CURRICULUM = dict(start=1.0, range=20.0)


@pytest.fixture(scope='module')
def losses():
    return build(
        method('KDLoss', temp=4.0),
        method('KDLoss', 'loss_standardized', standardize=True, temp=2.0),
        method('KDLoss', 'loss_ctkd', curriculum=CURRICULUM),
        method('KDLoss', 'loss_both', curriculum=CURRICULUM, standardize=True),
        method('LSKDLoss', temp=3.0),
        method('NKDLoss'),
        method('NKDLoss', 'loss_nkd_ctkd', curriculum=CURRICULUM),
        method('DKDLoss'),
        method('WKDLogitLoss'),
        method('SPLoss'),
    ).distill_losses


def test_a_learnt_temperature_is_that_at_the_start(losses):
    found = temperatures(losses)
    assert found['loss_ctkd'] == pytest.approx(1 + 20 / (1 + math.exp(-1)))
    assert set(losses) - set(found) == {'loss_sp'}


def test_each_method_takes_logits_of_its_own(losses):
    logit_t = logits(8, 10, 3.0, seed=0)
    found = softened(losses, logit_t)
    standardized = {'loss_standardized', 'loss_both', 'loss_lskd'}
    assert set(found) == {'loss_kd', 'loss_ctkd', *standardized}
    for name, of in found.items():
        torch.testing.assert_close(of.logit, standardize_classes(logit_t) if name in standardized else logit_t)
    p = (standardize_classes(logit_t.double()) / 3).softmax(dim=1)
    assert found['loss_lskd'].entropy() == pytest.approx(-float((p * p.log()).sum(1).mean()), rel=1e-6)
