"""DKD: the target class and the others are distilled apart (Zhao et al., CVPR 2022, arXiv 2203.08679)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import DistillLoss
from .common import full_precision, hard_label, mask_classes, standardize_classes


def decoupled(logit: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log-probabilities (target, all others), (N, 2), and those among the others, (N, C).

    Args:
        logit: Logits, divided by the temperature, (N, C).
        target: Class index of each sample, (N, 1).
    """
    others = mask_classes(logit, target)
    binary = torch.cat([logit.gather(1, target), others.logsumexp(dim=1, keepdim=True)], dim=1)
    return binary.log_softmax(dim=1), others.log_softmax(dim=1)


def dkd_loss(
    logit_s: Tensor,
    logit_t: Tensor,
    gt_label: Tensor,
    temp: float = 4.0,
    alpha: float = 1.0,
    beta: float = 6.0,
    standardize: bool = False,
) -> Tensor:
    r"""Compute the decoupled knowledge distillation loss.

    .. math:: \frac{T^2}{N} \sum_n \alpha KL((p_y, 1 - p_y) \| (q_y, 1 - q_y)) + \beta KL(\hat p \| \hat q)

    with p = softmax(z_t / T), q = softmax(z_s / T), and :math:`\hat p, \hat q` the softmax over the classes other than y.

    Args:
        logit_s: Student logits z_s, (N, C).
        logit_t: Teacher logits z_t, (N, C).
        gt_label: Class indices (N,), or scores (N, C), of which the arg-max class is y. (The original crashes on scores.)
        temp: Temperature T.
        alpha: Weight of the target class's term.
        beta: Weight of the other classes' term; 0 in value and gradient where C = 2.
        standardize: Standardise both logits over the classes first, see :func:`.common.standardize_classes`.

    Returns:
        The loss, a scalar in nats times T², not negative, 0 where student equals teacher.

    Example:
        >>> logit_s, logit_t = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[3.0, 2.0, 1.0]])
        >>> dkd_loss(logit_s, logit_t, torch.tensor([1]), temp=1.0, beta=1.0)
        tensor(1.5232)
    """
    if standardize:
        logit_s, logit_t = standardize_classes(logit_s), standardize_classes(logit_t)
    target = hard_label(gt_label)[:, None]
    target_s, other_s = decoupled(logit_s / temp, target)
    target_t, other_t = decoupled(logit_t / temp, target)
    target_term = F.kl_div(target_s, target_t, reduction='batchmean', log_target=True)
    other_term = F.kl_div(other_s, other_t, reduction='batchmean', log_target=True)
    return temp**2 * (alpha * target_term + beta * other_term)


class DKDLoss(DistillLoss):
    """:func:`dkd_loss`.

    Args:
        temp: Temperature T.
        alpha: Weight of the target class's term.
        beta: Weight of the other classes' term.
        standardize: Standardise both logits over the classes first.
    """

    needs = 'softmax'
    masks_target = True  # the temperature softens the other classes by themselves

    def __init__(self, temp: float = 4.0, alpha: float = 1.0, beta: float = 6.0, standardize: bool = False) -> None:
        super().__init__()
        self.temp = temp
        self.alpha = alpha
        self.beta = beta
        self.standardize = standardize

    @full_precision
    def forward(self, logit_s: Tensor, logit_t: Tensor, gt_label: Tensor) -> Tensor:
        return dkd_loss(logit_s, logit_t, gt_label, self.temp, self.alpha, self.beta, self.standardize)
