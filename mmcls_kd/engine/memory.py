"""Images of a data set in memory: decoded once, and augmented a batch at a time, bit for bit as one at a time.

A pipeline has three parts here: fixed transforms (reading, resizing), of whose result the image is kept; random ones; and
mmpretrain's ``PackInputs``. Where all random ones are among those of :mod:`.batched`, a batch is made by a few array
operations, with the draws that each sample's own seed gives (:mod:`.draws`); some of them may change image after image.
Otherwise the kept image passes through the pipeline's own transforms, one sample at a time.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from itertools import repeat, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.transforms import CenterCrop, Compose, LoadImageFromFile, Pad, Resize
from mmengine.dataset import BaseDataset
from mmpretrain.datasets import transforms
from mmpretrain.datasets.transforms.processing import TorchVisonTransformWrapper
from mmpretrain.structures import DataSample
from mmpretrain.structures.utils import format_label
from torchvision import transforms as vision

from .batched import BATCHED, Crop, Flip, OneByOne, ResizedCrop, batched, is_alone
from .draws import Draws
from .seeds import derive_seeds
from .two_views import StrongAugment, TwoViews

#: Size in bytes up to which a data set's images are kept in memory by themselves.
LIMIT = 512 * 2**20
#: Transforms without draws, whose result is kept; and those of torchvision.
FIXED = {LoadImageFromFile, Resize, CenterCrop, Pad, transforms.ResizeEdge, transforms.NumpyToPIL, transforms.PILToNumpy}
FIXED_OF_TORCHVISION = {vision.Resize, vision.CenterCrop, vision.Pad, vision.Grayscale}
#: Number of samples whose draws are made at once; the more, the less a draw costs.
AT_ONCE = 4096
#: Placeholder of a missing label.
NO_LABEL = np.iinfo(np.int64).min
#: Labels beside the class, some of which a transform changes with the image.
OTHERS = {'gt_score', 'mask', 'gt_bboxes', 'gt_keypoints', 'gt_seg_map'}
#: Files with the largest memory of a container, in bytes.
CGROUPS = '/sys/fs/cgroup/memory.max', '/sys/fs/cgroup/memory/memory.limit_in_bytes'
#: Keys of a sample that are not kept beside the image.
OWN = ('img', 'img_path', 'sample_idx', 'gt_label')


class NotKeptError(ValueError):
    """The images of a data set cannot be kept in memory."""


def is_fixed(transform: Any) -> bool:
    """Check whether a transform is known to give the same result each time."""
    if isinstance(transform, TorchVisonTransformWrapper):
        return type(transform.t) in FIXED_OF_TORCHVISION
    return type(transform) in FIXED


#: Why the samples of some data sets are made one at a time.
OTHER_LABELS = 'samples have other labels than one class'


def _label_of(results: Mapping[str, Any]) -> int | None:
    """Return the label of a sample: a class, or :data:`NO_LABEL`; None if it has others."""
    if not OTHERS.isdisjoint(results):
        return None
    if 'gt_label' not in results:
        return NO_LABEL
    if type(given := results['gt_label']) is int or (
        type(given) is np.ndarray and given.dtype == np.int64 and given.ndim == 0
    ):
        return int(given)
    label = format_label(given)
    return int(label) if label.numel() == 1 and label.dtype == torch.int64 else None


def _are_equal(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Check whether facts are known to be equal; those with arrays or tensors are not."""
    try:
        return a == b
    except (ValueError, RuntimeError):
        return False


def _name_of(transform: Any) -> str:
    """Return a transform's name, with the setting that matters here."""
    if isinstance(transform, TorchVisonTransformWrapper):
        return f'torchvision/{type(transform.t).__name__}'
    return type(transform).__name__ + '(pad_if_needed=True)' * bool(getattr(transform, 'pad_if_needed', False))


def _with_inner(chosen: Iterable[Any]) -> Iterator[Any]:
    """Iterate over transforms, and over those inside of them."""
    for one in chosen:
        yield one
        if type(one) is StrongAugment:
            yield one.augment
        if type(one) is TwoViews:
            for view in one.views:
                yield view
                yield from _with_inner(view.transforms)


def _settings_of(transform: Any) -> dict[str, Any]:
    """Return the settings of a transform as they are now."""
    return {key: list(value) if isinstance(value, list) else value for key, value in vars(transform).items()}


def _machines_memory() -> int:
    """Return the memory of this machine, or of this container, in bytes."""
    limits = [os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')]
    for path in CGROUPS:
        with suppress(OSError, ValueError):  # no limit
            limits.append(int(Path(path).read_text()))
    return min(limits)


def _passed(images: np.ndarray, steps: Iterable[tuple[Any, np.ndarray]]) -> tuple[np.ndarray, Iterable[dict[str, Any]]]:
    """Pass images through steps with their draws; return them, and what steps note of each."""
    facts: Iterable[dict[str, Any]] = repeat({})
    for step, drawn in steps:
        if isinstance(step, OneByOne):
            images, facts = step.apply(images, drawn)
        else:
            images = step.apply(images, drawn)
    return images, facts


def _tensor(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(images))


class ImageMemory:
    """The images of a data set, read at their first use and kept; see the module.

    The images are shared with the processes that are forked from this one.

    Args:
        dataset: The data set, of mmengine's ``BaseDataset``.
        limit: Largest size of all images in bytes; None for any size, and for a data set's own ``get_data_info``, which
            may give other images each time.

    Attributes:
        reason: Why samples are made one at a time; None if they are made a batch at a time.
        is_decoded: Whether images pass through fixed transforms before they are kept.

    Raises:
        NotKeptError: If the images cannot be kept; says why.
    """

    def __init__(self, dataset: Any, limit: int | None = LIMIT) -> None:
        kind = type(dataset)
        plain = isinstance(dataset, BaseDataset) and all(
            getattr(kind, name) is getattr(BaseDataset, name) for name in ('__getitem__', 'prepare_data')
        )
        if not plain:
            raise NotKeptError(f'{kind.__name__} makes its samples in a way of its own')
        if limit is not None and kind.get_data_info is not BaseDataset.get_data_info:
            raise NotKeptError(f'{kind.__name__}.get_data_info may give another image or label each time')
        self.dataset, self._transforms = dataset, list(dataset.pipeline.transforms)
        known = [one for one in _with_inner(self._transforms) if is_fixed(one) or type(one) in (*BATCHED, Compose)]
        self._settings = [(one, _settings_of(one)) for one in known]
        self._fixed = list(takewhile(is_fixed, self._transforms))
        first = self._first()
        self._rest = self._transforms[len(self._fixed) :]
        self.is_decoded = bool(self._fixed)
        whole = kind.get_data_info is BaseDataset.get_data_info and not dataset.serialize_data
        self._is_listed = whole and not self.is_decoded  # then nothing changes what the list holds
        shape = first['img'].shape
        self._grey = len(shape) == 2
        height, width, *channels = shape
        self._shape = (len(dataset), *(channels or [1]), height, width)
        self.size = int(np.prod(self._shape))
        if limit is not None and self.size > limit:
            raise NotKeptError(f'its images take {self.size / 2**20:.0f} MiB, more than {limit / 2**20:.0f}')
        if self.size > (there := _machines_memory()):
            raise NotKeptError(f'its images take {self.size / 2**30:.1f} GiB, and this machine has {there / 2**30:.1f}')
        self.images = np.frombuffer(mmap.mmap(-1, self.size), np.uint8).reshape(self._shape)
        self._there = np.zeros(len(dataset), bool)
        self._labels = np.full(len(dataset), NO_LABEL)
        self._paths: list[str | None] = [None] * len(dataset)
        self._list = self._list_now()
        self._kept: dict[str, Any] | None = None
        self._can_change = False
        self._other: dict[int, dict[str, Any]] = {}
        self._steps: list[Any] = []
        self._strong: list[Any] = []
        self._shared: int | None = None
        self.reason = self._find_reason(first)

    def _first(self) -> dict[str, Any]:
        """Return the first sample after the fixed transforms; those after the last array are not among them."""
        results, arrays = self.dataset.get_data_info(0), 0
        found = dict(results) if isinstance(results.get('img'), np.ndarray) else None
        for number, transform in enumerate(self._fixed, start=1):
            results = transform(results)
            if results is None:
                break
            if isinstance(results.get('img'), np.ndarray):
                found, arrays = dict(results), number
        if found is None or found['img'].dtype != np.uint8 or found['img'].ndim not in (2, 3):
            raise NotKeptError('its pipeline does not begin with an image of bytes')
        self._fixed = self._fixed[:arrays]
        return found

    def _find_reason(self, first: dict[str, Any]) -> str | None:
        *random, last = self._rest or [None]
        if type(last) is not transforms.PackInputs or last.input_key != 'img' or last.algorithm_keys:
            return 'the pipeline does not end with PackInputs and its usual keys'
        if _label_of(first) is None:
            return OTHER_LABELS
        self._steps, others = batched(random, first['img'].shape)
        if not others or self._takes_two_views(others, first['img'].shape):
            resized = any(isinstance(step, ResizedCrop) for step in self._steps)
            whole_files = [*map(type, self._fixed)] == [LoadImageFromFile]  # they may be of different sizes
            return 'RandomResizedCrop is computed image by image' if resized and whole_files else None
        if all(is_alone(one) or (is_fixed(one) and type(one) is not LoadImageFromFile) for one in others):
            self._steps.append(OneByOne(others, self._steps[-1].shape if self._steps else first['img'].shape))
        else:
            self._steps = []
        named = [others[0], *(one for one in others[1:] if type(one) not in BATCHED)]
        return f'{_name_of(min(named, key=is_fixed))} is computed image by image'

    def _takes_two_views(self, others: Sequence[Any], shape: tuple[int, ...]) -> bool:
        """Check whether the last transform makes two views that can be computed for a batch at once; note how."""
        if len(others) != 1 or type(others[0]) is not TwoViews:
            return False
        shape = self._steps[-1].shape if self._steps else shape
        (weak, left), (strong, left_of_strong) = (batched(view.transforms, shape) for view in others[0].views)
        shapes = {(steps[-1].shape if steps else shape) for steps in (weak, strong)}
        if left or left_of_strong or len(shapes) > 1:
            return False
        self._shared, self._strong = len(self._steps), strong
        self._steps += weak
        return True

    @property
    def makes_batches(self) -> bool:
        """Whether batches can be made, even if they pass through some transform image by image."""
        return self.reason is None or (bool(self._steps) and self.reason is not OTHER_LABELS)

    @property
    def is_current(self) -> bool:
        """Whether the data set still has its list, and its pipeline the transforms that it had, with their settings."""
        now = getattr(self.dataset.pipeline, 'transforms', ())
        same = len(now) == len(self._transforms) and all(a is b for a, b in zip(now, self._transforms, strict=True))
        same = same and all(a is b for a, b in zip(self._list_now(), self._list, strict=True))
        return same and all(_are_equal(kept, vars(one)) for one, kept in self._settings)

    def _list_now(self) -> list[Any]:
        """Return the objects that hold the list of the data set."""
        return [getattr(self.dataset, name, None) for name in ('data_list', 'data_bytes', 'data_address')]

    # ---- reading

    def read(self, index: int) -> None:
        """Read an image, unless it is there.

        Raises:
            NotKeptError: If it has another shape than the first.
        """
        if self._there[index]:
            return
        results = self.dataset.data_list[index] if self._is_listed else self.dataset.get_data_info(index)
        before = dict(results)
        for transform in self._fixed:
            results = transform(results)
        image, shape = results['img'], self._shape[1:]
        if image.dtype != np.uint8 or image.shape != (shape[1:] if self._grey else (*shape[1:], shape[0])):
            raise NotKeptError(f'its images are of different sizes, such as {shape[1:]} and {image.shape[:2]}')
        label = _label_of(results)
        if label is None:
            self.reason = OTHER_LABELS
        keys = getattr(self._rest[-1] if self._rest else None, 'meta_keys', ())
        kept = {key: value for key, value in results.items() if key in keys or before.get(key, self) is not value}
        kept = {key: value for key, value in kept.items() if key not in OWN}
        self._can_change |= not all(isinstance(value, Hashable) for value in kept.values())
        if self._kept is None:
            self._kept = kept
        if not _are_equal(kept, self._kept):
            self._other[index] = kept
        self.images[index] = image if self._grey else image.transpose(2, 0, 1)
        self._labels[index] = NO_LABEL if label is None else label
        self._paths[index] = results.get('img_path')
        self._there[index] = True

    def missing(self, indices: np.ndarray) -> list[int]:
        """Return the indices of images that are still to be read."""
        return indices[~self._there[indices]].tolist()

    def sample(self, index: int) -> Any:
        """Make a sample from its kept image by the pipeline's own transforms."""
        self.read(index)
        image = self.images[index, 0] if self._grey else self.images[index].transpose(1, 2, 0)
        results: Any = {
            **self.dataset.get_data_info(index),
            **self._own(self._other.get(index, self._kept or {})),
            'img': np.array(image, order='C'),
        }
        for transform in self._rest:
            results = transform(results)
            if results is None:
                return None
        return results

    # ---- batches

    def views(self, seed: int, epoch: int, indices: np.ndarray, places: np.ndarray) -> Views:
        """Draw the views of samples, to be made by :meth:`batch`.

        Args:
            seed: The run's seed.
            epoch: Epoch of the views.
            indices: Indices of the samples, (n,).
            places: Their places in the epoch's order, (n,).
        """
        seeds = derive_seeds((seed, 'sample', epoch), places.tolist(), indices.tolist())
        steps = [*self._steps, *self._strong]
        draws = Draws(seeds, min(226, 12 * max(2, len(steps))))
        return Views(epoch, indices, places, [step.draw(draws) for step in steps])

    @property
    def is_random(self) -> bool:
        """Whether the views of an image differ."""
        return bool(self._steps or self._shared is not None)

    def fixed_batch(self, indices: np.ndarray) -> dict[str, Any]:
        """Make a batch of images whose pipeline draws nothing, without a place in the training; see :meth:`batch`."""
        return self.batch(Views(None, indices, indices, []))

    def batch(self, views: Views) -> dict[str, Any]:
        """Make a batch: ``inputs`` (n, C, H, W) of bytes, or the list of those of both views; and ``data_samples``."""
        images, number = self.images[views.indices], len(self._steps)
        steps = list(zip(self._steps, views.drawn, strict=False))
        first, facts = _passed(images, steps[: self._shared])
        if self._shared is None:
            return dict(inputs=_tensor(first), data_samples=list(self._samples(views, facts)))
        weak, _ = _passed(first.copy(), steps[self._shared :])
        strong, _ = _passed(first, list(zip(self._strong, views.drawn[number:], strict=True)))
        return dict(inputs=[_tensor(weak), _tensor(strong)], data_samples=list(self._samples(views, facts)))

    def _samples(self, views: Views, facts_of: Iterable[dict[str, Any]]) -> Iterator[DataSample]:
        """Iterate over the samples of a batch, as ``PackInputs`` makes them.

        They are filled as ``DataSample`` fills itself, field by field; its own methods take twenty times as long.
        """
        flips = [(step, drawn) for step, drawn in zip(self._steps, views.drawn, strict=False) if isinstance(step, Flip)]
        sizes = [step.shape for step in self._steps if isinstance(step, Crop | ResizedCrop)]
        size = dict(img_shape=sizes[-1]) if sizes else {}
        facts = self._noted({**(self._kept or {}), **size})
        by_draw = [[self._noted(one) for one in step.facts] for step, _ in flips]
        draws = zip(*(drawn.tolist() for _, drawn in flips), strict=True) if flips else repeat(())
        numbers, epoch = self._labels[views.indices], views.epoch
        meta_keys = self._rest[-1].meta_keys
        has_path, has_index = 'img_path' in meta_keys, epoch is not None or 'sample_idx' in meta_keys
        labels = torch.from_numpy(numbers).split(1)
        known = (numbers != NO_LABEL).tolist()
        for index, place, label, has_label, drawn, noted in zip(
            views.indices.tolist(), views.places.tolist(), labels, known, draws, facts_of, strict=False
        ):
            sample = DataSample.__new__(DataSample)
            fields = sample.__dict__
            other = self._other.get(index) if self._other else None
            fields.update(self._own(facts if other is None else self._noted({**other, **size})))
            if has_index:
                fields['sample_idx'] = index
            if epoch is not None:
                fields['view'] = (epoch, place)
            for one, draw in zip(by_draw, drawn, strict=True):
                fields.update(one[draw])
            if noted:
                fields.update(self._noted(noted))
            if has_path and (path := self._paths[index]) is not None:
                fields['img_path'] = path
            fields['_metainfo_fields'] = {*fields}
            fields['_data_fields'] = {'gt_label'} if has_label else set()
            if has_label:
                fields['gt_label'] = label
            yield sample

    def _own(self, facts: dict[str, Any]) -> dict[str, Any]:
        """Return facts that a sample may change."""
        return deepcopy(facts) if self._can_change else facts

    def _noted(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Return of some facts those that ``PackInputs`` passes on."""
        return {key: value for key, value in facts.items() if key in self._rest[-1].meta_keys}


@dataclass
class Views:
    """The views of samples: epoch (None outside of training), indices, places in its order, and draws."""

    epoch: int | None
    indices: np.ndarray
    places: np.ndarray
    drawn: list[np.ndarray]

    def __getitem__(self, rows: Any) -> Views:
        return Views(self.epoch, self.indices[rows], self.places[rows], [drawn[rows] for drawn in self.drawn])

    def __len__(self) -> int:
        return len(self.indices)
