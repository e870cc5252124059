"""The fingerprint of a training's views, for the comparison of a store with a run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dist import get_dist_info, get_world_size
from mmengine.runner import Runner
from mmpretrain.engine import SwitchRecipeHook

from ..distillers import ClassificationDistiller
from ..distillers.recipe import Recipe
from ..errors import MissingLibraryError
from ..files.atomic import sha256
from ..files.checkpoint import read_checkpoint
from ..files.held_images import is_held
from ..networks.classes import match
from ..networks.loading import fetch
from ..networks.sources import find_network
from .config import datasets_of
from .data import SeededDataset, plain_datasets, sample_infos
from .image_files import changed
from .loops import ResumableEpochLoop
from .models import unwrapped

#: Placeholder of a setting that one of two fingerprints lacks.
NOT_STORED = '(not there)'


def flat(value: Any, name: str = '') -> Iterator[tuple[str, Any]]:
    """Iterate over the leaves of nested dicts and lists, each with its path.

    Example:
        >>> list(flat({'seed': 0, 'pipeline': [{'type': 'RandomFlip', 'prob': 0.5}]}))
        [('seed', 0), ('pipeline.0.type', 'RandomFlip'), ('pipeline.0.prob', 0.5)]
    """
    if isinstance(value, (list, tuple)):
        value = dict(enumerate(value))
    if not isinstance(value, Mapping):
        yield name, value
        return
    for key, part in value.items():
        yield from flat(part, f'{name}.{key}' if name else str(key))


def differences(stored: Mapping, here: Mapping) -> list[str]:
    """List the settings that differ between two fingerprints, a line each."""
    ours, theirs = dict(flat(here)), dict(flat(stored))
    return [
        f'{name} is {theirs.get(name, NOT_STORED)!r} in the store and {ours.get(name, NOT_STORED)!r} here'
        for name in dict.fromkeys((*theirs, *ours))
        if theirs.get(name, NOT_STORED) != ours.get(name, NOT_STORED)
    ]


def readable(value: Any) -> Any:
    """Convert a config as JSON would, for comparison with a manifest."""
    return json.loads(json.dumps(value, default=str))


def data_list(dataset: SeededDataset) -> str:
    """Return a checksum over all samples in their order: file, relative to the data's folder, and label."""
    digest = hashlib.sha256()
    for plain in plain_datasets(dataset):
        if not hasattr(plain, 'get_data_info'):
            digest.update(repr(len(plain)).encode())
            continue
        root, infos = str(getattr(plain, 'data_root', '') or ''), iter(sample_infos(plain))
        while part := list(islice(infos, 4096)):
            digest.update(b''.join([_facts(info, root) for info in part]))
    return digest.hexdigest()


def _facts(info: Mapping, root: str) -> bytes:
    """Return a sample's file, relative to the data's folder, or its pixels; and its label."""
    given = info.get('gt_label')
    label = f'array({given})' if isinstance(given, np.ndarray) and given.dtype == int and not given.ndim else repr(given)
    if not (path := str(info.get('img_path') or '')):
        return bytes(info.get('img', b'')) + label.encode()
    held = '://' in path and is_held(path)
    name = path.replace(f'://{root}', '://', 1) if held else path.removeprefix(root)
    return f'{name}{label}'.encode()


def loop_of(runner: Runner) -> ResumableEpochLoop:
    """Return a run's training loop; one without epochs, or whose random numbers differ from run to run, is refused."""
    loop = runner.train_loop
    if not isinstance(loop, ResumableEpochLoop):
        raise ValueError(
            f'a teacher store is for training by epochs, and train_cfg.type is {type(loop).__name__}: set '
            'train_cfg=dict(by_epoch=True, max_epochs=...)'
        )
    if runner.cfg.get('randomness', {}).get('seed') is None:
        raise ValueError('a teacher store needs a fixed seed: set randomness=dict(seed=0, diff_rank_seed=True)')
    return loop


def preprocessing_of(cfg: Config) -> dict[str, Any]:
    """Return the config of a model's data preprocessor; a distiller's with its batch augmentation."""
    if recipe := Recipe.of(cfg):
        return recipe.preprocessor(cfg.get('data_preprocessor'))
    return dict(cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {})


def check_views(runner: Runner, dataset: SeededDataset) -> None:
    """Refuse a training with unpredictable views."""
    for hook in runner.hooks:
        if isinstance(hook, SwitchRecipeHook) and any({*recipe} - {'loss'} for recipe in hook.schedule.values()):
            raise ValueError(
                'a teacher store holds views of one pipeline and one batch augmentation, and SwitchRecipeHook switches to '
                'others: leave out its train_pipeline and batch_augments, or the store'
            )
    if not dataset.draws_again():
        raise ValueError(
            'a teacher store holds logits of views that come again, but a transform of the train pipeline draws from a '
            'random generator that the seed does not reach: let it draw from numpy.random, random or torch, or keep its '
            'generator as an attribute'
        )


def pipelines_of(cfg: Config) -> list[Any]:
    """Return the pipelines of the training data sets, the last one's first, as the fingerprints of all stores have them."""
    parts = [part for name, part in datasets_of(cfg) if name == 'train_dataloader']
    return [part['pipeline'] for part in reversed(parts) if part.get('pipeline')]


def views_of(runner: Runner) -> dict[str, Any]:
    """Return the fingerprint of the views of a run's training images.

    Batch augmentation mixes the images of one process's batch; then batch size and number of processes are included.
    """
    loop, cfg = loop_of(runner), runner.cfg.train_dataloader
    dataset: Any = loop.dataloader.dataset
    check_views(runner, dataset)
    preprocessing = preprocessing_of(runner.cfg)
    views = dict(
        seed=loop.seed,
        pipeline=pipelines_of(runner.cfg),
        sampler=cfg.sampler,
        samples=len(dataset),
        data_list=data_list(dataset),
        classes=list(dataset.metainfo.get('classes') or ()),
        preprocessing=preprocessing,
    )
    if preprocessing.get('batch_augments'):
        views['batch'] = dict(
            batch_size=loop.dataloader.batch_size, processes=get_world_size(), batches=len(loop.dataloader)
        )
    return readable(views)


def view_differences(stored: Mapping[str, Any], runner: Runner) -> list[str]:
    """List the differences between the views of a run's training and a store's fingerprint of its views, a line each.

    Of the classes only the order counts, not the spelling; of the images their content.
    """
    here, stored = views_of(runner), dict(stored)
    ours, theirs = here.pop('classes'), stored.pop('classes', None)
    noted = stored.pop('files', {})
    found = differences(stored, here)
    dataset: Any = loop_of(runner).dataloader.dataset
    if isinstance(theirs, str):  # a checksum, which an earlier version wrote
        ours, theirs = [hashlib.sha256(repr(dataset.metainfo.get('classes')).encode()).hexdigest()], [theirs]
    named, known = dict(enumerate(map(str, ours))), dict(enumerate(map(str, theirs or ())))
    pairs = match(named, known)
    if named and known and (not pairs or any(i != j for i, j in pairs.items())):
        found += differences(dict(classes=theirs), dict(classes=ours))
    fault = changed(noted, dataset)
    return [*found, fault] if fault else found


def weights_files(cfg: Config) -> list[Path | None]:
    """Return the file of each teacher's weights that a config names; fetched if it is missing here."""
    named = Recipe(cfg.model).of_each_teacher('teacher_pretrained')
    return [fetch(name, 'teacher weights') if isinstance(name, str) else None for name in named]


def _images_of_trainings(recipe: Recipe, files: Sequence[Path | None]) -> list[dict[str, Any] | None]:
    """Return the input preprocessing that the files of teachers' weights bring, see :meth:`.sources.Source.as_trained`."""
    found: list[dict[str, Any] | None] = []
    for cfg, file in zip(recipe.of_each_teacher('teacher_cfg'), files, strict=False):
        if cfg is None or file is None:
            continue
        with suppress(FileNotFoundError, MissingLibraryError):
            source = find_network(cfg)
            if not source.pixels:
                source = source.as_trained(read_checkpoint(file).get('meta') or {}, str(file), told=False)
                found.append(source.pixels or None)
    return found


def teacher_of(cfg: Config, files: Sequence[Path | None] | None = None) -> dict[str, Any]:
    """Return the fingerprint of a config's teachers: networks, classes, preprocessing, and checksums of the weights' files.

    Args:
        cfg: Config of a run; a teacher's missing config is ignored.
        files: Files of the weights; by default the existing ones of ``teacher_pretrained``.
    """
    recipe = Recipe(cfg.model)
    about = recipe.teacher_record()
    if files is None:
        named = recipe.of_each_teacher('teacher_pretrained')
        with suppress(FileNotFoundError, ValueError):
            here = all(Path(name).exists() for name in named if isinstance(name, str))
            files = weights_files(cfg) if here else None
    if any(files or []):
        sums = [file and sha256(file) for file in files or []]
        about['weights'] = sums[0] if len(sums) == 1 else sums
        if any(images := _images_of_trainings(recipe, files or [])):
            about['images'] = images
    return readable(about)


def tap_settings(cfg: Config, names: Iterable[str]) -> dict[str, Any]:
    """Return the config's taps of some of the teacher's features, by name; None for the default."""
    given = cfg.model.get('taps') or {}
    return readable({name: given.get(f'{name}_t') for name in names})


def check_store(runner: Runner) -> None:
    """Refuse a teacher store that does not fit the run, or that is damaged."""
    model = unwrapped(runner)
    store = model.store if isinstance(model, ClassificationDistiller) else None
    if store is None:
        return
    manifest, named = store.manifest, teacher_of(runner.cfg)
    stored = {name: manifest.teacher.get(name) for name in named}
    features = [name for name in model.teacher_names if name != 'logit']
    taps = manifest.teacher.get('taps', {})
    stored['taps'], named['taps'] = {name: taps.get(name) for name in features}, tap_settings(runner.cfg, features)
    loop = loop_of(runner)
    loader: Any = loop.dataloader
    found = view_differences(manifest.views, runner) + differences(dict(teacher=stored), dict(teacher=named))
    needed = get_world_size() * min(len(loader.sampler), len(loader) * loader.batch_size)
    if getattr(loader.sampler.sampler, 'round_up', False):  # what it adds are places that are there already
        needed = min(needed, len(loader.dataset))
    there = manifest.rows * manifest.processes
    if needed > there:
        found.append(f'it holds {there} records an epoch and this run needs {needed}')
    if found:
        more = f' ({len(found) - 1} more differ)' if len(found) > 1 else ''
        raise ValueError(
            f'teacher_store {store.folder} does not fit this run: {found[0]}{more}; undo that change, or make a store of '
            'this run with `python -m mmcls_kd store`'
        )
    rank, world_size = get_dist_info()
    needed_shards = (shard for shard in store.shards() if shard.epoch < loop.max_epochs)
    store.check(islice(needed_shards, rank, None, world_size))
    soft = [name for name, loss in model.distill_losses.items() if getattr(loss, 'temp', 1) > 1]
    if soft and manifest.k < manifest.classes:
        runner.logger.warning(
            f'teacher_store {store.folder} holds {manifest.k} of {manifest.classes} logits, and {", ".join(soft)} has a '
            'temperature above 1, where the others count: its gradient is far from exact (docs/performance.md)'
        )
    if manifest.epochs < loop.max_epochs:
        runner.logger.warning(
            f'teacher_store {store.folder} holds {manifest.epochs} of {loop.max_epochs} epochs: their views, order and '
            'batches come again in turn'
        )
