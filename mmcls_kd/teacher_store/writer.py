"""Writing of a store: the teacher runs once over the views of each epoch, in any number of processes."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import barrier, get_rank, get_world_size
from mmengine.runner import Runner
from torch import Tensor, nn

from ..distillers import ClassificationDistiller
from ..distillers.recipe import is_distiller
from ..distillers.teacher import Teacher
from ..engine.console import Progress
from ..engine.data import batches_from
from ..engine.first_batch import first_images, misfits_named
from ..engine.image_files import describe
from ..engine.loops import images_of
from ..engine.models import unwrapped
from ..engine.seeds import seed_all
from ..engine.views import (
    differences,
    loop_of,
    preprocessing_of,
    tap_settings,
    teacher_of,
    view_differences,
    views_of,
    weights_files,
)
from ..errors import TrainingError
from ..features.layouts import Read
from ..teachers.records import encode, fields_of, mark_missing, parts_of, sizes_of
from ..teachers.several import TeacherGroup
from ..teachers.store import MANIFEST, Manifest, Shard, is_whole, rows_of, save, save_fact, shard_count
from ..teachers.stored import is_vector, names_to_store, shapes_in

#: Approximate size of a file; a training keeps two of them mapped for each process that wrote the store.
SHARD_BYTES = 16 * 2**20


def prepare(cfg: Config, epochs: int) -> None:
    """Change a training's config to one that stores its teacher, in place: without validation, and with every image.

    An incomplete last batch is dropped only if batch augmentation needs the same batches as the training.
    """
    if epochs < 1:
        raise ValueError(f'--epochs {epochs}: at least one epoch is needed')
    if not is_distiller(cfg.model):
        raise ValueError(f'{cfg.filename} trains no distiller, so it has no teacher')
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if not preprocessing_of(cfg).get('batch_augments'):
        cfg.train_dataloader.drop_last = False


def live_teacher(runner: Runner) -> Teacher | TeacherGroup:
    """Return the teacher whose logits can be stored: not one that is missing, stored already, or in train mode."""
    model = unwrapped(runner)
    teacher = model.teacher_holder if isinstance(model, ClassificationDistiller) else None
    if isinstance(model, ClassificationDistiller) and model.store is not None:
        raise ValueError('model.teacher_store is set: this run takes its logits from a store, and cannot make one')
    if not isinstance(teacher, (Teacher, TeacherGroup)):
        raise ValueError('this run has no teacher whose logits could be stored: choose a method that needs one')
    if any(network.training for network in teacher.networks):
        raise ValueError(
            "teacher_mode='train': the logits then depend on the other images of a batch and change the teacher's own "
            "statistics; a store is for teacher_mode='eval'"
        )
    return teacher


def autocast_type(wrapper: Mapping, model: nn.Module) -> torch.dtype | None:
    """Return the type in which the optimizer wrapper of a config computes; None without mixed precision."""
    if 'Amp' not in wrapper.get('type', ''):
        return None
    usual = torch.float16 if next(model.parameters()).is_cuda else torch.bfloat16
    return getattr(torch, wrapper['dtype']) if wrapper.get('dtype') else usual


class StoreWriter:
    """Writer of this process's records, file by file; complete files stay.

    Args:
        runner: Runner of the training, with its teacher.
        folder: The store's folder.
        epochs: Number of epochs to store.
        k: Number of logits of each view; None for all.
        features: Names of features to store beside the vectors that the run's methods read.

    Raises:
        ValueError: If there is no teacher whose logits can be stored, k does not fit, a feature cannot be stored, or the
            folder holds another store.
    """

    def __init__(
        self, runner: Runner, folder: str | Path, epochs: int, k: int | None = None, features: Sequence[str] = ()
    ) -> None:
        self.runner, self.folder, self.epochs = runner, Path(folder), epochs
        self.rank, self.world_size = get_rank(), get_world_size()
        self.model, self.teacher, self.loop = unwrapped(runner), live_teacher(runner), loop_of(runner)
        self.loader = cast(Any, self.loop.dataloader)
        self.sampler = self.loader.sampler
        self.mixed = autocast_type(runner.cfg.optim_wrapper, self.model)
        self.batch_size: int = self.loader.batch_size
        if not getattr(self.sampler.sampler, 'round_up', True) and len(self.loader.dataset) % self.world_size:
            raise ValueError(
                'train_dataloader.sampler.round_up=False gives processes different numbers of images; leave it out'
            )
        before = Manifest.read(self.folder) if (self.folder / MANIFEST).is_file() else None
        self.names = self._names_to_store(features, before)
        self.manifest = self._describe(k)
        self._join_existing(before)
        self.type = self.manifest.record_type

    def _names_to_store(self, given: Sequence[str], before: Manifest | None) -> list[str]:
        """List the names of the features to store: logits, those in the store or asked for, vectors that are read."""
        shapes = self.teacher.shapes
        there = [name for name in (before.features if before else ()) if name in shapes]
        read = [name for name in self.model.teacher_names if name != 'logit']
        asked = names_to_store(given, shapes, '--with')
        chosen = dict.fromkeys([*there, *(name for name in read if is_vector(shapes[name])), *asked])
        names = ['logit', *chosen] if 'logit' in shapes else [*chosen]
        if not names:
            raise ValueError(
                'the teacher has no classes, and no method of this run reads a vector of it, so there is nothing to store: '
                'choose such a method, or name a feature by --with'
            )
        if maps := [name for name in read if name not in chosen]:
            size = sum(2 * prod(part[1:]) for name in maps for part in shapes_in(shapes[name]))
            self.runner.logger.warning(
                f'maps and tokens are stored if they are asked for, here by --with {" ".join(maps)} ({size} bytes a view); '
                f'a method that needs {", ".join(f"{name}_t" for name in maps)} cannot be trained from this store'
            )
        return names

    def _describe(self, k: int | None) -> Manifest:
        with misfits_named('the teacher'), torch.compiler.set_stance('force_eager'):  # nothing is compiled for two images
            first = self.read(first_images(self.loader))
        logit = first[0].get('logit')
        classes = 0 if logit is None else logit.shape[1]
        k = classes if k is None or not classes else k
        if self.model.multi_label and k < classes:
            raise ValueError(f'--top-k {k}: of a multi-label teacher all {classes} logits are needed: leave it out')
        bytes_each = sum(encoded(view, k).dtype.itemsize for view in first)
        batches = max(1, SHARD_BYTES // (self.batch_size * bytes_each))
        views = views_of(self.runner)
        rows = min(len(self.sampler), len(self.loader) * self.batch_size)
        cfg = self.runner.cfg
        precision = cfg.model.get('teacher_precision') or (self.mixed and f'autocast in {self.mixed}')
        teacher = {**teacher_of(cfg, weights_files(cfg)), 'precision': precision}
        features = sizes_of({name: read for name, read in first[0].items() if name != 'logit'})
        if features:
            teacher['taps'] = tap_settings(cfg, features)
        counts = dict(classes=classes, k=k, processes=self.world_size, rows=rows, shard_rows=batches * self.batch_size)
        return Manifest(views, teacher, **counts, views_each=len(first), features=features)

    def _join_existing(self, before: Manifest | None) -> None:
        """Continue the store in the folder, if it is one of the same run."""
        if before is None:
            self.manifest.views['files'] = describe(self.loader.dataset)
            return
        now = self.manifest
        found = view_differences(before.views, self.runner)
        keys = ('features', 'teacher', 'k', 'processes', 'rows', 'views_each')
        found += differences(*({key: getattr(manifest, key) for key in keys} for manifest in (before, now)))
        if found:
            raise ValueError(f'{self.folder} holds another store: {found[0]}; choose another folder, or delete that one')
        self.manifest = before

    @property
    def size(self) -> int:
        """Size of the store in bytes, without manifest and checksums."""
        return self.epochs * self.world_size * self.manifest.rows * self.type.itemsize

    def check_space(self) -> None:
        """Refuse a disk that is too small for the rest of the store."""
        there = sum(file.stat().st_size for file in self.folder.rglob('*.npy'))
        existing = next(path for path in (self.folder, *self.folder.resolve().parents) if path.exists())
        free = shutil.disk_usage(existing).free
        if self.size - there > free:
            raise ValueError(
                f'the store needs {(self.size - there) / 2**30:.2f} GiB more and {existing} has {free / 2**30:.2f} GiB '
                'free: store fewer epochs, fewer features (--with), or fewer logits (--top-k)'
            )

    @torch.no_grad()
    def read(self, batch: Any) -> list[dict[str, Read]]:
        """Return the teacher's logits and features of each view of a batch, preprocessed as in training."""
        data = self.model.data_preprocessor(batch, training=True)
        views = [data['inputs']] if isinstance(data['inputs'], Tensor) else list(data['inputs'])
        with torch.autocast(views[0].device.type, dtype=self.mixed, enabled=self.mixed is not None):
            return [self.teacher(self.model.arrange(one), data['data_samples'], self.names) for one in views]

    def announce(self) -> None:
        """Log the contents and the size of the store."""
        manifest = self.manifest
        size = self.type.itemsize // manifest.views_each
        views = self.epochs * self.world_size * manifest.rows * manifest.views_each
        contents = [f'{manifest.k} of {manifest.classes} logits'] if manifest.classes else []
        contents += [f'{field} ({"x".join(map(str, shape))} numbers)' for _, field, shape in fields_of(manifest.features)]
        self.runner.logger.info(
            f'{" and ".join(contents)} of {views} views ({self.epochs} epochs) go to {self.folder}: '
            f'{size} bytes a view, {views * size / 2**20:.1f} MiB in all'
        )

    def write(self) -> None:
        """Write all epochs.

        Raises:
            TrainingError: If an image cannot be read, or a logit or an entry of a feature is not finite in float16.
        """
        if self.rank == 0:
            for name, value in self._facts():
                self.manifest.facts[name] = save_fact(self.folder, name, value.float().cpu().numpy())
            self.manifest.write(self.folder)
        barrier()
        pending = [list(self._pending(epoch)) for epoch in range(self.epochs)]
        left = sum(rows_of(self.manifest, shard) for shard in itertools.chain(*pending))
        if (whole := self.epochs * self.manifest.rows - left) > 0:
            self.runner.logger.info(f'{whole} views of this process are stored already, in files that are whole')
        self._progress = Progress(self.runner.logger.info, left)
        for epoch, shards in enumerate(pending):
            for first, count in runs([shard.number for shard in shards]):
                self._write_shards(epoch, first, count)
            barrier()
            self.manifest.epochs = max(self.manifest.epochs, epoch + 1)
            if self.rank == 0:
                self.manifest.write(self.folder)
        barrier()
        self.runner.logger.info(f'{self.manifest.epochs} epochs are stored: train with model.teacher_store={self.folder}')

    def _facts(self) -> Iterator[tuple[str, Tensor]]:
        """Iterate over the teacher's linear classifier, if it has one: its weight, and its bias if it is behind ``feat``."""
        weight, classifier = self.teacher.facts.get('teacher_weight', lambda: None)(), self.teacher.classifier
        if weight is not None:
            yield 'teacher_weight', weight
            if classifier is not None and torch.equal(classifier[0], weight):
                yield 'teacher_bias', classifier[1]

    def _pending(self, epoch: int) -> Iterator[Shard]:
        for number in range(shard_count(self.manifest)):
            shard = Shard(epoch, self.rank, number)
            if not is_whole(self.folder, shard):
                yield shard

    def _write_shards(self, epoch: int, first: int, count: int) -> None:
        """Write consecutive files of an epoch."""
        start, before = divmod(first * self.manifest.shard_rows, self.batch_size)
        stream = self._records(epoch, start)
        records: list[np.ndarray] = []
        for shard in (Shard(epoch, self.rank, first + i) for i in range(count)):
            wanted = rows_of(self.manifest, shard)
            while sum(map(len, records)) < wanted:
                records.append(next(stream)[before:])  # with another batch size than before, a file starts within a batch
                before = 0
                self._progress.add(len(records[-1]))
            joined = np.concatenate(records)
            save(self.folder, shard, joined[:wanted])
            records = [joined[wanted:]]

    def _records(self, epoch: int, start: int) -> Iterator[np.ndarray]:
        """Iterate over the records of an epoch from batch ``start`` on, a batch at a time."""
        self.sampler.set_epoch(epoch)
        for number, batch in enumerate(batches_from(self.loader, start), start=start):
            first = number * self.batch_size
            rows = {self.sampler.place(k): k - first for k in range(first, min(first + self.batch_size, len(self.sampler)))}
            records = np.zeros(len(rows), self.type)
            mark_missing(records)  # for an image that cannot be read
            self.loop.count_unreadable(batch)
            seed_all(self.loop.seed, 'step', epoch * len(self.loader) + number, self.rank)
            read = [rows[sample.view[1]] for sample in batch['data_samples']]
            views = self.read(batch) if read else []
            try:
                for part, view in zip(parts_of(records).values() if read else [], views, strict=True):
                    part[read] = encoded(view, self.manifest.k)
            except ValueError as error:
                raise TrainingError(f'{error}; images: {", ".join(images_of(batch)[:3])}, ...') from error
            yield records


def encoded(view: Mapping[str, Read], k: int) -> np.ndarray:
    """Encode the logits and features of a batch, see :func:`~mmcls_kd.teachers.records.encode`."""
    return encode(view.get('logit'), k, {name: read for name, read in view.items() if name != 'logit'})


def runs(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """Group ascending numbers into runs of consecutive ones: (first, count).

    Example:
        >>> list(runs([0, 1, 4]))
        [(0, 2), (4, 1)]
    """
    for _, group in itertools.groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        members = [number for _, number in group]
        yield members[0], len(members)
