"""Files of weights: found or downloaded, and loaded strictly."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit

import torch
from mmengine.dist import barrier, get_local_rank
from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader
from mmengine.utils import apply_to
from torch import Tensor, nn

from ..errors import listed
from ..files import plain_data
from ..files.checkpoint import FORCE_SAFE, _allowed_globals, read_checkpoint, take_start
from ..files.paths import find_file
from .weights import (
    _distillation_only,
    about_contents,
    as_in_memory,
    refuse_infinite,
    say_average,
    student_weights,
    weights_of,
)

#: Names of the file of weights in a folder of Hugging Face's; the first one that exists counts.
WEIGHTS_FILES = tuple(
    f'{name}{index}' for index in ('', '.index.json') for name in ('model.safetensors', 'pytorch_model.bin')
)


#: Attributes in which a classifier keeps the network of another library that it wraps.
INSIDE = 'model.'


def fetch(source: str, role: str) -> Path:
    """Return the local file of weights: by path (working directory, then toolbox), or downloaded once into torch's cache.

    The source is the path of a file, or of a folder as Hugging Face saves a model, or an http(s) address. A hash in the
    file's name (``-1a2b3c4d.pth``) is checked after a download; a name without one gets a checksum of the address before it.
    ``role`` names the network in messages.
    """
    if (folder := Path(source).expanduser()).is_dir():
        if found := next((folder / name for name in WEIGHTS_FILES if (folder / name).is_file()), None):
            return found
        raise FileNotFoundError(f'{role} weights {folder}: the folder has none of {", ".join(WEIGHTS_FILES)}')
    if not source.startswith(('http://', 'https://')):
        try:
            return find_file(source)
        except FileNotFoundError as error:
            raise FileNotFoundError(f'{role} weights {error}') from error
    name = PurePosixPath(urlsplit(source).path).name
    digest = re.search(r'-([0-9a-f]{8,})\.\w+$', name)
    if not digest:  # files of this name may be anywhere
        name = f'{hashlib.sha256(source.encode()).hexdigest()[:16]}_{name}'
    cached = Path(torch.hub.get_dir()) / 'checkpoints' / name
    if get_local_rank() == 0 and not cached.exists():
        cached.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(source, str(cached), digest and digest[1])
        except (URLError, RuntimeError, OSError) as error:
            raise ValueError(
                f'{role} weights {source} could not be downloaded ({error}); '
                'fetch the file otherwise and give its path instead'
            ) from error
    barrier()
    return cached


def load_strictly(network: nn.Module, source: str, role: str, classes: int | None = None) -> dict[str, Any]:
    """Load weights into a network in place, all of them and no others, and return the metadata of their file (``meta``).

    Layers that only distillation needs (see :func:`.transfer.transfer`) may be missing on either side. A network may have
    been saved by itself or inside of another module; other parts of the file are ignored. From a distiller's checkpoint, the
    student is taken.

    Args:
        network: The network.
        source: Path or address of its weights, see :func:`fetch`.
        role: Role of the network (``'teacher'``, ``'student'``), for messages.
        classes: Number of classes of the network, to let weights for another number fill all of it but the classifier, which
            starts afresh; None to refuse them.
    """
    checkpoint = read_checkpoint(fetch(source, role))
    what = f'{role} weights {source}'
    found = weights_of(checkpoint)
    if not found:
        raise ValueError(f'{what}: the file {about_contents(checkpoint)}')
    say_average(checkpoint, what)
    own = network.state_dict()
    found = student_weights(found) or found
    if _has_predictor(found) and not _has_predictor(own):
        raise ValueError(f'{what} {_about_predictor(role)}')
    weights = as_in_memory(network, _own_names(found, own, what))
    refuse_infinite(weights, f'{what} hold')
    _load(network, weights, what, role, classes)
    meta = checkpoint.get('meta')
    return dict(meta) if isinstance(meta, Mapping) else {}


def _has_predictor(weights: Iterable[str]) -> bool:
    """Check whether weights are those of a student of SimKD, see :func:`.weights.student_weights`."""
    return any(key.startswith('predictor.') for key in weights)


def _about_predictor(role: str) -> str:
    """Describe the remedy for weights of a student of SimKD that are given to another network."""
    mend = "those of its network alone begin with 'student.': save them by themselves, without that beginning"
    if role == 'teacher':
        mend = (
            "give its network as model.teacher_cfg=dict(type='SimKDClassifier', student=..., teacher=...), with the two "
            'networks of its training'
        )
    return f'are those of a student of SimKD, which predicts by a projector and the head of its teacher: {mend}'


def _load(network: nn.Module, weights: Mapping[str, Tensor], what: str, role: str, classes: int | None) -> None:
    """Load weights under a network's own names, as in :func:`load_strictly`."""
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
    """Return the numbers of classes of weights and network, if only these differ; else None.

    Then only linear layers (or 1×1 convolutions) differ, in the number of outputs alone, all by the same.
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
    """Describe the remedy for weights of another number of classes."""
    mend = f'give the config of a network of {theirs} classes, or weights of one of {ours}'
    if role == 'teacher':
        mend = (
            f'set the number of classes in model.teacher_cfg (num_classes) to {theirs}, and say by model.teacher_classes '
            'which of them are the student’s'
        )
    return f'are of {theirs} classes and this network has {ours} ({listed([*keys])}): {mend}'


def _own_names(weights: Mapping[str, Tensor], own: Mapping[str, Tensor], what: str) -> Mapping[str, Tensor]:
    """Return weights under a classifier's own names.

    The network that it wraps may have been saved by itself, or the classifier inside of another module (``model.`` in
    Lightning's files).
    """
    needed = {key for key in own if not key.endswith('num_batches_tracked')} - {*_distillation_only(own)}

    def under(prefix: str) -> OrderedDict[str, Tensor]:
        inner = OrderedDict((key[len(prefix) :], value) for key, value in weights.items() if key.startswith(prefix))
        forms = (inner, OrderedDict((INSIDE + key, value) for key, value in inner.items()))
        return max(forms, key=lambda form: len(form.keys() & needed))

    whole = under('')
    if needed <= whole.keys() or _has_predictor(weights):  # of SimKD, no part predicts alone
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


def guard_loading(trust: bool) -> None:
    """Forbid (or allow) code in data files in this process, mmengine's own loading (``Pretrained``, resume) included.

    If safe loading of a checkpoint fails, mmengine reads it anew and lets it run code; and it builds the objects named in
    YAML files and pickled annotation lists.
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
    """Read a local file for mmengine."""
    path = Path(filename).expanduser()
    content = take_start(path) or read_checkpoint(path)
    weights = weights_of(content)
    if not weights:
        raise ValueError(f'checkpoint {filename} {about_contents(content)}')
    say_average(content, f'weights {filename}')
    held = content.get('state_dict', content)
    if weights.keys() != {key for key, value in held.items() if isinstance(value, Tensor)}:
        content = {**content, 'state_dict': weights}  # where mmengine looks for them
    if map_location is None or callable(map_location):
        return content
    return apply_to(content, lambda x: isinstance(x, Tensor), lambda x: x.to(map_location))


def _load_from_http(filename: str, map_location: Any = None, **_: Any) -> dict[str, Any]:
    """Download a file for mmengine, and read it."""
    return _load_from_local(str(fetch(filename, 'pretrained')), map_location)
