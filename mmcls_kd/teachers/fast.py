"""A frozen network made ready for inference: norms folded, channels-last, activations in place, unread outputs left out."""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..features.families import drop_unread_outputs
from ..features.layouts import Read, parts
from ..features.taps import Tap, record
from ..patches import left_out_in_eval_mode, no_hooks, share_hooks, without_fast_path

logger = logging.getLogger(__name__)
#: Activations that can write their output over their input; ReLU6 is a Hardtanh.
ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SiLU, nn.Mish, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid)
PRECISIONS = {'bf16': torch.bfloat16, 'fp16': torch.float16}
#: Largest accepted change of a feature by folding or the memory format, in units of its largest entry if above 1.
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


def shared_copy(network: nn.Module) -> nn.Module:
    """Make a frozen copy in eval mode, without hooks, that shares all tensors with the original."""
    shared = {id(tensor): tensor for tensor in _tensors(network)}
    other = copy.deepcopy(network, shared | no_hooks(network))
    other.eval()
    return other


def fold_norms(network: nn.Module) -> None:
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


def _fold(conv: nn.Conv2d, norm: Any) -> None:
    factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    bias = conv.bias if conv.bias is not None else torch.zeros_like(norm.running_mean)
    conv.weight = nn.Parameter(conv.weight * factor.reshape(-1, 1, 1, 1), requires_grad=False)
    conv.bias = nn.Parameter((bias - norm.running_mean) * factor + norm.bias, requires_grad=False)


def is_plain(module: nn.Module) -> bool:
    """Check that a layer's weight is a parameter: weight norm, spectral norm and pruning compute it in each pass."""
    return 'weight' in module._parameters


def lay_channels_last(network: nn.Module) -> None:
    """Give each convolution a weight in the channels-last memory format, in place."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and is_plain(module):
            module.weight = nn.Parameter(module.weight.contiguous(memory_format=torch.channels_last), requires_grad=False)


def gains_from_channels_last(network: nn.Module, device: torch.device) -> bool:
    """Check that a network has several convolutions, on a CPU: oneDNN reorders the maps before and behind each otherwise."""
    return device.type == 'cpu' and sum(isinstance(module, nn.Conv2d) for module in network.modules()) > 1


def acting(network: nn.Module) -> list[Any]:
    """List the activations of a network that are modules, could write their output over their input, and do not."""
    return [module for module in network.modules() if isinstance(module, ACTIVATIONS) and not module.inplace]


def act_in_place(network: nn.Module) -> None:
    """Let the activations of :func:`acting` write their output over their input."""
    for module in acting(network):
        module.inplace = True


def can_act_in_place(network: nn.Module, images: Tensor, taps: dict[str, Tap]) -> bool:
    """Check on a copy that :func:`act_in_place` has activations to change, and changes no tap, no weight and no image."""
    if not acting(network):
        return False
    other, given = copy.deepcopy(network), images.clone()
    act_in_place(other)
    try:
        if largest_difference(network, other, given, taps) > TOLERANCE:
            return False
        stay = [(images, given), *zip(_tensors(network), _tensors(other), strict=True)]
        return all(torch.equal(before, after) for before, after in stay)
    except RuntimeError:  # torch refuses to write over what several entries share
        return False


def foldable(network: nn.Module) -> list[Any]:
    """List the convolutions and batch norms of a network."""
    return [module for module in network.modules() if isinstance(module, nn.Conv2d | _BatchNorm)]


def can_fold(network: nn.Module) -> bool:
    """Check that every batch norm has statistics of its own, scale and shift, and that all weights are plain tensors."""
    modules = foldable(network)
    norms = [module for module in modules if isinstance(module, _BatchNorm)]
    whole = all(norm.track_running_stats and norm.affine for norm in norms)
    return bool(norms) and whole and all(map(is_plain, modules))


class FastNetwork:
    """Fast form of a frozen network, made anew after the network's weights changed.

    Batch norms are folded, on a CPU several convolutions run channels-last, and activations write over their input. Each is
    kept only if every tap's value stays within 1e-4 on the first images. What is read is contiguous if the images are.

    In the pass after a change of its weights, the network runs as it is: one that moves in each step is not tried in each.
    A change is noticed by the tensors' version counters and addresses; one through ``.data`` on a CPU alone, by the first
    entry of each tensor. Hooks of the network's modules are called in the fast passes too; with any at a convolution or a
    batch norm, nothing is folded; with any at all, activations keep their input, which a hook may hold. Parts that torch's
    encoder layers leave out in eval mode, such as adapters, take part.

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
        self._foldable, self._modules = foldable(network), list(network.modules())
        self._left_out = left_out_in_eval_mode(network)
        self._made_of: tuple = ()
        self._tensors_were: list[tuple[int, int]] = []
        self._first: list[Tensor] = []
        self._first_were: list[Any] = []
        self._ready = network
        self._is_fast = False
        self._channels_last = False

    def __call__(self, inputs: Tensor, taps: dict[str, Tap]) -> dict[str, Read]:
        """Read the taps in one forward pass of images (N, 3, H, W), in float32 where the precision is lower."""
        with without_fast_path() if self._left_out else nullcontext():
            made_of = (_hooked(self._modules), _hooked(self._foldable), *taps)
            moves = self._has_moved() and self._ready is not self.network
            if moves or made_of != self._made_of or not self._is_fast:
                # a trial of a few images is not worth compiling; where no compiler is loaded, it stays so
                make = torch.compiler.disable(self._make) if 'torch._dynamo' in sys.modules else self._make
                self._ready, self._made_of, self._is_fast = make(inputs, taps, not moves), made_of, not moves
            stop = self.compile_options is None  # a compiled network runs to its end
            if self.dtype is None:
                tensors = run(self._ready, inputs, taps, stop)
            else:
                with torch.autocast(inputs.device.type, dtype=self.dtype):  # for what a network makes in float32 on its way
                    tensors = run(self._ready, inputs.to(self.dtype), taps, stop)
        return {name: self._as_given(read, inputs) for name, read in tensors.items()}

    def _as_given(self, read: Read, inputs: Tensor) -> Read:
        """Return a feature in float32 where the precision is lower, and in the memory format of the images."""
        if not isinstance(read, Tensor):
            return tuple(self._as_given(part, inputs) for part in read)
        read = read if self.dtype is None else read.float()
        return read.contiguous() if self._channels_last and inputs.is_contiguous() else read

    def _has_moved(self) -> bool:
        """Check whether the weights changed since the last call."""
        tensors = [(t.data_ptr(), t._version) for t in _tensors(self.network)]
        if tensors == self._tensors_were and [value.item() for value in self._first] == self._first_were:
            return False
        self._tensors_were, self._first = tensors, self._values()
        self._first_were = [value.item() for value in self._first]
        return True

    def _values(self) -> list[Tensor]:
        """Return the first entry of each tensor on a CPU, as a view; to read one of a GPU would wait for its work."""
        tensors = (t.detach() for t in _tensors(self.network))
        return [t[(0,) * t.dim()] for t in tensors if t.device.type == 'cpu' and t.numel()]

    def _make(self, inputs: Tensor, taps: dict[str, Tap], fast: bool) -> nn.Module:
        ready = shared_copy(self.network)
        drop_unread_outputs(ready, taps.values())
        self._channels_last = False
        if fast:
            ready = self._tried(ready, inputs, taps)
        if self.dtype is not None:
            ready = copy.deepcopy(ready).to(self.dtype)
        share_hooks(self.network, ready)
        if self.compile_options is not None and fast:
            compile_parts(ready, self.compile_options)
        return ready

    def _tried(self, ready: nn.Module, inputs: Tensor, taps: dict[str, Tap]) -> nn.Module:
        """Return a network with all changes that keep the features."""
        if not _hooked(self._foldable) and can_fold(ready):
            ready, reason = changed(fold_norms, ready, inputs[:8], taps, torch.float64)
            if reason:
                logger.warning('the teacher keeps its batch norms: %s', reason)
        if gains_from_channels_last(ready, inputs.device):
            ready, reason = changed(lay_channels_last, ready, inputs[:2], taps)
            self._channels_last = not reason  # a network that flattens maps by ``view`` takes no others
        if not _hooked(self._modules) and can_act_in_place(ready, inputs[:2], taps):
            act_in_place(ready)
        return ready


def _tensors(network: nn.Module) -> Iterable[Tensor]:
    return chain(network.parameters(), network.buffers())


def _hooked(modules: Iterable[nn.Module]) -> bool:
    return any(module._forward_hooks or module._forward_pre_hooks for module in modules)


def changed(
    change: Callable[[nn.Module], None],
    network: nn.Module,
    images: Tensor,
    taps: dict[str, Tap],
    dtype: torch.dtype | None = None,
) -> tuple[nn.Module, str]:
    """Return a changed copy and no reason if every tap keeps its value, otherwise the network itself and the reason.

    They are compared in ``dtype`` if one is given: in float64 the precision of the device (TF32 on a GPU) does not matter.
    """
    other = shared_copy(network)
    try:
        change(other)
        moved = largest_difference(network, other, images, taps, dtype)
    except RuntimeError as error:  # a norm that follows another layer than its neighbour in the list of modules
        return network, str(error)
    return (other, '') if moved <= TOLERANCE else (network, f'its outputs would change by {moved:.1e}')


def largest_difference(
    network: nn.Module, other: nn.Module, images: Tensor, taps: dict[str, Tap], dtype: torch.dtype | None = None
) -> float:
    """Return the largest difference of two networks' tap values, in units of the largest entry where that is above 1.

    With a ``dtype``, a copy of each computes in it, of one after the other: a large network is not there twice more.
    """
    with torch.autocast(images.device.type, enabled=False):
        expected, tensors = (
            run(form if dtype is None else copy.deepcopy(form).to(dtype), images.to(dtype or images.dtype), taps)
            for form in (network, other)
        )
    pairs = (pair for name in taps for pair in zip(parts(tensors[name]), parts(expected[name]), strict=True))
    return max(float((tensor - wanted).abs().max() / wanted.abs().max().clamp(min=1)) for tensor, wanted in pairs)


def in_own_type(network: nn.Module, inputs: Tensor) -> Tensor:
    """Convert images to the floating-point type of a network, unless autocast sees to it."""
    kind = inputs.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):  # no other type may be asked about
        return inputs
    own = next((p.dtype for p in network.parameters() if p.is_floating_point()), inputs.dtype)
    return inputs.to(own)


def run(network: nn.Module, inputs: Tensor, taps: dict[str, Tap], stop: bool = True) -> dict[str, Read]:
    """Run one forward pass and read the taps; if ``stop``, it ends as soon as all is read."""
    if not taps:
        return {}
    with record(network, taps, stop) as tensors:
        network(inputs)
    return tensors
