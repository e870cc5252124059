"""Checks of losses that users write: mistakes that torch lets pass, or tells without the name of the loss."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import is_outside

TOOLBOX = __name__.partition('.')[0]
#: Errors of torch and Python in a loss, which do not name it.
UNNAMED = (RuntimeError, TypeError, IndexError, KeyError, AttributeError)


def check_parts(name: str, loss: nn.Module) -> str | None:
    """Refuse trainable parts in a list or dict of a loss, which torch neither trains nor saves; tell of plain tensors.

    Raises:
        ValueError: Names the attribute and the remedy.
    """
    for part in loss.modules():
        for key, value in vars(part).items():
            if isinstance(value, Tensor):
                return (
                    f'{name}: {type(part).__name__}.{key} is a tensor that is neither saved nor moved to another device: '
                    f'make it a buffer by self.register_buffer({key!r}, ...)'
                )
            if not key.startswith('_') and isinstance(value, (list, tuple, dict)) and _trains(value):
                raise ValueError(
                    f'{name}: {type(part).__name__}.{key} holds trainable parts in a {type(value).__name__}, where they are '
                    'neither trained nor saved: make it an nn.ModuleList, nn.ModuleDict or nn.ParameterList'
                )
    return None


def _trains(values: Any) -> bool:
    inner: Iterable[Any] = values.values() if isinstance(values, dict) else values
    for one in inner:
        parameters = one.parameters() if isinstance(one, nn.Module) else [one] if isinstance(one, nn.Parameter) else []
        if any(parameter.requires_grad for parameter in parameters):
            return True
    return False


def value_of_loss(name: str, loss: nn.Module, inputs: Mapping[str, Any], learns: bool) -> Tensor:
    """Compute a loss, and check its value.

    Args:
        name: Its name.
        loss: The loss.
        inputs: Its inputs, by name.
        learns: Whether the value has to have a gradient.

    Raises:
        ValueError: If it fails, or its value is no tensor of floating-point numbers or has no gradient; names the loss.
    """
    kind = f'{name} ({type(loss).__name__})'
    try:
        value = loss(**inputs)
    except UNNAMED as error:
        if type(error) not in UNNAMED or is_outside(error) or type(loss).__module__.startswith(f'{TOOLBOX}.'):
            raise  # the toolbox's losses name themselves
        read = ', '.join(f'{key} {tuple(tensor.shape)}' for key, tensor in inputs.items() if isinstance(tensor, Tensor))
        raise ValueError(f'{kind}: {type(error).__name__}: {error}; it got {read or "no tensors"}') from error
    if not isinstance(value, Tensor) or not value.is_floating_point():
        given = f'a tensor of {value.dtype}' if isinstance(value, Tensor) else f'a value of type {type(value).__name__}'
        raise ValueError(f'{kind}: forward returns {given}: return a tensor of floating-point numbers, such as their mean')
    if learns and torch.is_grad_enabled() and not value.requires_grad:
        raise ValueError(
            f'{kind}: its value has no gradient, so nothing learns from it: compute it from the inputs of the student '
            'without detach(), item(), argmax and the like'
        )
    return value
