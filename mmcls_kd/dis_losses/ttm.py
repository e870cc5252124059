"""TTM and WTTM: the teacher alone is softened, by a power (Zheng and Yang, ICLR 2024, arXiv 2402.11148)."""

import torch.nn.functional as F
from torch import Tensor

from .base import DistillLoss
from .common import full_precision


def _divergences(logit_s: Tensor, logit_t: Tensor, gamma: float) -> Tensor:
    """Compute KL(t̃ ‖ s) of each sample, (N,); the power of a softmax is the softmax of as many times the logits."""
    log_t = (gamma * logit_t).log_softmax(dim=1)
    return F.kl_div(logit_s.log_softmax(dim=1), log_t, reduction='none', log_target=True).sum(dim=1)


def ttm_loss(logit_s: Tensor, logit_t: Tensor, gamma: float = 0.1) -> Tensor:
    r"""Compute the transformed teacher matching loss.

    .. math:: \frac{1}{N} \sum_n KL(\tilde t_n \| s_n), \quad \tilde t_{ni} = t_{ni}^\gamma / \sum_j t_{nj}^\gamma

    with s and t the softmax of the logits; the student has no temperature, and the teacher's is 1/γ.

    Args:
        logit_s: Student logits z_s, (N, C).
        logit_t: Teacher logits z_t, (N, C).
        gamma: Power γ.

    Returns:
        The loss, a scalar in nats, not negative, 0 where the student's logits are γ times the teacher's.

    Example:
        >>> import torch
        >>> ttm_loss(torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, -2.0]]), gamma=0.5)
        tensor(0.3278)
    """
    return _divergences(logit_s, logit_t, gamma).mean()


def wttm_loss(logit_s: Tensor, logit_t: Tensor, gamma: float = 0.1) -> Tensor:
    r"""Compute the weighted transformed teacher matching loss: samples with a smoother teacher count more.

    .. math:: \frac{1}{N} \sum_n \Big( \sum_i t_{ni}^\gamma \Big) KL(\tilde t_n \| s_n)

    with the terms of :func:`ttm_loss`. The weight is between 1 and :math:`C^{1 - \gamma}` for γ below 1.

    Args:
        logit_s: Student logits z_s, (N, C).
        logit_t: Teacher logits z_t, (N, C).
        gamma: Power γ.

    Returns:
        The loss, a scalar in nats, not negative, 0 where the student's logits are γ times the teacher's.

    Example:
        >>> import torch
        >>> wttm_loss(torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, -2.0]]), gamma=0.5)
        tensor(0.3688)
    """
    weight = (gamma * logit_t.log_softmax(dim=1)).logsumexp(dim=1).exp()
    return (weight * _divergences(logit_s, logit_t, gamma)).mean()


class TTMLoss(DistillLoss):
    """:func:`ttm_loss`.

    Args:
        gamma: Power γ.
        loss_weight: Weight of this loss.
    """

    needs = 'softmax'

    def __init__(self, gamma: float = 0.1, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.gamma = gamma
        self.loss_weight = loss_weight

    @full_precision
    def forward(self, logit_s: Tensor, logit_t: Tensor) -> Tensor:
        return self.loss_weight * ttm_loss(logit_s, logit_t, self.gamma)


class WTTMLoss(TTMLoss):
    """:func:`wttm_loss`.

    Args:
        gamma: Power γ.
        loss_weight: Weight of this loss.
    """

    @full_precision
    def forward(self, logit_s: Tensor, logit_t: Tensor) -> Tensor:
        return self.loss_weight * wttm_loss(logit_s, logit_t, self.gamma)
