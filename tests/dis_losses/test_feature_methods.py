"""The losses on relations and features: the authors' values, their oracles, and what holds for every input."""

import inspect
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from dis_losses import feature_oracles as oracles
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import assert_close, seeded
from mmpretrain.registry import MODELS
from torch import nn

from mmcls_kd import dis_losses
from mmcls_kd.dis_losses import (
    SimKD,
    VIDLoss,
    at_loss,
    cc_loss,
    hcl_loss,
    nst_loss,
    pkt_loss,
    rkd_loss,
    sp_loss,
    srd_correlation_loss,
    vid_loss,
    wkd_feature_loss,
)
from mmcls_kd.dis_losses.common import full_precision, smaller_maps, unit
from mmcls_kd.dis_losses.rkd import relations

examples = settings(max_examples=25, deadline=None, derandomize=True)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def build(loss_type, **keywords):
    """A registered loss in float64 whose parameters are random."""
    loss = MODELS.build(dict(type=loss_type, **keywords)).double()
    for i, parameter in enumerate(loss.parameters()):
        nn.init.normal_(parameter, std=0.5, generator=seeded(100 + i))
    return loss


# ---- the authors' values

with np.load(Path(__file__).parents[1] / 'data' / 'methods.npz') as file:
    VECTORS = dict(file)

CASES = [
    *('rkd', 'pkt', 'cc'),
    *(f'{method}_{sizes}' for sizes in ('6_6', '8_4') for method in ('at', 'sp', 'nst', 'vid')),
    *('hcl', 'hcl_small', 'wkdf_g1', 'wkdf_g2'),
]
# tests/dis_losses/test_logit_methods.py has these.
OF_LOGITS = ('dist_', 'lskd_', 'wkdl_', 'ttm_', 'wttm_', 'ofa_')


def tensors(case, part):
    prefix = f'{case}/{part}.'
    return {key.removeprefix(prefix): torch.from_numpy(v.copy()) for key, v in VECTORS.items() if key.startswith(prefix)}


def test_no_case_of_the_file_is_left_out():
    there = {key.split('/')[0] for key in VECTORS}
    assert {case for case in there if not case.startswith(OF_LOGITS)} == set(CASES)
    assert all(any(case.startswith(start) for case in there) for start in OF_LOGITS)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize('case', CASES)
def test_value_and_every_gradient_are_the_authors(case, dtype):
    meta = json.loads(str(VECTORS[f'{case}/meta']))
    if meta['method'] == 'hcl_loss':
        loss, parameters = hcl_loss, {}
    else:
        loss = MODELS.build(dict(type=meta['method'], **meta['kwargs'])).to(dtype)
        loss.load_state_dict(tensors(case, 'param'))
        parameters = {f'param.{name}': parameter for name, parameter in loss.named_parameters()}
    feat_s, feat_t = (tensor.to(dtype) for tensor in tensors(case, 'in').values())
    leaves = dict(feat_s=feat_s.requires_grad_()) | parameters
    value = loss(feat_s, feat_t)
    gradients = dict(zip(leaves, torch.autograd.grad(value, list(leaves.values())), strict=True))
    expected = {name: gradient.to(dtype) for name, gradient in tensors(case, 'grad').items()}

    assert value.dtype == dtype
    assert_close(value.detach(), tensors(case, 'out')['loss'].to(dtype))
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        assert_close(gradient, expected[name])


# ---- the oracles

ON_VECTORS = {
    'RKDLoss': (oracles.rkd, [{}, dict(distance_weight=1.0, angle_weight=0.0), dict(distance_weight=0.0, angle_weight=2.0)]),
    'PKTLoss': (oracles.pkt, [{}]),
}
ON_MAPS = {'ATLoss': oracles.at, 'SPLoss': oracles.sp, 'NSTLoss': oracles.nst}
# Samples, widths of both, scale of the student's.
BATCHES = [(2, 1, 3, 1.0), (3, 4, 2, 20.0), (5, 3, 3, 1e-3), (4, 2, 7, 1.0)]
# Channels and sizes of both: places more and fewer than channels, each of them the smaller one.
MAPS = [
    ((2, 3, 4), (3, 3, 4)),
    ((3, 2, 1), (4, 2, 1)),
    ((2, 5, 3), (3, 2, 4)),
    ((1, 2, 2), (2, 5, 7)),
    ((5, 1, 1), (3, 1, 1)),
]


def assert_same(value, expected, ours, theirs):
    assert value.shape == ()
    assert_close(value.detach(), expected.detach())
    wanted = torch.autograd.grad(expected, theirs, materialize_grads=True)
    for gradient, expected_gradient in zip(torch.autograd.grad(value, ours), wanted, strict=True):
        assert_close(gradient, expected_gradient)


def run(loss_type, oracle, student, teacher, keywords):
    """The loss, its value and the oracle's, and what they depend on: parameters and the student's tensors."""
    loss = build(loss_type, **keywords)
    params = {name: parameter.detach().clone().requires_grad_() for name, parameter in loss.named_parameters()}
    variable = [t.requires_grad_() for value in student.values() for t in (value if isinstance(value, tuple) else (value,))]
    expected = oracle(params, **student, **teacher, **keywords)
    return loss(**student, **teacher), expected, [*loss.parameters(), *variable], [*params.values(), *variable]


@pytest.mark.parametrize(('n', 'width_s', 'width_t', 'scale'), BATCHES)
@pytest.mark.parametrize(
    ('loss_type', 'keywords'), [(name, keywords) for name, (_, settings) in ON_VECTORS.items() for keywords in settings]
)
def test_relations(loss_type, keywords, n, width_s, width_t, scale):
    vector_s, vector_t = scale * normal(n, width_s, seed=1), normal(n, width_t, seed=2)
    expected = ON_VECTORS[loss_type][0](vector_s.requires_grad_(), vector_t, **keywords)
    assert_same(build(loss_type, **keywords)(vector_s, vector_t), expected, [vector_s], [vector_s])


@pytest.mark.parametrize(('shape_s', 'shape_t'), MAPS)
@pytest.mark.parametrize('loss_type', ON_MAPS)
def test_maps(loss_type, shape_s, shape_t):
    feat_s, feat_t = 3 * normal(3, *shape_s, seed=1), normal(3, *shape_t, seed=2)
    expected = ON_MAPS[loss_type](feat_s.requires_grad_(), feat_t)
    loss = nst_loss if loss_type == 'NSTLoss' else build(loss_type)  # the class refuses a single place
    assert_same(loss(feat_s, feat_t), expected, [feat_s], [feat_s])


@pytest.mark.parametrize(
    ('loss_type', 'keywords', 'further'),
    [
        ('NSTLoss', {}, ()),
        ('FTLoss', dict(student_channels=5, teacher_channels=3, paraphraser_steps=0), ()),
        ('CATKDLoss', {}, (normal(4, 5, seed=3), normal(4, 3, seed=4))),
    ],
)
@pytest.mark.parametrize(
    ('places_s', 'places_t', 'text'), [((1, 1), (4, 4), '1×1 and 4×4'), ((3, 1), (1, 2), '3×1 and 1×2')]
)
def test_maps_of_one_place_teach_nothing_and_are_refused(loss_type, keywords, further, places_s, places_t, text):
    loss = build(loss_type, **keywords)
    with pytest.raises(ValueError, match=f'{loss_type} compares the places of maps, and {text} have one in common'):
        loss(normal(2, 5, *places_s), normal(2, 3, *places_t), *further)
    feat_s = normal(2, 5, 2, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(loss(feat_s, normal(2, 3, 3, 2), *further), feat_s)
    assert gradient.abs().max() > 1e-6


def map_case(loss_type, oracle, shape_s=(2, 3, 4), shape_t=(3, 3, 4), n=3, **keywords):
    keywords = dict(student_channels=shape_s[0], teacher_channels=shape_t[0], **keywords)
    student, teacher = dict(feat_s=normal(n, *shape_s, seed=1)), dict(feat_t=normal(n, *shape_t, seed=2))
    return loss_type, oracle, student, teacher, keywords


def vector_case(n=4, widths=(2, 3), **keywords):
    student, teacher = dict(vector_s=normal(n, widths[0], seed=1)), dict(vector_t=normal(n, widths[1], seed=2))
    return 'CCLoss', oracles.cc, student, teacher, dict(student_dims=widths[0], teacher_dims=widths[1], **keywords)


def projector_case(loss_type, oracle, n=4, widths=(2, 3), classes=0, **keywords):
    student, teacher = dict(vector_s=normal(n, widths[0], seed=1)), dict(vector_t=normal(n, widths[1], seed=2))
    if classes:
        student, teacher = (
            student | dict(logit_s=normal(n, classes, seed=3)),
            teacher | dict(logit_t=normal(n, classes, seed=4)),
        )
    return loss_type, oracle, student, teacher, dict(student_channels=widths[0], teacher_channels=widths[1], **keywords)


def pyramid_case(stages_s, stages_t, dims=(3, 4), n=3, **keywords):
    """``stages_s`` and ``stages_t`` are shapes (c, H, W), shallow to deep."""
    student, teacher = (
        {
            f'stages_{side}': tuple(normal(n, *shape, seed=10 * k + i) for i, shape in enumerate(shapes)),
            f'vector_{side}': normal(n, dims[k], seed=10 * k + 9),
        }
        for k, (side, shapes) in enumerate((('s', stages_s), ('t', stages_t)))
    )
    keywords |= dict(
        student_channels=tuple(shape[0] for shape in stages_s),
        teacher_channels=tuple(shape[0] for shape in stages_t),
        student_dims=dims[0],
        teacher_dims=dims[1],
    )
    return 'ReviewKDLoss', oracles.reviewkd, student, teacher, keywords


WITH_PARTS = [
    vector_case(feat_dim=5),
    vector_case(2, (4, 1), feat_dim=2),
    vector_case(5, (3, 3)),
    projector_case('SRDLoss', oracles.srd, classes=4),
    projector_case('SRDLoss', oracles.srd, 2, (4, 1), classes=2, exponent=3.0, temp=2.0),
    projector_case('SRDCorrelationLoss', oracles.srd_correlation),
    projector_case('SRDCorrelationLoss', oracles.srd_correlation, 5, (3, 2)),
    projector_case('PEFDLoss', oracles.pefd),
    projector_case('PEFDLoss', oracles.pefd, 1, (4, 5), num_projectors=2),
    *(
        map_case(loss_type, oracle, *shapes, **keywords)
        for loss_type, oracle in (('VIDLoss', oracles.vid), ('FitNetLoss', oracles.fitnet))
        for shapes in MAPS
        for keywords in ([dict(mid_channels=2), {}] if loss_type == 'VIDLoss' else [{}])
    ),
    map_case('VIDLoss', oracles.vid, init_pred_var=0.3),
    map_case('WKDFeatureLoss', oracles.wkd_feature),
    map_case('WKDFeatureLoss', oracles.wkd_feature, (3, 5, 3), (3, 3, 4), grid=2, mean_weight=0.3, std_weight=2.0),
    map_case('WKDFeatureLoss', oracles.wkd_feature, (2, 3, 7), (3, 5, 3), grid=2),
    map_case('WKDFeatureLoss', oracles.wkd_feature, (2, 5, 5), (2, 7, 4), grid=3, n=1, std_weight=0.0),
    pyramid_case([(2, 4, 4), (3, 2, 2)], [(3, 4, 4), (2, 2, 2)]),
    pyramid_case([(2, 3, 5), (1, 2, 3)], [(1, 5, 5), (2, 1, 2)], dims=(2, 2), mid_channels=4),
    pyramid_case([(2, 2, 2), (2, 2, 2)], [(2, 2, 2), (3, 3, 3)], mid_channels=1),
    pyramid_case([(1, 5, 5)], [(2, 5, 5)], dims=(2, 3)),
]


@pytest.mark.parametrize('case', WITH_PARTS, ids=lambda case: case[0])
def test_losses_with_trainable_parts(case):
    assert_same(*run(*case))


@pytest.mark.parametrize('shape', [(1, 1, 1), (2, 2, 3), (1, 3, 3), (1, 6, 5)])
def test_hierarchical_context_loss(shape):
    feat_s, feat_t = normal(2, *shape, seed=1).requires_grad_(), normal(2, *shape, seed=2)
    expected = oracles.hcl(oracles.numbers(feat_s), oracles.numbers(feat_t))
    assert_same(hcl_loss(feat_s, feat_t), expected, [feat_s], [feat_s])


@pytest.mark.parametrize(('n', 'widths', 'scale'), [(1, (2, 5), 1.0), (4, (5, 2), 3.0), (3, (3, 3), 1.0), (2, (1, 4), 20.0)])
def test_vkd_and_the_gradient_of_its_vector(n, widths, scale):
    loss = build('VkDLoss', student_channels=widths[0], teacher_channels=widths[1])
    vector_s, vector_t = (scale * normal(n, widths[0], seed=1)).requires_grad_(), normal(n, widths[1], seed=2)
    expected = oracles.vkd(loss.projector.weight.detach(), vector_s, vector_t)
    assert_same(loss(vector_s, vector_t), expected, [vector_s], [vector_s])


# ---- parts


@pytest.mark.parametrize(
    ('loss_type', 'keywords', 'names'),
    [
        ('CCLoss', {}, set()),
        ('CCLoss', dict(student_dims=3, teacher_dims=3), set()),
        (
            'CCLoss',
            dict(student_dims=3, teacher_dims=4),
            {'embed_s.weight', 'embed_s.bias', 'embed_t.weight', 'embed_t.bias'},
        ),
        ('WKDFeatureLoss', {}, set()),
        ('WKDFeatureLoss', dict(student_channels=3, teacher_channels=3), set()),
        (
            'WKDFeatureLoss',
            dict(student_channels=3, teacher_channels=4),
            {f'project.{n}' for n in ('0.weight', '1.weight', '1.bias')},
        ),
        ('FitNetLoss', dict(student_channels=3, teacher_channels=3), {'regressor.weight', 'regressor.bias'}),
        (
            'FitNetLoss',
            dict(student_channels=3, teacher_channels=4, norm_act=True),
            {'regressor.weight', 'regressor.bias', 'norm_act.0.weight', 'norm_act.0.bias'},
        ),
    ],
)
def test_parts_that_only_some_widths_need(loss_type, keywords, names):
    assert {name for name, _ in build(loss_type, **keywords).named_parameters()} == names


def test_fitnets_regressor_with_norm_and_activation():
    loss = build('FitNetLoss', student_channels=3, teacher_channels=4, norm_act=True)
    nn.init.ones_(loss.norm_act[0].weight)
    nn.init.zeros_(loss.norm_act[0].bias)
    feat_s, feat_t = normal(5, 3, 2, 2), normal(5, 4, 2, 2, seed=1)
    mapped = torch.einsum('ts,nshw->nthw', loss.regressor.weight[:, :, 0, 0], feat_s) + loss.regressor.bias[:, None, None]
    mean, var = mapped.mean(dim=(0, 2, 3), keepdim=True), mapped.var(dim=(0, 2, 3), keepdim=True, unbiased=False)
    expected = (((mapped - mean) / (var + 1e-5).sqrt()).clamp(min=0) - feat_t).square().mean()
    assert_close(loss(feat_s, feat_t), expected)


@pytest.mark.parametrize('variance', [0.3, 5.0, 700.0])
def test_vids_parts_start_as_told(variance):
    loss = MODELS.build(dict(type='VIDLoss', student_channels=2, teacher_channels=5, init_pred_var=variance))
    assert [tuple(conv.weight.shape[:2]) for conv in loss.regressor[::2]] == [(5, 2), (5, 5), (5, 5)]
    assert_close((nn.functional.softplus(loss.log_scale) + 1e-5).detach(), torch.full((5,), variance))


def test_vids_channels_stand_in_their_order():
    shapes = [tuple(conv.weight.shape[:2]) for conv in VIDLoss(4, 5, 6).regressor[::2]]
    assert shapes == [(5, 4), (5, 5), (6, 5)]


def test_vid_refuses_to_guess_the_teachers_channels():
    with pytest.raises(ValueError, match=r'VIDLoss\(teacher_channels=None\): set teacher_channels'):
        VIDLoss(4, 5)


def test_vid_refuses_a_variance_of_nothing():
    with pytest.raises(ValueError, match=r'init_pred_var=0\): choose a variance above'):
        MODELS.build(dict(type='VIDLoss', student_channels=2, teacher_channels=2, init_pred_var=0))


@pytest.mark.parametrize(('student_dims', 'given', 'mid'), [(64, None, 64), (2048, None, 512), (64, 7, 7)])
def test_reviewkds_channels_in_the_middle(student_dims, given, mid):
    widths = dict(student_channels=[4], teacher_channels=[4], student_dims=student_dims, teacher_dims=4)
    assert MODELS.build(dict(type='ReviewKDLoss', mid_channels=given, **widths)).fusions[0].reduce[0].out_channels == mid


def test_simkd_without_a_head_is_the_square_alone():
    feat_s, feat_t = normal(3, 2, 4, 4), normal(3, 6, 4, 4, seed=1)
    loss = build('SimKD', student_channels=2, teacher_channels=6)
    assert_close(loss(feat_s, feat_t), (loss.predictor.projector(feat_s) - feat_t).square().mean())
    with pytest.raises(ValueError, match='SimKD was built without a head.*head='):
        loss.predict_logit(feat_s)
    loss.eval().train()
    assert loss.predictor.training
    with_head = SimKD(2, 6, head=nn.Linear(6, 5))
    assert with_head.state_dict().keys() - loss.state_dict().keys() == {'predictor.head.weight', 'predictor.head.bias'}


@pytest.mark.parametrize('size_s', [(8, 8), (4, 12), (2, 2)])
def test_simkds_head_predicts_from_what_was_trained(size_s, monkeypatch):
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5))
    loss = build('SimKD', student_channels=3, teacher_channels=6, head=head).eval()
    trained = []
    monkeypatch.setattr('mmcls_kd.dis_losses.simkd.simkd_loss', lambda *maps: trained.append(maps) or 0.0)
    feat_s = normal(2, 3, *size_s)
    loss(feat_s, normal(2, 6, 4, 4, seed=1))
    ((projected, feat_t),) = trained
    assert projected.shape == feat_t.shape == (2, 6, min(size_s[0], 4), min(size_s[1], 4))
    assert_close(loss.predict_logit(feat_s), loss.predictor.head(projected))


@pytest.mark.parametrize('widths', [(3, 5), (5, 3), (4, 4)])
def test_vkds_projector_stays_orthonormal_under_an_optimizer(widths):
    torch.manual_seed(0)
    loss = MODELS.build(dict(type='VkDLoss', student_channels=widths[0], teacher_channels=widths[1])).double()
    sgd = torch.optim.SGD(loss.parameters(), lr=0.5, weight_decay=0.1)
    before, vectors = (
        loss.projector.weight.detach().clone(),
        (3 * normal(6, widths[0], seed=1), normal(6, widths[1], seed=2)),
    )
    values = []
    for _ in range(5):
        value = loss(*vectors)
        sgd.zero_grad()
        value.backward()
        sgd.step()
        values.append(value.item())
    weight = loss.projector.weight.detach()
    product = weight.t() @ weight if widths[0] <= widths[1] else weight @ weight.t()
    torch.testing.assert_close(product, torch.eye(min(widths), dtype=torch.float64), rtol=0, atol=1e-6)
    assert not torch.allclose(weight, before)
    assert values[-1] < values[0]


def test_vkds_projector_is_set_by_assignment_and_is_in_the_state_dict():
    loss, other = (build('VkDLoss', student_channels=3, teacher_channels=5) for _ in range(2))
    matrix = torch.linalg.qr(normal(5, 3, seed=7))[0]
    loss.projector.weight = matrix
    assert_close(loss.projector.weight.detach(), matrix)
    other.load_state_dict(loss.state_dict())
    assert torch.equal(other.projector.weight, loss.projector.weight)


@pytest.mark.parametrize('loss_type', ['SRDLoss', 'SRDCorrelationLoss'])
def test_srd_ignores_shift_and_scale_of_a_dimension_and_is_finite_where_one_is_constant(loss_type):
    loss = build(loss_type, student_channels=3, teacher_channels=4)
    vector_s, vector_t = normal(5, 3, seed=1).requires_grad_(), normal(5, 4, seed=2)
    logit = [normal(5, 6, seed=3), normal(5, 6, seed=4)] if loss_type == 'SRDLoss' else []
    moved = 100 * vector_t * torch.tensor([1.0, 2.0, 3.0, 4.0]) + 7
    torch.testing.assert_close(loss(vector_s, moved, *logit), loss(vector_s, vector_t, *logit), rtol=0, atol=1e-2)
    for student, teacher in ((vector_s, 0 * vector_t), (0 * vector_s + 3, vector_t), (0 * vector_s, 0 * vector_t)):
        value = loss.float()(student.float(), teacher.float(), *(z.float() for z in logit))
        assert value.isfinite()
        assert torch.autograd.grad(value, vector_s)[0].isfinite().all()


def test_srd_correlation_is_the_logarithm_of_its_constant_where_the_vectors_correlate():
    vectors = normal(6, 3, seed=1)
    value = srd_correlation_loss(2 * vectors + 1, vectors)
    assert_close(value, torch.tensor(1e-5, dtype=torch.float64).log())


def test_pefd_of_a_vector_of_length_0_is_1_without_gradient():
    loss = build('PEFDLoss', student_channels=3, teacher_channels=4)
    for projector in loss.projectors:
        nn.init.constant_(projector.bias, -100)
    vector_s = normal(2, 3, seed=1).requires_grad_()
    value = loss(vector_s, normal(2, 4, seed=2))
    assert value == 1
    assert torch.autograd.grad(value, vector_s)[0].count_nonzero() == 0


class TestRefusals:
    @pytest.mark.parametrize('loss_type', ['SRDLoss', 'SRDCorrelationLoss'])
    def test_a_batch_of_one_for_srd(self, loss_type):
        logit = [normal(1, 6), normal(1, 6)] if loss_type == 'SRDLoss' else []
        with pytest.raises(ValueError, match='two images or more; set drop_last=True'):
            build(loss_type, student_channels=3, teacher_channels=4)(normal(1, 3), normal(1, 4), *logit)

    def test_no_projector(self):
        with pytest.raises(ValueError, match=r'PEFDLoss\(num_projectors=0\): choose 1 or more'):
            build('PEFDLoss', student_channels=3, teacher_channels=4, num_projectors=0)

    @pytest.mark.parametrize('loss_type', ['CCLoss', 'WKDFeatureLoss'])
    def test_two_widths_that_nobody_told(self, loss_type):
        shape = (3, 2) if loss_type == 'CCLoss' else (3, 2, 4, 4)
        unit_of_width = 'dims' if loss_type == 'CCLoss' else 'channels'
        with pytest.raises(ValueError, match=f'set student_{unit_of_width}=2 and teacher_{unit_of_width}=1$'):
            build(loss_type)(normal(*shape), normal(*shape)[:, :1])

    def test_a_cell_of_one_place(self):
        with pytest.raises(ValueError, match=r'grid=3\): a map of 3×3 .* choose a smaller grid'):
            wkd_feature_loss(normal(1, 2, 6, 6), normal(1, 2, 3, 3), grid=3)
        with pytest.raises(ValueError, match=r'grid=0\): choose 1 or more'):
            build('WKDFeatureLoss', grid=0)

    def test_two_numbers_of_stages(self):
        with pytest.raises(ValueError, match='the student has 2 of them and the teacher 1'):
            build('ReviewKDLoss', student_channels=[1, 2], teacher_channels=[1], student_dims=2, teacher_dims=2)

    def test_a_batch_of_one_for_reviewkd(self):
        _, _, student, teacher, keywords = pyramid_case([(2, 4, 4)], [(2, 4, 4)], n=1)
        loss = build('ReviewKDLoss', **keywords)
        with pytest.raises(ValueError, match='two samples or more'):
            loss(**student, **teacher)
        assert loss.eval()(**student, **teacher).isfinite()


# ---- properties

VECTOR_LOSSES = dict(rkd=rkd_loss, pkt=pkt_loss, cc=cc_loss)
MAP_LOSSES = dict(at=at_loss, sp=sp_loss, nst=nst_loss, hcl=hcl_loss, wkd_feature=wkd_feature_loss)
LOSSES = VECTOR_LOSSES | MAP_LOSSES


def pair(name, seed, n=4, width=3):
    """Tensors of student and teacher for a loss."""
    shape = (n, width) if name in VECTOR_LOSSES else (n, width, 3, 4)
    return normal(*shape, seed=seed), normal(*shape, seed=seed + 1000)


def rotation(width, seed):
    """A random orthogonal matrix."""
    return torch.linalg.qr(normal(width, width, seed=seed))[0]


def each(*names):
    return pytest.mark.parametrize('name', names or LOSSES)


seeds = st.integers(0, 999)


@each(*(name for name in LOSSES if name != 'cc'))
@examples
@given(seed=seeds, order=st.permutations(range(4)))
def test_the_order_of_the_samples_changes_nothing(name, seed, order):
    student, teacher = pair(name, seed)
    assert_close(LOSSES[name](student[order], teacher[order]), LOSSES[name](student, teacher))


@examples
@given(seed=seeds)
def test_cc_knows_neighbours_alone(seed):
    student, teacher = pair('cc', seed)
    value = cc_loss(student, teacher)
    assert_close(cc_loss(student.flip(0), teacher.flip(0)), value)
    swapped = [1, 0, 2, 3]
    assert not torch.isclose(cc_loss(student[swapped], teacher[swapped]), value)


@each()
@examples
@given(seed=seeds)
def test_it_is_0_where_student_equals_teacher_and_positive_elsewhere(name, seed):
    student, teacher = pair(name, seed)
    copied = teacher.clone().requires_grad_()
    value = LOSSES[name](copied, teacher)
    assert abs(value.item()) < 1e-15
    # PKT's gradient vanishes but for the 1e-7 that it adds to the probabilities
    assert torch.autograd.grad(value, copied)[0].abs().max() < (1e-7 if name == 'pkt' else 1e-12)
    assert LOSSES[name](student, teacher) > 1e-6


@each('rkd', 'at', 'sp', 'nst')
@examples
@given(seed=seeds, factor=st.sampled_from([1e-2, 0.5, 7.0, 1e3]))
def test_a_factor_of_all_features_changes_nothing(name, seed, factor):
    student, teacher = pair(name, seed)
    value = LOSSES[name](student, teacher)
    assert_close(LOSSES[name](factor * student, teacher), value)
    assert_close(LOSSES[name](student, factor * teacher), value)


@each('pkt', 'at', 'nst')
@examples
@given(seed=seeds)
def test_a_factor_of_each_sample_changes_nothing(name, seed):
    student, teacher = pair(name, seed)
    factor = torch.tensor([2.0, 0.5, 30.0, 1.0], dtype=torch.float64).view(-1, *[1] * (student.dim() - 1))
    value = LOSSES[name](student, teacher)
    tolerance = 1e-5 if name == 'pkt' else 1e-9  # PKT adds 1e-7 to the lengths
    torch.testing.assert_close(LOSSES[name](factor * student, teacher), value, rtol=tolerance, atol=0)


@examples
@given(seed=seeds)
def test_a_factor_of_each_channel_changes_nothing_for_nst(seed):
    student, teacher = pair('nst', seed)
    factor = torch.tensor([3.0, 0.5, -1.0], dtype=torch.float64).view(-1, 1, 1)
    assert_close(nst_loss(factor * student, teacher), nst_loss(student, teacher))


@each('rkd', 'pkt', 'at', 'sp')
@examples
@given(seed=seeds)
def test_a_rotation_of_the_channels_changes_nothing(name, seed):
    student, teacher = pair(name, seed)
    turned = torch.einsum('dc,nc...->nd...', rotation(3, seed), student)
    assert_close(LOSSES[name](turned, teacher), LOSSES[name](student, teacher))


@examples
@given(seed=seeds)
def test_a_shift_of_all_vectors_changes_nothing_for_rkd(seed):
    student, teacher = pair('rkd', seed)
    assert_close(rkd_loss(student + normal(3, seed=seed + 1), teacher), rkd_loss(student, teacher))


@each('rkd', 'pkt', 'at', 'sp', 'nst')
@examples
@given(seed=seeds, order=st.permutations(range(3)))
def test_the_order_of_the_students_channels_changes_nothing(name, seed, order):
    student, teacher = pair(name, seed)
    assert_close(LOSSES[name](student[:, order], teacher), LOSSES[name](student, teacher))


@each('sp', 'nst', 'wkd_feature')
@examples
@given(seed=seeds, order=st.permutations(range(12)))
def test_the_order_of_the_places_changes_nothing(name, seed, order):
    student, teacher = pair(name, seed)
    mixed = [feat.flatten(2)[:, :, order].view_as(feat) for feat in (student, teacher)]
    assert_close(LOSSES[name](*mixed), LOSSES[name](student, teacher))


@examples
@given(seed=seeds)
def test_vids_variance_is_best_where_it_is_the_mean_square(seed):
    predicted, feat_t = (normal(3, 2, 2, 3, seed=seed + i) for i in range(2))
    best = (predicted - feat_t).square().mean(dim=(0, 2, 3)).requires_grad_()
    value = vid_loss(predicted, feat_t, best)
    assert torch.autograd.grad(value, best)[0].abs().max() < 1e-12
    for factor in (0.5, 2.0):
        assert vid_loss(predicted, feat_t, factor * best) > value


@pytest.mark.parametrize('places', [2, 5])
def test_nst_has_the_same_value_by_channels_and_by_places(places):
    """At 2 places the products of places are fewer, at 5 those of channels; more of the same channels change nothing."""
    student, teacher = normal(2, 3, 1, places, seed=1), normal(2, 3, 1, places, seed=2)
    twice = nst_loss(student.repeat(1, 4, 1, 1), teacher.repeat(1, 4, 1, 1))
    assert_close(twice, nst_loss(student, teacher))


@each('rkd', 'nst')
def test_no_gradient_flows_to_the_teacher(name):
    student, teacher = pair(name, 0)
    value = LOSSES[name](student.requires_grad_(), teacher.requires_grad_())
    assert torch.autograd.grad(value, teacher, allow_unused=True) == (None,)


# ---- extremes


@each()
@pytest.mark.parametrize('n', [1, 2])
def test_batches_of_one_and_two(name, n):
    student, teacher = pair(name, 0, n=n)
    value = LOSSES[name](student.requires_grad_(), teacher)
    assert value.isfinite()
    assert torch.autograd.grad(value, student)[0].isfinite().all()
    if n == 1 and name in ('rkd', 'pkt', 'cc', 'sp'):
        assert abs(value.item()) < 1e-15  # no pairs


EXTREMES = {
    'all zero': lambda shape: torch.zeros(shape),
    'all equal': lambda shape: torch.full(shape, 0.1),
    'one sample zero': lambda shape: torch.cat([torch.zeros(1, *shape[1:]), normal(*shape).float()[1:]]),
    'two samples equal': lambda shape: normal(*shape).float()[[0, 0, *range(2, shape[0])]],
    'two samples opposite': lambda shape: (
        normal(*shape).float()[[0, 0, *range(2, shape[0])]] * torch.tensor([-1.0, 1, 1, 1]).view(-1, *[1] * (len(shape) - 1))
    ),
    'a channel zero': lambda shape: normal(*shape).float() * (torch.arange(shape[1]) > 0).view(-1, *[1] * (len(shape) - 2)),
    '±200': lambda shape: 200 * normal(*shape).float().sign(),
    '1e4': lambda shape: 1e4 * normal(*shape).float(),
    '1e-4': lambda shape: 1e-4 * normal(*shape).float(),
    'far from 0': lambda shape: 1e3 + normal(*shape).float(),
}


@each()
@pytest.mark.parametrize('side', ['student', 'teacher', 'both'])
@pytest.mark.parametrize('kind', EXTREMES)
def test_extreme_features_give_a_finite_value_and_a_gradient_that_is_no_explosion(name, kind, side):
    student, teacher = (tensor.float() for tensor in pair(name, 0, width=2))
    student = EXTREMES[kind](student.shape) if side != 'teacher' else student
    teacher = EXTREMES[kind](teacher.shape).roll(1, 0) if side != 'student' else teacher
    value = LOSSES[name](student.requires_grad_(), teacher)
    (gradient,) = torch.autograd.grad(value, student)
    assert value.isfinite()
    assert gradient.isfinite().all()
    assert gradient.abs().max() < 1e7


@each(*(name for name in LOSSES if name != 'pkt'))
@pytest.mark.parametrize('kind', ['±200', '1e4', 'far from 0', 'two samples opposite'])
def test_float32_is_as_good_as_float64_to_a_thousandth(name, kind):
    student, teacher = (tensor.float() for tensor in pair(name, 0, width=2))
    student = EXTREMES[kind](student.shape)
    values = [LOSSES[name](student.to(dtype), teacher.to(dtype)) for dtype in (torch.float32, torch.float64)]
    torch.testing.assert_close(values[0].double(), values[1], rtol=1e-3, atol=1e-7)


def test_equal_vectors_are_a_millionth_apart_for_rkd():
    vectors = torch.tensor([[0.0], [0.0], [1.0]], dtype=torch.float64)
    distance, cosine = relations(vectors)
    assert_close(distance[0], torch.tensor([0, 1e-6, 1], dtype=torch.float64) / ((4 + 2e-6) / 6))
    assert cosine[0].tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize('row', [(6.0, 7.25), (9.25, 14.0), (14.5, 12.0)])
def test_opposite_vectors_are_finite_for_pkt(row):
    opposite = torch.tensor(row) * torch.tensor([[1.0], [-1.0]])  # their cosine is below −1 by rounding
    for student, teacher in ((opposite, torch.eye(2)), (torch.eye(2), opposite)):
        value = pkt_loss(student.requires_grad_(), teacher.detach())
        assert value.isfinite()
        assert torch.autograd.grad(value, student)[0].isfinite().all()


# ---- what they share


def test_a_vector_without_length_has_no_direction_and_no_gradient():
    vectors = torch.tensor([[0.0, 0.0], [3.0, 4.0], [1e-13, 0.0]], dtype=torch.float64).requires_grad_()
    assert_close(unit(vectors).detach(), torch.tensor([[0, 0], [0.6, 0.8], [0, 0]], dtype=torch.float64))
    assert torch.autograd.grad(unit(vectors)[::2].sum(), vectors)[0].count_nonzero() == 0
    assert torch.autograd.gradcheck(unit, normal(3, 4).requires_grad_())


def test_maps_of_one_size_stay_the_same_tensors():
    feat_s, feat_t = normal(1, 2, 3, 4), normal(1, 3, 3, 4)
    assert [a is b for a, b in zip(smaller_maps(feat_s, feat_t), (feat_s, feat_t), strict=True)] == [True, True]


def test_each_side_is_averaged_where_it_is_the_larger():
    feat_s, feat_t = smaller_maps(normal(2, 3, 6, 2), normal(2, 5, 3, 8))
    assert feat_s.shape[1:] == (3, 3, 2)
    assert feat_t.shape[1:] == (5, 3, 2)


def test_half_precision_inside_of_tuples_and_lists_is_raised():
    class Dtypes(nn.Module):
        @full_precision
        def forward(self, stages_s, stages_t):
            return [stage.dtype for stage in (*stages_s, *stages_t)], type(stages_s), type(stages_t)

    half, double = torch.zeros(1, dtype=torch.bfloat16), torch.zeros(1, dtype=torch.float64)
    found = Dtypes()((half, half.half(), double), [half])
    assert found == ([torch.float32, torch.float32, torch.float64, torch.float32], tuple, list)


@pytest.mark.parametrize(
    'name', ['rkd', 'pkt', 'cc', 'at', 'sp', 'nst', 'vid', 'fitnet', 'wkd_feature', 'srd', 'pefd', 'vkd']
)
def test_every_method_has_its_function(name):
    assert inspect.isfunction(getattr(dis_losses, f'{name}_loss'))
