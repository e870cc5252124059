"""Teacher that reads precomputed logits and vectors from disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import TrainingError
from ..features.dry_run import dry_run, evaluating, scores
from ..features.families import default_taps
from ..features.layouts import Read
from ..features.taps import Shape, record, shapes_of
from .records import decode, decode_vector, encode, missing_rows, parts_of, type_of_views, widths_of
from .store import MANIFEST, Manifest, Shard, TeacherStore, save

#: In the manifest of a store whose records are in the order of the samples.
BY_INDEX = 'index of the sample'


class StoredTeacher:
    """Teacher that reads precomputed logits, and stored vectors, from disk; it has no other features.

    Args:
        folder: Folder of the store.

    Raises:
        FileNotFoundError: If there is no store, or a file of it is missing.
        ValueError: If the store cannot be read.
    """

    head = classifier = None
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
        """The shapes of the logits and of each stored vector, for two images; of several teachers those of each."""
        shapes: dict[str, Shape] = {'logit': (2, self.num_classes)} if self.num_classes else {}
        for name, widths in self.store.manifest.features.items():
            shapes[name] = (2, widths) if isinstance(widths, int) else tuple((2, width) for width in widths)
        return shapes

    @property
    def num_classes(self) -> int:
        """Number of classes of the stored logits; 0 without any."""
        return self.store.manifest.classes

    @property
    def facts(self) -> dict[str, Callable[[], Any]]:
        """Facts for constructors of losses, by name: the weight of the linear classifier, if it is stored."""
        return {'teacher_weight': self._linear_weight}

    def _linear_weight(self) -> Tensor | None:
        weight = self.store.fact('teacher_weight')
        return None if weight is None else torch.from_numpy(weight)

    def __deepcopy__(self, memo: dict[int, Any]) -> StoredTeacher:
        return self

    def __call__(self, inputs: Tensor, samples: Any, names: Iterable[str], view: str = 'weak') -> dict[str, Read]:
        """Read the stored logits and vectors of a batch.

        Args:
            inputs: The images; only their device counts.
            samples: Their views, each as (epoch, place in the epoch), see :meth:`views`.
            names: Names of its taps, of which others than those of :attr:`shapes` are left out.
            view: ``'weak'``, or ``'strong'`` in a store of two views.

        Returns:
            The logits, (N, C), and vectors, (N, D), by name, float32.

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
            read = decode(records, self.num_classes) if logit else decode_vector(records, name, self.store.manifest.features)
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
        teacher: A classifier; it runs in eval mode, where its parameters are.
        loader: A DataLoader whose batches begin with the images and end with the index of each sample in its data set,
            such as (images, labels, indices). A training then sees the logits of these images, whatever augmentation it
            makes of them. Images may be a pair, (weak, strong): then both views are stored.
        folder: A new folder for the store: 2 bytes a logit and view, see :func:`.records.record_type`.
        k: Number of logits of each sample that are stored, the largest ones; None for all.
        features: Vectors to store beside them, by the names of their taps, such as ``['vector']``: 2 bytes a number. With
            them, the teacher may have no classes.

    Returns:
        The stored teacher.

    Raises:
        ValueError: If the folder holds a store, a sample is missing, the teacher has no such vector, or a number is not
            finite in float16.
    """
    folder = Path(folder)
    if (folder / MANIFEST).exists():
        raise ValueError(f'{folder} holds a store already: choose another folder, or delete it')
    count = len(loader.dataset)  # type: ignore[attr-defined]
    if not count:
        raise ValueError('the data set of the loader is empty: a store needs samples')
    seen = np.zeros(count, bool)
    records = np.empty(0)
    with evaluating(teacher):
        for indices, views in _read(teacher, loader, features):
            for number, (logit, vectors) in enumerate(views):
                encoded = encode(logit, k or None, vectors)
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
    manifest.views_each, manifest.features = len(views), widths_of(vectors)
    manifest.write(folder)
    return StoredTeacher(folder)


def _read(
    teacher: nn.Module, loader: Iterable[Any], features: Sequence[str]
) -> Iterator[tuple[np.ndarray, list[tuple[Tensor | None, dict[str, Read]]]]]:
    """Iterate over the batches: the index of each sample, and logits and vectors of each view."""
    device = next(chain(teacher.parameters(), [torch.empty(0)])).device
    read: Any = None
    for batch in loader:
        views = [batch[0]] if isinstance(batch[0], Tensor) else list(batch[0])
        read = read or _reader(teacher, features, views[0].shape[2:])
        yield np.asarray(batch[-1]), [read(one.to(device)) for one in views]


def _reader(teacher: nn.Module, features: Sequence[str], size: Sequence[int]) -> Any:
    """Return a function from images to the logits, None without classes, and the vectors of a teacher."""
    if not features:
        return lambda images: (scores(teacher(images)), {})
    height, width = size
    run = dry_run(teacher, 'teacher', (height, width), whole=True)
    taps = default_taps(teacher, run)
    names = vector_names(features, shapes_of(taps, run), 'features')

    def read(images: Tensor) -> tuple[Tensor | None, dict[str, Read]]:
        with record(teacher, {name: taps[name] for name in names}) as vectors:
            logit = scores(teacher(images))
        return logit if run.num_classes else None, vectors

    return read


def is_vector(shape: Shape) -> bool:
    """Check whether the shape of a feature is that of a vector, (N, D), or of one of each of several teachers."""
    return all(len(part) == 2 for part in (shape if isinstance(shape[0], tuple) else [shape]))


def vector_names(given: Iterable[str], shapes: Mapping[str, Shape], option: str) -> list[str]:
    """Return the names of the taps of vectors to store.

    Args:
        given: Names that a user gave, of a tap or of a loss's input.
        shapes: The shapes of the teacher's features, by name.
        option: The option that gave them, for messages.

    Raises:
        ValueError: If the teacher has no such feature, or it is no vector.
    """
    known = [name for name, shape in shapes.items() if is_vector(shape)]
    names = [name.removesuffix('_t') for name in given]
    for name in names:
        if name not in known:
            reason = 'it is none' if name in shapes else 'the teacher has no such feature'
            raise ValueError(
                f'{option}: a store holds logits and vectors, (N, D), and {name!r} cannot be stored: {reason}; the vectors '
                f'of this teacher are {", ".join(known) or "none"}'
            )
    return [name for name in dict.fromkeys(names) if name != 'logit']  # which are stored in any case
