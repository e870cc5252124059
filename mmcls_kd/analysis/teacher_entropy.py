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
    """The teacher's logits (N, C) as a method uses them, standardised if it does so, and its temperature."""

    logit: Tensor
    temp: float

    def entropy(self, temp: float | None = None) -> float:
        """Return the mean entropy of the probabilities, in nats, at the method's temperature or another."""
        return entropy(self.logit, self.temp if temp is None else temp)


def temperatures(losses: Mapping[str, nn.Module]) -> dict[str, float]:
    """Return the temperature of each loss that has one, by name; of a learnable one, its start value."""
    found = {name: getattr(loss, 'temp', None) for name, loss in losses.items()}
    return {name: float(torch.as_tensor(temp).detach()) for name, temp in found.items() if temp is not None}


def softened(losses: Mapping[str, nn.Module], logit_t: Tensor) -> dict[str, Softened]:
    """Return the teacher's logits (N, C) as each loss with a temperature uses them, standardised if it does so.

    Losses that leave the target class out (``masks_target``) do not use these probabilities, and are omitted.
    """
    found = {}
    for name, temp in temperatures(losses).items():
        outer = losses[name]
        loss = outer.loss if isinstance(outer, CurriculumTemperature) else outer
        if not getattr(loss, 'masks_target', False):
            logit = standardize_classes(logit_t) if getattr(loss, 'standardize', False) else logit_t
            found[name] = Softened(logit, temp)
    return found
