"""SDD: a loss of logits in every cell of the last map (Wei et al., CVPR 2024, arXiv 2403.13512).

The formula is that of the authors' code (github.com/shicaiwei123/SDD-CVPR2024, e412036). It pools the coarser cells from the
4 × 4 ones, which differ from means of the map where its sides are no multiples of 4; ``direct_pool`` takes these. Its copy
of NKD leaves the target class among the others: ``released``; the default is NKD as its paper defines it.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import DistillLoss
from .catkd import check_classifier
from .common import full_precision, hard_label, mask_classes, standardize_classes
from .dkd import DKDLoss, decoupled
from .kd import KDLoss
from .nkd import NKDLoss

KD_OF_A_CELL = dict(type='KDLoss', temp=4.0, alpha=1.0, divergence=True)
#: Cells in height and width of the map that is pooled again.
FINEST = 4


def cells_of(feat: Tensor, scales: Sequence[int], direct_pool: bool = False) -> Tensor:
    """Average a map to s × s cells at each scale s.

    Args:
        feat: Features, (N, D, H, W).
        scales: Numbers s of cells in height and width.
        direct_pool: Whether to pool each scale from the map, instead of from 4 × 4 cells.

    Returns:
        The cells of all scales side by side, (N, cells, D).

    Example:
        >>> cells_of(torch.arange(16.0).reshape(1, 1, 4, 4), (1, 2)).flatten()
        tensor([ 7.5000,  2.5000,  4.5000, 10.5000, 12.5000])
    """
    if not direct_pool:
        feat = F.adaptive_avg_pool2d(feat, FINEST)
    cells = [F.adaptive_avg_pool2d(feat, scale).flatten(2) for scale in scales]
    return torch.cat(cells, dim=2).transpose(1, 2)


def divergence(log_q: Tensor, log_p: Tensor) -> Tensor:
    """Return the KL divergence of each sample, (N,), from log-probabilities, (N, C)."""
    return (log_p.exp() * (log_p - log_q)).sum(dim=1)


def kd_of_each(loss: KDLoss, logit_s: Tensor, logit_t: Tensor, target: Tensor) -> Tensor:  # noqa: ARG001
    """Return the terms, (N,), whose mean is :func:`.kd.kd_loss`, of logits (N, C) and classes (N, 1)."""
    log_q, log_p = (logit_s / loss.temp).log_softmax(dim=1), (logit_t / loss.temp).log_softmax(dim=1)
    terms = divergence(log_q, log_p) if loss.divergence else -(log_p.exp() * log_q).sum(dim=1)
    return loss.alpha * loss.temp**2 * terms


def dkd_of_each(loss: DKDLoss, logit_s: Tensor, logit_t: Tensor, target: Tensor) -> Tensor:
    """Return the terms, (N,), whose mean is :func:`.dkd.dkd_loss`, of logits (N, C) and classes (N, 1)."""
    target_s, other_s = decoupled(logit_s / loss.temp, target)
    target_t, other_t = decoupled(logit_t / loss.temp, target)
    return loss.temp**2 * (loss.alpha * divergence(target_s, target_t) + loss.beta * divergence(other_s, other_t))


def nkd_of_each(loss: NKDLoss, logit_s: Tensor, logit_t: Tensor, target: Tensor, released: bool = False) -> Tensor:
    """Return the terms, (N,), whose mean is :func:`.nkd.nkd_loss`; ``released`` keeps the target class among the others."""
    soft_s, soft_t = logit_s / loss.temp, logit_t / loss.temp
    if not released:
        soft_s, soft_t = mask_classes(soft_s, target), mask_classes(soft_t, target)
    log_s = soft_s.log_softmax(dim=1) if released else soft_s.log_softmax(dim=1).scatter(1, target, 0)
    prob_t = logit_t.softmax(dim=1).gather(1, target).detach()[:, 0]
    target_term = -prob_t * logit_s.log_softmax(dim=1).gather(1, target)[:, 0]
    return target_term - loss.gamma * loss.temp**2 * (soft_t.softmax(dim=1) * log_s).sum(dim=1)


#: The losses of a cell's logits: the class with the settings, and the function of each cell.
BASES: dict[str, tuple[type[DistillLoss], Callable[..., Tensor]]] = {
    'KDLoss': (KDLoss, kd_of_each),
    'DKDLoss': (DKDLoss, dkd_of_each),
    'NKDLoss': (NKDLoss, nkd_of_each),
}


class SDDLoss(DistillLoss):
    r"""Average a loss of logits over the cells of the last map and the samples, with a weight of 1 or 2 for each cell.

    .. math:: \frac{1}{N K} \sum_n \sum_k w_{nk} \, l(W_s f_{nk} + b_s, W_t g_{nk} + b_t, y_n)

    over K cells, of which each scale s has s². The logits of a cell are the classifier's of the cell's mean features f and
    g. The weight is 1 where the teacher's predictions of the cell and of the whole map (the 1 × 1 cell) are both right or
    both wrong, else 2. For cells of a map that is smaller than 4 × 4, features are repeated.

    Args:
        loss: The loss l of a cell: ``type``, one of KDLoss, DKDLoss and NKDLoss, and its keywords. None for KD at
            temperature 4.
        scales: Numbers of cells in height and width.
        direct_pool: Whether to pool each scale from the map. Else coarse cells are means of the 4 × 4 cells, as released.
        released: Whether NKD counts the target class among the others, as released.
        loss_weight: Weight of this loss.

    Raises:
        ValueError: If the loss or a scale is none of these, or a map has other channels than its classifier reads.
    """

    needs = 'softmax'

    def __init__(
        self,
        loss: Mapping[str, Any] | None = None,
        scales: Sequence[int] = (1, 2, 4),
        direct_pool: bool = False,
        released: bool = False,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        settings = dict(KD_OF_A_CELL if loss is None else loss)
        kind = settings.pop('type', None)
        if kind not in BASES:
            raise ValueError(f'SDDLoss(loss=...): type={kind!r} is none of {", ".join(BASES)}')
        if not scales or not all(isinstance(s, int) and s > 0 and (direct_pool or FINEST % s == 0) for s in scales):
            raise ValueError(f'SDDLoss(scales={scales}): choose from 1, 2 and 4, or, with direct_pool=True, any from 1')
        base, self.of_each = BASES[kind]
        self.base: Any = base(**settings)
        if released and kind == 'NKDLoss':
            self.of_each = partial(nkd_of_each, released=True)
        self.scales = tuple(scales)
        self.direct_pool = direct_pool
        self.loss_weight = loss_weight

    @full_precision
    def forward(
        self,
        feat_s: Tensor,
        feat_t: Tensor,
        student_weight: Tensor,
        student_bias: Tensor,
        teacher_weight: Tensor,
        teacher_bias: Tensor,
        gt_label: Tensor,
    ) -> Tensor:
        check_classifier(self, 'student', feat_s, student_weight)
        check_classifier(self, 'teacher', feat_t, teacher_weight)
        logit_s = F.linear(cells_of(feat_s, self.scales, self.direct_pool), student_weight, student_bias)
        logit_t = F.linear(cells_of(feat_t, (1, *self.scales), self.direct_pool), teacher_weight, teacher_bias)
        target = hard_label(gt_label)[:, None]
        right = logit_t.argmax(dim=2) == target
        weight = 1 + (right[:, 1:] != right[:, :1]).to(logit_s.dtype)
        logit_s, logit_t = logit_s.flatten(0, 1), logit_t[:, 1:].flatten(0, 1)
        if self.base.standardize:
            logit_s, logit_t = standardize_classes(logit_s), standardize_classes(logit_t)
        values = self.of_each(self.base, logit_s, logit_t, target.expand_as(weight).reshape(-1, 1))
        return self.loss_weight * (weight.flatten() * values).mean()
