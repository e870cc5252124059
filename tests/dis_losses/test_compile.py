"""The losses compiled: one graph with eager's values and gradients, no second compilation, nothing that waits for values."""

import copy

import pytest
import torch
from kit import assert_close
from mmpretrain.registry import MODELS
from test_properties import FORWARD, KEYWORDS, changed, gradients, inputs, repeatable, run, students
from torch import nn
from torch._dynamo.exc import RecompileError
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeCopyMode,
    FakeTensorMode,
)

from mmcls_kd import dis_losses

LOSSES = {
    **{name: dict(type=name, **KEYWORDS.get(name, {})) for name in FORWARD},
    'USKDLoss_log_prob': dict(type='USKDLoss', rank_by='log_prob', **KEYWORDS['USKDLoss']),
}
CASES = [
    (name, label)
    for name, config in LOSSES.items()
    for label in (['hard', 'mixup'] if 'gt_label' in FORWARD[config['type']] else ['hard'])
]
# Those beyond the first nine compile in the default run once.
NINE = ('KDLoss', 'DKD', 'WSLD', 'NKD', 'USKD', 'TFNKD', 'MGD', 'SRRL', 'ViTKD')
pytestmark = pytest.mark.own_process(shared=True)
each_case = pytest.mark.parametrize(('name', 'label'), CASES)


def with_speed_marks(cases):
    return [pytest.param(*case, marks=() if case[0].startswith(NINE) else pytest.mark.slow) for case in cases]


def case(name, label, dtype=torch.float32):
    """A loss, and what it asks for; nothing is compiled yet."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    return repeatable(MODELS.build(dict(LOSSES[name]))), inputs(LOSSES[name]['type'], label, dtype)


def compiled(loss):
    return torch.compile(loss, backend='aot_eager', fullgraph=True)


def next_batch(given):
    """Other values of the same shapes and types; what required a gradient does so again."""

    def moved(tensor):
        rolled = tensor.detach().roll(1, dims=0)
        return (0.5 * rolled).requires_grad_() if tensor.requires_grad else rolled

    return {name: changed(value, moved) for name, value in given.items()}


def assert_same(value, expected, variable):
    """Both values agree, and so do their gradients."""
    assert value.dtype == expected.dtype
    assert_close(value.detach(), expected.detach())
    for gradient, wanted in zip(gradients(value, variable), gradients(expected, variable), strict=True):
        assert gradient.dtype == wanted.dtype
        if wanted.dtype == torch.bfloat16:
            torch.testing.assert_close(gradient, wanted)  # torch's own tolerance: the table has no row for it
        else:
            assert_close(gradient, wanted)


def test_every_registered_loss_is_among_the_cases():
    assert set(dis_losses.LOSSES) == {config['type'] for config in LOSSES.values()}


@each_case
def test_one_graph_has_eagers_value_and_gradients_and_serves_the_next_batch(name, label):
    loss, given = case(name, label)
    variable = students(loss, given)
    graph = compiled(loss)
    assert_same(run(graph, given), run(loss, given), variable)

    following = next_batch(given)
    variable = students(loss, following)
    with torch._dynamo.config.patch(error_on_recompile=True):
        value = run(graph, following)
    assert_same(value, run(loss, following), variable)


@pytest.mark.slow
def test_crd_remembers_the_same_compiled():
    loss, given = case('CRDLoss', 'hard')
    twin = copy.deepcopy(loss.train())
    graph, variable = compiled(loss), students(loss, given)
    with torch._dynamo.config.patch(error_on_recompile=True):
        values = [run(graph, given) for _ in range(2)]
    for value in values:
        expected = run(twin, given)
        assert_close(value.detach(), expected.detach())
        for ours, theirs in zip(gradients(value, variable), gradients(expected, students(twin, given)), strict=True):
            assert_close(ours, theirs)
    for ours, theirs in zip(loss.buffers(), twin.buffers(), strict=True):
        assert_close(ours, theirs)
    run_without_values(twin, given)


def test_a_second_compilation_would_be_seen():
    loss, given = case('KDLoss', 'hard')
    graph = compiled(loss)
    run(graph, given)
    with torch._dynamo.config.patch(error_on_recompile=True), pytest.raises(RecompileError):
        run(graph, {name: tensor.double() for name, tensor in given.items()})


# torch.compile takes the forward's autocast for the backward too, where a training has left it: then a matrix product's
# gradient would be one in bfloat16, however the forward is guarded. This setting makes both the same.
if hasattr(torch._functorch.config, 'backward_pass_autocast'):
    backward_without_autocast = torch._functorch.config.patch(backward_pass_autocast='off')
else:
    backward_without_autocast = pytest.mark.skip(reason=f'torch {torch.__version__} has no such setting')


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize(('name', 'label'), with_speed_marks(CASES))
@backward_without_autocast
def test_under_autocast_the_graph_has_eagers_value_and_gradients(name, label, dtype):
    loss, given = case(name, label, dtype)
    variable = students(loss, given)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        value, expected = run(compiled(loss), given), run(loss, given)
    assert value.dtype == torch.float32
    assert_same(value, expected, variable)


# Those with a linear layer, and those that multiply matrices themselves.
WITH_PRODUCTS = ('USKD', 'ViTKD', 'SRRL', 'RKD', 'PKT', 'CC', 'SP', 'NST', 'WKDLogit', 'CRD', 'OFALoss')
WITH_PRODUCTS += ('Embedding', 'Queue', 'ScaleKD', 'SRD', 'PEFD', 'VkD')
WITH_PRODUCTS += ('MLKD', 'CATKD', 'SDD')
WITH_PRODUCTS += ('ICKD', 'SemCKD', 'AFD', 'FSP')


@pytest.mark.parametrize(
    ('name', 'label'), with_speed_marks((name, label) for name, label in CASES if not name.startswith(WITH_PRODUCTS))
)
def test_losses_without_a_product_of_matrices_need_no_setting_for_that(name, label):
    loss, given = case(name, label)
    variable = students(loss, given)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        value, expected = run(compiled(loss), given), run(loss, given)
    assert_same(value, expected, variable)


# ---- tensors without values


def run_without_values(loss, given):
    """Forward and backward on tensors that have a shape but no values: what needs a value on the host raises."""
    mode = FakeTensorMode()
    with FakeCopyMode(mode):
        loss, given = copy.deepcopy((loss, given))
    variable = students(loss, given)
    with mode:
        value = run(loss, given)
        return value, gradients(value, variable)


@each_case
def test_no_value_is_needed_on_the_host_and_no_shape_depends_on_one(name, label):
    loss, given = case(name, label)
    value, found = run_without_values(loss, given)
    assert value.shape == ()
    assert [gradient.shape for gradient in found] == [tensor.shape for tensor in students(loss, given)]


class BooleanGather(nn.Module):
    """The other classes of each sample, gathered by a mask."""

    def forward(self, logit_s, gt_label):
        others = torch.ones_like(logit_s).scatter(1, gt_label[:, None], 0).bool()
        return logit_s[others].view(len(logit_s), -1).logsumexp(dim=1).mean()


class Item(nn.Module):
    """A value that goes through the host."""

    def forward(self, logit_s, gt_label):
        return logit_s.sum() * gt_label.max().item()


class Branch(nn.Module):
    """A branch that the values decide."""

    def forward(self, logit_s, gt_label):
        return logit_s.sum() if (gt_label > 0).any() else logit_s.mean()


@pytest.mark.parametrize(
    ('loss', 'error'),
    [
        (BooleanGather(), DynamicOutputShapeException),
        (Item(), DataDependentOutputException),
        (Branch(), DataDependentOutputException),
    ],
)
def test_a_boolean_gather_and_a_value_on_the_host_would_be_seen(loss, error):
    given = inputs('TFNKDLoss', 'hard')
    assert run(loss, given).isfinite()
    with pytest.raises(error):
        run_without_values(loss, given)
