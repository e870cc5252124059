"""What the input side delivers: images a second out of a training's dataloader, under one change at a time."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from ..engine.data import reproducible
from ..engine.runtime import datasets_of
from .timing import Timing, interleave, show


def change_pipelines(loader: Mapping, change: Callable[[list[dict]], list[dict]]) -> None:
    """Change each pipeline of a dataloader's config, in place."""
    for _, dataset in datasets_of(Config(dict(train_dataloader=loader))):
        if dataset.get('pipeline'):
            dataset['pipeline'] = change(dataset['pipeline'])


def decoded_by(backend: str) -> Callable[[list[dict]], list[dict]]:
    """A pipeline whose images another library decodes, as mmcv calls it, e.g. pillow."""

    def change(pipeline: list[dict]) -> list[dict]:
        return [{**t, 'imdecode_backend': backend} if t['type'] == 'LoadImageFromFile' else t for t in pipeline]

    return change


def normalised_by_workers(preprocessing: Mapping) -> Callable[[list[dict]], list[dict]]:
    """A pipeline that gives normalised float32 images, four bytes a value, where ours gives uint8, one byte a value."""
    normalise = dict(type='Normalize', mean=list(preprocessing['mean']), std=list(preprocessing['std']))

    def change(pipeline: list[dict]) -> list[dict]:
        return [*pipeline[:-1], dict(normalise, to_rgb=preprocessing.get('to_rgb', False)), pipeline[-1]]

    return change


def variants(loader: Mapping, workers: Sequence[int], backends: Sequence[str], preprocessing: Mapping) -> dict[str, dict]:
    """Configs of dataloaders to compare, by name; each but the first ones changes one thing.

    Args:
        loader: Config of the dataloader.
        workers: Numbers of worker processes; the largest is taken for all other changes.
        backends: Libraries to decode images.
        preprocessing: Config of the data preprocessor, for its mean and standard deviation.
    """
    most = max(workers)

    def with_workers(count: int, **changes: Any) -> dict:
        return {**copy.deepcopy(dict(loader)), 'num_workers': count, 'persistent_workers': count > 0, **changes}

    chosen = {f'{count} workers': with_workers(count) for count in workers}
    if most > 0:
        chosen[f'{most} workers, not persistent'] = with_workers(most, persistent_workers=False)
    for backend in backends:
        chosen[f'{most} workers, decoded by {backend}'] = with_workers(most)
        change_pipelines(chosen[f'{most} workers, decoded by {backend}'], decoded_by(backend))
    if 'mean' in preprocessing:
        chosen[f'{most} workers, normalised by them'] = with_workers(most)
        change_pipelines(chosen[f'{most} workers, normalised by them'], normalised_by_workers(preprocessing))
    if torch.cuda.is_available():
        chosen[f'{most} workers, memory not pinned'] = with_workers(most, pin_memory=False)
    return chosen


def one_pass(loader: DataLoader) -> Callable[[], Any]:
    """Read all batches of an epoch."""
    return lambda: deque(loader, maxlen=0)


def measure_loading(chosen: Mapping[str, Mapping], rounds: int, seed: int = 0) -> dict[str, tuple[int, Timing]]:
    """Time a pass over the data with each dataloader, side by side.

    Args:
        chosen: Configs, as :func:`variants` gives them.
        rounds: How many passes of each count.
        seed: Of shuffling and augmentation.

    Returns:
        By name, the images in a pass and its times.
    """
    init_default_scope('mmpretrain')
    loaders = {name: Runner.build_dataloader(reproducible(cfg, seed), seed=seed) for name, cfg in chosen.items()}
    try:
        timings = interleave({name: one_pass(loader) for name, loader in loaders.items()}, rounds)
    finally:
        for loader in loaders.values():
            if (workers := loader._iterator) is not None:
                workers._shutdown_workers()  # they outlive SIGTERM, so the program would wait
    return {name: (len(loaders[name].sampler), timing) for name, timing in timings.items()}


def show_loading(measured: Mapping[str, tuple[int, Timing]]) -> None:
    """Print the images a second of each dataloader."""
    rows = [
        (name, f'{images / timing.median:.0f}', f'{timing.median:.2f}', f'{timing.spread:.2f}')
        for name, (images, timing) in measured.items()
    ]
    show('Loading the training images', ['dataloader', 'images/s', 'a pass (s)', 'spread (s)'], rows)
