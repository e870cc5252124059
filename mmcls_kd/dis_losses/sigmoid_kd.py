"""Sigmoid KD: each label's probability follows the teacher's, for images with several labels (arXiv 2308.06453)."""

import torch.nn.functional as F
from torch import Tensor

from .base import DistillLoss
from .common import full_precision

REDUCTIONS = ('sum', 'mean')


def sigmoid_kd_loss(logit_s: Tensor, logit_t: Tensor, temp: float = 1.0, reduction: str = 'sum') -> Tensor:
    r"""Compute the KL divergence of each label's probability, over labels that do not exclude each other.

    .. math:: \frac{T^2}{N} \sum_n \sum_i p_{ni} \log \frac{p_{ni}}{q_{ni}} + (1 - p_{ni}) \log \frac{1 - p_{ni}}{1 - q_{ni}}

    with :math:`p = \sigma(z_t / T), q = \sigma(z_s / T)`.

    With T = 1 it is the term on logits (MLD) of *Multi-Label Knowledge Distillation* (Yang et al., ICCV 2023), which has no
    temperature and sums over the labels; T and T² are those of KD. Unlike there, probabilities are not clipped at 1e-8.

    Args:
        logit_s: Student logits z_s, (N, C); C = 1 for two classes with one logit.
        logit_t: Teacher logits z_t, (N, C).
        temp: Temperature T.
        reduction: ``'sum'`` over the labels, or their ``'mean'``; over images always the mean.

    Returns:
        The loss, a scalar in nats times T²; 0 where both logits are equal.

    Raises:
        ValueError: If the reduction is unknown.

    Example:
        >>> import torch
        >>> sigmoid_kd_loss(torch.tensor([[0.0, 1.0]]), torch.tensor([[2.0, 1.0]]))
        tensor(0.3278)
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction={reduction!r}: choose 'sum' or 'mean' over the labels")
    z_s, z_t = logit_s / temp, logit_t / temp
    present = z_t.sigmoid() * (F.logsigmoid(z_t) - F.logsigmoid(z_s))
    absent = (-z_t).sigmoid() * (F.logsigmoid(-z_t) - F.logsigmoid(-z_s))
    labels = (present + absent).sum(dim=1) if reduction == 'sum' else (present + absent).mean(dim=1)
    return temp**2 * labels.mean()


class SigmoidKDLoss(DistillLoss):
    """:func:`sigmoid_kd_loss`, for multi-label and binary classifiers, and for others that are trained with sigmoids.

    Args:
        temp: Temperature T.
        reduction: ``'sum'`` over the labels, as mmpretrain's multi-label heads sum, or their ``'mean'``.
        loss_weight: Weight of this loss.
    """

    def __init__(self, temp: float = 1.0, reduction: str = 'sum', loss_weight: float = 1.0) -> None:
        super().__init__()
        if reduction not in REDUCTIONS:
            raise ValueError(f"reduction={reduction!r}: choose 'sum' or 'mean' over the labels")
        self.temp = temp
        self.reduction = reduction
        self.loss_weight = loss_weight

    @full_precision
    def forward(self, logit_s: Tensor, logit_t: Tensor) -> Tensor:
        return self.loss_weight * sigmoid_kd_loss(logit_s, logit_t, self.temp, self.reduction)
