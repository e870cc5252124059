"""WKD-L: probability moves between classes, at a cost by likeness (Lv et al., NeurIPS 2024, arXiv 2412.08139)."""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import DistillLoss
from .common import full_precision, hard_label, mask_classes, need_memory
from .nkd import nkd_target_term


def class_cost(vectors: Tensor) -> Tensor:
    """Compute the cost between classes: one minus the cosine of the angle between their vectors.

    Args:
        vectors: One row for each class, (C, D): of a classifier's weight, or the mean of the classifier's inputs.

    Returns:
        The cost, (C, C), from 0 (same direction) to 2 (opposite).

    Example:
        >>> class_cost(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
        tensor([[0., 1.],
                [1., 0.]])
    """
    need_matrices(len(vectors))
    rows = F.normalize(vectors.detach().float(), dim=1)
    return 1 - rows @ rows.t()


def need_matrices(classes: int) -> None:
    """Refuse a number of classes whose matrices of a step, (C, C), cannot fit into the memory.

    These are the cost, the cost above 0, the kernel and its intermediate, and their product.
    """
    need_memory(
        f'WKDLogitLoss, with five matrices of {classes} × {classes} classes,', 5 * classes**2, 'choose another method'
    )


def transport_cost(source: Tensor, target: Tensor, start: Tensor, cost: Tensor, reg: float, iterations: int) -> Tensor:
    r"""Compute the cost of turning one distribution into another, by Sinkhorn's iterations.

    .. math:: v = target / (K^T u + 10^{-8}), \quad u = source / (K v + 10^{-8}), \quad K = \exp(-cost / reg)

    repeated from u = ``start``; the flow is diag(u) K diag(v). A class with 0 in all three takes no part. No tensor has
    (N, C, C) entries.

    Args:
        source: Distributions, (N, C).
        target: Distributions, (N, C).
        start: The first u, (N, C).
        cost: Price of each move, (C, C).
        reg: Weight of the flow's entropy: the smaller, the nearer to the cheapest flow, and the more iterations it takes.
        iterations: Number of iterations.

    Returns:
        The cost of each sample's flow, (N,).
    """
    kernel = torch.exp(-cost / reg)
    u, v = start, target
    for _ in range(iterations):
        v = target / (u @ kernel + 1e-8)
        u = source / (v @ kernel.t() + 1e-8)
    return (u * (v @ (kernel * cost).t())).sum(dim=1)


def wkd_logit_loss(
    logit_s: Tensor,
    logit_t: Tensor,
    gt_label: Tensor,
    cost: Tensor,
    temp: float = 2.0,
    gamma: float = 1.0,
    sinkhorn_reg: float = 0.05,
    sinkhorn_iter: int = 10,
) -> Tensor:
    r"""Compute the WKD-L loss, with a Wasserstein distance of logits.

    .. math:: -\frac{1}{N} \sum_n \Big( t_y \log s_y - \gamma \sum_{i, j \neq y} flow_{ij} \, cost_{ij} \Big)

    The first term is :func:`~.nkd.nkd_loss`'s target term. The flow, by :func:`transport_cost`, turns the softmax of
    z_s / T over the classes other than y into that of z_t / T, starting from 1 / (C - 1); costs below 0 are 0, and each has
    10⁻⁸ added. Gradients flow through all iterations.

    Args:
        logit_s: Student logits z_s, (N, C).
        logit_t: Teacher logits z_t, (N, C).
        gt_label: Class indices (N,), or scores (N, C), of which the arg-max class is y.
        cost: Cost of moving probability from class i of the student to class j of the teacher, (C, C).
        temp: Temperature T of the second term, which is not multiplied by its square.
        gamma: Weight of the second term, which has no gradient where C = 2.
        sinkhorn_reg: Weight of the flow's entropy.
        sinkhorn_iter: Number of Sinkhorn's iterations.

    Returns:
        The loss, a scalar: nats, plus units of the cost.

    Raises:
        ValueError: If the cost is for another number of classes.

    Example:
        >>> logit_s, logit_t = torch.tensor([[9.0, 1.0, 3.0]]), torch.tensor([[9.0, 3.0, 1.0]])
        >>> wkd_logit_loss(logit_s, logit_t, torch.tensor([0]), cost=0.5 * (1 - torch.eye(3)))
        tensor(0.2338)
    """
    classes = logit_s.shape[1]
    if cost.shape != (classes, classes):
        raise ValueError(f'the cost is for {cost.shape[0]} classes, but the logits have {classes}: make it of this teacher')
    target = hard_label(gt_label)[:, None]
    other_s, other_t = (mask_classes(logit / temp, target).softmax(dim=1) for logit in (logit_s, logit_t))
    start = torch.full_like(other_s, 1 / (classes - 1)).scatter(1, target, 0.0)
    moved = transport_cost(other_s, other_t, start, cost.clamp(min=0) + 1e-8, sinkhorn_reg, sinkhorn_iter)
    return nkd_target_term(logit_s, logit_t, target) + gamma * moved.mean()


class WKDLogitLoss(DistillLoss):
    """:func:`wkd_logit_loss`.

    Args:
        temp: Temperature T of the second term.
        gamma: Weight of the second term.
        sinkhorn_reg: Weight of the flow's entropy.
        sinkhorn_iter: Number of Sinkhorn's iterations.
        cost: Cost of each move, (C, C); a config may name the file of it that ``class_cost`` wrote. A distiller takes
            :func:`class_cost` of the teacher's classifier where it is None. It is in no checkpoint.
        loss_weight: Weight of this loss.

    Raises:
        ValueError: If there is no cost, or it is not a square of finite numbers.
    """

    needs = 'softmax'
    facts = {'cost': ('teacher_weight', class_cost)}
    files = {'cost': 'cost'}
    masks_target = True  # the temperature softens the other classes by themselves
    cost: Tensor

    def __init__(
        self,
        temp: float = 2.0,
        gamma: float = 1.0,
        sinkhorn_reg: float = 0.05,
        sinkhorn_iter: int = 10,
        cost: Any = None,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.temp = temp
        self.gamma = gamma
        self.sinkhorn_reg = sinkhorn_reg
        self.sinkhorn_iter = sinkhorn_iter
        self.loss_weight = loss_weight
        self.register_buffer('cost', self._checked(cost), persistent=False)

    @staticmethod
    def _checked(cost: Any) -> Tensor:
        if cost is None:
            raise ValueError(
                'WKDLogitLoss needs the cost of moving probability between the classes, which is made of the weight of the '
                'teacher’s linear classifier where it has one; `python -m mmcls_kd class-cost CONFIG --output cost.pth` '
                'makes it of training images: then set cost=cost.pth'
            )
        if isinstance(cost, (str, os.PathLike)):
            raise ValueError(f'WKDLogitLoss: cost is a matrix (or in a config a file), not {os.fspath(cost)!r}')
        cost = torch.as_tensor(cost)
        need_matrices(max(cost.shape, default=0))
        if cost.dim() != 2 or cost.shape[0] != cost.shape[1] or not cost.isfinite().all():
            raise ValueError(f'WKDLogitLoss: cost has to be a square (C, C) of finite numbers, not {tuple(cost.shape)}')
        return cost

    @full_precision
    def forward(self, logit_s: Tensor, logit_t: Tensor, gt_label: Tensor) -> Tensor:
        return self.loss_weight * wkd_logit_loss(
            logit_s,
            logit_t,
            gt_label,
            self.cost.to(logit_s.dtype),
            self.temp,
            self.gamma,
            self.sinkhorn_reg,
            self.sinkhorn_iter,
        )
