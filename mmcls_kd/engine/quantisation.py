"""Quantisation-aware training as a hook of a config."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner
from mmpretrain.registry import HOOKS

from ..errors import check_flag, check_number
from ..recipe.fake_quant import FakeQuantisation
from .models import unwrapped


@HOOKS.register_module()
class FakeQuantHook(Hook):
    """Train the student with weights and activations rounded to 8 bits, under the teacher in float.

    The rounding is that of :class:`~mmcls_kd.recipe.fake_quant.FakeQuantisation`, and of ``mmcls_kd export --int8``.
    Validation and checkpoints are those of the student in float; the state dict is unchanged. In a training without a
    distiller, the hook rounds the classifier.

    Args:
        start_epoch: Number of epochs in float before the rounding begins.
        symmetric: Round activations symmetrically, for a file exported with ``--symmetric``.

    Raises:
        ValueError: If a value is of another kind.
    """

    def __init__(self, start_epoch: int = 0, symmetric: bool = False) -> None:
        check_number('FakeQuantHook: start_epoch', start_epoch, 0, whole=True)
        check_flag('FakeQuantHook: symmetric', symmetric)
        self.start_epoch, self.symmetric = start_epoch, symmetric
        self.quantisation: FakeQuantisation | None = None

    def check(self, runner: Runner) -> None:
        """Refuse a training in which the hook could not work, before it starts.

        Raises:
            ValueError: Names the key to change.
        """
        by_epoch = not isinstance(runner.train_loop, IterBasedTrainLoop)
        if self.start_epoch and (not by_epoch or self.start_epoch >= runner.max_epochs):
            how = f'the training has {runner.max_epochs} epochs' if by_epoch else 'a training by iterations counts no epochs'
            raise ValueError(f'FakeQuantHook: start_epoch={self.start_epoch} would never come: {how}')
        if runner.cfg.get('compile') or runner.cfg.model.get('compile'):
            raise ValueError('FakeQuantHook does not reach into a compiled student: leave `compile` out of the config')
        FakeQuantisation(self._network(runner), self.symmetric).remove()

    @staticmethod
    def _network(runner: Runner) -> Any:
        """Return the network to round: the student, or the classifier itself."""
        model = unwrapped(runner)
        return getattr(model, 'student', model)

    def before_train_epoch(self, runner: Runner) -> None:
        """Begin, once the epoch has come."""
        if self.quantisation is None and runner.epoch >= self.start_epoch:
            self.quantisation = FakeQuantisation(self._network(runner), self.symmetric)
            count = len(self.quantisation.layers)
            runner.logger.info(f'from here on, {count} layers of the student compute in training as in int8 (FakeQuantHook)')

    def after_train(self, runner: Runner) -> None:  # noqa: ARG002
        """Return the network to float."""
        if self.quantisation is not None:
            self.quantisation.remove()
