"""The model of a runner."""

from __future__ import annotations

from typing import Any

from mmengine.model import BaseAveragedModel, is_model_wrapper
from mmengine.runner import Runner
from torch import nn


def unwrapped(runner: Runner) -> Any:
    """Return the runner's model without a parallel wrapper."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def share_memories(model: nn.Module, average: BaseAveragedModel) -> None:
    """Share the memories of the model's losses with a moving average, which has neither a use nor room for copies."""
    for own, copy in zip(model.modules(), average.module.modules(), strict=True):
        for name in getattr(own, 'memories', ()):
            setattr(copy, name, getattr(own, name))
    if average.update_buffers:
        average.avg_parameters = average.module.state_dict()
