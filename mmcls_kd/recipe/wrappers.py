"""Loss wrappers: multi-stage application and learnable temperature (CTKD)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .schedules import Progress

#: Inputs of a loss at several stages, by those of a loss at the last stage.
AT_STAGES = {
    'feat_s': 'stages_s',
    'feat_t': 'stages_t',
    'feat_s_strong': 'stages_s_strong',
    'feat_t_strong': 'stages_t_strong',
}


class AtStages(nn.Module):
    r"""A loss at several stages, each with parameters of its own: :math:`\sum_i L_i(F_s^i, F_t^i)`.

    Args:
        losses: The losses by number of the stage: from 1 for the one with the largest map, or negative from the last.
    """

    def __init__(self, losses: Mapping[int, nn.Module]) -> None:
        super().__init__()
        self.stages = tuple(losses)
        self.losses = nn.ModuleDict({f'stage{number}': loss for number, loss in losses.items()})

    def forward(self, **tensors: Any) -> Tensor:
        """Return the sum of the losses.

        Args:
            **tensors: The losses' inputs; ``stages_s`` and ``stages_t`` instead of ``feat_s`` and ``feat_t``.
        """
        stages = {name: tensors.pop(of) for name, of in AT_STAGES.items() if of in tensors}
        values = []
        for number, loss in zip(self.stages, self.losses.values(), strict=True):
            maps = {name: at_stage(of_all, number) for name, of_all in stages.items()}
            values.append(loss(**tensors, **maps))
        return torch.stack(values).sum()


def at_stage(stages: Any, number: int) -> Any:
    """Return the feature of one stage, counted from 1, or from −1 backwards."""
    return stages[number - 1 if number > 0 else number]


def check_stages(stages: Any, counts: Mapping[str, int]) -> tuple[int, ...]:
    """Check the stages that a config gives.

    Args:
        stages: A number, or several.
        counts: Number of stages of each network.

    Raises:
        ValueError: If one of them is no stage of a network, or is named twice.
    """
    numbers = tuple(stages) if isinstance(stages, (list, tuple)) else (stages,)
    for name, count in counts.items():
        if not numbers or any(isinstance(n, bool) or not isinstance(n, int) or not 1 <= abs(n) <= count for n in numbers):
            raise ValueError(f'stages={stages!r}: {name} has {count}, from 1 to {count}, or from -{count} to -1')
        if len({n % (count + 1) for n in numbers}) < len(numbers):
            raise ValueError(f'stages={stages!r} names a stage twice')
    return numbers


class _Reversed(torch.autograd.Function):
    """Identity whose gradient is reversed and scaled."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return -ctx.scale * gradients[0], None


class CurriculumTemperature(nn.Module):
    r"""Learnable temperature of a loss (CTKD), trained against the student to make the loss harder step by step.

    .. math:: T = start + range \cdot \sigma(\theta), \quad
        \lambda(e) = \frac{1}{2} \left( 1 - \cos \frac{\pi \min(e, E)}{E} \right)

    :math:`\theta` is one trainable number (the paper's global temperature), 1 at first; its gradient is that of the loss
    times :math:`-\lambda` in epoch e = 1, 2, ...: it makes the loss larger, more and more so over the first E epochs.
    Source: Li et al., AAAI 2023, arXiv 2211.16231.

    Args:
        loss: A loss with the attribute ``temp``.
        start: The lowest temperature.
        range: Range of the temperature above that.
        epochs: E, number of epochs until the whole gradient counts.
        progress: Place in the training; the beginning if None.

    Raises:
        ValueError: If the loss has no temperature, or a number is not positive.
    """

    def __init__(
        self,
        loss: nn.Module,
        start: float = 1.0,
        range: float = 20.0,  # noqa: A002
        epochs: int = 10,
        progress: Progress | None = None,
    ) -> None:
        super().__init__()
        if not hasattr(loss, 'temp'):
            raise ValueError(f'curriculum: {type(loss).__name__} has no temperature `temp`')
        for name, value in dict(start=start, range=range, epochs=epochs).items():
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ValueError(f'curriculum: {name}={value!r} has to be a number')
            if not value > 0:
                raise ValueError(f'curriculum: {name}={value} has to be above 0')
        self.loss, self.progress = loss, progress or Progress()
        self.start, self.range, self.epochs = start, range, epochs
        self.theta = nn.Parameter(torch.ones(()))

    @property
    def task_weight(self) -> float:
        """The share of the task loss that the loss leaves."""
        return getattr(self.loss, 'task_weight', 1.0)

    @property
    def task_views(self) -> Sequence[str]:
        """The views of the task loss."""
        return getattr(self.loss, 'task_views', ('weak',))

    @property
    def temp(self) -> Tensor:
        """The present temperature."""
        return self.start + self.range * self.theta.sigmoid()

    def forward(self, **tensors: Any) -> Tensor:
        """Return the loss at the present temperature; its arguments are the loss's."""
        epoch = min(self.progress.done() + 1, self.epochs)
        strength = (1 - math.cos(math.pi * epoch / self.epochs)) / 2
        fixed = self.loss.temp
        self.loss.temp = _Reversed.apply(self.temp, strength)
        try:
            return self.loss(**tensors)
        finally:
            self.loss.temp = fixed
