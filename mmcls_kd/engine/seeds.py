"""Stateless seeding: every random draw is seeded from (seed, epoch, position).

Saved random states do not restore a run: data workers have states of their own, and each pass over a dataloader draws
anew. So none is saved. Before each sample and each step, all generators are seeded from the numbers that identify it:

======================  ============================================================================================
draw                    source of the seed
======================  ============================================================================================
a sample's transforms   the run's seed, the epoch, the sample's place in the epoch's order over all processes, its index
a training step         the run's seed, the iteration, the process's rank (batch augmentation, drop path, random masks)
a pass over the data    the run's seed, the iteration at which the epoch starts, the rank
a validation            the run's seed, the iteration after which it comes, the rank
======================  ============================================================================================

Generators of transforms' own (albumentations, numpy's ``default_rng``) are seeded in the same way, if they are attributes
(:func:`own_generators`).

So a sample's draws do not depend on the batch size and the number of workers and processes. A training from a store of a
teacher's outputs (:mod:`mmcls_kd.teacher_store`) counts epochs and iterations anew after the last stored epoch.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn


def derive_seed(*parts: int | str) -> int:
    """Derive a 63-bit seed from a sequence of numbers and words.

    Example:
        >>> derive_seed(0, 'step', 1) == derive_seed(0, 'step', 1)
        True
        >>> derive_seed(0, 'step', 1) == derive_seed(0, 'step', 2)
        False
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, 'little') >> 1


def derive_seeds(parts: tuple[int | str, ...], *numbers: Iterable[int]) -> np.ndarray:
    """Derive a seed for each of several rows of numbers: of ``parts``, followed by the row's.

    Example:
        >>> derive_seeds((0, 'sample'), [4, 5], [7, 8])[1] == derive_seed(0, 'sample', 5, 8)
        np.True_
    """
    text = repr(parts)[:-1].encode().replace(b'%', b'%%') + b', %d' * len(numbers) + b')'
    digests = [hashlib.blake2b(text % row, digest_size=8).digest() for row in zip(*numbers, strict=True)]
    return np.frombuffer(b''.join(digests), np.dtype('<u8')).astype(np.uint64) >> np.uint64(1)


def seed_transforms(*parts: int | str, numpy_alone: bool = False) -> int:
    """Seed the generators of transforms: numpy's, and unless it is the only one, python's and torch's; return the seed."""
    seed = derive_seed(*parts)
    np.random.seed(seed % 2**32)
    if not numpy_alone:
        random.seed(seed)
        torch.default_generator.manual_seed(seed)
    return seed


def seed_all(*parts: int | str) -> None:
    """Seed all generators, those of every device too."""
    seed = seed_transforms(*parts)
    if torch.accelerator.is_available():
        torch.manual_seed(seed)  # without a device it would note for each kind where it was called: a third of a millisecond


@contextmanager
def states_kept() -> Iterator[None]:
    """Restore the states of all random generators afterwards."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    numpy_state, python_state = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)


@contextmanager
def buffers_kept(*networks: nn.Module) -> Iterator[None]:
    """Restore the buffers of networks (batch statistics, memories) afterwards."""
    kept = [(buffer, buffer.clone()) for network in networks for buffer in network.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, before in kept:
                buffer.copy_(before)


GENERATORS = (np.random.Generator, np.random.RandomState, random.Random, torch.Generator)


def own_generators(*roots: Any) -> list[Any]:
    """Find the random generators in objects: in attributes, dicts, lists and tuples, at any depth; each once."""
    found, seen, pending = [], {}, list(roots)
    while pending:
        value = pending.pop()
        if id(value) in seen:
            continue
        seen[id(value)] = value  # kept, so that no other object gets its id
        if isinstance(value, GENERATORS):
            found.append(value)
        elif isinstance(value, Mapping):
            pending.extend(value.values())
        elif isinstance(value, (list, tuple)):
            pending.extend(value)
        elif hasattr(value, '__dict__') and not isinstance(value, (type, ModuleType, FunctionType)):
            pending.extend(vars(value).values())
    return found


def seed_generators(generators: Iterable[Any], *parts: int | str) -> None:
    """Seed generators (see :func:`own_generators`) by ``parts`` and their position among them."""
    for number, generator in enumerate(generators):
        seed = derive_seed(*parts, number)
        if isinstance(generator, np.random.Generator):
            bits = generator.bit_generator
            bits.state = type(bits)(seed).state
        elif isinstance(generator, torch.Generator):
            generator.manual_seed(seed)
        else:
            generator.seed(seed % 2**32)
