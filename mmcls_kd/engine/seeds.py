"""Random numbers that depend on where a training is, not on how it got there.

Saved random states do not bring a run back: data workers hold states of their own, and each pass over a dataloader draws
anew. So none is saved. Before each sample and each step all generators are seeded from the numbers that name it:

======================  ============================================================================================
what is drawn           seeded from
======================  ============================================================================================
a sample's transforms   the run's seed, the epoch, the sample's place in the epoch's order over all processes, its index
a training step         the run's seed, the iteration, the process's rank (batch augmentation, drop path, random masks)
a pass over the data    the run's seed, the iteration at which the epoch starts, the rank
a validation            the run's seed, the iteration after which it comes, the rank
======================  ============================================================================================

A sample's draws are therefore the same whatever the number of workers and processes and the batch size. A training from
a store of a teacher's logits (:mod:`mmcls_kd.teacher_store`) counts epochs and iterations anew when it has been through.
"""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed of its own for each sequence of numbers and words.

    Example:
        >>> derive_seed(0, 'step', 1) == derive_seed(0, 'step', 1)
        True
        >>> derive_seed(0, 'step', 1) == derive_seed(0, 'step', 2)
        False
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, 'little') >> 1


def seed_transforms(*parts: int | str) -> int:
    """Seed what transforms draw from, python's, numpy's and torch's generators on the CPU; returns the seed."""
    seed = derive_seed(*parts)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    return seed


def seed_all(*parts: int | str) -> None:
    """Seed all generators, those of every device too."""
    torch.manual_seed(seed_transforms(*parts))
