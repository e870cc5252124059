"""Features of two sizes: what is compared is the student's, interpolated bilinearly to the teacher's grid."""

import pytest
import torch
from kit import assert_close, seeded
from mmpretrain.registry import MODELS
from torch import nn

from mmcls_kd.dis_losses.common import resize_map, resize_tokens

PAIRS = [((2, 2), (5, 5)), ((5, 5), (2, 2)), ((3, 4), (6, 2)), ((1, 1), (3, 3)), ((3, 3), (1, 1)), ((7, 7), (14, 14))]
each_pair = pytest.mark.parametrize(('size', 'wanted'), PAIRS)
each_side = pytest.mark.parametrize(('side', 'wanted'), [(2, 5), (5, 2), (1, 3), (3, 1), (4, 7)])


def normal(*shape, seed=0):
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def weights(size, wanted):
    """How much of each of ``size`` places each of ``wanted`` ones takes: of the two whose centres are nearest."""
    rows = torch.zeros(wanted, size, dtype=torch.float64)
    for i in range(wanted):
        place = max((i + 0.5) * size / wanted - 0.5, 0)
        low = min(int(place), size - 1)
        high, share = min(low + 1, size - 1), place - low
        rows[i, low] += 1 - share
        rows[i, high] += share
    return rows


def fitted(feat, wanted):
    """A map of another size by two products of matrices."""
    return weights(feat.shape[2], wanted[0]) @ feat @ weights(feat.shape[3], wanted[1]).T


def fitted_tokens(tokens, wanted):
    """Tokens of a square grid of another side."""
    side = int(tokens.shape[1] ** 0.5)
    grid = torch.stack(tokens.split(side, dim=1), dim=1).permute(0, 3, 1, 2)
    return torch.stack([column for row in fitted(grid, (wanted, wanted)).unbind(2) for column in row.unbind(2)], dim=1)


def loss_of(kind, **keywords):
    torch.manual_seed(0)
    return MODELS.build(dict(type=kind, **keywords)).double()


class TestFit:
    @each_pair
    def test_maps(self, size, wanted):
        feat = normal(2, 3, *size)
        assert_close(resize_map(feat, wanted), fitted(feat, wanted))

    @each_side
    def test_tokens(self, side, wanted):
        tokens = normal(2, side**2, 3)
        assert_close(resize_tokens(tokens, wanted**2), fitted_tokens(tokens, wanted))

    def test_of_the_same_size_they_stay_the_same_tensor(self):
        feat, tokens = normal(1, 2, 3, 4), normal(1, 7, 2)  # 7 tokens lie on no grid: nothing to do with them
        assert resize_map(feat, (3, 4)) is feat
        assert resize_map(feat, feat.shape[2:]) is feat
        assert resize_tokens(tokens, 7) is tokens

    @pytest.mark.parametrize(('length', 'wanted'), [(8, 9), (9, 8)])
    def test_tokens_of_no_grid_are_refused(self, length, wanted):
        with pytest.raises(ValueError, match=f'{length} patch tokens cannot be made into {wanted}: only those of square gr'):
            resize_tokens(normal(1, length, 2), wanted)

    def test_gradients(self):
        assert torch.autograd.gradcheck(lambda feat: resize_map(feat, (2, 3)), normal(1, 2, 3, 2).requires_grad_())
        assert torch.autograd.gradcheck(lambda tokens: resize_tokens(tokens, 9), normal(1, 4, 2).requires_grad_())


def mgd(size, wanted, widths=(2, 3)):
    """MGD with maps of two sizes, and the value that it has to have."""
    loss = loss_of('MGDLoss', student_channels=widths[0], teacher_channels=widths[1], alpha_mgd=0.1)
    feat_s, feat_t = normal(4, widths[0], *size).requires_grad_(), normal(4, widths[1], *wanted, seed=1)

    def expected(draw):
        aligned = feat_s if loss.align is None else loss.align(feat_s)
        masked = fitted(aligned, wanted) * (draw >= loss.lambda_mgd)
        return 0.1 * (loss.generation(masked) - feat_t).square().sum() / 4

    return loss, dict(feat_s=feat_s, feat_t=feat_t), expected, (4, widths[1], 1, 1)


def srrl(size, wanted):
    """SRRL likewise, whose terms are means over places: nothing is interpolated."""
    loss = loss_of('SRRLLoss', student_channels=2, teacher_channels=3).train()
    feat_s, feat_t, logit_t = normal(4, 2, *size).requires_grad_(), normal(4, 3, *wanted, seed=1), normal(4, 5, seed=2)
    fc = nn.Linear(3, 5).double()

    def head(feat):
        return fc(feat.mean(dim=(2, 3)))

    def expected(_draw):
        conv, norm, _ = loss.Connectors
        value = torch.einsum('nchw,dc->ndhw', feat_s, conv.weight[:, :, 0, 0])
        mean, var = value.mean((0, 2, 3), keepdim=True), value.var((0, 2, 3), keepdim=True, correction=0)
        value = (value - mean) / (var + norm.eps).sqrt()
        value = (value * norm.weight[:, None, None] + norm.bias[:, None, None]).clamp(min=0)
        features = (value.mean((2, 3)) - feat_t.mean((2, 3))).square().mean()
        return features + 5 * (fc(value.mean((2, 3))) - logit_t).square().mean()

    return loss, dict(feat_s=feat_s, feat_t=feat_t, logit_t=logit_t, teacher_head=head), expected, (1,)


def vitkd(side, wanted, widths=(2, 3)):
    """ViTKD with grids of two sides likewise."""
    loss = loss_of('ViTKDLoss', student_dims=widths[0], teacher_dims=widths[1], alpha_vitkd=0.1, beta_vitkd=0.2)
    nn.init.normal_(loss.mask_token, generator=seeded(9))
    given = dict(
        tokens_low_s=normal(4, 2, side**2, widths[0]).requires_grad_(),
        tokens_low_t=normal(4, 2, wanted**2, widths[1], seed=1),
        tokens_high_s=normal(4, side**2, widths[0], seed=2).requires_grad_(),
        tokens_high_t=normal(4, wanted**2, widths[1], seed=3),
    )

    def expected(draw):
        low = 0
        for i in range(2):
            tokens = fitted_tokens(given['tokens_low_s'][:, i], wanted)
            aligned = tokens if loss.align2 is None else loss.align2[i](tokens)
            low = low + (aligned - given['tokens_low_t'][:, i]).square().sum()
        high = fitted_tokens(given['tokens_high_s'], wanted)
        high = high if loss.align is None else loss.align(high)
        stay = draw.argsort(dim=1)[:, : int(wanted**2 / 2)]
        rows = []
        for n in range(4):
            hidden = [place for place in range(wanted**2) if place not in stay[n].tolist()]
            visible = high[n].clone()
            visible[hidden] = loss.mask_token[0, 0]
            made = loss.generation(visible.T.reshape(1, -1, wanted, wanted)).reshape(-1, wanted**2).T
            rows.append((made[hidden] - given['tokens_high_t'][n, hidden]).square().sum())
        return (0.1 * low + 0.2 / 0.5 * sum(rows)) / 4

    return loss, given, expected, (4, wanted**2)


CASES = [
    *((mgd, *pair) for pair in PAIRS),
    (mgd, (2, 2), (3, 3), (3, 3)),
    *((srrl, *pair) for pair in PAIRS),
    *((vitkd, *pair) for pair in [(2, 5), (5, 2), (1, 3), (3, 1)]),
    (vitkd, 2, 3, (3, 3)),
]


@pytest.mark.parametrize('case', CASES, ids=lambda case: f'{case[0].__name__}-{case[1]}-{case[2]}')
def test_values_and_gradients(case):
    make, *sizes = case
    loss, given, expected, shape = make(*sizes)
    torch.manual_seed(1)
    value = loss(**given)
    torch.manual_seed(1)
    wanted = expected(torch.rand(shape))
    assert_close(value.detach(), wanted.detach())
    moved = [*(t for t in given.values() if isinstance(t, torch.Tensor) and t.requires_grad), *loss.parameters()]
    ours, theirs = (torch.autograd.grad(v, moved, materialize_grads=True) for v in (value, wanted))
    for gradient, other in zip(ours, theirs, strict=True):
        assert_close(gradient, other)
    assert ours[0].any()


@pytest.mark.parametrize('make', [mgd, vitkd])
def test_under_autocast_it_is_the_value_of_the_same_inputs_in_float32(make):
    loss, given, _, _ = make((2, 2), (5, 5)) if make is mgd else make(2, 5)
    loss.float()
    half = {name: tensor.detach().bfloat16() for name, tensor in given.items()}
    torch.manual_seed(1)
    expected = loss(**{name: tensor.float() for name, tensor in half.items()})
    torch.manual_seed(1)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        value = loss(**half)
    assert value.dtype == torch.float32
    assert value == expected


@pytest.mark.own_process(shared=True)
@pytest.mark.parametrize('make', [mgd, vitkd])
def test_compiled_it_is_one_graph_with_the_same_value_and_gradient(make):
    torch._dynamo.reset()
    loss, given, _, _ = make((2, 2), (5, 5)) if make is mgd else make(2, 5)
    graph = torch.compile(loss, backend='aot_eager', fullgraph=True)
    variables = [tensor for tensor in given.values() if tensor.requires_grad]
    values = []
    for run in (loss, graph):
        torch.manual_seed(1)
        value = run(**given)
        values.append([value.detach(), *torch.autograd.grad(value, variables)])
    for value, expected in zip(*reversed(values), strict=True):
        assert_close(value, expected)
