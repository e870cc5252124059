"""LSKD: KD of standardised logits (Sun et al., CVPR 2024, arXiv 2403.01427)."""

from torch import Tensor

from .base import DistillLoss
from .common import full_precision
from .kd import kd_loss


def lskd_loss(logit_s: Tensor, logit_t: Tensor, temp: float = 2.0) -> Tensor:
    r"""Compute the knowledge distillation loss of standardised logits.

    .. math:: \frac{T^2}{N} \sum_n KL(softmax(Z(z_t) / T) \| softmax(Z(z_s) / T))

    with Z of :func:`.common.standardize_classes`. KD, DKD and NKD take the same logits by ``standardize=True``; KD then has
    this loss's gradient, times alpha.

    Args:
        logit_s: Student logits z_s, (N, C).
        logit_t: Teacher logits z_t, (N, C).
        temp: Temperature T.

    Returns:
        The loss, a scalar in nats times T², not negative, 0 where student equals teacher up to shift and scale.

    Example:
        >>> import torch
        >>> lskd_loss(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[3.0, 2.0, 1.0]]), temp=1.0)
        tensor(1.1504)
    """
    return kd_loss(logit_s, logit_t, temp, alpha=1.0, standardize=True, divergence=True)


class LSKDLoss(DistillLoss):
    """:func:`lskd_loss`.

    Args:
        temp: Temperature T.
        loss_weight: Weight of this loss.
    """

    needs = 'softmax'

    standardize = True  # as of losses with a keyword for it

    def __init__(self, temp: float = 2.0, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.temp = temp
        self.loss_weight = loss_weight

    @full_precision
    def forward(self, logit_s: Tensor, logit_t: Tensor) -> Tensor:
        return self.loss_weight * lskd_loss(logit_s, logit_t, self.temp)
