"""Teacher that reads precomputed logits from disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..errors import TrainingError
from .records import decode
from .store import TeacherStore


class StoredTeacher:
    """Teacher that reads precomputed logits from disk; it has no other features.

    Args:
        folder: Folder of the store.

    Raises:
        FileNotFoundError: If there is no store, or a file of it is missing.
        ValueError: If the store cannot be read.
    """

    head = None
    facts: Mapping[str, Any] = {}
    networks = ()

    def __init__(self, folder: str | Path) -> None:
        self.store = TeacherStore(folder)

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

    def __call__(self, inputs: Tensor, samples: Any, names: Iterable[str]) -> dict[str, Tensor]:
        """Read the stored logits of a batch.

        Args:
            inputs: The images; only their device counts.
            samples: Their views, each as (epoch, place in the epoch), see :meth:`views`.
            names: ``'logit'`` or nothing.

        Returns:
            The logits by name, (N, C), float32.

        Raises:
            TrainingError: If one of the images could not be read when the store was made; names it.
        """
        if 'logit' not in names:
            return {}
        views = self.views(samples)
        records = self.store.read(views[0][0], [place for _, place in views])
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
