"""What holds for every input: symmetries, bounds, extreme logits, two classes, precision, stop gradients, refusals."""

import inspect

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import TOLERANCE, assert_close, labels, logits, seeded
from mmpretrain.registry import MODELS
from torch import nn

from mmcls_kd.dis_losses import (
    CRDLoss,
    RKDLoss,
    WKDLogitLoss,
    abkd_loss,
    crld_loss,
    deit_token_loss,
    dist_loss,
    dkd_loss,
    embedding_loss,
    ft_loss,
    kd_loss,
    lskd_loss,
    luminet_loss,
    mgd_loss,
    mlkd_loss,
    nkd_loss,
    normdkd_loss,
    normkd_loss,
    ofa_logit_loss,
    ofa_loss,
    rkd_loss,
    rld_loss,
    srd_loss,
    srrl_loss,
    tfnkd_loss,
    ttm_loss,
    uskd_loss,
    vitkd_loss,
    wkd_feature_loss,
    wkd_logit_loss,
    wsld_loss,
    wttm_loss,
)
from mmcls_kd.dis_losses.common import memory_at_most
from mmcls_kd.dis_losses.uskd import zipf_label
from mmcls_kd.dis_losses.wkd_logit import class_cost
from mmcls_kd.errors import TrainingError

LABELS = ('hard', 'one_hot', 'mixup', 'mixed', 'tie', 'peaked')
each_label = pytest.mark.parametrize('label', LABELS)
examples = settings(max_examples=25, deadline=None, derandomize=True)


def logit_loss(function, **keywords):
    """A loss as a function of the student's logits, the others (the teacher's, or USKD's weak ones) and the label."""
    names = inspect.signature(function).parameters

    def value(logit_s, other, gt_label):
        tensors = dict(logit_s=logit_s, logit_t=other, logit_weak=other, gt_label=gt_label)
        return function(**{name: tensor for name, tensor in tensors.items() if name in names}, **keywords)

    return value


LOGIT_LOSSES = {
    'tfnkd': logit_loss(tfnkd_loss),
    'uskd_prob': logit_loss(uskd_loss, beta=0.5, mu=0.1, rank_by='prob'),
    'uskd_log_prob': logit_loss(uskd_loss, beta=0.5, mu=0.1, rank_by='log_prob'),
}
for _name, _function in dict(kd=kd_loss, dkd=dkd_loss, wsld=wsld_loss, nkd=nkd_loss).items():
    LOGIT_LOSSES |= {f'{_name}_T{temp:.0f}': logit_loss(_function, temp=temp) for temp in (1.0, 4.0)}


def wkd_logit(logit_s, logit_t, gt_label, **keywords):
    """WKD with a cost in which all classes are equally unlike."""
    cost = 0.5 * (1 - torch.eye(logit_s.shape[1], dtype=logit_s.dtype))
    return wkd_logit_loss(logit_s, logit_t, gt_label, cost, **keywords)


LOGIT_LOSSES |= {
    'dist_T1': logit_loss(dist_loss),
    'dist_T4': logit_loss(dist_loss, temp=4.0),
    'lskd': logit_loss(lskd_loss),
    'kd_standardized': logit_loss(kd_loss, standardize=True),
    'dkd_standardized': logit_loss(dkd_loss, standardize=True),
    'nkd_standardized': logit_loss(nkd_loss, standardize=True),
    'ttm': logit_loss(ttm_loss),
    'wttm': logit_loss(wttm_loss),
    'ofa': logit_loss(ofa_logit_loss),
    'wkd_T1': logit_loss(wkd_logit, temp=1.0),
    'wkd_T4': logit_loss(wkd_logit, temp=4.0),
    'normkd': logit_loss(normkd_loss),
    'deit_hard': logit_loss(deit_token_loss),
    'deit_soft': logit_loss(deit_token_loss, kind='soft', temp=3.0),
    'normdkd': logit_loss(normdkd_loss),
    'rld_T1': logit_loss(rld_loss, temp=1.0),
    'rld_T4': logit_loss(rld_loss),
    'rld_standardized': logit_loss(rld_loss, standardize=True),
    'abkd': logit_loss(abkd_loss),
    'abkd_reverse_kl': logit_loss(abkd_loss, alpha=0.0, beta=1.0),
}
NORMALIZED = [LOGIT_LOSSES['normkd'], LOGIT_LOSSES['normdkd']]


def with_strong_view(function):
    """A loss of two views, whose strong view's logits are nearer to each other."""

    def value(logit_s, logit_t, **keywords):
        return function(logit_s, logit_t, 0.5 * logit_s, 0.5 * logit_t, **keywords)

    return value


LOGIT_LOSSES |= {
    'crld': logit_loss(with_strong_view(crld_loss)),
    'mlkd_sample': logit_loss(with_strong_view(mlkd_loss), mask='sample'),
    'mlkd_released': logit_loss(with_strong_view(mlkd_loss), mask='released'),
    'mlkd_one_view': logit_loss(mlkd_loss, temps=(1.0, 4.0)),
}
each_logit_loss = pytest.mark.parametrize('loss', LOGIT_LOSSES.values(), ids=LOGIT_LOSSES)
WITH_TEACHER = {name: loss for name, loss in LOGIT_LOSSES.items() if not name.startswith(('tfnkd', 'uskd'))}


@st.composite
def batches(draw, kinds=LABELS):
    """Logits of the student and others, and labels, of 1 to 5 samples and 2 to 7 classes.

    The logits are eighths, all different within a sample, so that adding another eighth is exact.
    """
    n, c = draw(st.integers(1, 5)), draw(st.integers(2, 7))
    row = st.lists(st.integers(-160, 160), min_size=c, max_size=c, unique=True)
    rows = torch.tensor(draw(st.lists(row, min_size=2 * n, max_size=2 * n)), dtype=torch.float64) / 8
    return rows[:n], rows[n:], labels(draw(st.sampled_from(kinds)), n, c, seed=draw(st.integers(0, 99)))


@each_logit_loss
@examples
@given(batch=batches(), data=st.data())
def test_a_constant_added_to_a_samples_logits_changes_nothing(loss, batch, data):
    logit_s, other, gt_label = batch
    eighths = st.lists(st.integers(-800, 800), min_size=2 * len(logit_s), max_size=2 * len(logit_s))
    shift_s, shift_o = torch.tensor(data.draw(eighths), dtype=torch.float64).view(2, -1, 1) / 8
    assert_close(loss(logit_s + shift_s, other + shift_o, gt_label), loss(logit_s, other, gt_label), scale=1.0)


@each_logit_loss
@examples
@given(batch=batches(), data=st.data())
def test_the_order_of_the_samples_changes_nothing(loss, batch, data):
    logit_s, other, gt_label = batch
    order = data.draw(st.permutations(range(len(logit_s))))
    assert_close(loss(logit_s[order], other[order], gt_label[order]), loss(logit_s, other, gt_label), scale=1.0)


@each_logit_loss
@examples
@given(batch=batches(kinds=('hard', 'mixup')), data=st.data())
def test_the_order_of_the_classes_changes_nothing(loss, batch, data):
    logit_s, other, gt_label = batch
    other = 0.9 * other  # else two classes may stand at one place of USKD's ranking, where their order does count
    order = torch.tensor(data.draw(st.permutations(range(logit_s.shape[1]))))
    permuted = gt_label[:, order] if gt_label.dim() == 2 else order.argsort()[gt_label]
    assert_close(loss(logit_s[:, order], other[:, order], permuted), loss(logit_s, other, gt_label), scale=1.0)


@pytest.mark.parametrize('temp', [1.0, 4.0])
@examples
@given(batch=batches())
def test_dkd_is_never_negative_and_0_where_student_equals_teacher(temp, batch):
    logit_s, logit_t, gt_label = batch
    assert dkd_loss(logit_s, logit_t, gt_label, temp=temp) >= -TOLERANCE[torch.float64]['atol']
    assert dkd_loss(logit_t, logit_t, gt_label, temp=temp) == 0


@pytest.mark.parametrize('temp', [1.0, 4.0])
@examples
@given(batch=batches())
def test_kd_has_its_minimum_the_teachers_entropy_where_student_equals_teacher(temp, batch):
    logit_s, logit_t, _ = batch
    copied = logit_t.clone().requires_grad_()
    minimum = kd_loss(copied, logit_t, temp=temp, alpha=0.7)
    (gradient,) = torch.autograd.grad(minimum, copied)
    entropy = torch.distributions.Categorical(logits=logit_t / temp).entropy().mean()
    assert_close(minimum.detach(), 0.7 * temp**2 * entropy, scale=1.0)
    assert_close(gradient, torch.zeros_like(gradient))
    assert kd_loss(logit_s, logit_t, temp=temp, alpha=0.7) >= minimum - TOLERANCE[torch.float64]['atol']


@pytest.mark.parametrize('temp', [1.0, 4.0])
@examples
@given(batch=batches())
def test_kds_divergence_is_its_value_above_the_minimum(temp, batch):
    logit_s, logit_t, _ = batch
    above = kd_loss(logit_s, logit_t, temp=temp) - kd_loss(logit_t, logit_t, temp=temp)
    assert_close(kd_loss(logit_s, logit_t, temp=temp, divergence=True), above, scale=float(1 + above.abs()))
    assert kd_loss(logit_t, logit_t, temp=temp, divergence=True) == 0


@examples
@given(seed=st.integers(0, 1000), shape=st.tuples(*[st.integers(1, 4)] * 4), data=st.data())
def test_srrl_is_0_where_the_pairs_are_equal_positive_elsewhere_and_blind_to_order(seed, shape, data):
    feat_s, feat_t = torch.randn(2, *shape, generator=seeded(seed), dtype=torch.float64)
    logit_st, logit_t = logits(shape[0], 3, seed=seed), logits(shape[0], 3, seed=seed + 1)
    order = data.draw(st.permutations(range(shape[0])))
    value = srrl_loss(feat_s, feat_t, logit_st, logit_t)
    assert srrl_loss(feat_s, feat_s, logit_st, logit_st) == 0
    assert value > 0
    assert_close(srrl_loss(feat_s[order], feat_t[order], logit_st[order], logit_t[order]), value)


# USKD's non-target term drops a second class of scores, also where it has none of the label; with two classes it is 0.
@pytest.mark.parametrize(
    ('function', 'keywords', 'classes'),
    [
        (dkd_loss, {}, 5),
        (wsld_loss, {}, 5),
        (nkd_loss, {}, 5),
        (tfnkd_loss, {}, 5),
        (uskd_loss, dict(beta=0.0, mu=0.1), 5),
        (uskd_loss, dict(beta=0.5, mu=0.1), 2),
        (ofa_logit_loss, {}, 5),
        (wkd_logit, {}, 5),
        (normdkd_loss, {}, 5),
        (rld_loss, {}, 5),
    ],
)
@pytest.mark.parametrize('scale', [1.0, 20.0])
def test_one_hot_scores_are_the_same_as_class_indices(function, keywords, classes, scale):
    loss = logit_loss(function, **keywords)
    logit_s, other = logits(6, classes, scale, seed=1).requires_grad_(), logits(6, classes, scale, seed=2)
    value, expected = (loss(logit_s, other, labels(kind, 6, classes, seed=3)) for kind in ('one_hot', 'hard'))
    assert_close(value.detach(), expected.detach())
    assert_close(*gradients(value, [logit_s]), *gradients(expected, [logit_s]))


@each_logit_loss
def test_integer_scores_are_the_same_as_those_of_the_logits_type(loss):
    logit_s, other = logits(6, 5, seed=1).requires_grad_(), logits(6, 5, seed=2)
    scores = labels('one_hot', 6, 5, seed=3)
    value, expected = (loss(logit_s, other, gt_label) for gt_label in (scores.long(), scores))
    assert torch.equal(value, expected)
    assert torch.equal(*gradients(value, [logit_s]), *gradients(expected, [logit_s]))


def test_scores_take_a_second_class_out_of_uskds_others_even_where_it_has_no_share():
    loss = logit_loss(uskd_loss, alpha=0.0, beta=1.0, mu=0.0)
    logit_s, index = logits(1, 5, seed=1).requires_grad_(), torch.tensor([2])
    (of_index,) = gradients(loss(logit_s, logits(1, 5, seed=2), index), [logit_s])
    (of_scores,) = gradients(loss(logit_s, logits(1, 5, seed=2), F.one_hot(index, 5).double()), [logit_s])
    assert of_index[0].nonzero().flatten().tolist() == [0, 1, 3, 4]
    assert of_scores[0].nonzero().flatten().tolist() == [1, 3, 4]


# ---- gradients and extreme logits


class PooledLinear(nn.Linear):
    """A classifier behind a global average pool, as SRRL's teachers have it."""

    def forward(self, feat):
        return super().forward(feat.mean(dim=(2, 3)))


CLASSES = 6
KEYWORDS = {
    'WSLDLoss': dict(num_classes=CLASSES),
    'USKDLoss': dict(channel=5, num_classes=CLASSES, beta=0.5, mu=0.1),
    'MGDLoss': dict(student_channels=2, teacher_channels=3, alpha_mgd=0.1),
    'SRRLLoss': dict(student_channels=2, teacher_channels=3),
    'ViTKDLoss': dict(student_dims=2, teacher_dims=3, alpha_vitkd=0.1, beta_vitkd=0.1),
    'WKDLogitLoss': dict(cost=0.5 * (1 - torch.eye(CLASSES)), sinkhorn_iter=3),
}
KEYWORDS |= {  # the losses on relations and features
    'CCLoss': dict(student_dims=5, teacher_dims=6, feat_dim=4),
    'VIDLoss': dict(student_channels=2, teacher_channels=3),
    'FitNetLoss': dict(student_channels=2, teacher_channels=3),
    'SimKD': dict(student_channels=2, teacher_channels=3, head=PooledLinear(3, CLASSES)),
    'WKDFeatureLoss': dict(student_channels=2, teacher_channels=3),
    'ReviewKDLoss': dict(student_channels=(2, 3), teacher_channels=(3, 2), student_dims=5, teacher_dims=6, mid_channels=2),
}
FORWARD = {
    'KDLoss': ['logit_s', 'logit_t'],
    'DKDLoss': ['logit_s', 'logit_t', 'gt_label'],
    'WSLDLoss': ['logit_s', 'logit_t', 'gt_label'],
    'NKDLoss': ['logit_s', 'logit_t', 'gt_label'],
    'USKDLoss': ['feat_mid', 'logit_s', 'gt_label'],
    'TFNKDLoss': ['logit_s', 'gt_label'],
    'MGDLoss': ['feat_s', 'feat_t'],
    'SRRLLoss': ['feat_s', 'feat_t', 'logit_t', 'teacher_head'],
    'ViTKDLoss': ['tokens_low_s', 'tokens_low_t', 'tokens_high_s', 'tokens_high_t'],
    'DISTLoss': ['logit_s', 'logit_t'],
    'LSKDLoss': ['logit_s', 'logit_t'],
    'TTMLoss': ['logit_s', 'logit_t'],
    'WTTMLoss': ['logit_s', 'logit_t'],
    'OFALogitLoss': ['logit_s', 'logit_t', 'gt_label'],
    'WKDLogitLoss': ['logit_s', 'logit_t', 'gt_label'],
}
FORWARD |= {name: ['vector_s', 'vector_t'] for name in ('RKDLoss', 'PKTLoss', 'CCLoss')}
FORWARD |= {
    name: ['feat_s', 'feat_t']
    for name in ('ATLoss', 'SPLoss', 'NSTLoss', 'VIDLoss', 'FitNetLoss', 'WKDFeatureLoss', 'SimKD')
}
FORWARD |= {'ReviewKDLoss': ['stages_s', 'stages_t', 'vector_s', 'vector_t']}
KEYWORDS |= {
    'CRDLoss': dict(student_dims=5, teacher_dims=6, num_samples=8, feat_dim=4, nce_k=5),
    'EmbeddingLoss': dict(student_dims=5, teacher_dims=6, kind='both'),
    'QueueLoss': dict(student_dims=5, teacher_dims=6, queue_size=8),
    'OFALoss': dict(student_channels=(2, 3), student_sizes=(4, 2), num_classes=CLASSES),
    'ScaleKDLoss': dict(
        student_channels=(2, 3),
        teacher_channels=(3, 2),
        teacher_heights=(4, 2),
        teacher_widths=(3, 1),
        alpha=0.5,
        tail=lambda feat: feat[:, :2, ::2, :1],
    ),
}
STAGE_WIDTHS = dict(student_channels=(2, 3), teacher_channels=(3, 2))
KEYWORDS |= {
    'ICKDLoss': dict(student_channels=2, teacher_channels=3),
    'NORMLoss': dict(student_channels=2, teacher_channels=3, parts=2),
    'ABLoss': STAGE_WIDTHS,
    'OFDLoss': dict(**STAGE_WIDTHS, margins=[[-0.5, -0.1, -2.0], [-1.0, 0.0]]),
    'SemCKDLoss': dict(**STAGE_WIDTHS, batch_size=5),
    'AFDLoss': dict(**STAGE_WIDTHS, qk_dim=3),
    'FTLoss': dict(student_channels=2, teacher_channels=3, paraphraser_steps=0),
}
FORWARD |= {name: ['feat_s', 'feat_t'] for name in ('ICKDLoss', 'FTLoss', 'NORMLoss')}
FORWARD |= {name: ['stages_preact_s', 'stages_preact_t'] for name in ('ABLoss', 'OFDLoss')}
FORWARD |= {name: ['stages_s', 'stages_t'] for name in ('SemCKDLoss', 'AFDLoss', 'FSPLoss')}
FORWARD |= {
    'CRDLoss': ['vector_s', 'vector_t', 'sample_idx'],
    **{name: ['vector_s', 'vector_t'] for name in ('EmbeddingLoss', 'QueueLoss')},
    'OFALoss': ['stages_s', 'logit_s', 'logit_t', 'gt_label'],
    'ScaleKDLoss': ['stages_s', 'stages_t', 'feat_t'],
    'SigmoidKDLoss': ['logit_s', 'logit_t'],
}
FORWARD |= {name: ['logit_s', 'logit_t'] for name in ('NormKDLoss', 'ABKDLoss', 'LumiNetLoss')}
FORWARD |= {name: ['logit_s', 'logit_t', 'gt_label'] for name in ('NormDKDLoss', 'RLDLoss')}
FORWARD |= {'DeiTTokenLoss': ['logit_token_s', 'logit_t']}
ON_PROJECTIONS = ('SRDCorrelationLoss', 'PEFDLoss', 'VkDLoss')
FORWARD |= {name: ['vector_s', 'vector_t'] for name in ON_PROJECTIONS}
FORWARD |= {'SRDLoss': ['vector_s', 'vector_t', 'logit_s', 'logit_t']}
KEYWORDS |= {name: dict(student_channels=5, teacher_channels=6) for name in (*ON_PROJECTIONS, 'SRDLoss')}
FORWARD |= {name: ['logit_s', 'logit_t', 'logit_s_strong', 'logit_t_strong'] for name in ('MLKDLoss', 'CRLDLoss')}
KEYWORDS |= {'SDDLoss': dict(scales=(1, 2))}
FORWARD |= {
    'CATKDLoss': ['feat_s', 'feat_t', 'student_weight', 'teacher_weight'],
    'SDDLoss': ['feat_s', 'feat_t', 'student_weight', 'student_bias', 'teacher_weight', 'teacher_bias', 'gt_label'],
}
each_registered_loss = pytest.mark.parametrize('loss_type', FORWARD)
each_registered_loss_and_label = pytest.mark.parametrize(
    ('loss_type', 'label'),
    [
        (loss_type, label)
        for loss_type, names in FORWARD.items()
        for label in (['hard', 'mixup'] if 'gt_label' in names else ['hard'])
    ],
)


def build(loss_type, **keywords):
    torch.manual_seed(0)
    return repeatable(MODELS.build(dict(type=loss_type, **KEYWORDS.get(loss_type, {}), **keywords)))


def repeatable(loss):
    """The loss; one that remembers its batches in eval mode, where it does not."""
    return loss.eval() if getattr(loss, 'memories', ()) else loss


def inputs(loss_type, label='mixup', dtype=torch.float32):
    """What the loss asks for, of four samples, in its order."""
    shapes = dict(
        logit_s=(4, CLASSES),
        logit_t=(4, CLASSES),
        feat_mid=(4, 5),
        feat_s=(4, 2, 3, 2),
        feat_t=(4, 3, 3, 2),
        tokens_low_s=(4, 2, 9, 2),
        tokens_low_t=(4, 2, 9, 3),
        tokens_high_s=(4, 9, 2),
        tokens_high_t=(4, 9, 3),
        logit_token_s=(4, CLASSES),
    )
    shapes |= dict(vector_s=(4, 5), vector_t=(4, 6))
    shapes |= {
        'stages_s.0': (4, 2, 4, 3),
        'stages_s.1': (4, 3, 2, 1),
        'stages_t.0': (4, 3, 4, 3),
        'stages_t.1': (4, 2, 2, 1),
    }
    shapes |= dict(logit_s_strong=(4, CLASSES), logit_t_strong=(4, CLASSES))
    shapes |= dict(
        student_weight=(CLASSES, 2), student_bias=(CLASSES,), teacher_weight=(CLASSES, 3), teacher_bias=(CLASSES,)
    )
    tensors = {name: 2 * torch.randn(shape, generator=seeded(i)).to(dtype) for i, (name, shape) in enumerate(shapes.items())}
    torch.manual_seed(0)
    others = dict(gt_label=labels(label, 4, CLASSES, seed=9, dtype=dtype), teacher_head=PooledLinear(3, CLASSES))
    others |= dict(sample_idx=torch.tensor([3, 0, 7, 3]))
    others |= {name: (tensors[f'{name}.0'], tensors[f'{name}.1']) for name in ('stages_s', 'stages_t')}
    if loss_type == 'ScaleKDLoss':  # which takes the last map from `feat_t`
        others['feat_t'] = tensors['stages_t.1'].clone()
    others |= {name.replace('stages', 'stages_preact'): others[name] for name in ('stages_s', 'stages_t')}
    if loss_type == 'FSPLoss':  # of equal widths alone
        others['stages_t'] = tuple(stage.flip(0) * 2 for stage in others['stages_s'])
    return {name: {**tensors, **others}[name] for name in FORWARD[loss_type]}


def each_tensor(value):
    """A tensor, or those of a tuple; of anything else none."""
    return [tensor for tensor in (value if isinstance(value, tuple) else (value,)) if isinstance(tensor, torch.Tensor)]


def changed(value, function):
    """A tensor, or each of a tuple, as the function makes it; anything else as it is."""
    if isinstance(value, tuple):
        return tuple(function(tensor) for tensor in value)
    return function(value) if isinstance(value, torch.Tensor) else value


def run(loss, given):
    """The value from a fixed random state."""
    torch.manual_seed(1)
    return loss(**given)


#: How the names of the student's tensors end.
OF_STUDENT = ('_s', '_mid', '_s_strong', 'student_weight', 'student_bias')


def students(loss, given):
    """What training changes: the loss's parameters, and the student's tensors, which now require a gradient."""
    return [
        *(parameter for parameter in loss.parameters() if parameter.requires_grad),
        *(t.requires_grad_() for name, value in given.items() if name.endswith(OF_STUDENT) for t in each_tensor(value)),
    ]


def gradients(value, tensors):
    """The gradients of a value, zeros for what it does not depend on."""
    return torch.autograd.grad(value, list(tensors), materialize_grads=True)


#: To what of the teacher's no gradient flows.
CONSTANT = {'NKDLoss': {'logit_t'}, 'WKDLogitLoss': {'logit_t'}, 'RKDLoss': {'vector_t'}, 'NSTLoss': {'feat_t'}}
CONSTANT |= {name: {'vector_t'} for name in ('EmbeddingLoss', 'QueueLoss')}


@pytest.mark.parametrize(
    ('loss_type', 'label'),
    [
        ('KDLoss', 'hard'),
        *((loss_type, label) for loss_type in ('DKDLoss', 'NKDLoss') for label in LABELS),
        ('MGDLoss', 'hard'),
        ('SRRLLoss', 'hard'),
        ('ViTKDLoss', 'hard'),
        *((loss_type, 'hard') for loss_type in ('DISTLoss', 'LSKDLoss', 'TTMLoss', 'WTTMLoss')),
        *((loss_type, label) for loss_type in ('OFALogitLoss', 'WKDLogitLoss') for label in LABELS),
        ('OFALoss', 'mixup'),
        *((loss_type, 'hard') for loss_type in ('RKDLoss', 'PKTLoss', 'CCLoss', 'ATLoss', 'SPLoss', 'NSTLoss')),
        *((loss_type, 'hard') for loss_type in ('VIDLoss', 'FitNetLoss', 'WKDFeatureLoss', 'ReviewKDLoss', 'SimKD')),
        ('CATKDLoss', 'hard'),
        *(('SDDLoss', label) for label in ('hard', 'mixup')),
        *((loss_type, 'hard') for loss_type in (*ON_PROJECTIONS, 'SRDLoss')),
        *((loss_type, 'hard') for loss_type in ('ICKDLoss', 'AFDLoss', 'FSPLoss', 'NORMLoss')),
        ('OFDLoss', 'hard'),
        pytest.param('SemCKDLoss', 'hard', marks=pytest.mark.slow),
        *((loss_type, 'hard') for loss_type in ('NormKDLoss', 'ABKDLoss', 'LumiNetLoss')),
        *((loss_type, label) for loss_type in ('NormDKDLoss', 'RLDLoss') for label in ('hard', 'mixup')),
        *((loss_type, 'hard') for loss_type in ('EmbeddingLoss', 'QueueLoss', 'ScaleKDLoss')),
        *((loss_type, 'hard') for loss_type in ('MLKDLoss', 'CRLDLoss')),
    ],
)
def test_gradient_is_the_derivative_where_nothing_stops_it(loss_type, label):
    loss, given = build(loss_type).double(), inputs(loss_type, label, torch.float64)
    if loss_type == 'SRRLLoss':
        given['teacher_head'].double()
    constant = {'gt_label', 'teacher_head'} | CONSTANT.get(loss_type, set())
    variable = [t.requires_grad_() for name, value in given.items() if name not in constant for t in each_tensor(value)]
    # gradcheck moves its tensors in place, so the loss sees them, its own parameters too.
    assert torch.autograd.gradcheck(lambda *_: run(loss, given), (*variable, *loss.parameters()))


def test_gradient_of_srrls_function_is_the_derivative():
    feat_s, feat_t = torch.randn(2, 2, 3, 2, 2, generator=seeded(0), dtype=torch.float64)
    tensors = (feat_s, feat_t, logits(2, 4, seed=1), logits(2, 4, seed=2))
    assert torch.autograd.gradcheck(srrl_loss, tuple(tensor.requires_grad_() for tensor in tensors))


def extreme_logits(classes):
    """Logits of ±200, each pattern of the student's with each of the other's: one class far above, far below, and any."""
    index = torch.arange(9) * 5 % classes
    above = 400.0 * F.one_hot(index, classes) - 200
    either = 400.0 * torch.randint(2, (9, classes), generator=seeded(0)) - 200
    patterns = torch.stack([above, -above.roll(1, dims=1), either])
    place = torch.arange(9)
    return patterns[place % 3, place], patterns[place // 3, place].roll(1, dims=1)


@each_logit_loss
@each_label
@pytest.mark.parametrize('classes', [2, 7])
def test_value_and_students_gradient_are_right_at_logits_of_200_in_float32(loss, label, classes):
    logit_s, other = extreme_logits(classes)
    if loss not in WITH_TEACHER.values():
        other.requires_grad_()
    value = loss(logit_s.requires_grad_(), other, labels(label, 9, classes, dtype=torch.float32))
    double = loss(logit_s.double(), other.double(), labels(label, 9, classes))
    trained = [tensor for tensor in (logit_s, other) if tensor.requires_grad]
    assert value.isfinite()
    assert_close(value.detach(), double.detach().float())
    # of two classes NormKD's gradient is what rounding leaves of 0, in units of its weight, the squared temperature
    scale = 200.0**2 if classes == 2 and loss in NORMALIZED else None
    for gradient, expected in zip(gradients(value, trained), gradients(double, trained), strict=True):
        assert_close(gradient, expected, scale)


@pytest.mark.parametrize('loss', WITH_TEACHER.values(), ids=WITH_TEACHER)
@pytest.mark.parametrize('classes', [2, 7])
def test_teachers_gradient_is_finite_at_logits_of_200_in_float32(loss, classes):
    logit_s, logit_t = extreme_logits(classes)
    value = loss(logit_s.requires_grad_(), logit_t.requires_grad_(), labels('hard', 9, classes))
    assert gradients(value, [logit_t])[0].isfinite().all()


@each_label
@pytest.mark.parametrize('scale', [1.0, 200.0])
@pytest.mark.parametrize('dtype', TOLERANCE, ids=str)
@pytest.mark.parametrize(
    ('function', 'weight'),
    [(dkd_loss, 'beta'), (nkd_loss, 'gamma'), (uskd_loss, 'beta'), (normdkd_loss, 'beta'), (rld_loss, 'beta')],
)
def test_with_two_classes_the_other_classes_term_is_exactly_0(function, weight, dtype, scale, label):
    logit_s, other = (logits(5, 2, scale, seed=seed, dtype=dtype).requires_grad_() for seed in (1, 2))
    gt_label = labels(label, 5, 2, seed=3, dtype=dtype)
    without, heavy = (logit_loss(function, **{weight: factor})(logit_s, other, gt_label) for factor in (0.0, 100.0))
    assert torch.equal(heavy, without)
    trained = [logit_s] if function is nkd_loss else [logit_s, other]
    for gradient, expected in zip(gradients(heavy, trained), gradients(without, trained), strict=True):
        assert gradient.isfinite().all()
        assert torch.equal(gradient, expected)


# ---- precision


@each_registered_loss_and_label
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_under_autocast_it_is_the_float32_value_and_gradient_of_the_same_inputs(loss_type, label, dtype):
    loss, given = build(loss_type), inputs(loss_type, label, dtype)
    rounded = {k: changed(v, lambda t: t.float() if t.is_floating_point() else t) for k, v in given.items()}
    variable, exact = students(loss, given), students(loss, rounded)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        value = run(loss, given)
    expected = run(loss, rounded)
    assert value.dtype == torch.float32
    assert torch.equal(value, expected)
    for gradient, expected_gradient in zip(gradients(value, variable), gradients(expected, exact), strict=True):
        assert torch.equal(gradient, expected_gradient.to(gradient.dtype))


# ---- stop gradients


@pytest.mark.parametrize('label', ['hard', 'mixup'])
def test_nkds_target_term_gives_the_teacher_no_gradient(label):
    logit_t = logits(4, 5, seed=2).requires_grad_()
    value = nkd_loss(logits(4, 5, seed=1).requires_grad_(), logit_t, labels(label, 4, 5), gamma=0.0)
    assert gradients(value, [logit_t])[0].count_nonzero() == 0


@each_label
def test_wslds_weight_gives_neither_network_a_gradient(label):
    logit_s, logit_t = (logits(4, 5, 2.0, seed=seed).requires_grad_() for seed in (1, 2))
    gt_label = labels(label, 4, 5, seed=3)
    task_s, task_t = (F.cross_entropy(logit, gt_label, reduction='none').detach() for logit in (logit_s, logit_t))
    constant = 1 - torch.exp(-task_s / (task_t + 1e-7))
    soft = -((logit_t / 4).softmax(dim=1) * (logit_s / 4).log_softmax(dim=1)).sum(dim=1)
    expected = gradients(2.25 * 4**2 * (constant * soft).mean(), [logit_s, logit_t])
    value = wsld_loss(logit_s, logit_t, gt_label, temp=4.0, alpha=2.25)
    for gradient, expected_gradient in zip(gradients(value, [logit_s, logit_t]), expected, strict=True):
        assert_close(gradient, expected_gradient)


@each_label
@pytest.mark.parametrize('rank_by', ['prob', 'log_prob'])
def test_uskds_soft_label_gives_no_gradient(label, rank_by):
    logit_weak, logit_s = (logits(4, 5, seed=seed).requires_grad_() for seed in (1, 2))
    value = uskd_loss(logit_weak, logit_s, labels(label, 4, 5), beta=1.0, mu=0.0, rank_by=rank_by)
    assert gradients(value, [logit_weak])[0].count_nonzero() == 0
    assert not zipf_label(logit_weak, logit_s, torch.tensor([[0], [1], [2], [3]]), rank_by).requires_grad


# ---- interface and refusals


# those of the original, and rank_by, sync_batch_mean, sync_batch and standardize, whose defaults change nothing; of later
# methods those of their papers
DEFAULTS = {
    'KDLoss': dict(temp=4.0, alpha=0.5, standardize=False, divergence=False),
    'DKDLoss': dict(temp=4.0, alpha=1.0, beta=6.0, standardize=False),
    'WSLDLoss': dict(temp=4.0, alpha=2.25, num_classes=100),
    'NKDLoss': dict(temp=1.0, gamma=1.5, standardize=False),
    'USKDLoss': dict(channel=..., alpha=1.0, beta=0.1, mu=0.005, num_classes=1000, rank_by='prob', sync_batch_mean=False),
    'TFNKDLoss': dict(loss_weight=1.0, sync_batch_mean=False),
    'MGDLoss': dict(student_channels=..., teacher_channels=..., alpha_mgd=7e-5, lambda_mgd=0.15),
    'SRRLLoss': dict(student_channels=..., teacher_channels=..., alpha=1.0, beta=5.0),
    'ViTKDLoss': dict(student_dims=..., teacher_dims=..., alpha_vitkd=3e-5, beta_vitkd=3e-6, lambda_vitkd=0.5),
}
LATER = [name for name in FORWARD if name not in DEFAULTS]
DEFAULTS |= {
    'DISTLoss': dict(temp=1.0, beta=1.0, gamma=1.0),
    'LSKDLoss': dict(temp=2.0),
    'TTMLoss': dict(gamma=0.1),
    'WTTMLoss': dict(gamma=0.1),
    'OFALogitLoss': dict(eps=1.5, temp=1.0),
    'WKDLogitLoss': dict(temp=2.0, gamma=1.0, sinkhorn_reg=0.05, sinkhorn_iter=10, cost=None),
}
DEFAULTS |= {
    'RKDLoss': dict(distance_weight=25.0, angle_weight=50.0),
    **{name: {} for name in ('PKTLoss', 'ATLoss', 'SPLoss', 'NSTLoss')},
    'CCLoss': dict(student_dims=None, teacher_dims=None, feat_dim=128),
    'VIDLoss': dict(student_channels=..., mid_channels=None, teacher_channels=None, init_pred_var=5.0),
    'FitNetLoss': dict(student_channels=..., teacher_channels=..., norm_act=False),
    'SimKD': dict(student_channels=..., teacher_channels=..., factor=2, head=None),
    'WKDFeatureLoss': dict(grid=1, mean_weight=1.0, std_weight=1.0, student_channels=None, teacher_channels=None),
    'ReviewKDLoss': dict(student_channels=..., teacher_channels=..., student_dims=..., teacher_dims=..., mid_channels=None),
}
DEFAULTS |= {
    'CRDLoss': dict(student_dims=..., teacher_dims=..., num_samples=None, feat_dim=128, nce_k=16384, nce_t=0.07, nce_m=0.5),
    'EmbeddingLoss': dict(student_dims=..., teacher_dims=..., kind='cosine', drop=0.5),
    'QueueLoss': dict(student_dims=..., teacher_dims=..., queue_size=8192, tau=0.07),
    'OFALoss': dict(student_channels=..., student_sizes=..., num_classes=..., eps=1.5, temp=1.0, kind=None),
    'SigmoidKDLoss': dict(temp=1.0, reduction='sum'),
    'ScaleKDLoss': dict(
        **dict.fromkeys(('student_channels', 'teacher_channels', 'teacher_heights', 'teacher_widths'), ...),
        **dict(alpha=0.08, beta=(0.06, 0.06), heads=None, perception=True, tail=None),
    ),
}
DEFAULTS |= {
    'NormKDLoss': dict(temp=2.0),
    'NormDKDLoss': dict(temp=2.0, alpha=1.0, beta=8.0),
    'RLDLoss': dict(temp=4.0, tau_alpha=1.0, alpha=1.0, beta=8.0, standardize=False),
    'ABKDLoss': dict(alpha=0.8, beta=0.3, temp=4.0, released=False),
    'LumiNetLoss': dict(temp=4.0, alpha=None),
    'DeiTTokenLoss': dict(kind='hard', temp=1.0, batchmean=False, task_weight=1.0),
    'SRDLoss': dict(student_channels=..., teacher_channels=..., exponent=4.0, temp=1.0),
    'SRDCorrelationLoss': dict(student_channels=..., teacher_channels=...),
    'PEFDLoss': dict(student_channels=..., teacher_channels=..., num_projectors=3),
    'VkDLoss': dict(student_channels=..., teacher_channels=...),
}
DEFAULTS |= {
    'MLKDLoss': dict(temps=(4.0, 3.0, 5.0, 2.0, 6.0), views=2, mask='sample', sync_batch=False),
    'CRLDLoss': dict(temp=4.0, within_weight=2.0, cross_weight=0.5, tau_weak=0.9, tau_strong=0.2),
    'ICKDLoss': dict(student_channels=..., teacher_channels=...),
    'NORMLoss': dict(student_channels=..., teacher_channels=..., parts=8),
    'ABLoss': dict(student_channels=..., teacher_channels=..., margin=1.0),
    'OFDLoss': dict(student_channels=..., teacher_channels=..., margins=None),
    'SemCKDLoss': dict(student_channels=..., teacher_channels=..., batch_size=...),
    'AFDLoss': dict(student_channels=..., teacher_channels=..., qk_dim=128),
    'FSPLoss': dict(student_channels=None, teacher_channels=None),
    'FTLoss': dict(
        **dict(student_channels=..., teacher_channels=..., rate=0.5, p1=2, p2=1),
        **dict(paraphraser_steps=1000, reconstruction=0.005, paraphraser=None),
    ),
    'CATKDLoss': dict(resolution=2, normalize=True),
    'SDDLoss': dict(loss=None, scales=(1, 2, 4), direct_pool=False, released=False),
}
for _name in LATER:
    DEFAULTS[_name]['loss_weight'] = 1.0
for _name in ('RKDLoss', 'PKTLoss', 'CCLoss', 'SPLoss', 'DISTLoss', 'LumiNetLoss', 'SRDLoss', 'SRDCorrelationLoss'):
    DEFAULTS[_name]['sync_batch'] = False


@each_registered_loss
def test_keywords_and_defaults_are_the_originals(loss_type):
    parameters = inspect.signature(MODELS.get(loss_type)).parameters.values()
    assert {p.name: ... if p.default is p.empty else p.default for p in parameters} == DEFAULTS[loss_type]


@pytest.mark.parametrize('loss_type', LATER)
def test_loss_weight_stands_last_and_multiplies_the_value(loss_type):
    *_, last = inspect.signature(MODELS.get(loss_type)).parameters
    assert last == 'loss_weight'
    given = inputs(loss_type)
    assert torch.equal(run(build(loss_type, loss_weight=2.0), given), 2 * run(build(loss_type), given))


@pytest.mark.parametrize(
    ('function', 'loss_type', 'renamed'),
    [
        (kd_loss, 'KDLoss', {}),
        (dkd_loss, 'DKDLoss', {}),
        (wsld_loss, 'WSLDLoss', {}),
        (nkd_loss, 'NKDLoss', {}),
        (uskd_loss, 'USKDLoss', {}),
        (tfnkd_loss, 'TFNKDLoss', {}),
        (srrl_loss, 'SRRLLoss', {}),
        (mgd_loss, 'MGDLoss', dict(alpha='alpha_mgd')),
        (vitkd_loss, 'ViTKDLoss', dict(alpha='alpha_vitkd', beta='beta_vitkd', mask_ratio='lambda_vitkd')),
        (dist_loss, 'DISTLoss', {}),
        (lskd_loss, 'LSKDLoss', {}),
        (ttm_loss, 'TTMLoss', {}),
        (wttm_loss, 'WTTMLoss', {}),
        (ofa_logit_loss, 'OFALogitLoss', {}),
        (wkd_logit_loss, 'WKDLogitLoss', {}),
        (rkd_loss, 'RKDLoss', {}),
        (ofa_loss, 'OFALoss', {}),
        (wkd_feature_loss, 'WKDFeatureLoss', {}),
        (embedding_loss, 'EmbeddingLoss', {}),
        (ft_loss, 'FTLoss', {}),
        (normkd_loss, 'NormKDLoss', {}),
        (normdkd_loss, 'NormDKDLoss', {}),
        (rld_loss, 'RLDLoss', {}),
        (abkd_loss, 'ABKDLoss', {}),
        (luminet_loss, 'LumiNetLoss', {}),
        (crld_loss, 'CRLDLoss', {}),
        (srd_loss, 'SRDLoss', {}),
        (deit_token_loss, 'DeiTTokenLoss', {}),
    ],
)
def test_the_function_has_the_defaults_of_its_module(function, loss_type, renamed):
    defaults = {p.name: p.default for p in inspect.signature(function).parameters.values() if p.default is not p.empty}
    assert defaults == {name: DEFAULTS[loss_type][renamed.get(name, name)] for name in defaults}
    assert defaults


@each_registered_loss
def test_forward_names_what_it_needs_in_the_documented_order(loss_type):
    assert list(inspect.signature(build(loss_type).forward).parameters) == FORWARD[loss_type]


ON_LOGITS = {'logit_s', 'logit_t', 'gt_label', 'logit_s_strong', 'logit_t_strong'}
LOGITS_ALONE = [name for name, asked in FORWARD.items() if {*asked} <= ON_LOGITS]


WITHOUT_PARTS = ('RKDLoss', 'PKTLoss', 'ATLoss', 'SPLoss', 'NSTLoss', 'FSPLoss', 'CATKDLoss', 'SDDLoss')


@pytest.mark.parametrize('loss_type', [*LOGITS_ALONE, *WITHOUT_PARTS])
def test_losses_without_trainable_parts_have_no_state(loss_type):
    assert build(loss_type).state_dict() == {}


@pytest.mark.parametrize('loss_type', [name for name in LOGITS_ALONE if 'temp' in DEFAULTS[name]])
def test_a_temperature_may_be_a_tensor_and_gets_its_gradient(loss_type):
    loss, given = build(loss_type).double(), inputs(loss_type, 'mixup', torch.float64)

    def value(temp):
        loss.temp = temp
        return run(loss, given)

    learnt = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(value, learnt)
    assert_close(value(learnt).detach(), value(3.0))
    assert gradients(value(learnt), [learnt])[0] != 0


@pytest.mark.parametrize('alpha', [0.0, 0.3, 1.0])
def test_kd_leaves_the_rest_of_its_weight_to_the_task_loss(alpha):
    assert build('KDLoss', alpha=alpha).task_weight == 1 - alpha


def test_srrls_connector_starts_at_the_originals_scale():
    torch.manual_seed(0)
    weight = MODELS.build(dict(type='SRRLLoss', student_channels=64, teacher_channels=256)).Connectors[0].weight
    assert weight.mean().item() == pytest.approx(0, abs=2e-3)
    assert weight.std().item() == pytest.approx((2 / 256) ** 0.5, rel=0.02)


@pytest.mark.parametrize(
    ('loss_type', 'name', 'shape', 'right'),
    [
        ('WSLDLoss', 'logit_s', (4, 7), 'num_classes=7'),
        ('USKDLoss', 'logit_s', (4, 7), 'num_classes=7'),
        ('USKDLoss', 'feat_mid', (4, 8), 'channel=8'),
        ('MGDLoss', 'feat_s', (4, 8, 3, 2), 'student_channels=8'),
        ('MGDLoss', 'feat_t', (4, 8, 3, 2), 'teacher_channels=8'),
        ('SRRLLoss', 'feat_s', (4, 8, 3, 2), 'student_channels=8'),
        ('SRRLLoss', 'feat_t', (4, 8, 3, 2), 'teacher_channels=8'),
        ('ViTKDLoss', 'tokens_high_s', (4, 9, 8), 'student_dims=8'),
        ('ViTKDLoss', 'tokens_high_t', (4, 9, 8), 'teacher_dims=8'),
        *(
            (loss_type, f'feat_{side[0]}', (4, 8, 3, 2), f'{side}_channels=8')
            for loss_type in ('VIDLoss', 'FitNetLoss', 'WKDFeatureLoss', 'SimKD', 'ICKDLoss', 'FTLoss', 'NORMLoss')
            for side in ('student', 'teacher')
        ),
        *(
            (loss_type, f'vector_{side[0]}', (4, 8), f'{side}_channels=8')
            for loss_type in (*ON_PROJECTIONS, 'SRDLoss')
            for side in ('student', 'teacher')
        ),
        *(
            (loss_type, f'vector_{side[0]}', (4, 8), f'{side}_dims=8')
            for loss_type in ('CCLoss', 'ReviewKDLoss', 'CRDLoss', 'EmbeddingLoss', 'QueueLoss')
            for side in ('student', 'teacher')
        ),
    ],
)
def test_a_wrong_width_is_an_error_that_names_the_right_value(loss_type, name, shape, right):
    given = inputs(loss_type, 'hard') | {name: torch.zeros(shape)}
    with pytest.raises(ValueError, match=rf'{loss_type}\(.*set {right}$'):
        build(loss_type)(**given)


@pytest.mark.parametrize('loss_type', ['ReviewKDLoss', 'SemCKDLoss', 'AFDLoss'])
@pytest.mark.parametrize('side', ['student', 'teacher'])
def test_a_stage_of_a_wrong_width_is_an_error_that_names_the_right_values(side, loss_type):
    given = inputs(loss_type) | {f'stages_{side[0]}': (torch.zeros(4, 2, 4, 3), torch.zeros(4, 8, 2, 1))}
    with pytest.raises(ValueError, match=rf'{loss_type}\({side}_channels=.*set {side}_channels=\(2, 8\)$'):
        build(loss_type)(**given)


def test_vitkd_refuses_tokens_that_are_no_square():
    given = {name: tensor[..., :8, :] for name, tensor in inputs('ViTKDLoss').items()}
    with pytest.raises(ValueError, match='square grid, but there are 8'):
        build('ViTKDLoss')(**given)


def test_uskd_refuses_an_unknown_ranking():
    with pytest.raises(ValueError, match=r"rank_by='logit'.*'prob', 'log_prob'"):
        build('USKDLoss', rank_by='logit')


@pytest.mark.parametrize(
    ('make', 'said'),
    [
        (lambda: CRDLoss(8, 8, num_samples=10**9), 'CRDLoss with the entries of 1000000000 images, 128 numbers in each of'),
        (
            lambda: class_cost(torch.empty(200_000, 1)),
            'WKDLogitLoss, with five matrices of 200000 × 200000 classes, needs',
        ),
        (lambda: WKDLogitLoss(cost=torch.zeros(1).expand(200_000, 200_000)), 'WKDLogitLoss, with five matrices of 200000'),
        (lambda: RKDLoss()(*torch.empty(2, 30_000, 1)), 'RKDLoss of 30000 images with vectors of 1 numbers needs'),
    ],
)
def test_what_cannot_fit_into_the_memory_is_refused(make, said, monkeypatch):
    monkeypatch.setattr('mmcls_kd.dis_losses.common.memory_at_most', lambda: 2**36)
    with pytest.raises(TrainingError) as refused:
        make()
    assert str(refused.value).startswith(said)
    assert 'GiB of memory, and there are 64.0: ' in str(refused.value)


def test_the_memory_of_this_machine():
    assert 2**28 < memory_at_most() < 2**46


#: Beside those of the table.
FLAT_TOO = {'dist': logit_loss(dist_loss), 'luminet': logit_loss(luminet_loss)}


@pytest.mark.parametrize(
    'loss',
    [
        *('lskd', 'dist', 'kd_standardized', 'dkd_standardized', 'nkd_standardized'),
        *('normkd', 'normdkd', 'rld_standardized', 'luminet'),
    ],
)
@pytest.mark.parametrize('flat', [lambda z: 0 * z, lambda z: 1e-4 * z, lambda z: 0 * z + z[:1], lambda z: z.clone()])
def test_flat_logits_have_a_gradient_of_the_usual_size(loss, flat):
    """All equal, nearly equal, the same for every sample; logits that are not flat keep the exact gradient."""
    usual, other, label = logits(8, 5, 0.1, dtype=torch.float32), logits(8, 5, 3.0, seed=1), labels('hard', 8, 5)
    norms = []
    for logit in (flat(usual), usual):
        logit = logit.clone().requires_grad_()
        value = (WITH_TEACHER | FLAT_TOO)[loss](logit, other.float(), label)
        norms.append(gradients(value, [logit])[0].norm())
    assert norms[0].isfinite()
    assert norms[0] < 20 * norms[1]
