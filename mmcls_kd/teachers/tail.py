"""The teacher's tail: the part of a network that maps the map of the stage before the last to that of the last stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from ..features.dry_run import MISFITS, DryRun, evaluating
from ..features.layouts import Layout, as_map, tensors_in
from ..features.taps import Tap, View
from .fast import run


class Tail(nn.Module):
    """Modules of a network that run one after the other, on maps.

    Args:
        parts: Each module, and its arguments beside the features: positional ones from the second on, and named ones.
        goes_in: Layout of the features that the first module takes.
        comes_out: Layout of those that the last module returns.
    """

    def __init__(
        self, parts: Sequence[tuple[nn.Module, tuple, Mapping[str, Any]]], goes_in: Layout, comes_out: Layout
    ) -> None:
        super().__init__()
        self.parts = nn.ModuleList(module for module, _, _ in parts)
        self.arguments = [(args, kwargs) for _, args, kwargs in parts]
        self.goes_in, self.comes_out = goes_in, comes_out

    def __deepcopy__(self, memo: dict[int, Any]) -> Tail:
        return self  # it is the teacher's, which a moving average shares

    def forward(self, feat: Tensor) -> Tensor:
        """Return the map of the last stage, (N, C', H', W'), for one of the stage before, (N, C, H, W)."""
        dtype = next(self.parameters(), feat).dtype
        features = raw(feat.to(dtype), self.goes_in)
        for module, (args, kwargs) in zip(self.parts, self.arguments, strict=True):
            features = tensors_in(module(features, *args, **kwargs))[0]
        return as_map(features, self.comes_out).to(feat.dtype)


def raw(feat: Tensor, layout: Layout) -> Tensor:
    """Lay a map, (N, C, H, W), out as a network has it; the inverse of :func:`~mmcls_kd.features.layouts.as_map`."""
    if layout.kind == 'map_last':
        return feat.permute(0, 2, 3, 1)
    return feat.flatten(2).transpose(1, 2) if layout.kind == 'tokens' else feat


def find_tail(network: nn.Module, found: DryRun, taps: Mapping[str, Tap]) -> Tail | None:
    """Find the modules between the last two stages, and keep them only if they reproduce the network's last map.

    None where a network has no two stages, prefix tokens (a class token), or other steps between its modules.
    """
    stages = taps.get('stages')
    if stages is None or 'feat' not in taps or not isinstance(stages.view, View) or len(stages.modules) < 2:
        return None
    goes_in, before = stages.view.layouts[-2], stages.modules[-2]
    if goes_in.kind not in ('map', 'map_last', 'tokens') or goes_in.extra:
        return None
    paths = modules_between(found, before, taps['feat'].modules[-1])
    parameter = next(network.parameters())
    wanted = {name: taps[name] for name in ('stages', 'feat')}
    with torch.random.fork_rng(devices=[]), evaluating(network), torch.no_grad():
        images = torch.randn(3, found.channels, *found.size).to(parameter)
        calls = _calls(network, paths, images[:2])
        if any(isinstance(value, Tensor) for args, kwargs in calls.values() for value in (*args, *kwargs.values())):
            return None  # of these images, or on this device
        tensors = run(network, images, wanted, stop=False)  # of another number of images than the recorded calls
        for count in range(len(paths), 0, -1):  # a norm or a pooling may follow the last map
            parts = [(network.get_submodule(path), *calls[path]) for path in paths[:count]]
            for kind in ('map', 'map_last', 'tokens'):
                tail = Tail(parts, goes_in, Layout(kind, ratio=goes_in.ratio))
                with suppress(*MISFITS):  # they take features of another form
                    made = tail(tensors['stages'][-2])
                    if made.shape == tensors['feat'].shape and _alike(made, tensors['feat']):
                        return tail
    return None


def modules_between(found: DryRun, before: str, last: str) -> list[str]:
    """Return the paths of the modules that run behind one, up to another or inside of it, without those inside of others."""
    order = list(found.outputs)
    behind = order[order.index(before) + 1 : order.index(last) + 1]
    around = [path for path in behind if path and not before.startswith(f'{path}.') and found.calls[path] == 1]
    return [path for path in around if not any(path.startswith(f'{other}.') for other in around)]


def _calls(network: nn.Module, paths: Sequence[str], images: Tensor) -> dict[str, tuple[tuple, dict[str, Any]]]:
    """Record the arguments of each module beside its first one, in a forward pass."""
    calls: dict[str, tuple[tuple, dict[str, Any]]] = {}

    def keep(path: str) -> Any:
        def hook(_module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            calls[path] = (args[1:], kwargs)

        return network.get_submodule(path).register_forward_pre_hook(hook, with_kwargs=True)

    handles = [keep(path) for path in paths]
    try:
        network(images)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _alike(made: Tensor, wanted: Tensor) -> bool:
    """Check that two maps are equal, in units of what images change; where they change nothing, nothing is proved."""
    return bool((made - wanted).abs().max() < 1e-3 * (wanted[0] - wanted[1]).abs().max())
