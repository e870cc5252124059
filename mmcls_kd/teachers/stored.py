"""Teacher that reads precomputed logits from disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import TrainingError
from ..features.dry_run import evaluating, scores
from .records import decode, encode, parts_of, record_type
from .store import MANIFEST, Manifest, Shard, TeacherStore, save

#: In the manifest of a store whose records are in the order of the samples.
BY_INDEX = 'index of the sample'


class StoredTeacher:
    """Teacher that reads precomputed logits from disk; it has no other features.

    Args:
        folder: Folder of the store.

    Raises:
        FileNotFoundError: If there is no store, or a file of it is missing.
        ValueError: If the store cannot be read.
    """

    head = classifier = None
    facts: Mapping[str, Any] = {}
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
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of the logits, for two images."""
        return {'logit': (2, self.num_classes)}

    @property
    def num_classes(self) -> int:
        """Number of classes of the stored logits."""
        return self.store.manifest.classes

    def __deepcopy__(self, memo: dict[int, Any]) -> StoredTeacher:
        return self

    def __call__(self, inputs: Tensor, samples: Any, names: Iterable[str], view: str = 'weak') -> dict[str, Tensor]:
        """Read the stored logits of a batch.

        Args:
            inputs: The images; only their device counts.
            samples: Their views, each as (epoch, place in the epoch), see :meth:`views`.
            names: ``'logit'`` or nothing.
            view: ``'weak'``, or ``'strong'`` in a store of two views.

        Returns:
            The logits by name, (N, C), float32.

        Raises:
            TrainingError: If one of the images could not be read when the store was made; names it.
        """
        if 'logit' not in names:
            return {}
        views = self.views(samples)
        records = parts_of(self.store.read(views[0][0], [place for _, place in views]))[view]
        if len(missing := np.flatnonzero(np.isnan(records['logit'][:, 0]))):
            name = self.name_of(samples, missing[0])
            raise TrainingError(
                f'teacher_store {self.store.folder} has no logits of {name}, which could not be read when the store was '
                'made: delete the store and make it again'
            )
        return {'logit': decode(records, self.num_classes).to(inputs.device)}

    def views(self, samples: Any) -> Sequence[tuple[int, int]]:
        """Return the view of each sample of a batch: its epoch, and its place in that."""
        return samples

    def name_of(self, samples: Any, number: int) -> str:
        """Name a sample of a batch for a message."""
        return f'sample {samples[number][1]}'


@torch.no_grad()
def store_logits(teacher: nn.Module, loader: Iterable[Any], folder: str | Path, k: int | None = None) -> StoredTeacher:
    """Compute the logits of a teacher for every sample once, and store them.

    Args:
        teacher: A classifier; it runs in eval mode, where its parameters are.
        loader: A DataLoader whose batches begin with the images and end with the index of each sample in its data set,
            such as (images, labels, indices). A training then sees the logits of these images, whatever augmentation it
            makes of them. Images may be a pair, (weak, strong): then both views are stored.
        folder: A new folder for the store: 2 bytes a logit and view, see :func:`.records.record_type`.
        k: Number of logits of each sample that are stored, the largest ones; None for all.

    Returns:
        The stored teacher.

    Raises:
        ValueError: If the folder holds a store, a sample is missing, or a logit is not finite in float16.
    """
    folder = Path(folder)
    if (folder / MANIFEST).exists():
        raise ValueError(f'{folder} holds a store already: choose another folder, or delete it')
    count = len(loader.dataset)  # type: ignore[attr-defined]
    device = next(chain(teacher.parameters(), [torch.empty(0)])).device
    records = np.empty(0)
    seen = np.zeros(count, bool)
    with evaluating(teacher):
        for batch in loader:
            images, indices = batch[0], np.asarray(batch[-1])
            views = [images] if isinstance(images, Tensor) else list(images)
            logits = [scores(teacher(one.to(device))) for one in views]
            if not records.size:
                classes = logits[0].shape[1]
                records = np.zeros(count, record_type(classes, k or classes, len(views)))
            for part, logit in zip(parts_of(records).values(), logits, strict=True):
                part[indices] = encode(logit, k or classes)
            seen[indices] = True
    if not seen.all():
        raise ValueError(
            f'{count - seen.sum()} of {count} samples are not in the batches of the loader, the first of index '
            f'{int(seen.argmin())}: let it give each (drop_last=False), with its index last in the batch'
        )
    save(folder, Shard(0, 0, 0), records)
    manifest = Manifest(dict(order=BY_INDEX), {}, classes, k or classes, 1, count, count, epochs=1, views_each=len(views))
    manifest.write(folder)
    return StoredTeacher(folder)
