"""Checkpoints: read without running code, loaded strictly, and turned into the student's own (``pth_transfer.py``)."""

from __future__ import annotations

import argparse
import codecs
import hashlib
import io
import json
import math
import os
import pathlib
import pickle
import re
import struct
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import torch
from mmengine.dist import barrier, get_local_rank
from mmengine.logging import HistoryBuffer, print_log
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from mmengine.runner import CheckpointLoader
from mmengine.utils import apply_to
from torch import Tensor, nn

from . import plain_data
from .configs import find_file
from .extras import need_library
from .networks.weights import (
    AVERAGES,
    about_contents,
    as_in_memory,
    find_weights,
    listed,
    say_average,
    student_weights,
    weights_of,
)

#: The files of weights in a folder of Hugging Face's, the first one there counts.
WEIGHTS_FILES = tuple(
    f'{name}{index}' for index in ('', '.index.json') for name in ('model.safetensors', 'pytorch_model.bin')
)
#: Where a classifier keeps the network of another library that it wraps.
INSIDE = 'model.'
#: The environment variable that makes every ``torch.load`` a safe one.
FORCE_SAFE = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD'
#: What reading a damaged file, or one that is no checkpoint, ends in.
DAMAGED: tuple[type[Exception], ...] = (AssertionError, AttributeError, EOFError, ImportError, LookupError, OSError)
DAMAGED += (RuntimeError, TypeError, ValueError, struct.error)

# The functions that mmengine's checkpoints refer to: statistics of its log history, and the shape of a one-cycle schedule.
FUNCTIONS = {
    HistoryBuffer: ('mean', 'min', 'max', 'current'),
    OneCycleParamScheduler: ('_annealing_cos', '_annealing_linear'),
}


def _restricted_getattr(owner: type, name: str) -> Callable:
    """``getattr`` as the unpickler may use it: for :data:`FUNCTIONS` alone."""
    if name in FUNCTIONS.get(owner, ()):
        return getattr(owner, name)
    raise pickle.UnpicklingError(f'getattr({owner}, {name!r}) is not allowed')


def _named(function: Callable, path: str) -> Callable:
    """A function under the name by which a pickle calls it."""

    def wrapper(*args: Any) -> Any:
        return function(*args)

    wrapper.__module__, wrapper.__name__ = path.rsplit('.', 1)
    wrapper.__qualname__ = wrapper.__name__
    return wrapper


def _allowed_globals() -> list[Any]:
    """What checkpoints hold beside tensors and is plain data.

    Mmengine's have :data:`FUNCTIONS` and numpy numbers, under old and new names; those of scripts their options, in which
    paths may be.
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
    encode = codecs.encode  # the bytes of a numpy number; torch 2.4 does not allow it by itself
    return [
        *FUNCTIONS,
        encode,
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
    """``torch.serialization.safe_globals``, which torch 2.4 does not have yet."""
    before = list(torch.serialization.get_safe_globals())  # torch 2.4 hands out its own list
    torch.serialization.add_safe_globals(allowed)
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


@contextmanager
def _unguarded() -> Iterator[None]:
    """Lift :func:`guard_loading` for one file."""
    guarded = os.environ.pop(FORCE_SAFE, None)
    try:
        yield
    finally:
        if guarded is not None:
            os.environ[FORCE_SAFE] = guarded


def read_checkpoint(path: str | Path, trust: bool | None = None) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, without running code from it.

    Args:
        path: The file.
        trust: Let the file run code while it is read; only for files from people you trust. What :func:`guard_loading` was
            told if None.

    Returns:
        What the file holds.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is truncated, no PyTorch checkpoint, or holds more than weights and logs and is not trusted.
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
    """Read the checkpoint that a run starts from, and hold it until mmengine loads the same file: it is read once.

    Args:
        path: The file.

    Returns:
        The content, not to be changed.

    Raises:
        FileNotFoundError: As :func:`read_checkpoint`.
        ValueError: Likewise.
    """
    key = _identity(path) if path.is_file() else ()
    if key not in _start:
        _start.clear()
        _start[key] = read_checkpoint(path)
    return _start[key]


def check_end(path: Path) -> None:
    """Refuse a checkpoint that is cut off, without reading more than its ends.

    Args:
        path: The file.

    Raises:
        ValueError: If it is empty, or begins as the archive that torch writes and does not end as one.
    """
    with path.open('rb') as file:
        start = file.read(2)
    if start in (b'', b'PK') and not zipfile.is_zipfile(path):
        raise ValueError(f'checkpoint {path} is truncated, or no PyTorch checkpoint')


def _read_safetensors(path: Path) -> dict[str, Any]:
    """A file of safetensors, which holds tensors alone."""
    need_library('safetensors', f'checkpoint {path}')
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f'checkpoint {path} is truncated, or no file of safetensors: {error}') from error


def _read_parts(path: Path, trust: bool | None) -> dict[str, Any]:
    """The weights in all files that an index (Hugging Face's ``*.index.json``) lists."""
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


def _weights_in(folder: Path, role: str) -> Path:
    """The file of weights in a folder as Hugging Face saves a model."""
    for name in WEIGHTS_FILES:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f'{role} weights {folder}: the folder has none of {", ".join(WEIGHTS_FILES)}')


def fetch(source: str, role: str) -> Path:
    """The local file of some weights: by path (working directory, then toolbox), or downloaded once into torch's cache.

    Args:
        source: Path of a file, or of a folder as Hugging Face saves a model, or http(s) address. A hash in the file's name
            (``-1a2b3c4d.pth``) is checked after a download.
        role: Whose weights they are, for messages.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the download fails.
    """
    if (folder := Path(source).expanduser()).is_dir():
        return _weights_in(folder, role)
    if not source.startswith(('http://', 'https://')):
        try:
            return find_file(source)
        except FileNotFoundError as error:
            raise FileNotFoundError(f'{role} weights {error}') from error
    cached = Path(torch.hub.get_dir()) / 'checkpoints' / source.rsplit('/', 1)[-1]
    if get_local_rank() == 0 and not cached.exists():
        cached.parent.mkdir(parents=True, exist_ok=True)
        digest = re.search(r'-([0-9a-f]{8,})\.\w+$', cached.name)
        try:
            torch.hub.download_url_to_file(source, str(cached), digest and digest[1])
        except (URLError, RuntimeError, OSError) as error:
            raise ValueError(
                f'{role} weights {source} could not be downloaded ({error}); '
                'fetch the file otherwise and give its path instead'
            ) from error
    barrier()
    return cached


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
    content = (_start.pop(_identity(path), None) if path.is_file() else None) or read_checkpoint(path)
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


def load_strictly(network: nn.Module, source: str, role: str, classes: int | None = None) -> dict[str, Any]:
    """Load weights into a network, all of them and no others.

    Args:
        network: The network, changed in place.
        source: Path or address of its weights, see :func:`fetch`. Of a distiller's checkpoint the student is taken.
        role: Whose weights they are (``'teacher'``, ``'student'``), for messages.
        classes: How many classes the network tells apart, to let weights of the same network for another number fill all
            of it but the classifier, which starts afresh; None to refuse them.

    Layers that only distillation needs (see :func:`transfer`) may be on either side alone. A network may have been saved
    by itself or inside of another module: what is beside it in the file is left out.

    Returns:
        What the file says beside the weights (``meta``).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is unreadable, or keys are missing, unexpected or of another shape, or hold numbers that are
            not finite; names them.
    """
    checkpoint = read_checkpoint(fetch(source, role))
    what = f'{role} weights {source}'
    found = weights_of(checkpoint)
    if not found:
        raise ValueError(f'{what}: the file {about_contents(checkpoint)}')
    say_average(checkpoint, what)
    own = network.state_dict()
    weights = as_in_memory(network, _own_names(student_weights(found) or found, own, what))
    if infinite := [key for key, value in weights.items() if not value.isfinite().all()]:
        raise ValueError(f'{what} hold NaN or infinite numbers: {listed(infinite)}')
    _load(network, weights, what, 'teacher' if role == 'teacher' else '', classes)
    meta = checkpoint.get('meta')
    return dict(meta) if isinstance(meta, Mapping) else {}


def _load(network: nn.Module, weights: Mapping[str, Tensor], what: str, role: str, classes: int | None) -> None:
    """Load weights under a network's own names, as :func:`load_strictly` says."""
    own, shapes = network.state_dict(), {}
    try:
        missing, unexpected = network.load_state_dict(weights, strict=False)
    except RuntimeError as error:  # torch lists the shapes that differ, a line each
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        shapes = {
            found[1].removeprefix(INSIDE): line for line in lines if (found := re.match(r'size mismatch for (\S+):', line))
        }
        if not shapes:
            raise ValueError(f'{what} do not fit: {"; ".join(lines)}') from error
        if other := _other_classes(network, weights, shapes):
            if classes != other[1]:
                raise ValueError(f'{what} {_about_classes(shapes, *other, role)}') from error
            print_log(
                f'{what} are of {other[0]} classes, not {classes}: all but the classifier ({listed([*shapes])}) is loaded',
                'current',
            )
            head: Any = getattr(network, 'head', None)
            if hasattr(head, 'init_weights'):
                head.init_weights()  # as where nothing is loaded
        fitting = OrderedDict((key, value) for key, value in weights.items() if key.removeprefix(INSIDE) not in shapes)
        fitting._metadata = getattr(weights, '_metadata', None)  # type: ignore[attr-defined]
        missing, unexpected = network.load_state_dict(fitting, strict=False)
        missing = [key for key in missing if key.removeprefix(INSIDE) not in shapes]
        shapes = {} if other else shapes
    optional = {*_distillation_only(own), *_distillation_only(weights)}
    counts = {key for key, value in weights.items() if not value.ndim and '.' not in key}  # an `epoch` beside the weights
    problems = {
        'missing': [key for key in missing if key not in optional],
        'unexpected': [key for key in unexpected if key not in optional | counts],
        'other shapes': list(shapes.values()),
    }
    if any(problems.values()):
        inner = getattr(network, 'backbone', getattr(network, 'model', network))
        said = '; '.join(f'{problem}: {listed(names)}' for problem, names in problems.items() if names)
        raise ValueError(f'{what} do not fit this {type(inner).__name__}; {said}')


def _other_classes(network: nn.Module, weights: Mapping[str, Tensor], misshapen: Collection[str]) -> tuple[int, int] | None:
    """Of weights that do not fit because they are for another number of classes, their number and the network's; else None.

    Those are of linear layers (or 1×1 convolutions), and differ in the number of outputs alone, all by the same.
    """
    modules, pairs = dict(network.named_modules()), set()
    if any(f'{key.rpartition(".")[0]}.weight' not in misshapen for key in misshapen):
        return None
    for key in misshapen:
        path, _, name = key.rpartition('.')
        layer = modules.get(INSIDE + path, modules.get(path))
        theirs = next(weights[k].shape for k in (key, INSIDE + key) if k in weights)
        linear = isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1))
        if not linear or not theirs or theirs[1:] != getattr(layer, name).shape[1:]:
            return None
        pairs.add((theirs[0], len(getattr(layer, name))))
    return pairs.pop() if len(pairs) == 1 else None


def _about_classes(keys: Iterable[str], theirs: int, ours: int, role: str) -> str:
    """What to do about weights for another number of classes."""
    mend = f'give the config of a network of {theirs} classes, or weights of one of {ours}'
    if role == 'teacher':
        mend = (
            f'set the number of classes in model.teacher_cfg (num_classes) to {theirs}, and say by model.teacher_classes '
            'which of them are the student’s'
        )
    return f'are of {theirs} classes and this network has {ours} ({listed([*keys])}): {mend}'


def _own_names(weights: Mapping[str, Tensor], own: Mapping[str, Tensor], what: str) -> Mapping[str, Tensor]:
    """Weights under a classifier's own names.

    The network that it wraps may have been saved by itself, or the classifier inside of another module (``model.`` in
    Lightning's files).

    Raises:
        ValueError: If several parts of the file have all of the network's names.
    """
    needed = {key for key in own if not key.endswith('num_batches_tracked')} - {*_distillation_only(own)}

    def under(prefix: str) -> OrderedDict[str, Tensor]:
        inner = OrderedDict((key[len(prefix) :], value) for key, value in weights.items() if key.startswith(prefix))
        forms = (inner, OrderedDict((INSIDE + key, value) for key, value in inner.items()))
        return max(forms, key=lambda form: len(form.keys() & needed))

    whole = under('')
    if needed <= whole.keys() or any(key.startswith('predictor.') for key in weights):  # of SimKD, no part predicts alone
        return whole
    starts = Counter(
        '.'.join(parts[:n]) + '.' for parts in (key.split('.') for key in weights) for n in (1, 2, 3) if n < len(parts)
    )
    forms = {start: under(start) for start, count in starts.items() if 2 * count >= len(needed)}
    full = [start for start, form in forms.items() if needed <= form.keys()]
    if len(full) > 1:
        raise ValueError(
            f'{what} hold this network more than once, under {" and ".join(map(repr, full))}: save the one that is meant by '
            'itself, without that beginning of its names'
        )
    if not full:
        return max((whole, *forms.values()), key=lambda form: len(form.keys() & needed))
    if left_out := [key for key in weights if not key.startswith(full[0])]:
        print_log(f'{what}: the network is under {full[0]!r}; left out is {listed(left_out)}', 'current')
    return forms[full[0]]


@dataclass
class Transfer:
    """What :func:`transfer` did.

    Attributes:
        kept: Names of the student's weights in the output.
        dropped: Names of the student's weights that only distillation needed.
        left_out: The other parts of the checkpoint that are not in the output.
        ema: Whether the weights are the moving average's.
        deit3: Whether the student is a DeiT-III.
        simkd: Whether the teacher's head predicts, on features of the student (SimKD).
    """

    kept: list[str]
    dropped: list[str]
    left_out: list[str] = field(default_factory=list)
    ema: bool = False
    deit3: bool = False
    simkd: bool = False


def _distillation_only(weights: Mapping[str, Tensor]) -> list[str]:
    """The norms before stage outputs other than the last (Swin's norm0 to norm2): classification reads the last alone."""
    norms = {key: int(found[1]) for key in weights if (found := re.match(r'backbone\.norm(\d+)\.', key))}
    stages = any(key.startswith('backbone.stages.') for key in weights)
    return [key for key, i in norms.items() if stages and i < max(norms.values())]


def _is_deit3(weights: Mapping[str, Tensor]) -> bool:
    """A DeiT-III's position embedding leaves the class token out: as many rows as the grid has patches, a square."""
    if not {'backbone.cls_token', 'backbone.pos_embed', 'backbone.layers.0.ln1.weight'} <= weights.keys():
        return False
    rows = weights['backbone.pos_embed'].shape[1]
    return math.isqrt(rows) ** 2 == rows


def plain(value: Any) -> Any:
    """A value as far as it is made of plain types, which ``torch.load(weights_only=True)`` opens anywhere."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)


def sha256(path: Path) -> str:
    """The checksum of a file."""
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A file to write in the ``with`` block, which takes the place of ``path`` when all of it is on the disk.

    Whatever happens, ``path`` is either the whole new file or what was there before. An error of the disk names it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f'.{path.name}.{os.getpid()}.unfinished')
    try:
        yield unfinished
        with unfinished.open('rb') as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        if error.errno and error.filename is None:
            error.filename = str(path)
        raise
    finally:
        unfinished.unlink(missing_ok=True)


def save_atomically(content: Any, path: Path) -> None:
    """``torch.save`` that leaves either the whole new file or what was there before."""
    whole = io.BytesIO()  # torch hides a full disk behind an error of its own
    torch.save(content, whole)
    with atomic_path(path) as unfinished:
        unfinished.write_bytes(whole.getbuffer())


def transfer(dis_path: str | Path, output_path: str | Path, trust: bool | None = None) -> Transfer:
    """Write the student of a distiller's checkpoint as a checkpoint of its own, for the plain mmpretrain config.

    ``meta`` (classes, data set, epoch) is kept. Optimizer, log history, teacher and losses are left out, and layers that
    only distillation needed. Where the run kept a moving average, mmengine's checkpoint has it under ``state_dict``, and
    so it is taken.

    Args:
        dis_path: A checkpoint of ours or of the original toolbox.
        output_path: The file to write, atomically.
        trust: See :func:`read_checkpoint`.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If it is unreadable or has no student weights.
    """
    checkpoint = read_checkpoint(dis_path, trust)
    weights = weights_of(checkpoint)
    student = student_weights(weights)
    if not weights:
        raise ValueError(f'checkpoint {dis_path} {about_contents(checkpoint)}')
    if not student:
        raise ValueError(
            f'checkpoint {dis_path} has no student weights (names that start with "student."), but '
            f'{listed(list(weights), 3)}; give a checkpoint that a distiller wrote in training'
        )
    dropped = _distillation_only(student)
    kept = OrderedDict((k, v) for k, v in student.items() if k not in dropped)
    place, _ = find_weights(checkpoint)
    others = set(checkpoint) - {place or 'state_dict', 'meta'} - ({*weights} if not place else set())
    parts = {k.split('.', 1)[0] for k in weights} - {'student'} | others
    save_atomically({'meta': plain(checkpoint.get('meta', {})), 'state_dict': kept}, Path(output_path))
    simkd = any(k.startswith('predictor.') for k in kept)
    return Transfer(
        list(kept), dropped, sorted(parts), place in AVERAGES or 'ema_state_dict' in checkpoint, _is_deit3(kept), simkd
    )
