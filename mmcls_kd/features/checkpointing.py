"""Gradient checkpointing that gradients of single terms go through."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils import checkpoint


@contextmanager
def without_reentry() -> Iterator[None]:
    """Make ``torch.utils.checkpoint.checkpoint`` its variant without re-entry into autograd in the ``with`` block.

    mmpretrain's networks (``with_cp``) call it without a choice and get the other variant, which refuses
    ``torch.autograd.grad``. Values and gradients are the same.
    """
    kept = checkpoint.checkpoint

    @functools.wraps(kept)
    def plain(*args: Any, **kwargs: Any) -> Any:
        return kept(*args, **{**kwargs, 'use_reentrant': False})

    checkpoint.checkpoint = plain
    try:
        yield
    finally:
        checkpoint.checkpoint = kept
