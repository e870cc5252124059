"""Tests of a training with ``EMAHook``: the validated weights are tested."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.hooks import EMAHook, Hook
from mmengine.runner import Runner
from torch import nn

from ..files.checkpoint import read_checkpoint
from ..networks.loading import fetch
from ..networks.weights import student_weights, weights_of


class UnaveragedWeightsHook(Hook):
    """Restore the unaveraged weights (the checkpoint's ``ema_state_dict``), once EMAHook has copied the averaged ones."""

    def __init__(self, model: nn.Module, unaveraged: Mapping) -> None:
        weights = weights_of({'state_dict': unaveraged})
        self.model, self.weights = model, student_weights(weights) or weights

    def before_test(self, *_: Any) -> None:
        """Load the weights; EMAHook selects the tested ones."""
        self.model.load_state_dict(self.weights, strict=False)


def use_validated_weights(runner: Runner, model: nn.Module, source: str) -> None:
    """Let EMAHook test the weights that it validated in training: averaged, unaveraged, or both."""
    hooks = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
    unaveraged = read_checkpoint(fetch(source, 'test')).get('ema_state_dict') if hooks else None
    if unaveraged:
        runner.register_hook(UnaveragedWeightsHook(model, unaveraged))
    for hook in hooks if not unaveraged else ():  # only one kind of weights is here
        hook.evaluate_on_ema, hook.evaluate_on_origin = True, False
