"""Checkpoints: read without running code."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import pickle
import re
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from torch import nn

from ..errors import listed, need_library
from . import plain_data

#: The environment variable that makes every ``torch.load`` safe.
FORCE_SAFE = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD'
#: Errors of reading a damaged file, or one that is no checkpoint.
DAMAGED: tuple[type[Exception], ...] = (AssertionError, AttributeError, EOFError, ImportError, LookupError, OSError)
DAMAGED += (RuntimeError, TypeError, ValueError, struct.error)

# The functions that mmengine's checkpoints refer to: statistics of its log history, and the shape of a one-cycle schedule.
FUNCTIONS = {
    HistoryBuffer: ('mean', 'min', 'max', 'current'),
    OneCycleParamScheduler: ('_annealing_cos', '_annealing_linear'),
}


def _restricted_getattr(owner: type, name: str) -> Callable:
    """Stand in for ``getattr`` in the unpickler: for :data:`FUNCTIONS` alone."""
    if name in FUNCTIONS.get(owner, ()):
        return getattr(owner, name)
    raise pickle.UnpicklingError(f'getattr({owner}, {name!r}) is not allowed')


def _named(function: Callable, path: str) -> Callable:
    """Wrap a function under the name by which a pickle calls it."""

    def wrapper(*args: Any) -> Any:
        return function(*args)

    wrapper.__module__, wrapper.__name__ = path.rsplit('.', 1)
    wrapper.__qualname__ = wrapper.__name__
    return wrapper


def _allowed_globals() -> list[Any]:
    """List the plain types in checkpoints besides tensors.

    Those of mmengine have :data:`FUNCTIONS` and numpy numbers, under old and new names; those of scripts have their options,
    which may contain paths.
    """
    multiarray = import_module('numpy._core.multiarray' if hasattr(np, '_core') else 'numpy.core.multiarray')
    numpy_functions = [
        _named(getattr(multiarray, name), f'{module}.multiarray.{name}')
        for module in ('numpy.core', 'numpy._core')
        for name in ('_reconstruct', 'scalar')
    ]
    dtypes = {type(np.dtype(t)) for t in (np.float32, np.float64, np.int32, np.int64, np.uint32, np.bool_)}
    paths = [
        _named(kind, f'{module}.{name}')
        for module in ('pathlib', 'pathlib._local')
        for name, kind in (('PosixPath', pathlib.PurePosixPath), ('WindowsPath', pathlib.PureWindowsPath))
    ]
    return [
        *FUNCTIONS,
        argparse.Namespace,
        *paths,
        _named(_restricted_getattr, 'builtins.getattr'),
        np.ndarray,
        np.dtype,
        *dtypes,
        *numpy_functions,
    ]


@contextmanager
def _allowing(allowed: list) -> Iterator[None]:
    """Stand in for ``torch.serialization.safe_globals``, which forgets what else allowed the same ones."""
    before = torch.serialization.get_safe_globals()
    torch.serialization.add_safe_globals(allowed)
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


@contextmanager
def _unguarded() -> Iterator[None]:
    """Lift :func:`~mmcls_kd.networks.loading.guard_loading` for one file."""
    guarded = os.environ.pop(FORCE_SAFE, None)
    try:
        yield
    finally:
        if guarded is not None:
            os.environ[FORCE_SAFE] = guarded


def read_checkpoint(path: str | Path, trust: bool | None = None) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, without running code from it.

    Only for files from trusted people, ``trust`` allows pickled objects (``weights_only=False``). If it is None, the setting
    of :func:`~mmcls_kd.networks.loading.guard_loading` counts. A damaged file, or no checkpoint, is a ``ValueError``.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'checkpoint {path}: no such file')
    if path.suffix == '.safetensors':
        return _read_safetensors(path)
    if path.name.endswith('.index.json'):
        return _read_parts(path, trust)
    try:
        if plain_data.trusted if trust is None else trust:
            with _unguarded():
                content = torch.load(path, map_location='cpu', weights_only=False)
        else:
            with _allowing(_allowed_globals()):
                content = torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        if found := re.search(r'GLOBAL ([\w.]+)', str(error)):
            raise ValueError(
                f'checkpoint {path} holds {found[1]}, which could run code when it is read. If you trust where the file '
                'comes from, say so with --trust'
            ) from error
        found = re.search(r'WeightsUnpickler error:\s*(.+)', str(error))
        reason = found[1] if found else str(error).splitlines()[0]
        raise ValueError(f'checkpoint {path} is no PyTorch checkpoint, or damaged: {reason}') from error
    except DAMAGED as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f'checkpoint {path} is truncated, or no PyTorch checkpoint that opens here: {reason}') from error
    if isinstance(content, nn.Module):  # of a trusted file
        content = content.state_dict()
    if not isinstance(content, Mapping):
        raise ValueError(f'checkpoint {path} holds a {type(content).__name__} instead of weights by name')
    if not isinstance(content.get('state_dict', {}), Mapping):
        kind = type(content['state_dict']).__name__
        raise ValueError(f'checkpoint {path} holds a {kind} in its state_dict instead of weights by name')
    return dict(content)


#: The checkpoint that a run starts from, by its file's identity, until mmengine loads it.
_start: dict[tuple[int, ...], dict[str, Any]] = {}


def _identity(path: Path) -> tuple[int, ...]:
    state = path.stat()
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns


def read_start(path: Path) -> dict[str, Any]:
    """Read the checkpoint that a run starts from once, and hold it unchanged until mmengine loads the same file."""
    key = _identity(path) if path.is_file() else ()
    if key not in _start:
        _start.clear()
        _start[key] = read_checkpoint(path)
    return _start[key]


def take_start(path: Path) -> dict[str, Any] | None:
    """Return the checkpoint of a file from :func:`read_start`, and hold it no longer; None if there is none."""
    return _start.pop(_identity(path), None) if path.is_file() else None


def check_end(path: Path) -> None:
    """Refuse a truncated checkpoint by its ends alone: an empty one, or an archive of torch without its end."""
    with path.open('rb') as file:
        start = file.read(2)
    if start in (b'', b'PK') and not zipfile.is_zipfile(path):
        raise ValueError(f'checkpoint {path} is truncated, or no PyTorch checkpoint')


def _read_safetensors(path: Path) -> dict[str, Any]:
    """Read a file of safetensors, which holds tensors alone."""
    need_library('safetensors', f'checkpoint {path}')
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f'checkpoint {path} is truncated, or no file of safetensors: {error}') from error


def _read_parts(path: Path, trust: bool | None) -> dict[str, Any]:
    """Read the weights in all files of an index (Hugging Face's ``*.index.json``)."""
    try:
        places = {str(key): str(file) for key, file in json.loads(path.read_text())['weight_map'].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f'checkpoint {path} is no index of weights in several files: {error}') from error
    files = sorted(set(places.values()))
    if wrong := [file for file in files if Path(file).name != file or file.endswith('.index.json')]:
        raise ValueError(f'checkpoint {path} is no index: it names {listed(wrong)}, and no file of weights beside it')
    if missing := [file for file in files if not (path.parent / file).is_file()]:
        raise FileNotFoundError(
            f'checkpoint {path}: of the {len(files)} files that it names {len(missing)} are not here: {listed(missing)}: '
            'no such file'
        )
    weights: dict[str, Any] = {}
    for file in files:
        weights |= read_checkpoint(path.parent / file, trust)
    if lost := [key for key in places if key not in weights]:
        raise ValueError(f'checkpoint {path}: {places[lost[0]]} does not hold what it should: {listed(lost)}')
    return weights


def plain(value: Any) -> Any:
    """Convert a value to plain types, which ``torch.load(weights_only=True)`` opens anywhere."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)
