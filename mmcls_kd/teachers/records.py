"""The storage format of logits and features.

Of the logits the largest k are float16 with their classes, beside the log-sum-exp of the others; features are float16.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..features.layouts import Read, parts

#: The fields of a record of two views; that of one view has none of them.
PARTS = ('weak', 'strong')
#: The size of each stored feature of an image by the name of its tap: the width of a vector, or ``'CxHxW'`` of a map; a
#: list where the feature is a tuple.
Sizes = Mapping[str, Any]


def record_type(classes: int, k: int, views: int = 1, features: Sizes | None = None) -> np.dtype:
    """Return the type of a view's record: ``logit`` (k,) float16, ``class`` (k,), and ``rest``, the others' log-sum-exp.

    With k = C classes there is only ``logit``, in their order: 2·C bytes. Else it is 4·k + 4 bytes, or 6·k + 4 with more
    than 65,536 classes. A teacher without classes has none of these fields. Features follow, float16, see
    :func:`fields_of`. Of two views, ``weak`` and ``strong`` are such records.

    Example:
        >>> record_type(1000, 10).itemsize, record_type(10, 10).itemsize
        (44, 20)
        >>> record_type(10, 10, features=dict(vector=64, feat='32x7x7')).itemsize
        3284
    """
    if classes and not 1 <= k <= classes:
        raise ValueError(f'top-k of {k} logits: choose from 1 to {classes}, the number of classes')
    fields: list[tuple] = [('logit', '<f2', (k,))] if classes else []
    if k < classes:
        fields += [('class', '<u2' if classes <= 2**16 else '<u4', (k,)), ('rest', '<f4')]
    one = np.dtype(fields + [(field, '<f2', shape) for _, field, shape in fields_of(features or {})])
    return type_of_views(one, views)


def type_of_views(one: np.dtype, views: int) -> np.dtype:
    """Return the type of a record of so many views, each of which is a record of one type."""
    return np.dtype([(part, one) for part in PARTS]) if views > 1 else one


def fields_of(features: Sizes) -> list[tuple[str, str, tuple[int, ...]]]:
    """Return the fields of stored features: the name of the tap, that of the field, and the shape of an image's.

    Example:
        >>> fields_of(dict(vector=64, feat='32x7x7'))
        [('vector', 'vector_t', (64,)), ('feat', 'feat_t', (32, 7, 7))]
        >>> fields_of(dict(vector=[64, 32]))
        [('vector', 'vector_t_0', (64,)), ('vector', 'vector_t_1', (32,))]
    """
    return [
        (name, f'{name}_t{number}', tuple(map(int, str(size).split('x'))))
        for name, sizes in features.items()
        for number, size in ([(f'_{i}', s) for i, s in enumerate(sizes)] if isinstance(sizes, list) else [('', sizes)])
    ]


def sizes_of(features: Mapping[str, Read]) -> dict[str, Any]:
    """Return the size of each feature, (N, ...), by the name of its tap; of a tuple those of its parts."""
    return {
        name: _size(read) if isinstance(read, Tensor) else [_size(part) for part in read] for name, read in features.items()
    }


def _size(feature: Tensor) -> int | str:
    return feature.shape[1] if feature.dim() == 2 else 'x'.join(map(str, feature.shape[1:]))


def parts_of(records: np.ndarray) -> dict[str, np.ndarray]:
    """Return the records of each view, by its name; those of one view are the weak one's.

    Example:
        >>> [name for name in parts_of(np.zeros(3, record_type(classes=10, k=10, views=2)))]
        ['weak', 'strong']
    """
    names = records.dtype.names or ()
    return {part: records[part] for part in PARTS} if PARTS[0] in names else {PARTS[0]: records}


def encode(logit: Tensor | None, k: int | None = None, features: Mapping[str, Read] | None = None) -> np.ndarray:
    r"""Encode a batch of logits z, (N, C), as N records of the largest k, see :func:`record_type`.

    .. math:: rest_n = \log \sum_{i \notin top_k} \exp z_{ni}

    Args:
        logit: The logits; None of a teacher without classes.
        k: Number of logits to keep; None for all.
        features: Features to store beside them, (N, ...), by the name of their taps; some are tuples.

    Raises:
        ValueError: If a logit, or an entry of a feature, is not finite in float16.
    """
    sizes = sizes_of(features or {})
    tensors = [part for read in (features or {}).values() for part in parts(read)]
    count, classes = (len(tensors[0]), 0) if logit is None else logit.shape
    k = classes if k is None or logit is None else k
    records = np.empty(count, record_type(classes, k, features=sizes))
    if logit is not None:
        _encode_logit(records, logit.float(), k)
    for (name, field, _), tensor in zip(fields_of(sizes), tensors, strict=True):
        records[field] = _halved(tensor, f'a feature {name!r}')
    return records


def _encode_logit(records: np.ndarray, logit: Tensor, k: int) -> None:
    """Fill in the fields of the logits."""
    if k == logit.shape[1]:
        values = logit
    else:
        values, classes = logit.topk(k, dim=1)
        records['class'] = classes.cpu().numpy()
        records['rest'] = logit.scatter(1, classes, -torch.inf).logsumexp(dim=1).cpu().numpy()
    records['logit'] = _halved(values, 'logits')


def _halved(values: Tensor, name: str) -> np.ndarray:
    """Round to float16."""
    half = values.half().cpu()
    if not half.isfinite().all():
        raise ValueError(f'the teacher gives {name} that float16 cannot hold (largest: {values.abs().max().item():.3g})')
    return half.numpy()


def decode(records: np.ndarray, classes: int) -> Tensor:
    r"""Decode records to logits (N, C), float32; the others' probability is spread evenly over the other classes.

    .. math:: z_{ni} = rest_n - \log(C - k) \quad \text{for } i \notin top_k

    Example:
        >>> records = encode(torch.tensor([[3.0, 0.0, 1.0, 0.0]]), k=2)
        >>> decode(records, classes=4)
        tensor([[3., 0., 1., 0.]])
    """
    values = torch.from_numpy(records['logit'].astype(np.float32))
    if values.shape[1] == classes:
        return values
    others = torch.from_numpy(records['rest'] - np.float32(math.log(classes - values.shape[1])))
    stored = torch.from_numpy(records['class'].astype(np.int64))
    return others[:, None].repeat(1, classes).scatter(1, stored, values)


def decode_feature(records: np.ndarray, name: str, features: Sizes) -> Read:
    """Decode a stored feature, (N, ...), float32; a tuple if it is one.

    Args:
        records: The records.
        name: Name of its tap.
        features: The size of each stored feature.

    Example:
        >>> records = encode(None, 0, dict(vector=torch.tensor([[1.0, 2.0]])))
        >>> decode_feature(records, 'vector', dict(vector=2))
        tensor([[1., 2.]])
    """
    fields = [field for of, field, _ in fields_of(features) if of == name]
    found = tuple(torch.from_numpy(records[field].astype(np.float32)) for field in fields)
    return found if isinstance(features[name], list) else found[0]


def mark_missing(records: np.ndarray) -> None:
    """Mark records as missing, in place."""
    for view in parts_of(records).values():
        for name in view.dtype.names or ():
            if view.dtype[name].base == np.float16:
                view[name] = np.nan


def missing_rows(records: np.ndarray) -> np.ndarray:
    """Return the rows of one view's records that are marked as missing."""
    first = (records.dtype.names or ())[0]
    return np.flatnonzero(np.isnan(records[first].reshape(len(records), -1)[:, 0]))
