"""Schedules: the weight of a loss, and the place in the training that it depends on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any


@dataclass
class Progress:
    """The place in a training that schedules depend on.

    Attributes:
        epoch: Number of finished epochs.
        iteration: Number of finished iterations.
    """

    epoch: int = 0
    iteration: int = 0

    def done(self, by_epoch: bool = True) -> int:
        """Return the number of finished epochs, or iterations."""
        return self.epoch if by_epoch else self.iteration


@dataclass(frozen=True)
class LossWeight:
    r"""The weight of a loss in each epoch e = 1, 2, ... of a training.

    .. math:: w(e) = value \cdot \min(e / warmup, 1)

    and, with ``decay=(a, b)``, linear from ``value`` at a to ``final`` at b, and ``final`` after that.

    Args:
        value: The weight, in units of the loss.
        warmup: Epoch in which it is reached; 0 or 1 for at once.
        decay: The last epoch with the whole weight, and the first with the final one; None for no decay.
        final: The weight at the end of the decay.
        by_epoch: Count epochs; else iterations.

    Raises:
        ValueError: If the numbers are inconsistent.

    Example:
        >>> weight = LossWeight(8.0, warmup=4, decay=(10, 12))
        >>> [weight.at(epoch) for epoch in (1, 4, 10, 11, 12, 99)]
        [2.0, 8.0, 8.0, 4.0, 0.0, 0.0]
    """

    value: float = 1.0
    warmup: int = 0
    decay: Sequence[int] | None = None
    final: float = 0.0
    by_epoch: bool = True

    def __post_init__(self) -> None:
        ends = self.decay if isinstance(self.decay, (list, tuple)) else () if self.decay is None else (self.decay,)
        numbers = [self.value, self.warmup, self.final, *ends]
        if any(isinstance(n, bool) or not isinstance(n, (int, float)) or not math.isfinite(n) for n in numbers):
            raise ValueError(f'loss_weight: value, warmup, decay and final are numbers, but one of {numbers} is not')
        if self.warmup < 0:
            raise ValueError(f'loss_weight: warmup={self.warmup} has to be 0 or more')
        if self.decay is not None and not (len(ends) == 2 and self.warmup <= ends[0] < ends[1]):
            raise ValueError(
                f'loss_weight: decay={self.decay} has to be two numbers, the last with the whole weight and the '
                f'first with the final one, in that order and not before warmup={self.warmup}'
            )

    @classmethod
    def of(cls, given: float | Mapping[str, Any]) -> LossWeight:
        """Parse a config's ``loss_weight``: a number, or a dict of the keywords.

        Raises:
            ValueError: If it is neither, or a keyword is unknown.
        """
        if not isinstance(given, Mapping):
            return cls(given)
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(given) - {*known, '_scope_'}):
            raise ValueError(f'loss_weight takes {", ".join(known)}, but has {", ".join(unknown)}')
        return cls(**{key: value for key, value in given.items() if key in known})

    def at(self, step: int) -> float:
        """Return the weight in an epoch, counted from 1 (or in an iteration)."""
        if step < self.warmup:
            return self.value * step / self.warmup
        if self.decay is None or step <= self.decay[0]:
            return self.value
        first, last = self.decay
        share = min((step - first) / (last - first), 1.0)
        return self.value + share * (self.final - self.value)

    @property
    def settled(self) -> int:
        """The epoch (or iteration) from which the weight stays as it is."""
        return self.warmup if self.decay is None else self.decay[1]

    @property
    def fixed(self) -> bool:
        """Whether the weight is the same in every step."""
        return self.warmup <= 1 and self.decay is None

    def now(self, progress: Progress) -> float:
        """Return the weight at a place in a training."""
        return self.value if self.fixed else self.at(progress.done(self.by_epoch) + 1)


class LossWeights(dict[str, LossWeight]):
    """Weights of losses by name; what is set may be a number or a config's dict.

    Example:
        >>> weights = LossWeights(kd=LossWeight())
        >>> weights['kd'] = 0.5
        >>> weights['kd'].value
        0.5
    """

    def __setitem__(self, name: str, weight: LossWeight | float | Mapping[str, Any]) -> None:
        super().__setitem__(name, weight if isinstance(weight, LossWeight) else LossWeight.of(weight))
