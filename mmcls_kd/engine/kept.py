"""Validation and test images in memory: read in the first pass, and taken from memory in all later ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmengine.dataset import default_collate, pseudo_collate
from mmengine.logging import print_log
from torch.utils.data import DataLoader

from .data import may_be_kept
from .memory import LIMIT, ImageMemory, NotKeptError

#: Collations whose batches are known.
COLLATE = (default_collate, pseudo_collate)


class KeptLoader(DataLoader):
    """A dataloader that makes its batches of images in memory; they hold the same as a dataloader's own.

    Attributes:
        memory: The images; None once one of them could not be kept, then they are read again.
    """

    memory: ImageMemory | None

    def __iter__(self) -> Any:
        if self.memory is not None and self.memory.is_current and _collation(self) in COLLATE:
            torch.empty((), dtype=torch.int64).random_(generator=self.generator)  # as a dataloader seeds its workers
            return self._batches()
        return super().__iter__()

    def _batches(self) -> Iterator[dict[str, Any]]:
        """Iterate over the batches of a pass."""
        for indices in self.batch_sampler:  # type: ignore[union-attr]
            yield self._kept(np.asarray(indices, np.int64)) or self.collate_fn([self.dataset[index] for index in indices])

    def _kept(self, indices: np.ndarray) -> dict[str, Any] | None:
        """Return a batch of images in memory; None if they cannot be kept."""
        if self.memory is None:
            return None
        try:
            for index in self.memory.missing(indices):
                self.memory.read(index)
        except Exception:  # the data set tells, where it has one to tell
            self.memory = None
            return None
        if self.memory.reason:  # found while reading
            return None
        batch = self.memory.fixed_batch(indices)
        return {**batch, 'inputs': list(batch['inputs'])} if _collation(self) is pseudo_collate else batch


def _collation(loader: DataLoader) -> Any:
    """Return the function that collates a dataloader's batches."""
    return getattr(loader.collate_fn, 'func', loader.collate_fn)


def keep_images(loader: Any, in_memory: bool | None) -> None:
    """Turn a dataloader of validation or test images into a :class:`KeptLoader`, in place, where no pixel changes by it.

    Args:
        loader: A dataloader of mmengine's; anything else stays as it is.
        in_memory: True for a data set of any size, and a line in the log if it cannot be kept; False for none; None for
            those below :data:`.memory.LIMIT` that no workers have to decode.

    Raises:
        ChoiceError: If ``in_memory`` is none of them.
    """
    if not may_be_kept(in_memory) or type(loader) is not DataLoader:
        return
    try:
        memory = ImageMemory(loader.dataset, None if in_memory else LIMIT)
        if memory.reason or memory.is_random or _collation(loader) not in COLLATE:
            raise NotKeptError(memory.reason or 'its pipeline or its collation is not known to give the same each time')
        if memory.is_decoded and loader.num_workers and not in_memory:
            return
    except NotKeptError as error:
        if in_memory:
            print_log(f'the images of {type(loader.dataset).__name__} are not kept in memory: {error}', 'current')
        return
    except Exception:  # of a sample that cannot be read: it is told where it is used
        return
    loader.__class__ = KeptLoader  # a dataloader lets nobody exchange its data set or its sampler
    loader.memory = memory
