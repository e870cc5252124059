"""Learning rates for the actual batch size: mmengine's ``auto_scale_lr``, for every schedule."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

from mmengine.logging import print_log
from mmengine.runner import Runner

#: Keys of absolute learning rates in schedules.
ABSOLUTE = ('eta_max', 'eta_min', 'min_value')


def schedules_of(given: Any) -> list[dict]:
    """List the configs of all schedules: one, several, or several for each of several optimizers."""
    if isinstance(given, Mapping) and 'type' not in given:
        return [one for part in given.values() for one in schedules_of(part)]
    return [one for one in ([given] if isinstance(given, Mapping) else given or []) if isinstance(one, dict)]


def _times(value: Any, ratio: float) -> Any:
    return [_times(one, ratio) for one in value] if isinstance(value, (list, tuple)) else value * ratio


def scale_rates(runner: Runner) -> None:
    """Prepare a runner with ``auto_scale_lr``, in place: mmengine scales the optimizer's rates alone.

    The total batch size is that of an optimizer step, over all processes and gathered batches. Learning rates in schedules
    are scaled too, and the length of a cycle (``total_steps`` of ``OneCycleLR``) that differs from the training's.
    """
    given = runner.auto_scale_lr
    if not (given and given.get('enable')):
        return
    base = given.get('base_batch_size')
    if not base:
        raise ValueError('auto_scale_lr needs base_batch_size: for how many images an optimizer step the rates are')
    wrapper = runner.optim_wrapper
    gathered = wrapper.get('accumulative_counts', 1) if isinstance(wrapper, dict) else wrapper._accumulative_counts
    batch = runner.cfg.train_dataloader['batch_size']
    images = batch * runner.world_size * gathered
    ratio, steps = images / base, runner.max_iters
    runner.auto_scale_lr = {**given, 'base_batch_size': base / gathered}
    runner.param_schedulers = copy.deepcopy(runner.param_schedulers)
    for schedule in schedules_of(runner.param_schedulers):
        if str(schedule['type']).endswith('LR') or schedule.get('param_name') == 'lr':
            schedule.update({key: _times(schedule[key], ratio) for key in ABSOLUTE if schedule.get(key)})
        total = schedule.get('total_steps')
        if total and total != steps and not schedule.get('by_epoch', True):
            scaled = math.ceil(total / ratio)
            # the last batch of an epoch may be a smaller one
            schedule['total_steps'] = steps if abs(scaled - steps) <= runner.max_epochs else scaled
    print_log(
        f'auto_scale_lr counts {images} images an optimizer step ({runner.world_size} processes, batches of {batch}, '
        f'{gathered} gathered), and the rates are for {base}: optimizer and schedules have {ratio:.4g} times the rates',
        'current',
    )
