"""Shared parts of the losses: labels, batch means, masked logits, directions, map sizes, float32 under autocast."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import TrainingError

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

HALF = (torch.float16, torch.bfloat16)


def is_distributed() -> bool:
    """Tell whether several processes train together."""
    return dist.is_available() and dist.is_initialized()


def all_gather(values: Tensor) -> list[Tensor]:
    """Collect a tensor of the same shape from every process, in the order of their ranks."""
    gathered = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, values.contiguous())
    return gathered


def at_least_float32(tensor: Tensor) -> Tensor:
    """Raise half precision to float32."""
    return tensor.float() if tensor.dtype in HALF else tensor


def full_precision(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Run a loss's ``forward`` outside of autocast, with half-precision inputs raised to float32.

    Float32 and float64 inputs pass unchanged. Tuples and lists, as of a network's stages, count as their tensors. The
    signature stays readable, because the distiller finds the loss's inputs in it.

    Args:
        forward: A method ``forward(self, ...)`` that takes at least one tensor.

    Returns:
        The wrapped method.
    """

    def raised(value: Any) -> Any:
        if isinstance(value, (tuple, list)):
            return type(value)(map(raised, value))
        return at_least_float32(value) if isinstance(value, Tensor) else value

    @functools.wraps(forward)
    def wrapped(self: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        device = next(_tensors((*args, *kwargs.values()))).device
        with torch.autocast(device.type, enabled=False):
            return forward(self, *map(raised, args), **{k: raised(v) for k, v in kwargs.items()})

    return wrapped


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Iterate over the tensors among values, those in tuples and lists included."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _tensors(value)


def hard_label(gt_label: Tensor) -> Tensor:
    """Return the class index of each sample, (N,).

    Args:
        gt_label: Class indices (N,), or scores (N, C) from mixup and CutMix; of scores the largest counts, of equal ones
            the first.
    """
    return gt_label if gt_label.dim() == 1 else gt_label.argmax(dim=1)


def entropy_target(gt_label: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the label for ``F.cross_entropy``: class indices (N,), or scores (N, C) in the logits' type.

    mmpretrain's scores are integers in a batch without mixup and CutMix.
    """
    return gt_label if gt_label.dim() == 1 else gt_label.to(dtype)


def label_columns(gt_label: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the label of each sample as K columns of values and classes: K = 1 for indices, K = 2 for scores.

    Args:
        gt_label: Class indices (N,), or scores (N, C), of which the two largest count (ties by the lower class index).
        dtype: Type of the returned values.

    Returns:
        Values V (N, K) and class indices (N, K), in descending order of value.
    """
    if gt_label.dim() == 1:
        classes = gt_label[:, None]
        return torch.ones_like(classes, dtype=dtype), classes
    score = gt_label.to(dtype)
    first = score.argmax(dim=1, keepdim=True)
    second = score.scatter(1, first, -torch.inf).argmax(dim=1, keepdim=True)
    classes = torch.cat([first, second], dim=1)
    return score.gather(1, classes), classes


def batch_mean(values: Tensor, sync: bool = False) -> Tensor:
    r"""Average over the batch, :math:`\frac{1}{N} \sum_n v_n`, or over the batches of all processes.

    Processes need not have equally many samples. Every process has to call it, with values of the same shape but for N. No
    gradient flows through the mean.

    Args:
        values: Values v, (N, ...).
        sync: Take the mean over all processes; without a process group it changes nothing.

    Returns:
        The mean, of the shape of one sample's values, (...).

    Example:
        >>> batch_mean(torch.tensor([[1.0, 0.0], [3.0, 0.5]]))
        tensor([2.0000, 0.2500])
    """
    values = values.detach()
    if not (sync and is_distributed()):
        return values.mean(dim=0)
    total = values.sum(dim=0)
    count = torch.full_like(total, len(values))
    both = torch.stack([total, count])  # one message for both
    dist.all_reduce(both)
    return both[0] / both[1]


def all_samples(values: Tensor) -> Tensor:
    """Collect the rows of all processes' batches, in the order of their ranks; without a process group, the own ones.

    The batches need not be equally large. Every process has to call it, and no gradient flows through it.

    Args:
        values: One row a sample, (N, ...).
    """
    return torch.cat(_parts(values)) if is_distributed() else values.detach()


def _parts(values: Tensor) -> list[Tensor]:
    """Return each process's rows, without gradient."""
    values = values.detach()
    counts = [int(count) for count in all_gather(torch.tensor(len(values), device=values.device))]
    padded = values.new_zeros(max(counts), *values.shape[1:])
    padded[: len(values)] = values
    return [part[:count] for part, count in zip(all_gather(padded), counts, strict=True)]


def whole_batch(values: Tensor, sync: bool) -> Tensor:
    """Collect the rows of all processes' batches, for losses that compare samples with one another.

    The order is that of samplers: the first row of each process, then the second of each. The gradient flows to the own rows
    alone, times the number of processes, because DistributedDataParallel averages the processes' gradients: the result is
    that of one process with the whole batch. The batches need not be equally large. Every process has to call it.

    Args:
        values: One row a sample, (N, ...).
        sync: False to return them as they are, as without a process group.

    Example:
        >>> whole_batch(torch.tensor([1.0, 2.0]), sync=True)
        tensor([1., 2.])
    """
    if not (sync and is_distributed()):
        return values
    parts = _parts(values)
    parts[dist.get_rank()] = values.detach() + len(parts) * (values - values.detach())
    place = torch.cat([torch.arange(len(part)) * len(parts) + rank for rank, part in enumerate(parts)])
    return torch.cat(parts)[place.argsort().to(values.device)]


def mask_classes(logit: Tensor, classes: Tensor) -> Tensor:
    """Mask the logits of given classes, so that they take no part in a softmax.

    The masked places get a finite, hugely negative number rather than minus infinity: the softmax there is exactly 0, and
    0 times the log-softmax is 0, in value and gradient.

    Args:
        logit: Logits (N, C).
        classes: Class indices to mask, (N, K).
    """
    return logit.scatter(1, classes, torch.finfo(logit.dtype).min / 2)


#: Standard deviation of its logits below which a sample, or class, counts as flat.
FLAT = 0.01


def bounded(values: Tensor, spread: Tensor) -> Tensor:
    """Bound the gradient of values where the logits behind them are flat; the values stay the same.

    The gradient of a division by a standard deviation grows without bound as this goes to 0: equal logits, as from a
    classifier initialised to 0, would outweigh all others and fill an optimizer's averages for hundreds of steps. Below
    :data:`FLAT` the gradient is multiplied by the quotient of the deviation and FLAT.

    Args:
        values: Function of the logits.
        spread: Standard deviation of these logits, broadcastable to the values.

    Example:
        >>> logit = torch.zeros(1, 3, requires_grad=True)
        >>> bounded(logit, logit.std(dim=1, keepdim=True)).sum().backward()
        >>> logit.grad
        tensor([[0., 0., 0.]])
    """
    factor = (spread.detach() / FLAT).clamp(max=1)
    return values.detach() + (values - values.detach()) * factor


def standardize_classes(logit: Tensor) -> Tensor:
    r"""Standardise logits over the classes, :math:`Z = (z - mean) / (10^{-7} + std)`.

    Shift and scale of a sample's logits no longer count (arXiv 2403.01427). The deviation is the unbiased one. The gradient
    grows at most by a factor of 100, also where all logits of a sample are equal, see :func:`bounded`.

    Args:
        logit: Logits (N, C).

    Example:
        >>> standardize_classes(torch.tensor([[1.0, 2.0, 3.0]]))
        tensor([[-1.0000,  0.0000,  1.0000]])
    """
    std = 1e-7 + logit.std(dim=1, keepdim=True)
    return bounded((logit - logit.mean(dim=1, keepdim=True)) / std, std)


def unit(vectors: Tensor, dim: int = -1) -> Tensor:
    """Divide vectors by their Euclidean length.

    Below a length of 1e-12, value and gradient are 0. (``F.normalize`` gives a gradient of 1e12 there.)

    Args:
        vectors: Any tensor.
        dim: The dimension along which it holds vectors.

    Example:
        >>> unit(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
        tensor([[0.6000, 0.8000],
                [0.0000, 0.0000]])
    """
    length = torch.linalg.vector_norm(vectors, dim=dim, keepdim=True)
    return vectors * torch.where(length > 1e-12, 1 / length.clamp(min=1e-12), 0)


def smaller_maps(feat_s: Tensor, feat_t: Tensor) -> tuple[Tensor, Tensor]:
    """Average two maps to one size: the smaller height and the smaller width of both.

    A map of that size stays the same tensor.

    Args:
        feat_s: Features, (N, c_s, H_s, W_s).
        feat_t: Features, (N, c_t, H_t, W_t).

    Example:
        >>> wide, narrow = smaller_maps(torch.tensor([[[[1.0, 3.0, 5.0, 9.0]]]]), torch.zeros(1, 1, 1, 2))
        >>> wide
        tensor([[[[2., 7.]]]])
    """
    size = (min(feat_s.shape[2], feat_t.shape[2]), min(feat_s.shape[3], feat_t.shape[3]))

    def averaged(feat: Tensor) -> Tensor:
        return feat if feat.shape[2:] == torch.Size(size) else F.adaptive_avg_pool2d(feat, size)

    return averaged(feat_s), averaged(feat_t)


def resize_map(feat: Tensor, size: Sequence[int]) -> Tensor:
    """Resize a feature map bilinearly; one of that size is returned as it is.

    Args:
        feat: Features, (N, C, H, W).
        size: Height and width.

    Example:
        >>> resize_map(torch.tensor([[[[0.0, 4.0]]]]), (1, 4))
        tensor([[[[0., 1., 3., 4.]]]])
    """
    return feat if feat.shape[2:] == torch.Size(size) else F.interpolate(feat, tuple(size), mode='bilinear')


def resize_tokens(tokens: Tensor, length: int) -> Tensor:
    """Resize a square grid of patch tokens bilinearly; one of that length is returned as it is.

    Args:
        tokens: Patch tokens, (N, L, D).
        length: Number of tokens of the result.

    Raises:
        ValueError: If the numbers differ and one of them is not a square.
    """
    if tokens.shape[1] == length:
        return tokens
    side, wanted = math.isqrt(tokens.shape[1]), math.isqrt(length)
    if (side**2, wanted**2) != (tokens.shape[1], length):
        raise ValueError(f'{tokens.shape[1]} patch tokens cannot be made into {length}: only those of square grids can')
    grid = tokens.transpose(1, 2).unflatten(2, (side, side))
    return resize_map(grid, (wanted, wanted)).flatten(2).transpose(1, 2)


fit_map, fit_tokens = resize_map, resize_tokens  # their earlier names, for losses of users


def memory_at_most() -> int:
    """Return the most memory that a training can have, in bytes: the GPU in use, else what is free on this machine."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    limits = [resource.getrlimit(resource.RLIMIT_AS)[0]] if resource else []
    limits = [limit for limit in limits if limit != resource.RLIM_INFINITY]
    with suppress(OSError, ValueError):  # no limit
        limits.append(int(Path('/sys/fs/cgroup/memory.max').read_text()))
    with suppress(OSError):  # not a Linux
        meminfo = dict(line.split()[:2] for line in Path('/proc/meminfo').read_text().splitlines())
        own = int(Path('/proc/self/statm').read_text().split()[1]) * resource.getpagesize()
        limits.append(1024 * int(meminfo['MemAvailable:']) + own)
    return min(limits, default=sys.maxsize)


def need_memory(what: str, numbers: int, instead: str) -> None:
    """Refuse so many numbers of four bytes each that cannot fit into the memory; below 1 GiB they always pass."""
    size = 4 * numbers
    if size > 2**30 and size > (most := memory_at_most()):
        raise TrainingError(f'{what} needs {size / 2**30:.1f} GiB of memory, and there are {most / 2**30:.1f}: {instead}')


def check_width(loss: nn.Module, keyword: str, got: int | tuple[int, ...]) -> None:
    """Refuse a tensor whose width (of a network's stages, a tuple) is not the loss's attribute ``keyword``."""
    expected = getattr(loss, keyword)
    if got != expected:
        raise ValueError(f'{type(loss).__name__}({keyword}={expected}) got a tensor of width {got}; set {keyword}={got}')


def check_widths(loss: nn.Module, unit_of_width: str, student: Tensor, teacher: Tensor) -> None:
    """Refuse a pair of tensors, (N, width, ...), whose widths are not those of the loss; unknown widths have to be equal.

    The loss's attributes ``student_...`` and ``teacher_...`` hold the widths, or None; ``unit_of_width`` is the second half
    of these names, ``'channels'`` or ``'dims'``.
    """
    got = {f'student_{unit_of_width}': student.shape[1], f'teacher_{unit_of_width}': teacher.shape[1]}
    told = [keyword for keyword in got if getattr(loss, keyword) is not None]
    for keyword in told:
        check_width(loss, keyword, got[keyword])
    if len(told) < 2 and student.shape[1] != teacher.shape[1]:
        right = ' and '.join(f'{keyword}={width}' for keyword, width in got.items())
        raise ValueError(f'{type(loss).__name__} got tensors of two widths; set {right}')


def check_several(loss: nn.Module, values: Tensor) -> None:
    """Refuse a batch of one sample in training, of which batch norms of vectors have no statistics."""
    if loss.training and len(values) == 1:
        raise ValueError(
            f'{type(loss).__name__} has batch norms: it needs two samples or more in every batch (drop_last=True)'
        )


def check_statistics(loss: nn.Module, feat: Tensor) -> None:
    """Refuse maps in training, (N, c, H, W), of one value a channel, of which batch norms have no statistics."""
    if feat[:, 0].numel() == 1:
        check_several(loss, feat)


def check_places(loss: nn.Module, feat_s: Tensor, feat_t: Tensor) -> None:
    """Refuse maps, (N, c, H, W), that have one place in common, for a loss that compares how values lie over the places."""
    height, width = (min(feat_s.shape[dim], feat_t.shape[dim]) for dim in (2, 3))
    if height * width == 1:
        sizes = (f'{feat.shape[2]}×{feat.shape[3]}' for feat in (feat_s, feat_t))
        raise ValueError(
            f'{type(loss).__name__} compares the places of maps, and {" and ".join(sizes)} have one in common, so that the '
            'student would learn nothing from it: take larger images, an earlier stage (stages=[-2]) where the method '
            'permits one, or a method on vectors'
        )
