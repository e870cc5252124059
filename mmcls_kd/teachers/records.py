"""The storage format of logits and vectors.

Of the logits the largest k are float16 with their classes, beside the log-sum-exp of the others; vectors are float16.
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
#: The width of each stored vector by the name of its tap; a list where several teachers have one each.
Widths = Mapping[str, Any]


def record_type(classes: int, k: int, views: int = 1, features: Widths | None = None) -> np.dtype:
    """Return the type of a view's record: ``logit`` (k,) float16, ``class`` (k,), and ``rest``, the others' log-sum-exp.

    With k = C classes there is only ``logit``, in their order: 2·C bytes. Else it is 4·k + 4 bytes, or 6·k + 4 with more
    than 65,536 classes. A teacher without classes has none of these fields. Vectors follow, D float16 each, see
    :func:`fields_of`. Of two views, ``weak`` and ``strong`` are such records.

    Example:
        >>> record_type(1000, 10).itemsize, record_type(10, 10).itemsize
        (44, 20)
        >>> record_type(10, 10, features=dict(vector=64)).itemsize
        148
    """
    if classes and not 1 <= k <= classes:
        raise ValueError(f'top-k of {k} logits: choose from 1 to {classes}, the number of classes')
    fields: list[tuple] = [('logit', '<f2', (k,))] if classes else []
    if k < classes:
        fields += [('class', '<u2' if classes <= 2**16 else '<u4', (k,)), ('rest', '<f4')]
    one = np.dtype(fields + [(field, '<f2', (width,)) for _, field, width in fields_of(features or {})])
    return type_of_views(one, views)


def type_of_views(one: np.dtype, views: int) -> np.dtype:
    """Return the type of a record of so many views, each of which is a record of one type."""
    return np.dtype([(part, one) for part in PARTS]) if views > 1 else one


def fields_of(features: Widths) -> list[tuple[str, str, int]]:
    """Return the fields of stored vectors: the name of the tap, that of the field, and its width.

    Example:
        >>> fields_of(dict(vector=64)), fields_of(dict(vector=[64, 32]))
        ([('vector', 'vector_t', 64)], [('vector', 'vector_t_0', 64), ('vector', 'vector_t_1', 32)])
    """
    fields = []
    for name, widths in features.items():
        several = [] if isinstance(widths, int) else widths
        fields += [(name, f'{name}_t_{i}', width) for i, width in enumerate(several)] or [(name, f'{name}_t', widths)]
    return fields


def widths_of(features: Mapping[str, Read]) -> dict[str, Any]:
    """Return the width of each vector, (N, D), by the name of its tap; of a tuple those of its vectors."""
    return {
        name: read.shape[1] if isinstance(read, Tensor) else [part.shape[1] for part in read]
        for name, read in features.items()
    }


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
        features: Vectors to store beside them, (N, D), by the name of their taps; a tuple of several teachers.

    Raises:
        ValueError: If a logit, or an entry of a vector, is not finite in float16.
    """
    widths = widths_of(features or {})
    vectors = [part for read in (features or {}).values() for part in parts(read)]
    count, classes = (len(vectors[0]), 0) if logit is None else logit.shape
    k = classes if k is None or logit is None else k
    records = np.empty(count, record_type(classes, k, features=widths))
    if logit is not None:
        _encode_logit(records, logit.float(), k)
    for (name, field, _), vector in zip(fields_of(widths), vectors, strict=True):
        records[field] = _halved(vector, f'a feature {name!r}')
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


def decode_vector(records: np.ndarray, name: str, features: Widths) -> Read:
    """Decode a stored vector, (N, D), float32; a tuple where several teachers have one each.

    Args:
        records: The records.
        name: Name of its tap.
        features: The width of each stored vector.

    Example:
        >>> records = encode(None, 0, dict(vector=torch.tensor([[1.0, 2.0]])))
        >>> decode_vector(records, 'vector', dict(vector=2))
        tensor([[1., 2.]])
    """
    fields = [field for of, field, _ in fields_of(features) if of == name]
    found = tuple(torch.from_numpy(records[field].astype(np.float32)) for field in fields)
    return found[0] if isinstance(features[name], int) else found


def mark_missing(records: np.ndarray) -> None:
    """Mark records as missing, in place."""
    for view in parts_of(records).values():
        for name in view.dtype.names or ():
            if view.dtype[name].base == np.float16:
                view[name] = np.nan


def missing_rows(records: np.ndarray) -> np.ndarray:
    """Return the rows of one view's records that are marked as missing."""
    first = (records.dtype.names or ())[0]
    return np.flatnonzero(np.isnan(records[first][:, 0]))
