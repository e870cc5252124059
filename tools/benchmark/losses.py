"""Measure the logit losses: forward and backward of each, beside a cross entropy."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmcls_kd.dis_losses import dkd_loss, kd_loss, nkd_loss, tfnkd_loss, uskd_loss, wsld_loss
from mmcls_kd.files.showing import show
from mmcls_kd.teachers.records import decode, encode

from .timing import Timing, computing, interleave

UNIT = 'cross entropy'


def random_labels(batch: int, classes: int, soft: bool = False, device: str = 'cpu') -> Tensor:
    """Return class indices (N,), or scores (N, C) as of mixup and CutMix: two classes a sample, 0.7 and 0.3."""
    index = torch.randint(classes, (batch,), device=device)
    if not soft:
        return index
    one_hot = F.one_hot(index, classes).float()
    return 0.7 * one_hot + 0.3 * one_hot.flip(0)


def loss_works(
    batch: int, classes: int, soft: bool = False, device: str = 'cpu'
) -> dict[str, Callable[[], tuple[Tensor, ...]]]:
    """Return forward and backward of each logit loss and of a cross entropy, by name, on the same random float32 logits.

    The gradient is that of the student's logits, for USKD of those of its weak head too, as in training. The linear layer
    in front of these is not part of it. ``soft`` labels are scores (N, C); the cross entropy always has class indices.
    """
    logit_s, logit_t, logit_weak = torch.randn(3, batch, classes, device=device).unbind()
    logit_s.requires_grad_()
    logit_weak.requires_grad_()
    gt_label = random_labels(batch, classes, soft, device)
    index = random_labels(batch, classes, device=device)

    def work(loss: Callable[..., Tensor], *given: Tensor) -> Callable[[], tuple[Tensor, ...]]:
        trained = [tensor for tensor in given if tensor.requires_grad]
        return lambda: torch.autograd.grad(loss(*given), trained)

    return {
        UNIT: work(F.cross_entropy, logit_s, index),
        'KD': work(kd_loss, logit_s, logit_t),
        'DKD': work(dkd_loss, logit_s, logit_t, gt_label),
        'WSLD': work(wsld_loss, logit_s, logit_t, gt_label),
        'NKD': work(nkd_loss, logit_s, logit_t, gt_label),
        'tf-NKD': work(tfnkd_loss, logit_s, gt_label),
        'USKD': work(uskd_loss, logit_weak, logit_s, gt_label),
    }


def measure_losses(
    batch: int = 256, classes: int = 1000, rounds: int = 20, threads: int = 1, soft: bool = False, device: str = 'cpu'
) -> dict[str, Timing]:
    """Time :func:`loss_works` side by side, with a number of torch's threads (0: unchanged); return the times by name."""
    with computing(threads):
        return interleave(loss_works(batch, classes, soft, device), rounds, warmup=3, device=device)


def store_errors(
    logit_s: Tensor, logit_t: Tensor, gt_label: Tensor, ks: Sequence[int]
) -> dict[tuple[str, int], tuple[float, float]]:
    """Return the errors that a store of the teacher's k largest logits makes in each logit loss.

    For each loss and k they are relative errors of its value and of its gradient of the student's logits (in the 2-norm).
    """
    logit_s = logit_s.float().requires_grad_()
    functions: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        'KD': kd_loss,
        'KD, T = 1': functools.partial(kd_loss, temp=1.0),
        'DKD': lambda s, t: dkd_loss(s, t, gt_label),
        'WSLD': lambda s, t: wsld_loss(s, t, gt_label),
        'NKD': lambda s, t: nkd_loss(s, t, gt_label),
    }
    errors = {}
    for name, loss in functions.items():
        exact = loss(logit_s, logit_t.float())
        gradient = torch.autograd.grad(exact, logit_s)[0]
        for k in ks:
            value = loss(logit_s, decode(encode(logit_t, k), logit_t.shape[1]))
            moved = torch.autograd.grad(value, logit_s)[0] - gradient
            errors[name, k] = (float(((value - exact) / exact).abs().detach()), float(moved.norm() / gradient.norm()))
    return errors


def show_store_errors(errors: Mapping[tuple[str, int], tuple[float, float]]) -> None:
    """Print :func:`store_errors`."""
    rows = [(name, k, f'{value:.1e}', f'{gradient:.1e}') for (name, k), (value, gradient) in errors.items()]
    show('Errors of a store of the largest logits', ['loss', 'k', 'of the value', 'of the gradient'], rows)


def show_losses(timings: Mapping[str, Timing]) -> None:
    """Print the times of :func:`measure_losses`, in ms and in cross entropies."""
    unit = timings[UNIT].median
    rows = [(n, f'{1e3 * t.median:.2f}', f'{1e3 * t.spread:.2f}', f'{t.median / unit:.1f}') for n, t in timings.items()]
    show('Forward and backward of the logit losses', ['loss', 'median (ms)', 'spread (ms)', 'cross entropies'], rows)
