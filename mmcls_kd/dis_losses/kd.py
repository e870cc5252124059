"""KD: the student's softened distribution follows the teacher's (Hinton et al., arXiv 1503.02531)."""

import torch.nn.functional as F
from torch import Tensor

from .base import DistillLoss
from .common import full_precision, standardize_classes


def kd_loss(
    logit_s: Tensor,
    logit_t: Tensor,
    temp: float = 4.0,
    alpha: float = 0.5,
    standardize: bool = False,
    divergence: bool = False,
) -> Tensor:
    r"""Compute the knowledge distillation loss.

    .. math:: -\alpha T^2 \frac{1}{N} \sum_n \sum_i p_{ni} \log q_{ni}, \quad p = softmax(z_t / T), q = softmax(z_s / T)

    A cross entropy as in the original toolbox, so it does not vanish at z_s = z_t: it differs from the KL divergence by the
    teacher's entropy. That has no gradient for the student, but one for a learnable temperature; ``divergence`` removes it.

    Args:
        logit_s: Student logits z_s, (N, C).
        logit_t: Teacher logits z_t, (N, C).
        temp: Temperature T.
        alpha: Weight of this loss.
        standardize: Standardise both logits over the classes first, see :func:`.common.standardize_classes`.
        divergence: Give the KL divergence of p and q, which is 0 where they are equal.

    Returns:
        The loss, a scalar in nats times T².

    Example:
        >>> import torch
        >>> kd_loss(torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, -1.0]]), temp=1.0, alpha=1.0)
        tensor(0.6931)
    """
    if standardize:
        logit_s, logit_t = standardize_classes(logit_s), standardize_classes(logit_t)
    if divergence:
        log_q, log_p = (logit_s / temp).log_softmax(dim=1), (logit_t / temp).log_softmax(dim=1)
        return alpha * temp**2 * F.kl_div(log_q, log_p, reduction='batchmean', log_target=True)
    return alpha * temp**2 * F.cross_entropy(logit_s / temp, (logit_t / temp).softmax(dim=1))


class KDLoss(DistillLoss):
    """:func:`kd_loss`; the task loss is multiplied by (1 − alpha).

    Args:
        temp: Temperature T.
        alpha: Weight of this loss.
        standardize: Standardise both logits over the classes first.
        divergence: Give the KL divergence, as a learnt temperature needs it.
    """

    needs = 'softmax'

    def __init__(self, temp: float = 4.0, alpha: float = 0.5, standardize: bool = False, divergence: bool = False) -> None:
        super().__init__()
        self.temp = temp
        self.alpha = alpha
        self.standardize = standardize
        self.divergence = divergence

    @property
    def task_weight(self) -> float:  # type: ignore[override]
        """Factor of the task loss."""
        return 1 - self.alpha

    @full_precision
    def forward(self, logit_s: Tensor, logit_t: Tensor) -> Tensor:
        return kd_loss(logit_s, logit_t, self.temp, self.alpha, self.standardize, self.divergence)
