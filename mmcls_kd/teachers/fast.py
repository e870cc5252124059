"""A frozen network made ready for inference: batch norms folded, unread outputs left out."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrize import is_parametrized

from ..features.families import drop_unread_outputs
from ..features.layouts import Read, parts
from ..features.taps import Tap, record
from ..patches import no_hooks, share_hooks

logger = logging.getLogger(__name__)
PRECISIONS = {'bf16': torch.bfloat16, 'fp16': torch.float16}
#: Largest accepted change of a feature by folding, in units of its largest entry where that is above 1.
TOLERANCE = 1e-4
#: Limit of compiled graphs of a network's parts, which torch counts together: each in training and validation, and for
#: the last batch.
GRAPHS = 64


def compile_parts(network: nn.Module, options: Mapping[str, Any]) -> None:
    """Compile the parts of a classifier, but for its data preprocessor, in place; the names in its state dict stay."""
    torch._dynamo.config.cache_size_limit = max(torch._dynamo.config.cache_size_limit, GRAPHS)
    for name, part in network.named_children():
        if name != 'data_preprocessor':
            part.compile(**options)


def shared_copy(network: nn.Module, taps: Iterable[Tap], folded: bool) -> nn.Module:
    """Make a frozen copy in eval mode, without hooks, that shares all tensors but the folded ones with the original.

    Stage outputs that no tap needs are left out. If folded, batch norms are in the convolutions before them.
    """
    shared = {id(tensor): tensor for tensor in chain(network.parameters(), network.buffers())}
    other = copy.deepcopy(network, shared | no_hooks(network))
    other.eval()
    drop_unread_outputs(other, taps)
    return fold_norms(other).requires_grad_(False) if folded else other


def fold_norms(network: nn.Module) -> nn.Module:
    r"""Fold each batch norm into the convolution before it, in place, among the children of each module in their order.

    .. math:: W' = \frac{\gamma}{\sqrt{\sigma^2 + \epsilon}} W, \quad
        b' = \frac{\gamma}{\sqrt{\sigma^2 + \epsilon}} (b - \mu) + \beta
    """
    before = None
    for name, part in network.named_children():
        if isinstance(part, _BatchNorm):
            if before is not None:
                _fold(before, part)
                setattr(network, name, nn.Identity())
                before = None
        elif isinstance(part, nn.Conv2d):
            before = part
        else:
            before = None if any(True for _ in part.parameters()) else before  # a part between them is no neighbour
            fold_norms(part)
    return network


def _fold(conv: nn.Conv2d, norm: Any) -> None:
    factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    bias = conv.bias if conv.bias is not None else torch.zeros_like(norm.running_mean)
    conv.weight = nn.Parameter(conv.weight * factor.reshape(-1, 1, 1, 1))
    conv.bias = nn.Parameter((bias - norm.running_mean) * factor + norm.bias)


def foldable(network: nn.Module) -> list[Any]:
    """List the convolutions and batch norms of a network."""
    return [module for module in network.modules() if isinstance(module, nn.Conv2d | _BatchNorm)]


def can_fold(network: nn.Module) -> bool:
    """Check that every batch norm has statistics of its own, scale and shift, and that all weights are plain tensors."""
    modules = foldable(network)
    norms = [module for module in modules if isinstance(module, _BatchNorm)]
    whole = all(norm.track_running_stats and norm.affine for norm in norms)
    return bool(norms) and whole and not any(map(is_parametrized, modules))


class FastNetwork:
    """Fast form of a frozen network, made anew when the network's weights change.

    Folding is kept only if every tap's value stays within 1e-4 on the first images, compared in float64. A change of the
    weights is noticed by the tensors' version counters and addresses: one through ``.data`` is not. Hooks of the network's
    modules are called in the fast passes too; with any at a convolution or a batch norm, nothing is folded.

    Args:
        network: The network as loaded; it is not changed.
        precision: ``'bf16'`` or ``'fp16'``, whatever autocast says; None for the network's own.
        compile_options: Keywords of ``torch.compile``; None for no compilation.
    """

    def __init__(
        self, network: nn.Module, precision: str | None = None, compile_options: Mapping[str, Any] | None = None
    ) -> None:
        self.network = network
        self.dtype = PRECISIONS[precision] if precision else None
        self.compile_options = compile_options
        self._foldable = foldable(network)
        self._made_of: tuple = ()
        self._ready = network

    def __call__(self, inputs: Tensor, taps: dict[str, Tap]) -> dict[str, Read]:
        """Read the taps in one forward pass of images (N, 3, H, W), in float32 where the precision is lower."""
        hooked = any(module._forward_hooks or module._forward_pre_hooks for module in self._foldable)
        made_of = (hooked, *taps, *self._weights())
        if made_of != self._made_of:
            self._ready, self._made_of = self._make(inputs, taps, hooked), made_of
        stop = self.compile_options is None  # a compiled network runs to its end
        if self.dtype is None:
            return run(self._ready, inputs, taps, stop)
        with torch.autocast(inputs.device.type, dtype=self.dtype):  # for what a network makes in float32 on its way
            tensors = run(self._ready, inputs.to(self.dtype), taps, stop)
        return {
            name: read.float() if isinstance(read, Tensor) else tuple(part.float() for part in read)
            for name, read in tensors.items()
        }

    def _weights(self) -> Iterable[tuple[int, int]]:
        return ((t.data_ptr(), t._version) for t in chain(self.network.parameters(), self.network.buffers()))

    def _make(self, inputs: Tensor, taps: dict[str, Tap], hooked: bool) -> nn.Module:
        ready = shared_copy(self.network, taps.values(), folded=False)
        if not hooked and can_fold(self.network):
            ready = self._folded(ready, inputs[:8], taps)
        if self.dtype is not None:
            ready = copy.deepcopy(ready).to(self.dtype)
        share_hooks(self.network, ready)
        if self.compile_options is not None:
            compile_parts(ready, self.compile_options)
        return ready

    def _folded(self, plain: nn.Module, images: Tensor, taps: dict[str, Tap]) -> nn.Module:
        """Return the folded twin, or the plain one if folding changes a tap's value."""
        try:
            folded = shared_copy(self.network, taps.values(), folded=True)
            moved = largest_difference(plain, folded, images, taps)
        except RuntimeError as error:  # a norm that follows another layer than its neighbour in the list of modules
            reason = str(error)
        else:
            if moved <= TOLERANCE:
                return folded
            reason = f'folding them moves its outputs by {moved:.1e}'
        logger.warning('the teacher keeps its batch norms: %s', reason)
        return plain


def largest_difference(network: nn.Module, other: nn.Module, images: Tensor, taps: dict[str, Tap]) -> float:
    """Return the largest difference of two networks' tap values, in units of the largest entry where that is above 1.

    They are compared in float64, so the precision of the device (TF32 on a GPU) does not matter.
    """
    with torch.autocast(images.device.type, enabled=False):
        expected, tensors = (run(copy.deepcopy(n).double(), images.double(), taps) for n in (network, other))
    pairs = (pair for name in taps for pair in zip(parts(tensors[name]), parts(expected[name]), strict=True))
    return max(float((tensor - wanted).abs().max() / wanted.abs().max().clamp(min=1)) for tensor, wanted in pairs)


def run(network: nn.Module, inputs: Tensor, taps: dict[str, Tap], stop: bool = True) -> dict[str, Read]:
    """Run one forward pass and read the taps; if ``stop``, it ends as soon as all is read."""
    if not taps:
        return {}
    with record(network, taps, stop) as tensors:
        network(inputs)
    return tensors
