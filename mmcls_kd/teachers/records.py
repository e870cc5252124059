"""The storage format of logits: the largest k as float16 with their classes, and the log-sum-exp of the others."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

#: The fields of a record of two views; that of one view has none of them.
PARTS = ('weak', 'strong')


def record_type(classes: int, k: int, views: int = 1) -> np.dtype:
    """Return the type of a view's record: ``logit`` (k,) float16, ``class`` (k,), and ``rest``, the others' log-sum-exp.

    With k = C classes there is only ``logit``, in their order: 2·C bytes. Else it is 4·k + 4 bytes, or 6·k + 4 with more
    than 65,536 classes. Of two views, ``weak`` and ``strong`` are such records.

    Example:
        >>> record_type(1000, 10).itemsize, record_type(10, 10).itemsize
        (44, 20)
    """
    if not 1 <= k <= classes:
        raise ValueError(f'top-k of {k} logits: choose from 1 to {classes}, the number of classes')
    if views > 1:
        one = record_type(classes, k)
        return np.dtype([(part, one) for part in PARTS])
    if k == classes:
        return np.dtype([('logit', '<f2', (k,))])
    return np.dtype([('logit', '<f2', (k,)), ('class', '<u2' if classes <= 2**16 else '<u4', (k,)), ('rest', '<f4')])


def parts_of(records: np.ndarray) -> dict[str, np.ndarray]:
    """Return the records of each view, by its name; those of one view are the weak one's.

    Example:
        >>> [name for name in parts_of(np.zeros(3, record_type(classes=10, k=10, views=2)))]
        ['weak', 'strong']
    """
    names = records.dtype.names or ()
    return {part: records[part] for part in PARTS} if PARTS[0] in names else {PARTS[0]: records}


def encode(logit: Tensor, k: int) -> np.ndarray:
    r"""Encode a batch of logits z, (N, C), as N records of the largest k, see :func:`record_type`.

    .. math:: rest_n = \log \sum_{i \notin top_k} \exp z_{ni}

    Raises:
        ValueError: If a logit is not finite in float16.
    """
    records = np.empty(len(logit), record_type(logit.shape[1], k))
    logit = logit.float()
    if k == logit.shape[1]:
        values = logit
    else:
        values, classes = logit.topk(k, dim=1)
        records['class'] = classes.cpu().numpy()
        records['rest'] = logit.scatter(1, classes, -torch.inf).logsumexp(dim=1).cpu().numpy()
    half = values.half().cpu()
    if not half.isfinite().all():
        raise ValueError(f'the teacher gives logits that float16 cannot hold (largest: {values.abs().max().item():.3g})')
    records['logit'] = half.numpy()
    return records


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
