"""The model of a runner."""

from __future__ import annotations

from typing import Any

from mmengine.model import BaseAveragedModel, is_model_wrapper
from mmengine.runner import Runner
from torch import nn


def unwrapped(runner: Runner) -> Any:
    """The runner's model without a parallel wrapper."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def share_memories(model: nn.Module, average: BaseAveragedModel) -> None:
    """Give a moving average the memories of the model's losses: there is nothing to average in them, nor room for two."""
    for own, copy in zip(model.modules(), average.module.modules(), strict=True):
        for name in getattr(own, 'memories', ()):
            setattr(copy, name, getattr(own, name))
    if average.update_buffers:
        average.avg_parameters = average.module.state_dict()
