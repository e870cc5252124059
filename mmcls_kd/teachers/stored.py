"""Teacher that reads precomputed logits and features from disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import TrainingError, close_names
from ..features.classifier import linear_classifier, weight_and_bias
from ..features.dry_run import dry_run, evaluating
from ..features.families import default_taps
from ..features.layouts import Read
from ..features.taps import Shape, shapes_of
from .fast import FastNetwork, in_own_type
from .records import decode, decode_feature, encode, fields_of, missing_rows, parts_of, sizes_of, type_of_views
from .store import MANIFEST, Manifest, Shard, TeacherStore, save, save_fact

#: In the manifest of a store whose records are in the order of the samples.
BY_INDEX = 'index of the sample'


class StoredTeacher:
    """Teacher that reads precomputed logits and stored features from disk; it has no others.

    Args:
        folder: Folder of the store.

    Raises:
        FileNotFoundError: If there is no store, or a file of it is missing.
        ValueError: If the store cannot be read.
    """

    head = None
    networks = ()

    def __init__(self, folder: str | Path) -> None:
        self.store = TeacherStore(folder)
        self.check_views()

    def check_views(self) -> None:
        """Refuse a store whose records are not in the order of the samples, as a run of mmengine makes it."""
        if self.store.manifest.views.get('order') != BY_INDEX:
            raise ValueError(
                f'{self.store.folder} was made for a run of mmengine, in the order of its sampler: use it there '
                '(model.teacher_store), or make a store with mmcls_kd.teachers.store_logits'
            )

    @property
    def shapes(self) -> dict[str, Shape]:
        """The shapes of the logits and of each stored feature, for two images; of a tuple those of its parts."""
        shapes: dict[str, Shape] = {'logit': (2, self.num_classes)} if self.num_classes else {}
        features = self.store.manifest.features
        for name, sizes in features.items():
            found = tuple((2, *shape) for of, _, shape in fields_of(features) if of == name)
            shapes[name] = found if isinstance(sizes, list) else found[0]
        return shapes

    @property
    def num_classes(self) -> int:
        """Number of classes of the stored logits; 0 without any."""
        return self.store.manifest.classes

    @property
    def facts(self) -> dict[str, Callable[[], Any]]:
        """Facts for constructors of losses, by name: the weight of the linear classifier, if it is stored."""
        return {'teacher_weight': lambda: self._fact('teacher_weight')}

    @cached_property
    def classifier(self) -> tuple[Tensor, Tensor] | None:
        """The weight, (C, D), and bias, (C,), of the linear layer behind the pooled ``feat``; None if not stored."""
        weight, bias = map(self._fact, ('teacher_weight', 'teacher_bias'))
        return None if weight is None or bias is None else (weight, bias)

    def _fact(self, name: str) -> Tensor | None:
        value = self.store.fact(name)
        return None if value is None else torch.from_numpy(value)

    def __deepcopy__(self, memo: dict[int, Any]) -> StoredTeacher:
        return self

    def apart(self) -> StoredTeacher:
        """Return itself: it has no network."""
        return self

    def __call__(self, inputs: Tensor, samples: Any, names: Iterable[str], view: str = 'weak') -> dict[str, Read]:
        """Read the stored logits and features of a batch.

        Args:
            inputs: The images; only their device counts.
            samples: Their views, each as (epoch, place in the epoch), see :meth:`views`.
            names: Names of its taps, of which others than those of :attr:`shapes` are left out.
            view: ``'weak'``, or ``'strong'`` in a store of two views.

        Returns:
            The logits, (N, C), and features, (N, ...), by name, float32.

        Raises:
            TrainingError: If one of the images could not be read when the store was made; names it.
        """
        names = [name for name in names if name in self.shapes]
        if not names:
            return {}
        views = self.views(samples)
        records = parts_of(self.store.read(views[0][0], [place for _, place in views]))[view]
        if len(missing := missing_rows(records)):
            name = self.name_of(samples, missing[0])
            raise TrainingError(
                f'teacher_store {self.store.folder} has no record of {name}, which could not be read when the store was '
                'made: delete the store and make it again'
            )
        found: dict[str, Read] = {}
        for name in names:
            logit = name == 'logit'
            read = (
                decode(records, self.num_classes) if logit else decode_feature(records, name, self.store.manifest.features)
            )
            found[name] = read.to(inputs.device) if isinstance(read, Tensor) else tuple(p.to(inputs.device) for p in read)
        return found

    def views(self, samples: Any) -> Sequence[tuple[int, int]]:
        """Return the view of each sample of a batch: its epoch, and its place in that."""
        return samples

    def name_of(self, samples: Any, number: int) -> str:
        """Name a sample of a batch for a message."""
        return f'sample {samples[number][1]}'


@torch.no_grad()
def store_logits(
    teacher: nn.Module, loader: Iterable[Any], folder: str | Path, k: int | None = None, features: Sequence[str] = ()
) -> StoredTeacher:
    """Compute the logits of a teacher for every sample once, and store them.

    Args:
        teacher: A classifier; it runs in eval mode, where its parameters are, as under a :class:`Distiller`: on the same
            images, a training from the store is that with the live teacher's outputs rounded to float16.
        loader: A DataLoader whose batches begin with the images and end with the index of each sample in its data set,
            such as (images, labels, indices). A training then sees the logits of these images, whatever augmentation it
            makes of them. Images may be a pair, (weak, strong): then both views are stored.
        folder: A new folder for the store: 2 bytes a logit and view, see :func:`.records.record_type`.
        k: Number of logits of each sample that are stored, the largest ones; None for all.
        features: Features to store beside them, by the names of their taps, such as ``['vector']``: 2 bytes a number, all
            in memory until they are written. With them, the teacher's linear classifier is stored, too, and the teacher
            may have no classes.

    Returns:
        The stored teacher.

    Raises:
        ValueError: If the folder holds a store, the teacher is no module or has no such feature, the number of samples is
            unknown, a sample is missing, or a number is not finite in float16.
    """
    if not isinstance(teacher, nn.Module):
        raise ValueError(f'teacher: give the module itself, not {type(teacher).__name__}')
    if not hasattr(getattr(loader, 'dataset', None), '__len__'):
        raise ValueError('loader: give a DataLoader of a data set that has a length')
    folder = Path(folder)
    if (folder / MANIFEST).exists():
        raise ValueError(f'{folder} holds a store already: choose another folder, or delete it')
    count = len(loader.dataset)  # type: ignore[attr-defined]
    if not count:
        raise ValueError('the data set of the loader is empty: a store needs samples')
    seen = np.zeros(count, bool)
    records = np.empty(0)
    with evaluating(teacher):
        for indices, views, linear in _read(teacher, loader, features):  # noqa: B007  (that of the last batch counts)
            if indices.min() < 0 or indices.max() >= count:
                raise ValueError(
                    f'the loader gives indices from {indices.min()} to {indices.max()}, and its data set has {count} '
                    'samples: let it give the place of each in that data set (of a Subset, not in the whole one)'
                )
            for number, (logit, found) in enumerate(views):
                encoded = encode(logit, k or None, found)
                if not records.size:
                    records = np.zeros(count, type_of_views(encoded.dtype, len(views)))
                [*parts_of(records).values()][number][indices] = encoded
            seen[indices] = True
    if not seen.all():
        raise ValueError(
            f'{count - seen.sum()} of {count} samples are not in the batches of the loader, the first of index '
            f'{int(seen.argmin())}: let it give each (drop_last=False), with its index last in the batch'
        )
    save(folder, Shard(0, 0, 0), records)
    classes = 0 if logit is None else logit.shape[1]
    manifest = Manifest(dict(order=BY_INDEX), {}, classes, k or classes, 1, count, count, 1)
    manifest.views_each, manifest.features = len(views), sizes_of(found)
    for name, part in zip(('teacher_weight', 'teacher_bias'), linear, strict=False):
        manifest.facts[name] = save_fact(folder, name, part.detach().float().cpu().numpy())
    manifest.write(folder)
    return StoredTeacher(folder)


def _read(
    teacher: nn.Module, loader: Iterable[Any], features: Sequence[str]
) -> Iterator[tuple[np.ndarray, list[tuple[Tensor | None, dict[str, Read]]], tuple[Tensor, ...]]]:
    """Iterate over the batches: the index of each sample, logits and features of each view, and the linear classifier."""
    device = next(chain(teacher.parameters(), [torch.empty(0)])).device
    reader: Any = None
    for batch in loader:
        views = [batch[0]] if isinstance(batch[0], Tensor) else list(batch[0])
        read, linear = reader = reader or _reader(teacher, features, views[0].shape[2:])
        yield np.asarray(batch[-1]), [read(in_own_type(teacher, one.to(device))) for one in views], linear


def _reader(teacher: nn.Module, features: Sequence[str], size: Sequence[int]) -> tuple[Any, tuple[Tensor, ...]]:
    """Return a function from images to the logits, None without classes, and the features of a teacher.

    Beside it the weight of the linear classifier, and its bias if it is behind the pooled ``feat``; without features none.
    """
    height, width = size
    run = dry_run(teacher, 'teacher', (height, width), whole=True)
    run.check_images_stay('teacher')
    run.check_logits('teacher')
    taps = default_taps(teacher, run)
    names = names_to_store(features, shapes_of(taps, run), 'features')
    fast = FastNetwork(teacher)  # as under a live teacher

    def read(images: Tensor) -> tuple[Tensor | None, dict[str, Read]]:
        found = fast(images, {name: taps[name] for name in (*names, *(['logit'] if run.num_classes else []))})
        return found.pop('logit', None), found

    if not features or run.linear_path is None:
        return read, ()
    parts = weight_and_bias(teacher.get_submodule(run.linear_path))
    return read, parts if linear_classifier(teacher, run, taps) else parts[:1]


def shapes_in(shape: Shape) -> tuple[Shape, ...]:
    """Return the shapes of a feature's tensors: its own, or those of the parts of a tuple."""
    return shape if shape and isinstance(shape[0], tuple) else (shape,)


def is_vector(shape: Shape) -> bool:
    """Check whether the shape of a feature for two images is that of a vector, (N, D), or of a tuple of vectors."""
    return all(len(part) == 2 and part[0] == 2 for part in shapes_in(shape))


def names_to_store(given: Iterable[str], shapes: Mapping[str, Shape], option: str) -> list[str]:
    """Return the names of the taps to store.

    Args:
        given: Names that a user gave, of a tap or of a loss's input.
        shapes: The shapes of the teacher's features for two images, by name.
        option: The option that gave them, for messages.

    Raises:
        ValueError: If the teacher has no such feature, or it is not of the form (N, D, ...).
    """
    names = [name.removesuffix('_t') for name in given]
    for name in names:
        if name not in shapes:
            raise ValueError(
                f'{option}: the teacher has no feature {name!r}{close_names(name, shapes)}; it has {", ".join(shapes)}'
            )
        if any(len(part) < 2 or part[0] != 2 for part in shapes_in(shapes[name])):
            raise ValueError(
                f'{option}: {name!r} cannot be stored: of two images its shape is {shapes[name]}, and a store holds (N, D), '
                '(N, C, H, W) or the like of N images'
            )
    return [name for name in dict.fromkeys(names) if name != 'logit']  # which are stored in any case
