"""The teacher's entropy as the methods soften its probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..dis_losses.common import standardize_classes
from ..recipe.wrappers import CurriculumTemperature
from .measures import entropy


@dataclass(frozen=True)
class Softened:
    """The teacher's logits as a method uses them.

    Attributes:
        logit: The logits, standardised if the method does so, (N, C).
        temp: Temperature of the method.
    """

    logit: Tensor
    temp: float

    def entropy(self, temp: float | None = None) -> float:
        """Return the mean entropy of the probabilities, in nats.

        Args:
            temp: Another temperature.
        """
        return entropy(self.logit, self.temp if temp is None else temp)


def temperatures(losses: Mapping[str, nn.Module]) -> dict[str, float]:
    """Return the temperature of each loss that has one, by name; of a learnable one, its start value.

    Args:
        losses: The losses, by name.
    """
    found = {name: getattr(loss, 'temp', None) for name, loss in losses.items()}
    return {name: float(torch.as_tensor(temp).detach()) for name, temp in found.items() if temp is not None}


def softened(losses: Mapping[str, nn.Module], logit_t: Tensor) -> dict[str, Softened]:
    """Return the teacher's logits as each loss with a temperature uses them.

    Losses that leave the target class out (``masks_target``) do not use these probabilities, and are omitted.

    Args:
        losses: The losses, by name; those with ``standardize`` standardise logits over the classes first.
        logit_t: Logits of the teacher, (N, C).
    """
    found = {}
    for name, temp in temperatures(losses).items():
        outer = losses[name]
        loss = outer.loss if isinstance(outer, CurriculumTemperature) else outer
        if not getattr(loss, 'masks_target', False):
            logit = standardize_classes(logit_t) if getattr(loss, 'standardize', False) else logit_t
            found[name] = Softened(logit, temp)
    return found
