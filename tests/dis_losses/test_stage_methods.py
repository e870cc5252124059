"""The later losses on maps and stages: their oracles, small batches and maps, and refusals."""

import copy

import pytest
import torch
from dis_losses import stage_oracles as oracles
from kit import assert_close
from test_feature_methods import MAPS, assert_same, build, map_case, normal, run

from mmcls_kd.dis_losses import FSPLoss, FTLoss, ft_loss, ickd_loss


def stage_case(loss_type, oracle, stages_s, stages_t, n=3, widths=True, **keywords):
    """``stages_s`` and ``stages_t`` are shapes (c, H, W), shallow to deep."""
    given = [
        {name: tuple(normal(n, *shape, seed=10 * k + i) for i, shape in enumerate(shapes))}
        for k, (name, shapes) in enumerate(dict(stages_s=stages_s, stages_t=stages_t).items())
    ]
    if widths:
        for name, shapes in dict(student_channels=stages_s, teacher_channels=stages_t).items():
            keywords[name] = tuple(shape[0] for shape in shapes)
    return loss_type, oracle, *given, keywords


ONE = [(2, 1, 1)], [(3, 1, 1)]
TWO = [(2, 4, 4), (3, 2, 2)], [(3, 4, 3), (2, 1, 2)]
UNEVEN = [(1, 3, 5), (2, 2, 3), (1, 2, 2)], [(2, 5, 4), (3, 1, 1)]
UNEVEN_PAIRS = [(1, 3, 5), (2, 2, 3)], [(2, 5, 4), (3, 1, 1)]


OFD = ('OFDLoss', oracles.ofd)


def preact_case(stages_s, stages_t, n=3, method=('ABLoss', oracles.ab), **keywords):
    loss_type, oracle, *given, keywords = stage_case(*method, stages_s, stages_t, n, **keywords)
    given = [{name.replace('stages', 'stages_preact'): value for name, value in one.items()} for one in given]
    return loss_type, oracle, *given, keywords


CASES = [
    *(map_case('ICKDLoss', oracles.ickd, *shapes) for shapes in MAPS),
    *(map_case('NORMLoss', oracles.norm, *shapes, parts=parts) for shapes, parts in zip(MAPS, (1, 2, 3, 2, 4), strict=True)),
    preact_case(*TWO),
    preact_case(*TWO, method=OFD, margins=[[-0.5, -1.0, 0.0], [-2.0, -0.125]]),
    preact_case(*UNEVEN_PAIRS, n=2, method=OFD, margins=[[-0.25, -1.0], [0.0, -2.0, -0.125]]),
    preact_case(*ONE, method=OFD, margins=[[-0.25, -1.0, 0.0]]),
    preact_case(*UNEVEN_PAIRS, n=2, margin=0.3),
    map_case('ICKDLoss', oracles.ickd, (3, 2, 2), (3, 4, 4), n=1),
    stage_case('FSPLoss', oracles.fsp, [(2, 4, 4), (3, 4, 2)], [(2, 3, 3), (3, 1, 2)], widths=False),
    stage_case(
        'FSPLoss', oracles.fsp, [(1, 1, 1), (2, 2, 2), (3, 1, 2)], [(1, 2, 2), (2, 2, 3), (3, 1, 1)], n=1, widths=False
    ),
    stage_case('AFDLoss', oracles.afd, *ONE, qk_dim=2),
    stage_case('AFDLoss', oracles.afd, *TWO, qk_dim=5),
    stage_case('AFDLoss', oracles.afd, *UNEVEN, n=4, qk_dim=3),
    stage_case('SemCKDLoss', oracles.semckd, *ONE, n=4, batch_size=4),
    stage_case('SemCKDLoss', oracles.semckd, *TWO, n=5, batch_size=9),
    stage_case('SemCKDLoss', oracles.semckd, *UNEVEN, n=2, batch_size=3),
]


@pytest.mark.parametrize('case', CASES, ids=lambda case: case[0])
def test_value_and_gradients_are_the_oracles(case):
    assert_same(*run(*case))


@pytest.mark.parametrize(('p1', 'p2'), [(2, 1), (1, 2), (4, 2)])
@pytest.mark.parametrize(('shape_s', 'shape_t'), MAPS)
def test_factor_transfer(shape_s, shape_t, p1, p2):
    factor_s, factor_t = normal(2, *shape_s, seed=1).abs().requires_grad_(), normal(2, *shape_t, seed=2).abs()
    assert_same(ft_loss(factor_s, factor_t, p1, p2), oracles.ft(factor_s, factor_t, p1, p2), [factor_s], [factor_s])


def test_two_equal_networks_cost_nothing():
    feat = normal(3, 4, 2, 2)
    assert ickd_loss(feat, feat) == ft_loss(feat, feat) == FSPLoss()((feat, feat), (feat, feat)) == 0


@pytest.mark.parametrize('loss_type', ['ICKDLoss', 'FTLoss'])
def test_channels_without_any_value_have_a_finite_gradient(loss_type):
    loss = build(loss_type, student_channels=2, teacher_channels=4)
    feat_s = torch.zeros(2, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    value = loss(feat_s, torch.zeros(2, 4, 2, 2, dtype=torch.float64))
    assert value.isfinite()
    assert all(g.isfinite().all() for g in torch.autograd.grad(value, [feat_s, *loss.parameters()], materialize_grads=True))


@pytest.mark.parametrize(
    'case', [stage_case('AFDLoss', None, *TWO, n=1), stage_case('SemCKDLoss', None, *TWO, n=1, batch_size=4)]
)
def test_stages_of_one_sample_are_refused_in_training(case):
    loss_type, _, student, teacher, keywords = case
    loss = build(loss_type, **keywords)
    with pytest.raises(ValueError, match=f'{loss_type} has batch norms: it needs two samples or more .*drop_last=True'):
        loss(**student, **teacher)
    assert loss.eval()(**student, **teacher).isfinite()


def test_one_place_of_one_sample_is_refused_in_training():
    loss = build('ICKDLoss', student_channels=2, teacher_channels=4)
    maps = normal(1, 2, 1, 1), normal(1, 4, 1, 1)
    with pytest.raises(ValueError, match='ICKDLoss has batch norms: it needs two samples or more'):
        loss(*maps)
    assert loss.eval()(*maps).isfinite()
    assert loss.train()(normal(1, 2, 2, 2), normal(1, 4, 2, 2)).isfinite()


class TestRefusals:
    def test_two_numbers_of_stages_for_ab(self):
        with pytest.raises(ValueError, match='the student has 2 of them and the teacher 1'):
            build('ABLoss', student_channels=[1, 2], teacher_channels=[1])

    def test_no_part_for_norm(self):
        with pytest.raises(ValueError, match=r'NORMLoss\(parts=0\): choose 1 or more'):
            build('NORMLoss', student_channels=1, teacher_channels=1, parts=0)

    def test_a_larger_batch_than_semckds(self):
        loss_type, _, student, teacher, keywords = stage_case('SemCKDLoss', None, *TWO, n=5, batch_size=4)
        with pytest.raises(ValueError, match=r'batch_size=4\) got 5 samples: set batch_size=5'):
            build(loss_type, **keywords)(**student, **teacher)

    def test_fsps_stages_of_other_channels(self):
        feats = normal(2, 2, 3, 3), normal(2, 3, 3, 3)
        with pytest.raises(ValueError, match=r'student’s are \(2, 3\) and the teacher’s \(3, 3\): choose'):
            build('FSPLoss')(feats, (feats[1], feats[1]))
        with pytest.raises(ValueError, match=r'student’s are \(2,\) and the teacher’s \(2, 3\)'):
            build('FSPLoss', student_channels=[2], teacher_channels=[2, 3])
        with pytest.raises(ValueError, match='needs two stages or more, not 1'):
            build('FSPLoss')(feats[:1], feats[:1])


# ---- factor transfer's paraphraser


def ft_and_maps(**keywords):
    torch.manual_seed(0)
    loss = FTLoss(2, 4, **keywords).double()
    return loss, normal(3, 2, 4, 4, seed=1).requires_grad_(), normal(3, 4, 3, 3, seed=2)


def own_gradients(loss, value, feat_s):
    parts = [feat_s, *loss.translator.parameters()], [*loss.paraphraser.parameters()]
    return [torch.autograd.grad(value, part, retain_graph=True, materialize_grads=True) for part in parts]


def test_the_paraphraser_learns_first_and_alone():
    loss, feat_s, feat_t = ft_and_maps(paraphraser_steps=2)
    for step in range(3):
        rebuilt = copy.deepcopy(loss.paraphraser)(feat_t)[1]
        value = loss(feat_s, feat_t)
        own = 0.005 * (rebuilt - feat_t).square().mean() / feat_t.square().mean()
        student, paraphraser = own_gradients(loss, value, feat_s)
        assert any(g.count_nonzero() for g in paraphraser)
        assert any(g.count_nonzero() for g in student) == (step == 2)
        if step < 2:
            assert_close(value.detach(), own.detach())
        else:
            assert value > own
    assert loss.steps == 3
    assert loss.eval()(feat_s, feat_t) > 0
    assert loss.steps == 3


def test_the_transfer_teaches_the_paraphraser_nothing():
    loss, feat_s, feat_t = ft_and_maps(paraphraser_steps=0, reconstruction=0.0)
    _, paraphraser = own_gradients(loss, loss(feat_s, feat_t), feat_s)
    assert not any(g.count_nonzero() for g in paraphraser)


def test_a_trained_paraphraser_stays_as_it_is():
    first, feat_s, feat_t = ft_and_maps()
    first(feat_s, feat_t)
    loss, feat_s, feat_t = ft_and_maps(paraphraser=first.state_dict())
    before = copy.deepcopy(loss.paraphraser.state_dict())
    for name, value in first.paraphraser.state_dict().items():
        assert_close(before[name].double(), value.double())
    value = loss.train()(feat_s, feat_t)
    factors = first.eval().paraphraser.encoder(feat_t)
    assert_close(value.detach(), ft_loss(copy.deepcopy(loss).translator(feat_s), factors).detach())
    assert all(torch.equal(value, before[name]) for name, value in loss.paraphraser.state_dict().items())
    assert not any(parameter.requires_grad for parameter in loss.paraphraser.parameters())


def test_a_state_that_lacks_a_part_of_the_paraphraser_is_refused():
    with pytest.raises(ValueError, match=r'lacks encoder.0.weight of shape \(4, 4, 3, 3\): give'):
        FTLoss(2, 4, paraphraser=dict(weight=torch.zeros(2)))
