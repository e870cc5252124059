"""A first batch through a model: images as in training, without side effects."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from mmengine.dist import get_dist_info
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from ..errors import TrainingError, UnreadableImageError, in_one_line, is_outside
from .data import SampleIndex
from .models import unwrapped
from .seeds import buffers_kept, states_kept


def first_images(loader: DataLoader, count: int = 2) -> Any:
    """Return a batch of two images as in training, but in another order: no sampler is read, since some allow one pass.

    Where unreadable images are left out, the next ones take their places.
    """
    rank, world_size = get_dist_info()
    size = len(loader.dataset)  # type: ignore[arg-type]
    indices = (SampleIndex(k % size, 0, (rank + k * world_size) % size) for k in range(size + count))
    samples = (loader.dataset[index] for index in indices)
    readable = list(islice((sample for sample in samples if not isinstance(sample, UnreadableImageError)), count))
    if not readable:
        raise TrainingError('not one image of the training data can be read: `python -m mmcls_kd check-data` tells why')
    return loader.collate_fn(readable)


@contextmanager
def misfits_named(what: str) -> Iterator[None]:
    """Turn errors of a first batch that does not fit into a ``ValueError`` that states it."""
    try:
        yield
    except (TrainingError, ValueError):
        raise  # says all that is to be said
    except Exception as error:
        if is_outside(error):
            raise
        raise ValueError(f'a first batch does not go through {what}: {in_one_line(error)}') from error


@contextmanager
def without_a_trace(model: nn.Module, training: bool = False) -> Iterator[None]:
    """Try a model in the ``with`` block, without gradients; random states, buffers and mode are restored.

    Compiled parts run uncompiled, so that nothing is compiled for two images.
    """
    before = model.training
    changing = [network for network in getattr(model, 'teachers', ()) if network.training] + [model] * training
    try:
        with states_kept(), buffers_kept(*changing), torch.no_grad(), torch.compiler.set_stance('force_eager'):
            model.train(training)
            yield
    finally:
        model.train(before)


def check_first_batch(runner: Runner, what: str = 'the model') -> None:
    """Run two training images through the losses of the model, which messages call ``what``, without side effects.

    Wrong channels, sizes and numbers of classes fail here, before anything is trained. Random states and batch statistics
    are restored, those of a teacher in train mode too: processes compare them.
    """
    model = unwrapped(runner)
    with without_a_trace(model), misfits_named(what):
        batch = first_images(runner.train_dataloader)
        with torch.enable_grad():  # losses are asked for theirs
            model(**model.data_preprocessor(batch, training=True), mode='loss')
