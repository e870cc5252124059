"""Checks of losses that users write: mistakes that torch lets pass, or tells without the name of the loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import is_outside
from ..features.layouts import tensors_in

TOOLBOX = __name__.partition('.')[0]
#: Errors of torch and Python in a loss, which do not name it.
UNNAMED = (RuntimeError, TypeError, IndexError, KeyError, AttributeError)


def stray_parts(name: str, loss: nn.Module) -> Iterator[str]:
    """Tell of tensors that are no buffers of a loss, and of trainable parts in a list or dict: torch does not know them."""
    known = {id(parameter) for parameter in loss.parameters()}
    for part in loss.modules():
        for key, value in vars(part).items():
            if isinstance(value, Tensor):
                yield (
                    f'{name}: {type(part).__name__}.{key} is a tensor that is neither saved nor moved to another device: '
                    f'make it a buffer by self.register_buffer({key!r}, ...)'
                )
            elif not key.startswith('_') and any(p.requires_grad and id(p) not in known for p in _parameters_in(value)):
                yield (
                    f'{name}: {type(part).__name__}.{key} holds trainable parts in a {type(value).__name__}, where they are '
                    'neither trained nor saved: make it an nn.ModuleList, nn.ModuleDict or nn.ParameterList'
                )


def _parameters_in(value: Any) -> Iterator[nn.Parameter]:
    """Iterate over the parameters in a list, tuple or dict, and in those inside of it."""
    if isinstance(value, dict):
        value = list(value.values())
    for one in value if isinstance(value, list | tuple) else ():
        if isinstance(one, nn.Module):
            yield from one.parameters()
        elif isinstance(one, nn.Parameter):
            yield one
        elif isinstance(one, dict | list | tuple):
            yield from _parameters_in(one)


def value_of_loss(name: str, loss: nn.Module, inputs: Mapping[str, Any], learns: bool) -> Tensor:
    """Compute a loss, and check its value.

    Args:
        name: Its name.
        loss: The loss.
        inputs: Its inputs, by name.
        learns: Whether the value has to have a gradient, unless it is 0, as before a loss begins.

    Raises:
        ValueError: If it fails or changes an input in place, or its value is no tensor of floating-point numbers or has no
            gradient; names the loss.
    """
    kind = f'{name} ({type(loss).__name__})'
    before = _versions(inputs)
    try:
        value = loss(**inputs)
    except UNNAMED as error:
        if type(error) not in UNNAMED or is_outside(error) or type(loss).__module__.startswith(f'{TOOLBOX}.'):
            raise  # the toolbox's losses name themselves
        read = ', '.join(f'{key} {tuple(tensor.shape)}' for key, tensor in inputs.items() if isinstance(tensor, Tensor))
        raise ValueError(f'{kind}: {type(error).__name__}: {error}; it got {read or "no tensors"}') from error
    if changed := [key for key, versions in _versions(inputs).items() if versions != before[key]]:
        raise ValueError(
            f'{kind}: forward changes its input {changed[0]} in place, which other losses read too: compute a new '
            f'tensor, such as {changed[0]} / 4 instead of {changed[0]} /= 4'
        )
    if not isinstance(value, Tensor) or not value.is_floating_point():
        given = f'a tensor of {value.dtype}' if isinstance(value, Tensor) else f'a value of type {type(value).__name__}'
        raise ValueError(f'{kind}: forward returns {given}: return a tensor of floating-point numbers, such as their mean')
    if learns and torch.is_grad_enabled() and not value.requires_grad and value.any():
        raise ValueError(
            f'{kind}: its value has no gradient, so nothing learns from it: compute it from the inputs of the student '
            'without detach(), item(), argmax and the like, and let layers before them be trainable (requires_grad)'
        )
    return value


def _versions(inputs: Mapping[str, Any]) -> dict[str, list[int]]:
    """Return torch's counts of the changes in place of the inputs' tensors."""
    return {key: [one._version for one in tensors_in(value) if not one.is_inference()] for key, value in inputs.items()}
