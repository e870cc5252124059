"""The number of paths from an image to a result through each tensor, by the graph of a forward pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from torch import Tensor


def ways(source: Tensor, result: Tensor) -> Callable[[Any, int], int] | None:
    r"""Return a function that counts the paths from a result back to its source that lead through a tensor.

    With a(v) the number of paths in autograd's graph from the result to v, and b(v) from v to the source, it is
    :math:`a(v) \, b(v)`, an exact number. Through the result itself lead all. The function takes a tensor's ``grad_fn`` and
    ``output_nr`` at the time of its computation. None if there is no path, as where a part of the pass kept no graph.
    """
    end = source.grad_fn
    order = _ordered(result.grad_fn)
    to_end: dict[Any, int] = {}
    for node in reversed(order):
        to_end[node] = 1 if node is end else sum(to_end[next_node] for next_node, _ in node.next_functions if next_node)
    if not to_end.get(result.grad_fn):
        return None
    arriving: Counter[tuple[Any, int]] = Counter({(result.grad_fn, result.output_nr): 1})
    through: Counter[Any] = Counter({result.grad_fn: 1})
    for node in order:
        for next_node, number in node.next_functions:
            if next_node is not None:
                arriving[next_node, number] += through[node]
                through[next_node] += through[node]
    return lambda node, number: arriving[node, number] * to_end.get(node, 0)


def _ordered(first: Any) -> list[Any]:
    """Order the nodes of a graph, each before those that it leads to."""
    done: dict[Any, None] = {}  # the last one first; it also keeps the nodes, which torch makes anew otherwise
    waiting = [(first, False)] if first is not None else []
    seen = set()
    while waiting:
        node, left = waiting.pop()
        if left:
            done[node] = None
        elif node not in seen:
            seen.add(node)
            waiting.append((node, True))
            waiting += [(next_node, False) for next_node, _ in node.next_functions if next_node is not None]
    return list(reversed(done))
