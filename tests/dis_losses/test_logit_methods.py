"""The logit methods beyond the first nine: their authors' values, oracles, and what holds of each alone."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from dis_losses import method_oracles_logits as oracles
from dis_losses import oracles as first_oracles
from kit import TOLERANCE, assert_close, labels, logits, seeded
from mmpretrain.registry import MODELS

from mmcls_kd.dis_losses import (
    abkd_loss,
    dist_loss,
    dkd_loss,
    kd_loss,
    lskd_loss,
    luminet_loss,
    nkd_loss,
    normdkd_loss,
    normkd_loss,
    ofa_logit_loss,
    rld_loss,
    ttm_loss,
    wkd_logit_loss,
    wttm_loss,
)
from mmcls_kd.dis_losses.common import standardize_classes
from mmcls_kd.dis_losses.wkd_logit import WKDLogitLoss, class_cost
from mmcls_kd.distillers.recipe import read_files
from mmcls_kd.recipe.methods import parse_method

METHODS = {'DISTLoss', 'LSKDLoss', 'TTMLoss', 'WTTMLoss', 'OFALogitLoss', 'WKDLogitLoss'}
with np.load(Path(__file__).parents[1] / 'data' / 'methods.npz') as file:
    META = {key.split('/')[0]: json.loads(str(file[key])) for key in file if key.endswith('/meta')}
    CASES = [case for case, meta in META.items() if meta['method'] in METHODS]
    VECTORS = {key: file[key] for key in file if key.split('/')[0] in CASES}


def build(kind, **keywords):
    return MODELS.build(dict(type=kind, **keywords))


def pair(n, c, scale, dtype=torch.float64):
    """The logits of a student, which require a gradient, and of a teacher."""
    return logits(n, c, scale, seed=1, dtype=dtype).requires_grad_(), logits(n, c, scale, seed=2, dtype=dtype)


def gradient(value, tensor):
    return torch.autograd.grad(value, tensor)[0]


def random_cost(c):
    """Costs of which some are below 0, and none is that of the way back."""
    return 0.3 * torch.randn(c, c, generator=seeded(8), dtype=torch.float64) + 0.3


# ---- the authors' values


def test_every_case_of_the_file_is_covered():
    settings = {
        'dist': [f'_s{scale}_T{temp}' for scale in (1, 4) for temp in (1, 4)],
        'lskd': [f'_s{scale}_T{temp}' for scale in (1, 4) for temp in (1, 4)],
        'wkdl': [f'_s{scale}_T{temp}' for scale in (1, 4) for temp in (1, 4)],
        'ttm': [f'_s{scale}_g{gamma}' for scale in (1, 4) for gamma in (0.1, 0.7)],
        'wttm': [f'_s{scale}_g{gamma}' for scale in (1, 4) for gamma in (0.1, 0.7)],
        'ofa': [f'_s{scale}_e{eps}' for scale in (1, 4) for eps in (1, 1.5)],
    }
    assert sorted(CASES) == sorted(method + setting for method, found in settings.items() for setting in found)
    assert {META[case]['method'] for case in CASES} == METHODS


@pytest.mark.parametrize('dtype', TOLERANCE, ids=str)
@pytest.mark.parametrize('case', CASES)
def test_value_and_gradient_are_the_authors(case, dtype):
    stored = {key.removeprefix(f'{case}/'): value for key, value in VECTORS.items() if key.startswith(f'{case}/')}
    given = {key.removeprefix('in.'): torch.from_numpy(v) for key, v in stored.items() if key.startswith('in.')}
    given = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in given.items()}
    cost = {'cost': given.pop('cost')} if 'cost' in given else {}
    value = build(META[case]['method'], **META[case]['kwargs'], **cost)(
        *(given['logit_s'].requires_grad_(), *list(given.values())[1:])
    )
    assert value.dtype == dtype
    assert_close(value.detach(), torch.from_numpy(stored['out.loss']).to(dtype))
    assert_close(gradient(value, given['logit_s']), torch.from_numpy(stored['grad.logit_s']).to(dtype))


# ---- oracles

# Samples, classes and the scale of the logits: at 20 a softmax is a one-hot vector to 10 digits and more.
shapes = pytest.mark.parametrize(
    ('n', 'c', 'scale'), [(1, 2, 1.0), (4, 2, 20.0), (3, 3, 4.0), (1, 6, 4.0), (5, 4, 20.0), (6, 8, 1.0)]
)


def assert_same(value, expected, logit_s, scale=None):
    assert value.shape == ()
    assert_close(value.detach(), expected.detach())
    assert_close(gradient(value, logit_s), gradient(expected, logit_s), scale)


@shapes
@pytest.mark.parametrize(
    ('kind', 'oracle', 'keywords'),
    [
        *(
            ('DISTLoss', oracles.dist, keywords)
            for keywords in ({}, dict(temp=4.0, beta=0.3, gamma=2.0), dict(gamma=0.0), dict(temp=0.5, beta=0.0))
        ),
        *(('LSKDLoss', oracles.lskd, keywords) for keywords in ({}, dict(temp=0.5))),
        *(('TTMLoss', oracles.ttm, keywords) for keywords in ({}, dict(gamma=0.6), dict(gamma=1.5))),
        *(('WTTMLoss', oracles.wttm, keywords) for keywords in ({}, dict(gamma=0.6), dict(gamma=1.5))),
        ('KDLoss', first_oracles.kd, dict(temp=0.7, alpha=0.3, standardize=True)),
        *(('NormKDLoss', oracles.normkd, keywords) for keywords in ({}, dict(temp=0.7))),
        *(('LumiNetLoss', oracles.luminet, keywords) for keywords in ({}, dict(temp=1.0, alpha=33.0))),
    ],
)
def test_losses_of_logits_alone(kind, oracle, keywords, n, c, scale):
    logit_s, logit_t = pair(n, c, scale)
    given = (logit_s, logit_t)
    if keywords.get('standardize'):
        keywords, given = {k: v for k, v in keywords.items() if k != 'standardize'}, tuple(map(oracles.standardized, given))
        value = build(kind, **keywords, standardize=True)(logit_s, logit_t)
    else:
        value = build(kind, **keywords)(logit_s, logit_t)
    assert_same(value, oracle(*given, **keywords), logit_s)


@shapes
@pytest.mark.parametrize('label', ['hard', 'mixup', 'tie'])
@pytest.mark.parametrize(
    ('kind', 'oracle', 'keywords'),
    [
        *(('OFALogitLoss', oracles.ofa, keywords) for keywords in ({}, dict(eps=1.0), dict(eps=0.7, temp=3.0))),
        *(
            ('WKDLogitLoss', oracles.wkd_logit, keywords)
            for keywords in ({}, dict(temp=1.0, gamma=3.0, sinkhorn_reg=0.3, sinkhorn_iter=2))
        ),
        *(('NormDKDLoss', oracles.normdkd, keywords) for keywords in ({}, dict(temp=0.7, alpha=2.0, beta=0.5))),
        *(('RLDLoss', oracles.rld, keywords) for keywords in ({}, dict(temp=1.0, tau_alpha=2.0, alpha=0.3, beta=2.0))),
    ],
)
def test_losses_of_logits_and_the_label(kind, oracle, keywords, label, n, c, scale):
    logit_s, logit_t = pair(n, c, scale)
    gt_label = labels(label, n, c, seed=3)
    if kind == 'WKDLogitLoss':
        keywords = dict(keywords, cost=random_cost(c))
    value = build(kind, **keywords)(logit_s, logit_t, gt_label)
    # of two classes a normalised gradient is what rounding leaves of 0
    scale = 1.0 if kind == 'NormDKDLoss' and c == 2 else None
    assert_same(value, oracle(logit_s, logit_t, gt_label, **keywords), logit_s, scale)


@pytest.mark.parametrize(('n', 'c', 'scale'), [(1, 2, 1.0), (3, 3, 4.0), (5, 4, 1.0)])
@pytest.mark.parametrize(
    ('alpha', 'beta'), [(0.8, 0.3), (2.0, -0.5), (1.0, 0.0), (0.3, 0.0), (0.0, 1.0), (0.0, 0.4), (0.6, -0.6), (0.0, 0.0)]
)
def test_abkd_and_its_limits(alpha, beta, n, c, scale):
    logit_s, logit_t = pair(n, c, scale)
    value = build('ABKDLoss', alpha=alpha, beta=beta, temp=2.0)(logit_s, logit_t)
    assert_same(value, oracles.abkd(logit_s, logit_t, alpha, beta, temp=2.0), logit_s)


# ---- standardised logits


STANDARDIZED = {
    'kd': lambda logit_s, logit_t, _: kd_loss(logit_s, logit_t, temp=2.0, standardize=True),
    'dkd': lambda logit_s, logit_t, label: dkd_loss(logit_s, logit_t, label, temp=2.0, standardize=True),
    'nkd': lambda logit_s, logit_t, label: nkd_loss(logit_s, logit_t, label, temp=2.0, standardize=True),
    'lskd': lambda logit_s, logit_t, _: lskd_loss(logit_s, logit_t),
}
each_standardized = pytest.mark.parametrize('loss', STANDARDIZED.values(), ids=STANDARDIZED)


@shapes
@pytest.mark.parametrize(('kind', 'oracle'), [('DKDLoss', first_oracles.dkd), ('NKDLoss', first_oracles.nkd)])
def test_dkd_and_nkd_of_standardized_logits_are_those_of_the_logits_of_the_oracle(kind, oracle, n, c, scale):
    logit_s, logit_t = pair(n, c, scale)
    gt_label = labels('mixup', n, c, seed=3)
    value = build(kind, temp=2.0, standardize=True)(logit_s, logit_t, gt_label)
    expected = oracle(oracles.standardized(logit_s), oracles.standardized(logit_t), gt_label, temp=2.0)
    assert_close(value.detach(), expected.detach())
    # of two classes a standardised gradient is what rounding leaves of 0
    assert_close(gradient(value, logit_s), gradient(expected, logit_s), scale=1.0 if c == 2 else None)


@each_standardized
@pytest.mark.parametrize('factor', [0.1, 50.0])
def test_shift_and_scale_of_a_samples_logits_change_nothing(loss, factor):
    logit_s, logit_t, gt_label = logits(5, 7, seed=1), logits(5, 7, seed=2), labels('mixup', 5, 7)
    moved = [factor * logit + shift for logit, shift in ((logit_s, 3.0), (logit_t, torch.arange(5.0)[:, None]))]
    # up to the 1e-7 beside the deviation
    torch.testing.assert_close(loss(*moved, gt_label), loss(logit_s, logit_t, gt_label), rtol=1e-5, atol=0)


def test_lskd_is_kd_of_standardized_logits_but_for_the_teachers_entropy():
    logit_s, logit_t = pair(6, 9, 3.0)
    ours, kds = lskd_loss(logit_s, logit_t, temp=3.0), kd_loss(logit_s, logit_t, temp=3.0, alpha=1.0, standardize=True)
    entropy = torch.distributions.Categorical(logits=standardize_classes(logit_t) / 3.0).entropy().mean()
    assert_close(ours.detach(), kds.detach() - 3.0**2 * entropy)
    assert_close(gradient(ours, logit_s), gradient(kds, logit_s))


@each_standardized
@pytest.mark.parametrize('value', [0.0, 3.1383657, 200.0])  # seven of the second one have another mean, by rounding
def test_equal_logits_have_a_finite_gradient_and_the_value_of_zeros(loss, value):
    logit_t, gt_label = logits(3, 7, dtype=torch.float32), labels('hard', 3, 7)
    equal = torch.full((3, 7), value, requires_grad=True)
    found = loss(equal, logit_t, gt_label)
    assert torch.equal(found, loss(torch.zeros(3, 7), logit_t, gt_label))
    assert gradient(found, equal).isfinite().all()
    assert loss(logit_t, equal.detach(), gt_label).isfinite()


@pytest.mark.parametrize('function', [kd_loss, dkd_loss, nkd_loss])
def test_without_being_asked_no_logits_are_standardized(function):
    given = [
        logits(4, 5, 3.0, seed=1),
        logits(4, 5, 3.0, seed=2),
        *([labels('hard', 4, 5)] if function is not kd_loss else []),
    ]
    assert torch.equal(function(*given), function(*given, standardize=False))
    assert not torch.equal(function(*given), function(*given, standardize=True))


# ---- DIST


def test_dist_is_0_where_student_equals_teacher_and_blind_to_affine_changes_of_the_probabilities():
    logit_t = logits(6, 9, seed=2)
    zero = torch.zeros((), dtype=torch.float64)
    small = dict(rtol=0, atol=1e-5)  # what the 1e-8 beside the norms leave
    torch.testing.assert_close(dist_loss(logit_t, logit_t), zero, **small)
    p = logit_t.softmax(dim=1)
    between = (0.6 * p + 0.4 / 9).log()  # the same correlations
    torch.testing.assert_close(dist_loss(between, logit_t), zero, **small)
    assert dist_loss(logits(6, 9, seed=1), logit_t) > 0.5


@pytest.mark.parametrize('dtype', TOLERANCE, ids=str)
def test_dists_correlation_over_one_sample_is_no_signal(dtype):
    logit_s, logit_t = pair(1, 5, 2.0, dtype)
    both, rows = dist_loss(logit_s, logit_t, gamma=3.0), dist_loss(logit_s, logit_t, gamma=0.0)
    assert_close(both.detach(), rows.detach() + 3)
    assert torch.equal(gradient(both, logit_s), gradient(rows, logit_s))


@pytest.mark.parametrize('value', [0.0, 0.1, 200.0])
@pytest.mark.parametrize('classes', [2, 3, 1000])
def test_dist_of_equal_logits_has_no_correlation_and_a_finite_gradient(classes, value):
    equal = torch.full((3, classes), value, requires_grad=True)
    found = dist_loss(equal, logits(3, classes, dtype=torch.float32))
    assert found == 2
    assert gradient(found, equal).isfinite().all()


def test_dist_of_equal_samples_has_no_correlation_over_them():
    logit_s = logits(1, 5, dtype=torch.float32).expand(7, 5).clone().requires_grad_()
    p = logit_s.detach().softmax(dim=1)
    assert not torch.equal(p.mean(dim=0), p[0])  # by rounding
    value = dist_loss(logit_s, logits(7, 5, seed=2, dtype=torch.float32), beta=0.0)
    assert value == 1
    assert gradient(value, logit_s).isfinite().all()


# ---- TTM


@pytest.mark.parametrize('function', [ttm_loss, wttm_loss])
@pytest.mark.parametrize('gamma', [0.1, 0.7])
def test_ttm_has_its_minimum_0_where_the_student_is_the_softened_teacher(function, gamma):
    logit_t = logits(6, 9, 4.0, seed=2)
    softened = (gamma * logit_t + 1).requires_grad_()
    value = function(softened, logit_t, gamma)
    assert_close(value.detach(), torch.zeros((), dtype=torch.float64))
    assert_close(gradient(value, softened), torch.zeros(6, 9, dtype=torch.float64))
    assert function(logit_t, logit_t, gamma) > 0.01


def test_ttm_at_power_1_is_the_divergence_of_kd_and_both_of_a_weight_of_1():
    logit_s, logit_t = pair(6, 9, 2.0)
    of_kd = gradient(kd_loss(logit_s, logit_t, temp=1.0, alpha=1.0), logit_s)
    for function in (ttm_loss, wttm_loss):
        assert_close(gradient(function(logit_s, logit_t, 1.0), logit_s), of_kd)


def test_wttm_weighs_a_smooth_teachers_sample_more():
    logit_s = logits(2, 5, seed=1).requires_grad_()
    sure, smooth = torch.tensor([[60.0, 0, 0, 0, 0]]).double(), torch.zeros(1, 5).double()
    for teacher, weight in ((sure, 1.0), (smooth, 5**0.5)):
        plain, weighted = (function(logit_s[:1], teacher, 0.5) for function in (ttm_loss, wttm_loss))
        torch.testing.assert_close(weighted, weight * plain)


# ---- OFA


@pytest.mark.parametrize('temp', [1.0, 3.0])
def test_ofa_at_power_1_is_kds_cross_entropy(temp):
    logit_s, logit_t = pair(6, 9, 2.0)
    expected = kd_loss(logit_s, logit_t, temp=temp, alpha=1.0) / temp**2
    assert_close(ofa_logit_loss(logit_s, logit_t, labels('mixup', 6, 9), eps=1.0, temp=temp).detach(), expected.detach())


def test_a_larger_power_of_ofa_counts_the_target_more_and_the_others_less():
    logit_s, logit_t, gt_label = torch.zeros(1, 4).requires_grad_(), torch.tensor([[2.0, 1.0, 0.0, 0.0]]), torch.tensor([0])
    log_q = torch.log(torch.tensor(0.25))
    p = logit_t.softmax(dim=1)[0]
    for eps in (1.2, 2.0):
        weights = torch.tensor([(1 + p[0]) ** eps - 1, *(p[1:] ** eps)])
        assert_close(ofa_logit_loss(logit_s, logit_t, gt_label, eps=eps).detach(), -(weights * log_q).sum())
        assert weights[0] > p[0]
        assert (weights[1:] < p[1:]).all()


# ---- WKD


def test_wkds_flow_between_two_other_classes_is_the_difference_of_their_shares():
    logit_s, logit_t = logits(6, 3, 2.0, seed=1), logits(6, 3, 2.0, seed=2)
    gt_label = torch.zeros(6, dtype=torch.long)
    shares = [logit[:, 1:].softmax(dim=1)[:, 0] for logit in (logit_s, logit_t)]
    expected = 0.3 * (shares[0] - shares[1]).abs().mean()
    cost = 0.3 * (1 - torch.eye(3, dtype=torch.float64))
    keywords = dict(temp=1.0, sinkhorn_iter=100)
    values = [wkd_logit_loss(logit_s, logit_t, gt_label, cost, gamma=gamma, **keywords) for gamma in (1.0, 0.0)]
    torch.testing.assert_close(values[0] - values[1], expected, rtol=0, atol=1e-3)
    assert expected > 0.05


def test_the_order_of_the_classes_and_of_their_costs_changes_nothing():
    logit_s, logit_t, gt_label, cost = logits(5, 7, seed=1), logits(5, 7, seed=2), labels('hard', 5, 7), random_cost(7)
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    permuted = wkd_logit_loss(logit_s[:, order], logit_t[:, order], order.argsort()[gt_label], cost[order][:, order])
    assert_close(permuted, wkd_logit_loss(logit_s, logit_t, gt_label, cost))


def test_every_move_costs_a_little():
    logit_s, logit_t, gt_label = logits(5, 7, seed=1), logits(5, 7, seed=2), labels('hard', 5, 7)
    free = torch.zeros(7, 7, dtype=torch.float64)
    values = [wkd_logit_loss(logit_s, logit_t, gt_label, free, gamma=gamma) for gamma in (1e8, 0.0)]
    torch.testing.assert_close(values[0] - values[1], torch.tensor(1.0, dtype=torch.float64), rtol=1e-6, atol=0)


def test_costs_of_the_target_do_not_matter():
    logit_s, logit_t, gt_label, cost = logits(5, 7, seed=1), logits(5, 7, seed=2), torch.full((5,), 2), random_cost(7)
    changed = cost.clone()
    changed[2], changed[:, 2] = 9.0, 7.0
    assert torch.equal(wkd_logit_loss(logit_s, logit_t, gt_label, changed), wkd_logit_loss(logit_s, logit_t, gt_label, cost))


@pytest.mark.parametrize('scale', [1.0, 200.0])
def test_with_two_classes_wkd_is_its_target_term(scale):
    logit_s, logit_t = pair(5, 2, scale, torch.float32)
    gt_label, cost = labels('mixup', 5, 2), torch.tensor([[0.0, 2.0], [2.0, 0.0]])
    found, target_term = (wkd_logit_loss(logit_s, logit_t, gt_label, cost, gamma=gamma) for gamma in (5.0, 0.0))
    torch.testing.assert_close(found, target_term, rtol=0, atol=1e-6)
    assert torch.equal(gradient(found, logit_s), gradient(target_term, logit_s))


@pytest.mark.parametrize('highest', [2.0, 100.0])
def test_wkd_is_finite_in_float32_where_the_networks_are_sure_of_other_classes(highest):
    logit_s = 400.0 * torch.eye(6)[[0, 1, 2, 3, 4]] - 200
    logit_t = 400.0 * torch.eye(6)[[1, 2, 3, 4, 5]] - 200
    cost = highest * (1 - torch.eye(6))
    value = wkd_logit_loss(logit_s.requires_grad_(), logit_t, torch.tensor([5, 5, 5, 5, 0]), cost, temp=1.0)
    assert value.isfinite()
    assert gradient(value, logit_s).isfinite().all()


class TestCost:
    LOSS = dict(logit_s=torch.zeros(2, 3), logit_t=torch.zeros(2, 3), gt_label=torch.tensor([0, 1]))

    def test_of_classes_is_one_minus_the_cosine(self):
        vectors = torch.randn(5, 8, generator=seeded(1))
        cost = class_cost(vectors)
        for i in range(5):
            for j in range(5):
                cosine = torch.dot(vectors[i], vectors[j]) / vectors[i].norm() / vectors[j].norm()
                torch.testing.assert_close(cost[i, j], 1 - cosine, rtol=0, atol=1e-6)
        torch.testing.assert_close(class_cost(7 * vectors), cost)

    def test_of_a_frozen_half_precision_weight_is_float32_without_gradient(self):
        cost = class_cost(torch.randn(3, 4).half().requires_grad_())
        assert cost.dtype == torch.float32
        assert not cost.requires_grad

    def test_the_teachers_classifier_gives_it_where_the_config_does_not(self):
        assert WKDLogitLoss.facts == {'cost': ('teacher_weight', class_cost)}

    def test_it_moves_with_the_loss_and_is_in_no_checkpoint(self):
        loss = build('WKDLogitLoss', cost=random_cost(3).tolist())
        assert loss.state_dict() == {}
        assert [name for name, _ in loss.named_buffers()] == ['cost']

    @pytest.mark.parametrize('given', [np.ones((3, 3)), torch.ones(3, 3).half(), torch.ones(3, 3, dtype=torch.long)])
    def test_any_type_of_number_does(self, given):
        value = build('WKDLogitLoss', cost=given)(**self.LOSS)
        assert value.dtype == torch.float32
        assert torch.equal(value, build('WKDLogitLoss', cost=torch.ones(3, 3))(**self.LOSS))

    @staticmethod
    def from_file(path):
        (method,) = read_files([parse_method('loss_wkd_logit', dict(type='WKDLogitLoss', cost=path))])
        return method.build({})

    def test_it_is_read_from_a_file(self, tmp_path):
        torch.save(dict(cost=random_cost(3)), tmp_path / 'cost.pth')
        loss = self.from_file(str(tmp_path / 'cost.pth'))
        assert torch.equal(loss.cost, random_cost(3))

    def test_without_one_the_error_says_what_to_do(self):
        with pytest.raises(ValueError, match=r'linear classifier.*class-cost CONFIG --output cost\.pth'):
            build('WKDLogitLoss')

    @pytest.mark.parametrize(
        ('given', 'said'),
        [
            (torch.ones(3, 4), r'square \(C, C\).*\(3, 4\)'),
            (torch.full((2, 2), torch.nan), 'finite numbers'),
            ('nowhere/cost.pth', "a matrix.*not 'nowhere/cost.pth'"),
        ],
    )
    def test_another_form_is_refused(self, given, said):
        with pytest.raises((ValueError, FileNotFoundError), match=said):
            build('WKDLogitLoss', cost=given)

    def test_another_file_is_refused(self, tmp_path):
        torch.save(dict(state_dict={}), tmp_path / 'weights.pth')
        with pytest.raises(ValueError, match='weights.pth holds no `cost`'):
            self.from_file(tmp_path / 'weights.pth')
        with pytest.raises(FileNotFoundError, match='nowhere/cost.pth: no such file'):
            self.from_file('nowhere/cost.pth')

    def test_one_for_other_classes_is_refused(self):
        with pytest.raises(ValueError, match='for 4 classes, but the logits have 3'):
            build('WKDLogitLoss', cost=torch.ones(4, 4))(**self.LOSS)


# ---- NormKD, RLD, ABKD, LumiNet


def test_normkd_is_kds_divergence_at_the_temperatures_of_equal_deviations():
    logit_s, logit_t = logits(1, 9, seed=1), logits(1, 9, seed=2)
    logit_s, logit_t = (2 * z / z.std() for z in (logit_s, logit_t))
    assert_close(normkd_loss(logit_s, logit_t, temp=1.5), kd_loss(logit_s, logit_t, temp=3.0, alpha=1.0, divergence=True))


@pytest.mark.parametrize('value', [0.0, 3.1383657, 200.0])
def test_equal_logits_have_no_gradient_in_normkd_and_a_teachers_no_weight(value):
    other, gt_label = logits(3, 7, dtype=torch.float32), labels('hard', 3, 7)
    equal = torch.full((3, 7), value, requires_grad=True)
    for found in (normkd_loss(equal, other), normdkd_loss(equal, other, gt_label)):
        assert found.isfinite()
        assert gradient(found, equal).abs().max() < 1e-3
    for found in (normkd_loss(other, equal.detach()), normdkd_loss(other, equal.detach(), gt_label)):
        assert found < 1e-6


def test_rld_leaves_out_ties_and_is_its_first_term_where_none_or_one_class_is_below():
    logit_s = logits(3, 4, seed=1).requires_grad_()
    logit_t = torch.tensor([[0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 2.0, 3.0], [2.0, 2.0, 2.0, 2.0]], dtype=torch.float64)
    gt_label = torch.tensor([0, 1, 2])
    both, first = (rld_loss(logit_s, logit_t, gt_label, beta=beta) for beta in (100.0, 0.0))
    assert torch.equal(both, first)
    assert torch.equal(gradient(both, logit_s), gradient(first, logit_s))


def test_rld_raises_the_true_class_to_the_teachers_largest_probability_where_the_teacher_errs():
    logit_t = torch.tensor([[3.0, 0.0, -1.0]], dtype=torch.float64)
    swapped = logit_t[:, [1, 0, 2]].requires_grad_()
    value = rld_loss(swapped, logit_t, torch.tensor([1]), beta=0.0)
    assert_close(value.detach(), torch.zeros((), dtype=torch.float64))
    assert rld_loss(logit_t, logit_t, torch.tensor([1]), beta=0.0) > 1


@pytest.mark.parametrize(('alpha', 'beta'), [(0.5, 0.0), (0.0, 0.5), (0.5, -0.5), (0.0, 0.0)])
def test_abkds_limits_are_those_of_the_values_beside_them(alpha, beta):
    logit_s, logit_t = logits(4, 6, seed=1), logits(4, 6, seed=2)
    beside = abkd_loss(logit_s, logit_t, alpha + 2e-5, beta + 1e-5)
    torch.testing.assert_close(abkd_loss(logit_s, logit_t, alpha, beta), beside, rtol=1e-3, atol=0)


def test_abkd_is_the_divergence_of_kd_at_1_and_0_and_its_reverse_at_0_and_1():
    logit_s, logit_t = logits(4, 6, seed=1), logits(4, 6, seed=2)
    for value, a, b in (
        (abkd_loss(logit_s, logit_t, 1.0, 0.0), logit_s, logit_t),
        (abkd_loss(logit_s, logit_t, 0.0, 1.0), logit_t, logit_s),
    ):
        assert_close(value, kd_loss(a, b, temp=4.0, alpha=1.0, divergence=True) / 4.0**2)


def test_luminet_of_one_sample_or_of_equal_ones_is_0_without_gradient():
    logit_t = logits(3, 5, seed=2)
    alone = logits(1, 5, seed=1).requires_grad_()
    for logit_s, teacher in ((alone, logit_t[:1]), (alone.expand(3, 5), logit_t[:1].expand(3, 5))):
        value = luminet_loss(logit_s, teacher, alpha=50.0)
        assert value < 1e-9  # the mean of three is another number, by rounding
        assert gradient(value, alone).abs().max() < 1e-9


def test_luminet_does_not_see_the_shift_and_scale_of_a_class():
    logit_s, logit_t = logits(6, 5, 3.0, seed=1), logits(6, 5, 3.0, seed=2)
    moved = logit_s * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]) + torch.arange(5.0)
    torch.testing.assert_close(luminet_loss(moved, logit_t), luminet_loss(logit_s, logit_t), rtol=1e-4, atol=0)


def test_luminets_factor_is_the_temperatures_unless_given():
    logit_s, logit_t = logits(6, 5, seed=1), logits(6, 5, seed=2)
    assert torch.equal(luminet_loss(logit_s, logit_t, 3.0), luminet_loss(logit_s, logit_t, 3.0, alpha=3.0))
    assert_close(luminet_loss(logit_s, logit_t, 3.0, alpha=33.0), 121 * luminet_loss(logit_s, logit_t, 3.0))
