"""Training data that an interruption does not change, and that never hide an unreadable file."""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count, islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from mmengine.dataset import BaseDataset, ClassBalancedDataset, ConcatDataset, RepeatDataset
from mmengine.dist import get_dist_info
from mmengine.logging import print_log
from mmengine.registry import FUNCTIONS
from mmpretrain.registry import DATA_SAMPLERS, DATASETS
from mmpretrain.structures import DataSample
from torch.utils.data import BatchSampler, DataLoader

from ..errors import ChoiceError, UnreadableImageError
from .fast_transforms import hasten
from .image_ends import cut_short, decoding_fault, image_fault, loader_of
from .seeds import own_generators, seed_generators, seed_transforms, states_kept

if TYPE_CHECKING:
    from .memory import ImageMemory, Views

ON_UNREADABLE = ('stop', 'skip')
#: mmengine's collations.
COLLATIONS = ('default_collate', 'pseudo_collate')
IN_MEMORY = (None, True, False)


class SampleIndex(int):
    """A sample's index in its data set, with its place in the training.

    Attributes:
        epoch: Epoch of its view, from 0.
        place: Its place in the epoch's order over all processes, from 0.
    """

    epoch: int
    place: int

    def __new__(cls, index: int, epoch: int = 0, place: int = 0) -> SampleIndex:
        """Create an index with a place."""
        self = super().__new__(cls, index)
        self.epoch, self.place = epoch, place
        return self


@DATA_SAMPLERS.register_module()
class PlacedSampler:
    """Sampler that turns another one's indices into :class:`SampleIndex`, and can start in the middle of an epoch.

    The samplers of mmengine and mmpretrain give process r of R every R-th index, from the r-th on; so the k-th index of a
    process has the place r + k·R. A SequentialSampler may give it the r-th part of all instead. Indices that a sampler
    repeats from the epoch's beginning, to give all processes equally many, keep the place that they have there.

    Args:
        sampler: Config of the sampler.
        dataset: Its data set.
        seed: The run's seed.

    Attributes:
        cycle: Number of epochs after which order and views repeat; None for never.
    """

    def __init__(self, sampler: Mapping, dataset: Any, seed: int) -> None:
        self.sampler: Any = DATA_SAMPLERS.build(dict(sampler), default_args=dict(dataset=dataset, seed=seed))
        self.cycle: int | None = None
        self._size = len(dataset)
        self._skipped = 0

    def place(self, k: Any) -> Any:
        """Return the place of this process's k-th index in an epoch's order; of an array of such k too."""
        rank, world_size = get_dist_info()
        in_a_row = getattr(self.sampler, 'subsample_type', None) == 'sequential'
        place = rank * len(self.sampler) + k if in_a_row else rank + k * world_size
        return place % self._size if getattr(self.sampler, 'round_up', False) else place

    def skip(self, count: int) -> None:
        """Start the next pass after this process's first ``count`` indices."""
        self._skipped = count

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next pass."""
        if hasattr(self.sampler, 'set_epoch'):
            self.sampler.set_epoch(epoch % self.cycle if self.cycle else epoch)

    def __iter__(self) -> Iterator[SampleIndex]:
        epoch, start, self._skipped = getattr(self.sampler, 'epoch', 0), self._skipped, 0
        for k, index in islice(enumerate(self.sampler), start, None):
            yield SampleIndex(index, epoch, self.place(k))

    def chunks(self, size: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Iterate over the same pass in arrays of at most ``size`` samples: epoch, indices, places."""
        epoch, start, self._skipped = getattr(self.sampler, 'epoch', 0), self._skipped, 0
        indices = islice(self.sampler, start, None)
        for first in count(start, size):
            part = np.fromiter(islice(indices, size), np.int64)
            if not len(part):
                return
            yield epoch, part, self.place(np.arange(first, first + len(part)))

    def __len__(self) -> int:
        return len(self.sampler)


def plain_datasets(dataset: Any) -> Iterator[Any]:
    """Iterate over the data sets inside of wrappers such as ConcatDataset and RepeatDataset."""
    inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    for part in inner:
        if part is None:
            yield dataset
        else:
            yield from plain_datasets(part)


def may_be_kept(in_memory: bool | None) -> bool:
    """Return whether ``in_memory`` lets images be kept; refuse an unknown choice."""
    if in_memory not in IN_MEMORY:
        raise ChoiceError(f'in_memory={in_memory!r}: choose one of {", ".join(map(repr, IN_MEMORY))}')
    return in_memory is None or bool(in_memory)


def sample_infos(dataset: Any, step: int = 1) -> Iterator[Mapping[str, Any]]:
    """Iterate over the facts of every ``step``-th sample (``img_path``, ``gt_label``), not to be changed."""
    if getattr(type(dataset), 'get_data_info', None) is BaseDataset.get_data_info and not dataset.serialize_data:
        dataset.full_init()
        return iter(dataset.data_list[::step])
    return (dataset.get_data_info(i) for i in range(0, len(dataset), step))


def images_in(dataset: Any) -> int:
    """Return the number of images of a data set; repeated ones count once."""
    if isinstance(dataset, SeededDataset | RepeatDataset | ClassBalancedDataset):
        return images_in(dataset.dataset)
    return sum(map(images_in, dataset.datasets)) if isinstance(dataset, ConcatDataset) else len(dataset)


def image_number(dataset: Any, index: int) -> int:
    """Return the number of a sample's image among the data set's :func:`images_in`, from 0."""
    if isinstance(dataset, ConcatDataset):
        part, index = dataset._get_ori_dataset_idx(index)
        return sum(map(images_in, dataset.datasets[:part])) + image_number(dataset.datasets[part], index)
    if isinstance(dataset, RepeatDataset | ClassBalancedDataset):
        return image_number(dataset.dataset, dataset._get_ori_dataset_idx(index))
    return index


@DATASETS.register_module()
class SeededDataset:
    """A data set whose random transforms depend only on the sample's place in the training.

    A sample is never replaced by another; mmengine's data sets do that silently if a pipeline returns None. A ``DataSample``
    gets a ``view``, (epoch, place), its place in the training; its ``sample_idx`` is the :func:`image_number`. Other
    attributes (classes, labels) are those of the wrapped data set.

    Args:
        dataset: Config of the data set.
        seed: The run's seed.
        on_unreadable: Treatment of unreadable image files: ``'stop'`` raises, ``'skip'`` returns the error as the sample,
            which :func:`collate_readable` leaves out and counts.
        in_memory: Whether to keep the images in memory, and to augment a batch at a time where the pipeline allows it
            (:mod:`.memory`), which changes no pixel; None for a data set below :data:`.memory.LIMIT`.
        num_workers: Number of data workers. Those of a pipeline that is computed image by image read files faster than this
            process, so that its images are kept by ``in_memory=True`` alone.
        collate: Name of the collation of its batches, of mmengine's if they are made in memory.

    Attributes:
        memory: The images in memory; None where they are not kept.
        notice: A line about :attr:`memory`; None where there is nothing to tell.

    Raises:
        ChoiceError: If a choice is unknown.
        UnreadableImageError: On access to a sample; names the file.
    """

    def __init__(
        self,
        dataset: Mapping,
        seed: int,
        on_unreadable: str = 'stop',
        in_memory: bool | None = None,
        num_workers: int = 0,
        collate: Any = 'default_collate',
    ) -> None:
        if on_unreadable not in ON_UNREADABLE:
            raise ChoiceError(f'on_unreadable={on_unreadable!r}: choose one of {", ".join(map(repr, ON_UNREADABLE))}')
        may_keep = may_be_kept(in_memory)
        self.dataset: Any = DATASETS.build(dict(dataset))
        self.seed, self.on_unreadable, self._collate = seed, on_unreadable, collate
        self.full_init()
        for plain in plain_datasets(self.dataset):
            if hasattr(plain, 'max_refetch'):
                plain.max_refetch = 0
        self._has_files = len(self.dataset) > 0 and self._path(0) is not None
        self._pipelines: list[int] = []
        self._generators: list[Any] = []
        self._hastened = False
        self.memory: ImageMemory | None = None
        self.notice: str | None = None
        if may_keep and len(self.dataset):
            self._keep(bool(in_memory), num_workers)

    def _keep(self, demanded: bool, num_workers: int) -> None:
        """Keep the images in memory if that is possible, and demanded or worth it."""
        from .memory import LIMIT, ImageMemory, NotKeptError

        try:
            memory = ImageMemory(self.dataset, None if demanded else LIMIT)
        except NotKeptError as error:
            self.notice = f'the training images are not kept in memory: {error}' if demanded else None
            return
        except Exception:  # of a sample that cannot be read: it is told where it is used
            return
        kept = f'{len(self)} training images are kept in memory ({memory.size / 2**20:.1f} MiB)'
        if memory.reason is None:
            self.memory, self.notice = memory, f'{kept}, and augmented a batch at a time'
        elif demanded or num_workers == 0:
            self.memory, self.notice = memory, f'{kept}, and augmented one at a time: {memory.reason}'
        else:
            self.notice = f'the training images are augmented one at a time, by {num_workers} workers: {memory.reason}'

    def _give_up(self, error: Exception) -> None:
        """Read images from the data set from now on."""
        self.memory, self._pipelines = None, []
        print_log(f'the training images are no longer kept in memory: {error}', 'current', logging.WARNING)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, 'memory': None}  # a process that is not forked from this one has none

    def __getattr__(self, name: str) -> Any:
        # not its pipeline: who sets another one has to set it there
        if name in ('dataset', 'pipeline') or name.startswith('__'):
            raise AttributeError(f'{type(self).__name__} has no attribute {name!r}')
        return getattr(self.dataset, name)

    @property
    def CLASSES(self) -> Any:  # noqa: N802  (as mmpretrain calls it)
        """The class names; None if the data set has none."""
        return self.dataset.metainfo.get('classes')

    def get_gt_labels(self) -> np.ndarray:
        """Return the label of each sample, (n,), repeated ones included."""
        if hasattr(self.dataset, 'get_gt_labels'):
            return self.dataset.get_gt_labels()
        return np.array([self.dataset.get_data_info(i)['gt_label'] for i in range(len(self))])

    def full_init(self) -> None:
        """Read the annotations, if they are not read yet."""
        if hasattr(self.dataset, 'full_init'):
            self.dataset.full_init()

    def _path(self, index: int) -> str | None:
        return self.dataset.get_data_info(index).get('img_path') if hasattr(self.dataset, 'get_data_info') else None

    def __len__(self) -> int:
        return len(self.dataset)

    def _own_generators(self) -> list[Any]:
        """Return the random generators of the transforms; a pipeline may have been switched."""
        pipelines = [getattr(plain, 'pipeline', None) for plain in plain_datasets(self.dataset)]
        if (found := list(map(id, pipelines))) != self._pipelines:
            hastened = [self.memory is None and hasten(pipeline) for pipeline in pipelines]
            self._hastened = all(hastened)
            self._pipelines, self._generators = found, own_generators(pipelines)
        return self._generators

    def __getitem__(self, index: int) -> Any:
        generators = self._own_generators()
        if isinstance(index, SampleIndex):
            parts = (self.seed, 'sample', index.epoch, index.place, int(index))
            seed_transforms(*parts, numpy_alone=self._hastened)
            seed_generators(generators, *parts)
        sample = self._load(int(index), self._made)
        if isinstance(sample, dict) and isinstance(sample.get('data_samples'), DataSample):
            data_sample = sample['data_samples']
            data_sample.set_field(image_number(self.dataset, int(index)), 'sample_idx', field_type='metainfo')
            if isinstance(index, SampleIndex):
                data_sample.set_field((index.epoch, index.place), 'view', field_type='metainfo')
        return sample

    def draws_again(self) -> bool:
        """Check with some samples that one drawn twice at one place in the training is the same: all draws are seeded."""
        count = min(8, len(self))
        indices = [SampleIndex(k * len(self) // count, 0, k) for k in range(count)]
        with states_kept():
            pairs = [(self[index], self[index]) for index in indices]
        inputs = [(a['inputs'], b['inputs']) for a, b in pairs if isinstance(a, dict) and isinstance(b, dict)]
        views = [(a, b) if isinstance(a, (list, tuple)) else ([a], [b]) for a, b in inputs]
        return all(torch.equal(a, b) for pair in views for a, b in zip(*pair, strict=True) if isinstance(a, torch.Tensor))

    def _made(self, index: int) -> Any:
        """Make a sample."""
        from .memory import NotKeptError

        if self.memory is not None and self.memory.is_current:
            try:
                sample = self.memory.sample(index)
            except NotKeptError as error:
                self._give_up(error)
            else:
                if sample is not None:
                    return sample
        return self.dataset[index]

    def _load(self, index: int, make: Callable[[int], Any]) -> Any:
        """Make something of a sample; return the error, or raise it, if its file cannot be read."""
        try:
            path = self._path(index) if self._has_files and not self._hastened else None
            if path is None or not cut_short(path):
                return make(index)
            fault, cause = image_fault(path), None
        except Exception as error:
            path = self._path(index) if self._has_files else None
            if path is None or (fault := self._fault(path)) is None:
                raise  # the file is in order, so something else is not
            cause = error
        unreadable = UnreadableImageError(
            f'the image {path} of the training data cannot be read ({fault}); mend or remove it '
            '(`python -m mmcls_kd check-data` finds all such), or set train_cfg.on_unreadable=skip to train without it'
        )
        if self.on_unreadable == 'skip':
            return unreadable
        raise unreadable from cause

    def _fault(self, path: str) -> str | None:
        """Describe why an image file cannot be read, by Pillow or a pipeline's own transform; None if it can."""
        pipelines = (getattr(plain, 'pipeline', None) for plain in plain_datasets(self.dataset))
        found = (decoding_fault(path, loader_of(pipeline)) for pipeline in pipelines)
        return image_fault(path) or next(filter(None, found), None)

    @property
    def makes_batches(self) -> bool:
        """Whether whole batches can be made in memory."""
        return self.memory is not None and self.memory.is_current and self.memory.makes_batches

    def batches(self, sampler: PlacedSampler, batch_size: int, drop_last: bool) -> Iterator[dict[str, Any]]:
        """Iterate over the batches of a pass, made in memory; they hold the same as those of a dataloader.

        Args:
            sampler: The order.
            batch_size: Number of samples of a batch.
            drop_last: Whether to leave out an incomplete last batch.
        """
        from .memory import AT_ONCE

        assert self.memory is not None
        for epoch, indices, places in sampler.chunks(batch_size * -(-AT_ONCE // batch_size)):
            views = self.memory.views(self.seed, epoch, indices, places)
            for start in range(0, len(indices), batch_size):
                part = views[start : start + batch_size]
                if len(part) == batch_size or not drop_last:
                    yield self._batch(part)

    def _batch(self, views: Views) -> dict[str, Any]:
        """Make a batch, in memory if that is still possible."""
        from .memory import NotKeptError

        memory, faults = self.memory, {}
        if memory is not None:
            try:
                for index in memory.missing(views.indices):
                    if error := self._load(index, memory.read):
                        faults[index] = error
            except NotKeptError as error:
                self._give_up(error)
        if not self.makes_batches:
            rows = zip(views.indices.tolist(), views.places.tolist(), strict=True)
            samples = [self[SampleIndex(index, views.epoch or 0, place)] for index, place in rows]
            found = collate_readable(samples, self._collate)
            return found if self.on_unreadable == 'skip' else {k: v for k, v in found.items() if k != 'unreadable'}
        assert memory is not None
        if self.on_unreadable != 'skip':
            return self._listed(memory.batch(views))
        unreadable = [str(faults[index]) for index in views.indices.tolist() if index in faults]
        whole = ~np.isin(views.indices, list(faults))
        if not whole.any():
            return no_images(unreadable)
        return {**self._listed(memory.batch(views[whole])), 'unreadable': unreadable}

    def _listed(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return a batch with a list of images where the collation makes one."""
        if self._collate != 'pseudo_collate':
            return batch
        images = batch['inputs']
        return {**batch, 'inputs': [tuple(view) for view in images] if isinstance(images, list) else list(images)}


@FUNCTIONS.register_module()
def collate_readable(samples: Sequence[Any], collate: str) -> dict[str, Any]:
    """Collate the readable samples of a :class:`SeededDataset`; messages of the others stand under ``'unreadable'``."""
    unreadable = [str(sample) for sample in samples if isinstance(sample, UnreadableImageError)]
    readable = [sample for sample in samples if not isinstance(sample, UnreadableImageError)]
    return {**FUNCTIONS.get(collate)(readable), 'unreadable': unreadable} if readable else no_images(unreadable)


def no_images(unreadable: list[str]) -> dict[str, Any]:
    """Return a batch without one readable image."""
    return dict(inputs=[], data_samples=[], unreadable=unreadable)


@FUNCTIONS.register_module()
def steady_worker(worker_id: int) -> None:  # noqa: ARG001
    """Start a data worker that leaves SIGTERM to the training process."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def end_workers() -> None:
    """End the remaining data workers with the program; they ignore the SIGTERM that Python sends them."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch would call their end an error
    for worker in multiprocessing.active_children():
        if worker.daemon:
            worker.kill()


def reproducible(
    loader: Mapping | DataLoader, seed: int, on_unreadable: str = 'stop', in_memory: bool | None = None
) -> Mapping | DataLoader:
    """Return the config of a training dataloader, wrapped by :class:`SeededDataset` and :class:`PlacedSampler`.

    Args:
        loader: A config; a dataloader that is already built stays as it is.
        seed: The run's seed.
        on_unreadable: See :class:`SeededDataset`.
        in_memory: See :class:`SeededDataset`; for mmengine's own collations alone.
    """
    if isinstance(loader, DataLoader):
        return loader
    loader = dict(loader)
    collate = dict(loader.get('collate_fn') or dict(type='pseudo_collate'))
    if on_unreadable == 'skip':
        loader['collate_fn'] = dict(type='collate_readable', collate=collate['type'])
    loader['dataset'] = dict(
        type='SeededDataset',
        dataset=loader['dataset'],
        seed=seed,
        on_unreadable=on_unreadable,
        in_memory=in_memory if collate['type'] in COLLATIONS else False,
        num_workers=loader.get('num_workers', 0),
        collate=collate['type'],
    )
    loader['sampler'] = dict(type='PlacedSampler', sampler=loader['sampler'], seed=seed)
    loader.setdefault('worker_init_fn', dict(type='steady_worker'))
    return loader


def batches_from(loader: DataLoader, start: int) -> Iterator[Any]:
    """Iterate over one pass of a dataloader from batch ``start`` on.

    Earlier batches are not loaded, unless a batch sampler of the user's own makes them.
    """
    batches: Any = loader.batch_sampler
    if type(batches) is BatchSampler and isinstance(batches.sampler, PlacedSampler):
        batches.sampler.skip(start * batches.batch_size)
        start = 0
        if isinstance(loader.dataset, SeededDataset) and loader.dataset.makes_batches:
            return loader.dataset.batches(batches.sampler, batches.batch_size, batches.drop_last)
    found = islice(loader, start, None)
    if loader.num_workers > 0:
        atexit.unregister(end_workers)
        atexit.register(end_workers)  # the last to be registered is called first, before torch waits for each worker
    return found
