"""The batch norms before the ReLU at the end of each stage."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from .dry_run import DryRun
from .taps import Tap, read


def norms_before_relu(network: nn.Module, found: DryRun, preact: Tap) -> list[Any] | None:
    """Find the batch norm before the ReLU of each stage.

    It is the one that a network states (``bn_before_relu()``), or the last one that runs before the ReLU, is beside it in
    the same module, and has the map's channels; a shortcut may be added between both.

    Args:
        network: A network.
        found: Its dry run.
        preact: Its tap of the stages' maps before the ReLU.

    Returns:
        The norms, shallow to deep; None where a stage has none.

    Raises:
        ValueError: If the network states that it has none.
    """
    if stating := next((m for m in network.modules() if hasattr(m, 'bn_before_relu')), None):
        return stating.bn_before_relu()  # type: ignore[operator]
    if not preact.goes_in:
        return None
    order, norms = list(found.outputs), []
    for path, feat in zip(preact.modules, read(preact, found), strict=True):
        holder, _, relu = path.rpartition('.')
        beside = {
            f'{holder}.{name}'.removeprefix('.'): child
            for name, child in network.get_submodule(holder).named_children()
            if name != relu and isinstance(child, _BatchNorm) and child.num_features == feat.shape[1]
        }
        before = [beside[other] for other in order[: order.index(path)] if other in beside]
        norms += before[-1:]
    return norms if len(norms) == len(preact.modules) else None
