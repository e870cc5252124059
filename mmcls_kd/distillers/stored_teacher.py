"""A teacher whose logits were computed before: nothing of it is left but a store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from mmpretrain.structures import DataSample
from torch import Tensor

from ..errors import TrainingError
from ..teacher_store import TeacherStore
from ..teacher_store.records import decode


class StoredTeacher:
    """Stands in for :class:`~mmcls_kd.distillers.teacher.Teacher`; offers logits alone.

    Args:
        folder: Folder of the store.

    Raises:
        FileNotFoundError: If there is no store, or a file of it is missing.
        ValueError: If the store cannot be read.
    """

    head = None
    facts: Mapping[str, Any] = {}
    networks = ()

    def __init__(self, folder: str) -> None:
        self.store = TeacherStore(folder)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of the logits, for two images."""
        return {'logit': (2, self.num_classes)}

    @property
    def num_classes(self) -> int:
        """How many classes the teacher told apart."""
        return self.store.manifest.classes

    def __deepcopy__(self, memo: dict[int, Any]) -> StoredTeacher:
        return self

    def __call__(self, inputs: Tensor, data_samples: Sequence[DataSample], names: Iterable[str]) -> dict[str, Tensor]:
        """The stored logits of the views that a batch holds.

        Args:
            inputs: The images; only their device counts.
            data_samples: Their samples, which say by ``view`` where in the training they are.
            names: ``'logit'`` or nothing.

        Returns:
            The tensors by name, float32.

        Raises:
            ValueError: If the samples do not say that.
            TrainingError: If one of the images could not be read when the store was made; names it.
        """
        if 'logit' not in names:
            return {}
        views = [sample.get('view') for sample in data_samples]
        if None in views:
            raise ValueError(
                'teacher_store: the samples do not say where in the training they are; train with tools/train.py, whose '
                'data loading does (a dataloader of your own needs mmcls_kd.engine.reproducible around its config)'
            )
        epoch = views[0][0]
        records = self.store.read(epoch, [place for _, place in views])
        if len(missing := np.flatnonzero(np.isnan(records['logit'][:, 0]))):
            image = data_samples[missing[0]].get('img_path')
            raise TrainingError(
                f'teacher_store {self.store.folder} has no logits of {image}, which could not be read when the store was '
                'made: delete the store and make it again'
            )
        return {'logit': decode(records, self.num_classes).to(inputs.device)}
