"""How many ways lead through a tensor, counted by hand."""

import torch
from torch import nn

from mmcls_kd.features.flow import ways


def places(*tensors):
    """Where tensors are in the graph."""
    return [(tensor.grad_fn, tensor.output_nr) for tensor in tensors]


def test_of_a_chain_with_a_branch_and_a_shortcut():
    source = torch.randn(2, 4, requires_grad=True).clone()
    first = source * 2
    left, right = first.sin(), first.cos()
    joined = left + right
    result = joined + joined.exp()  # 2 · 2 ways
    count = ways(source, result)
    wanted = {first: 4, left: 2, right: 2, joined: 4, result: 4}
    assert [count(*place) for place in places(*wanted)] == [*wanted.values()]


def test_parts_of_one_tensor_are_told_apart():
    source = torch.randn(2, 4, requires_grad=True).clone()
    left, right = source.chunk(2, dim=1)
    result = left + left.sin() + right
    assert [ways(source, result)(*place) for place in places(left, right)] == [2, 1]


def test_of_very_many():
    source = value = torch.randn(2, requires_grad=True).clone()
    for _ in range(3000):
        value = value + value.sin()
    assert ways(source, value)(value.grad_fn, 0) == 2**3000


def test_parameters_are_no_sources_and_no_way_is_known_without_a_graph():
    source = torch.randn(2, 3, requires_grad=True).clone()
    linear = nn.Linear(3, 3)
    assert ways(source, linear(source.detach())) is None
    assert ways(source, source.detach()) is None
    other = linear(source)
    assert ways(source, other)(other.grad_fn, 0) == 1
