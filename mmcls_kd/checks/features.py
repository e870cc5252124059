"""Checks before training of mmpretrain's hooks: later errors are found at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import copy
from numbers import Real
from typing import Any

import numpy as np
from mmengine.dist import get_world_size
from mmengine.hooks import CheckpointHook, EarlyStoppingHook
from mmengine.runner import IterBasedTrainLoop, Runner, ValLoop
from mmpretrain.engine import ClassNumCheckHook, SwitchRecipeHook
from torch import Tensor

from ..engine.data import SeededDataset, plain_datasets
from ..engine.first_batch import check_first_batch, without_a_trace
from ..engine.knn_hook import KNNAgreementHook, NeighbourHook
from ..engine.models import unwrapped
from ..engine.quantisation import FakeQuantHook
from ..engine.rates import schedules_of
from ..engine.runtime import SET_RULE
from ..errors import close_names, in_one_line, refusals_named

#: Keys of a recipe of SwitchRecipeHook.
RECIPE = ('train_pipeline', 'batch_augments', 'loss')


def check_features(runner: Runner) -> None:
    """Run all of these checks."""
    for hook in runner.hooks:
        if isinstance(hook, ClassNumCheckHook):
            check_class_numbers(runner, hook)
        if isinstance(hook, SwitchRecipeHook):
            check_recipes(runner, hook)
        if isinstance(hook, (FakeQuantHook, KNNAgreementHook)):
            hook.check(runner)
    check_draws(runner)
    check_monitors(runner)


def check_class_numbers(runner: Runner, hook: ClassNumCheckHook) -> None:
    """Let the hook compare data and model now."""
    with refusals_named('ClassNumCheckHook (custom_hooks)'):
        hook.before_train(runner)
        if runner.val_loop is not None:
            hook.before_val(runner)


def check_recipes(runner: Runner, hook: SwitchRecipeHook) -> None:
    """Try each recipe of the hook in turn, and undo it."""
    model = unwrapped(runner)
    holder = model if hasattr(model, 'loss_module') else getattr(model, 'head', None)
    plain = list(plain_datasets(runner.train_dataloader.dataset))
    pipelines = [getattr(dataset, 'pipeline', None) for dataset in plain]
    augments, loss = model.data_preprocessor.batch_augments, getattr(holder, 'loss_module', None)
    try:
        for epoch, recipe in hook.schedule.items():
            check_recipe(runner, epoch, recipe)
            what = f'what SwitchRecipeHook switches to in epoch {epoch}'
            with refusals_named(what):
                hook._do_switch(runner, recipe, f' of epoch {epoch}, on trial')
                check_first_batch(runner, what)
    finally:
        model.data_preprocessor.batch_augments = augments
        if holder is not None and loss is not None:
            holder.loss_module = loss
        for dataset, pipeline in zip(plain, pipelines, strict=True):
            dataset.pipeline = pipeline


def check_recipe(runner: Runner, epoch: int, recipe: Mapping[str, Any]) -> None:
    """Refuse a recipe of SwitchRecipeHook without effect, or with another effect than its keys suggest."""
    if unknown := [key for key in recipe if key not in RECIPE]:
        raise ValueError(
            f'SwitchRecipeHook would pass over {unknown[0]!r} in its schedule: there are action_epoch, {", ".join(RECIPE)} '
            '(batch augmentation is batch_augments)'
        )
    preprocessor = unwrapped(runner).data_preprocessor
    if recipe.get('batch_augments') and not getattr(preprocessor, 'to_onehot', True):
        raise ValueError(
            f'SwitchRecipeHook: batch_augments of epoch {epoch} would be passed over, as only scores are mixed, no plain '
            'labels: set model.data_preprocessor.to_onehot=True and num_classes'
        )
    if epoch < 1 or isinstance(runner.train_loop, IterBasedTrainLoop):
        raise ValueError(
            f'SwitchRecipeHook: action_epoch={epoch} would never come: epochs are counted from 1, and only by a training by '
            'epochs (train_cfg: by_epoch=True, max_epochs)'
        )


def check_draws(runner: Runner) -> None:
    """Warn of transforms whose random numbers do not depend on a seed."""
    dataset = runner.train_dataloader.dataset
    if isinstance(dataset, SeededDataset) and not dataset.draws_again():
        runner.logger.warning(
            'a transform of the train pipeline draws from a random generator that the seed does not reach: two runs of one '
            'seed differ, and a resumed run is not the one that was interrupted. Let it draw from numpy.random, random or '
            'torch, or keep its generator as an attribute'
        )


def awaited(runner: Runner) -> Iterator[tuple[str, str]]:
    """Iterate over the metrics that hooks and schedules wait for, each with the key that names it."""
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook):
            yield from (('default_hooks.checkpoint.save_best', name) for name in hook.save_best or [])
        if isinstance(hook, EarlyStoppingHook):
            yield 'EarlyStoppingHook: monitor', hook.monitor
    for schedule in schedules_of(runner.param_schedulers):
        if str(schedule['type']).startswith('ReduceOnPlateau'):
            yield 'param_scheduler: monitor', schedule.get('monitor', 'loss')


def is_number(value: Any) -> bool:
    """Check whether a metric is one number, which can be compared with another.

    Example:
        >>> is_number(np.float32(1)), is_number(Tensor([1])), is_number([0.5])
        (True, True, False)
    """
    return value.reshape(-1).shape == (1,) if isinstance(value, (Tensor, np.ndarray)) else isinstance(value, Real)


def check_monitors(runner: Runner) -> None:
    """Validate two images, and refuse hooks and schedules that wait for a metric that validation lacks, or for no number."""
    names = list(awaited(runner))
    if not names or type(runner.val_loop) is not ValLoop:
        return
    try:
        metrics = first_metrics(runner)
    except Exception as error:  # some metrics need more than two images
        runner.logger.warning(f'the names of the metrics are not known: of two images there are none ({in_one_line(error)})')
        return
    known = [*metrics, *(name for hook in runner.hooks if isinstance(hook, NeighbourHook) for name in hook.names)]
    single = [name for name in known if is_number(metrics.get(name, 0))]
    gives = f'it gives {", ".join(single)}'
    for key, name in names:
        if name not in ('auto', *known):
            raise ValueError(f'{key}={name!r} is no metric of val_evaluator{close_names(name, single)}; {gives}')
        first = known[0] if name == 'auto' and known else name
        if first in known and first not in single:
            what = f'{key}={name!r}{f": {first}" * (name == "auto")} is a {type(metrics[first]).__name__}'
            raise ValueError(f'{what}, and one number is needed: name another metric; {gives}')
        if name == 'auto' and known:
            check_rule(runner, first)


def check_rule(runner: Runner, name: str) -> None:
    """Refuse ``save_best='auto'`` where the name of the first metric, ``name``, does not tell whether more is better."""
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook) and 'auto' in (hook.save_best or []):
            try:
                copy(hook)._init_rule(hook.rules, [name])
            except ValueError as error:
                raise ValueError(f'{error} {SET_RULE}') from error


def first_metrics(runner: Runner) -> dict[str, float]:
    """Return the metrics of the first two validation images."""
    model, loop = unwrapped(runner), runner.val_loop
    with without_a_trace(model):
        dataset = loop.dataloader.dataset
        batch = loop.dataloader.collate_fn([dataset[k % len(dataset)] for k in range(2)])
        loop.evaluator.process(data_samples=model.val_step(batch), data_batch=batch)
        return loop.evaluator.evaluate(2 * get_world_size())
