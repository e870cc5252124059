"""The live progress line of a training in a terminal."""

from __future__ import annotations

import atexit
import logging
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from torch import Tensor

#: Least time between two updates, in s; reading a loss waits for the device.
EVERY = 0.25

#: Metrics of validation that the line shows, by the ends of their names, and their short names.
FIGURES = {
    'accuracy/top1': 'top-1',
    'knn/top1': 'kNN',
    'knn/agreement': 'agreement',
    'linear/top1': 'linear',
    'multi-label/mAP': 'mAP',
}


@HOOKS.register_module()
class LiveProgressHook(Hook):
    """Show one line that changes: epoch, step, images a second, time left, losses, last accuracies.

    It is for a terminal. Without one (a file, a pipe), only the logged lines are written; in a terminal, those of training
    go to the log file alone.
    """

    priority = 'VERY_LOW'  # after the timer

    def __init__(self) -> None:
        self._bar: Any = None
        self._told = 0.0
        self._figures = ''
        self._streams: list[tuple[Any, Any]] = []

    def before_train(self, runner: Runner) -> None:
        """Start the line."""
        if not (is_main_process() and sys.stdout.isatty()):
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.table import Column

        text = TextColumn('{task.description}', markup=False, table_column=Column(no_wrap=True, overflow='ellipsis'))
        self._bar = Progress(BarColumn(bar_width=12), text, console=Console(), transient=True)
        self._bar.start()
        self._task = self._bar.add_task('starting', total=runner.max_iters, completed=runner.iter)
        for handler in runner.logger.handlers:
            if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
                self._streams.append((handler, handler.setStream(sys.stdout)))  # rich's, which prints above the line
                handler.addFilter(_not_of_training)
        atexit.register(self.stop)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Mapping | None = None
    ) -> None:
        """Update the line."""
        if self._bar is None or time.monotonic() - self._told < EVERY:
            return
        self._told = time.monotonic()
        count = len(data_batch.get('data_samples') or ()) if isinstance(data_batch, Mapping) else 0
        text = self.line(runner, batch_idx, count, outputs or {})
        self._bar.update(self._task, completed=runner.iter + 1, description=text)

    def line(self, runner: Runner, batch_idx: int, count: int, outputs: Mapping) -> str:
        """Return the text of the line for a batch of so many images."""
        scalars, parts = runner.message_hub.log_scalars, []
        if runner.max_epochs > 1 or hasattr(runner.train_loop, '_max_epochs'):
            parts.append(f'epoch {runner.epoch + 1}/{runner.max_epochs}')
        parts.append(f'step {batch_idx + 1}/{len(runner.train_dataloader)}')
        if 'train/time' in scalars and (seconds := scalars['train/time'].mean(20)) > 0:
            parts.append(f'{count * get_world_size() / seconds:.0f} images/s')
        if (left := runner.message_hub.get_info('eta', None)) is not None:
            parts.append(f'{timedelta(seconds=int(left))} left')
        values = {key: value.item() for key, value in outputs.items() if isinstance(value, Tensor) and value.numel() == 1}
        named = {name: 'task' if name == 'ori_loss' else name.removeprefix('loss_') for name in values if 'loss' in name}
        parts += [f'{shown} {values[name]:.3g}' for name, shown in named.items()]
        return ' · '.join(parts + [self._figures] * bool(self._figures))

    def after_val_epoch(self, runner: Runner, metrics: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        """Keep the last accuracies: top-1, of nearest neighbours, of a linear probe."""
        found = {label: name for end, label in FIGURES.items() for name in metrics or {} if name.endswith(end)}
        if metrics and found:
            self._figures = ' · '.join(f'{label} {metrics[name]:.2f} %' for label, name in found.items())

    def after_train(self, runner: Runner) -> None:  # noqa: ARG002
        """End the line."""
        self.stop()

    def stop(self) -> None:
        """Restore the terminal."""
        if self._bar is None:
            return
        for handler, stream in self._streams:
            handler.removeFilter(_not_of_training)
            with suppress(ValueError):
                handler.setStream(stream)
        self._streams.clear()
        self._bar.stop()
        self._bar = None
        atexit.unregister(self.stop)


def _not_of_training(record: logging.LogRecord) -> bool:
    """Check that a record is not a logged line of training."""
    return 'Epoch(train)' not in record.getMessage() and 'Iter(train)' not in record.getMessage()
