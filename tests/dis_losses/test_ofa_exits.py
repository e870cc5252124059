"""OFA-KD with exits: value against loops over numbers, the shape of the exits, gradients, what it refuses."""

import pytest
import torch
from kit import assert_close, labels, logits, seeded
from mmpretrain.registry import MODELS
from networks import build as distilling
from networks import images, method, resnet, samples, vit
from torch import nn

CLASSES = 5
CNN = dict(student_channels=(3, 4, 6), student_sizes=(8, 4, 2), num_classes=CLASSES)
VIT = dict(student_channels=(4, 4), student_sizes=(3, 3), num_classes=CLASSES)
each_kind = pytest.mark.parametrize('keywords', [CNN, VIT, CNN | dict(kind='attention'), VIT | dict(kind='conv')])


def build(keywords, **others):
    torch.manual_seed(0)
    return MODELS.build(dict(type='OFALoss', **keywords, **others)).double()


def inputs(keywords, label='hard', n=2):
    sizes = zip(keywords['student_channels'], keywords['student_sizes'], strict=True)
    stages = [torch.randn(n, c, h, h, generator=seeded(i), dtype=torch.float64) for i, (c, h) in enumerate(sizes)]
    return dict(
        stages_s=tuple(stage.requires_grad_() for stage in stages),
        logit_s=logits(n, CLASSES, 2.0, seed=8).requires_grad_(),
        logit_t=logits(n, CLASSES, 2.0, seed=9),
        gt_label=labels(label, n, CLASSES),
    )


# ---- the oracle


def weighted(row, vector):
    return sum(w * x for w, x in zip(row, vector, strict=True))


def normed(values, scale, shift):
    """Batch norm of one channel's numbers, or layer norm of one token's."""
    mean = sum(values) / len(values)
    variance = sum((x - mean) ** 2 for x in values) / len(values)
    scale, shift = ((s if isinstance(s, list) else [s] * len(values)) for s in (scale, shift))
    return [(x - mean) / (variance + 1e-5) ** 0.5 * a + b for x, a, b in zip(values, scale, shift, strict=True)]


def separable(maps, conv):
    """Each channel convolved by itself, mixed at each place, normalised over the batch, cut at 0; lists [n][c][h][w]."""
    each, mix, norm, _ = conv
    height = len(maps[0][0])
    kernel, mix, out = each.weight.tolist(), mix.weight.flatten(1).tolist(), range(0, height, each.stride[0])

    def at(plane, y, x):
        return plane[y][x] if 0 <= y < height and 0 <= x < height else 0.0

    def convolved(plane, c, y, x):
        return sum(kernel[c][0][i][j] * at(plane, y + i - 1, x + j - 1) for i in range(3) for j in range(3))

    mixed = []
    for planes in maps:
        places = {(y, x): [convolved(p, c, y, x) for c, p in enumerate(planes)] for y in out for x in out}
        mixed.append([{place: weighted(row, vector) for place, vector in places.items()} for row in mix])
    result = [[] for _ in maps]
    for c in range(len(mix)):
        flat = [channels[c][place] for channels in mixed for place in places]
        flat = normed(flat, norm.weight.tolist()[c], norm.bias.tolist()[c])
        side = len(out)
        for n in range(len(maps)):
            values = [max(x, 0.0) for x in flat[n * side**2 : (n + 1) * side**2]]
            result[n].append([values[y * side : (y + 1) * side] for y in range(side)])
    return result


def conv_exit(leave, stage):
    """The class scores of an exit of convolutions."""
    *convs, _, _, linear = leave
    maps = stage.tolist()
    for conv in convs:
        maps = separable(maps, conv)
    pooled = [[sum(map(sum, plane)) / len(plane) ** 2 for plane in planes] for planes in maps]
    return scores(pooled, linear)


def scores(vectors, linear):
    rows = list(zip(linear.weight.tolist(), linear.bias.tolist(), strict=True))
    return [[weighted(row, vector) + bias for row, bias in rows] for vector in vectors]


def attention_exit(leave, stage):
    """The class scores of an exit with a transformer block that has one head."""
    _, block, norm, _, linear = leave
    tokens = stage.flatten(2).transpose(1, 2).tolist()
    return scores([mean_token([normed(t, *two(norm)) for t in transformed(one, block)]) for one in tokens], linear)


def two(layer):
    return layer.weight.tolist(), layer.bias.tolist()


def mean_token(tokens):
    return [sum(column) / len(column) for column in zip(*tokens, strict=True)]


def transformed(tokens, block):
    attention, width = block.self_attn, len(tokens[0])
    joined = nn.Linear(width, 3 * width).double()
    joined.weight.data, joined.bias.data = attention.in_proj_weight.data, attention.in_proj_bias.data
    parts = scores([normed(token, *two(block.norm1)) for token in tokens], joined)
    mixed = []
    for one in parts:
        share = softmax([weighted(one[:width], other[width : 2 * width]) for other in parts], width**0.5)
        mixed.append([weighted(share, column) for column in zip(*(other[2 * width :] for other in parts), strict=True)])
    tokens = added(tokens, scores(mixed, attention.out_proj))
    hidden = scores([normed(token, *two(block.norm2)) for token in tokens], block.linear1)
    hidden = [[x * (1 + torch.erf(torch.tensor(x / 2**0.5, dtype=torch.float64)).item()) / 2 for x in h] for h in hidden]
    return added(tokens, scores(hidden, block.linear2))


def added(one, other):
    return [[a + b for a, b in zip(*pair, strict=True)] for pair in zip(one, other, strict=True)]


def softmax(row, temp):
    power = [2.718281828459045 ** (z / temp) for z in row]
    return [x / sum(power) for x in power]


def oracle(loss, given):
    """The value, a number."""
    label = given['gt_label'] if given['gt_label'].dim() == 1 else given['gt_label'].argmax(dim=1)
    leave = conv_exit if loss.kind == 'conv' else attention_exit
    all_scores = [leave(one, stage) for one, stage in zip(loss.exits, given['stages_s'], strict=True)]
    total = 0.0
    for rows in [*all_scores, given['logit_s'].tolist()]:
        for row, row_t, y in zip(rows, given['logit_t'].tolist(), label.tolist(), strict=True):
            p, q = softmax(row_t, loss.temp), softmax(row, loss.temp)
            for i in range(CLASSES):
                weight = (p[i] + (i == y)) ** loss.eps - (i == y)
                total -= weight * torch.tensor(q[i], dtype=torch.float64).log().item() / len(label)
    return total


@each_kind
@pytest.mark.parametrize(('label', 'others'), [('hard', {}), ('mixup', dict(eps=1.0, temp=4.0))])
def test_it_is_the_formula(keywords, label, others):
    loss, given = build(keywords, **others), inputs(keywords, label)
    value = loss(**given).detach()
    assert_close(value, torch.tensor(oracle(loss, given), dtype=torch.float64))


@pytest.mark.parametrize('keywords', [CNN, VIT])
def test_the_gradient_is_the_derivative(keywords):
    loss, given = build(keywords), inputs(keywords)
    variable = (*given['stages_s'], given['logit_s'], *loss.parameters())
    assert torch.autograd.gradcheck(lambda *_: loss(**given), variable, fast_mode=True)


# ---- the exits


@pytest.mark.parametrize(('channels', 'sizes'), [((64, 128, 256, 512), (56, 28, 14, 7)), ((8, 6, 6, 10), (28, 28, 7, 4))])
def test_a_cnns_exits_go_through_the_widths_and_sizes_of_the_stages_behind(channels, sizes):
    loss = MODELS.build(dict(type='OFALoss', student_channels=channels, student_sizes=sizes, num_classes=10))
    assert loss.kind == 'conv'
    for i, leave in enumerate(loss.exits):
        feat, shapes = torch.zeros(1, channels[i], sizes[i], sizes[i]), []
        for conv in leave[: 3 - i]:
            assert conv[0].groups == conv[0].in_channels
            feat = conv(feat)
            shapes.append(tuple(feat.shape[1:3]))
        assert shapes == list(zip(channels, sizes, strict=True))[i + 1 :]
        assert leave[-1].weight.shape == (10, channels[-1])


@pytest.mark.parametrize(('channels', 'heads'), [(4, 1), (192, 3), (384, 6), (100, 1), (320, 5)])
def test_stages_of_one_size_get_attention_with_heads_of_about_64_channels(channels, heads):
    loss = MODELS.build(dict(type='OFALoss', student_channels=(channels,) * 2, student_sizes=(2, 2), num_classes=2))
    assert loss.kind == 'attention'
    assert loss.exits[0][1].self_attn.num_heads == heads


def test_one_stage_alone_is_pooled_and_classified():
    loss = build(dict(student_channels=[3], student_sizes=[4], num_classes=CLASSES))
    assert loss.kind == 'conv'
    assert set(loss.state_dict()) == {'exits.0.2.weight', 'exits.0.2.bias'}


def test_maps_of_another_size_than_the_dry_runs_do_as_well():
    larger = inputs(CNN | dict(student_sizes=(12, 6, 3)))
    assert build(CNN)(**larger).isfinite()


@pytest.mark.parametrize(
    ('student', 'teacher', 'kind'), [(vit(16), resnet(8), 'attention'), (resnet(4), vit(24), 'conv')], ids=['vit', 'cnn']
)
def test_a_teacher_of_the_other_kind_trains_every_exit(student, teacher, kind):
    distiller = distilling(method('OFALoss', 'loss_ofa'), student=student, teacher=teacher).train()
    loss = distiller.distill_losses['loss_ofa']
    assert (loss.kind, len(loss.exits)) == (kind, 4)
    value = distiller.loss(images(), samples())['loss_ofa']
    value.backward()
    assert value.isfinite()
    for leave in loss.exits:
        for name, parameter in leave.named_parameters():
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name
    assert all(parameter.grad is None for parameter in distiller.teacher.parameters())


def test_a_swins_exits_are_convolutions_or_by_hand_attention():
    backbone = dict(
        type='SwinTransformer',
        arch=dict(embed_dims=8, depths=[1] * 4, num_heads=[1, 2, 4, 8]),
        img_size=64,
        pad_small_map=True,
    )
    head = dict(type='LinearClsHead', num_classes=10, in_channels=64)
    swin = dict(type='ImageClassifier', backbone=backbone, neck=dict(type='GlobalAveragePooling'), head=head)
    for given, kind in (({}, 'conv'), (dict(kind='attention'), 'attention')):
        distiller = distilling(dict(methods=[dict(type='OFALoss', name='loss_ofa', **given)]), student=swin)
        assert distiller.distill_losses['loss_ofa'].kind == kind
        assert distiller.loss(images(size=64), samples())['loss_ofa'].isfinite()


# ---- refusals


@pytest.mark.parametrize(
    ('keywords', 'message'),
    [
        (CNN | dict(kind='mlp'), r"OFALoss\(kind='mlp'\): choose one of 'conv', 'attention', or leave it out"),
        (CNN | dict(student_sizes=(8, 4)), r'student_channels=\(3, 4, 6\), student_sizes=\(8, 4\)\): give one of each'),
    ],
)
def test_keywords_that_do_not_fit_are_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        build(keywords)


@pytest.mark.parametrize(
    ('changed', 'message'),
    [
        (dict(stages_s=inputs(VIT)['stages_s']), r'OFALoss\(student_channels=\(3, 4, 6\)\).*set student_channels=\(4, 4\)$'),
        (dict(logit_s=torch.zeros(2, 7)), r'OFALoss\(num_classes=5\).*set num_classes=7$'),
    ],
)
def test_tensors_of_other_widths_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        build(CNN)(**inputs(CNN) | changed)
