"""Measure the input side: images a second of a training's dataloader, under one change at a time."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from mmcv.transforms import LoadImageFromFile, RandomFlip
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmpretrain.datasets.transforms import PackInputs

from mmcls_kd.engine.config import datasets_of
from mmcls_kd.engine.data import batches_from, reproducible
from mmcls_kd.files.showing import show

from .timing import Timing, interleave

Pipeline = list[dict]


def changed(loader: dict, change: Callable[[Pipeline], Pipeline]) -> dict:
    """Change each pipeline of a dataloader's config, in place; return it."""
    for _, dataset in datasets_of(Config(dict(train_dataloader=loader))):
        if dataset.get('pipeline'):
            dataset['pipeline'] = change(dataset['pipeline'])
    return loader


def decoded_by(backend: str) -> Callable[[Pipeline], Pipeline]:
    """Return a change of pipelines: another library decodes the images, by mmcv's name for it, e.g. pillow."""
    return lambda pipeline: [
        {**step, 'imdecode_backend': backend} if step['type'] == 'LoadImageFromFile' else step for step in pipeline
    ]


def normalised_by_workers(preprocessing: Mapping) -> Callable[[Pipeline], Pipeline]:
    """Return a change of pipelines: they give normalised float32 images, four bytes a value instead of one."""
    known = dict(mean=list(preprocessing['mean']), std=list(preprocessing['std']), to_rgb=preprocessing.get('to_rgb', False))
    return lambda pipeline: [*pipeline[:-1], dict(type='Normalize', **known), pipeline[-1]]


class OwnLoading(LoadImageFromFile):
    """mmcv's transform, which a training does not replace by a faster one."""


class OwnFlip(RandomFlip):
    """mmcv's transform, which a training does not replace by a faster one."""


class OwnPacking(PackInputs):
    """mmpretrain's transform, which a training does not replace by a faster one."""


#: The transforms that a training replaces by faster ones, and their twins that it does not replace.
OWN = dict(LoadImageFromFile=OwnLoading, RandomFlip=OwnFlip, PackInputs=OwnPacking)


def by_own_transforms(pipeline: Pipeline) -> Pipeline:
    """Let mmcv's and mmpretrain's own transforms make the samples."""
    return [{**step, 'type': OWN.get(step['type'], step['type'])} for step in pipeline]


def loaded_by(**settings: Any) -> Callable[[Pipeline], Pipeline]:
    """Return a change of pipelines that begin by reading and a random resized crop: settings of ``LoadAndCrop``."""
    return lambda pipeline: [dict(type='LoadAndCrop', load=pipeline[0], crop=pipeline[1], **settings), *pipeline[2:]]


def crops_first(loader: Mapping) -> bool:
    """Check whether the pipelines of a dataloader's config begin by reading and a random resized crop."""
    pipelines = [part['pipeline'] for _, part in datasets_of(Config(dict(train_dataloader=loader))) if part.get('pipeline')]
    return all([step['type'] for step in one[:2]] == ['LoadImageFromFile', 'RandomResizedCrop'] for one in pipelines)


def variants(
    loader: Mapping,
    workers: Sequence[int],
    backends: Sequence[str],
    preprocessing: Mapping,
    reduce_to: Sequence[float] = (),
) -> dict[str, dict]:
    """Return configs of dataloaders to compare, by name; each but the first ones, of numbers of workers, changes one thing.

    All changes have the largest number of workers. ``preprocessing`` is the data preprocessor's config, ``reduce_to`` has
    values of :class:`~mmcls_kd.engine.fast_transforms.LoadAndCrop`.
    """
    most = max(workers)

    def with_workers(count: int, **changes: Any) -> dict:
        return {**copy.deepcopy(dict(loader)), 'num_workers': count, 'persistent_workers': count > 0, **changes}

    chosen = {f'{count} workers': with_workers(count) for count in workers}
    if most > 0:
        chosen[f'{most} workers, not persistent'] = with_workers(most, persistent_workers=False)
    for backend in backends:
        chosen[f'{most} workers, decoded by {backend}'] = changed(with_workers(most), decoded_by(backend))
    if 'mean' in preprocessing:
        normalised = changed(with_workers(most), normalised_by_workers(preprocessing))
        chosen[f'{most} workers, normalised by them'] = normalised
    chosen[f'{most} workers, own transforms of mmpretrain'] = changed(with_workers(most), by_own_transforms)
    if crops_first(loader):
        chosen[f'{most} workers, JPEGs decoded by cv2'] = changed(with_workers(most), loaded_by(decoder='cv2'))
        for share in reduce_to:
            reduced = changed(with_workers(most), loaded_by(reduce_to=share))
            chosen[f'{most} workers, JPEGs reduced to {share:g}'] = reduced
    if torch.cuda.is_available():
        chosen[f'{most} workers, memory not pinned'] = with_workers(most, pin_memory=False)
    return chosen


def measure_loading(chosen: Mapping[str, Mapping], rounds: int) -> dict[str, tuple[int, Timing]]:
    """Time a pass over the data with each dataloader, side by side; return by name the number of images and the times.

    Where batches can be made of images in memory, that is one of them.
    """
    init_default_scope('mmpretrain')

    def build(cfg: Mapping, in_memory: bool = False) -> Any:
        return Runner.build_dataloader(reproducible(cfg, 0, in_memory=in_memory), seed=0)

    loaders = {name: build(cfg) for name, cfg in chosen.items()}
    kept = build(next(iter(chosen.values())), in_memory=True)
    if kept.dataset.makes_batches:
        loaders['in memory'] = kept

    def a_pass(loader: Any) -> None:
        deque(batches_from(loader, 0), maxlen=0)

    try:
        timings = interleave({name: partial(a_pass, loader) for name, loader in loaders.items()}, rounds)
    finally:
        for loader in loaders.values():
            if (workers := loader._iterator) is not None:
                workers._shutdown_workers()  # they outlive SIGTERM, so the program would wait
    return {name: (len(loaders[name].sampler), timing) for name, timing in timings.items()}


def show_loading(measured: Mapping[str, tuple[int, Timing]]) -> None:
    """Print the images a second of each dataloader."""
    rows = [(n, f'{images / t.median:.0f}', f'{t.median:.2f}', f'{t.spread:.2f}') for n, (images, t) in measured.items()]
    show('Loading the training images', ['dataloader', 'images/s', 'a pass (s)', 'spread (s)'], rows)
