"""Patches of MMEngine: everything of a foreign library that this package replaces, and why."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.runner import CheckpointLoader
from mmengine.utils import apply_to
from torch import Tensor

from .files import plain_data
from .files.checkpoint import FORCE_SAFE, _allowed_globals, read_checkpoint, take_start
from .networks.loading import fetch
from .networks.weights import (
    about_contents,
    say_average,
    weights_of,
)


def guard_loading(trust: bool) -> None:
    """Let nothing in this process run code from a file of data, mmengine's own loading (``Pretrained``, resume) included.

    mmengine reads a checkpoint anew, and lets it run code, where the safe way fails; and it builds what a YAML file or a
    pickled annotation list names.

    Args:
        trust: Let files run code after all.
    """
    plain_data.guard_files(trust)
    if trust:
        os.environ.pop(FORCE_SAFE, None)
    else:
        os.environ[FORCE_SAFE] = '1'  # for every torch.load, whoever calls it
        torch.serialization.add_safe_globals(_allowed_globals())
    CheckpointLoader.register_scheme('', _load_from_local, force=True)
    CheckpointLoader.register_scheme(('http://', 'https://'), _load_from_http, force=True)


def _load_from_local(filename: str, map_location: Any = None) -> dict[str, Any]:
    """What mmengine calls to read a local file."""
    path = Path(filename).expanduser()
    content = take_start(path) or read_checkpoint(path)
    weights = weights_of(content)
    if not weights:
        raise ValueError(f'checkpoint {filename} {about_contents(content)}')
    say_average(content, f'weights {filename}')
    held = content.get('state_dict', content)
    if weights.keys() != {key for key, value in held.items() if isinstance(value, Tensor)}:
        content = {**content, 'state_dict': weights}  # where mmengine looks for them
    return content if map_location is None else apply_to(content, lambda x: isinstance(x, Tensor), _mover(map_location))


def _load_from_http(filename: str, map_location: Any = None, **_: Any) -> dict[str, Any]:
    """What mmengine calls to download a file and read it."""
    return _load_from_local(str(fetch(filename, 'pretrained')), map_location)


def _mover(map_location: Any) -> Callable[[Tensor], Tensor]:
    return (lambda x: x) if callable(map_location) else (lambda x: x.to(map_location))
