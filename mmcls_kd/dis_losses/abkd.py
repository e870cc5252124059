"""ABKD: the α-β divergence between the distributions (ICML 2025, arXiv 2505.04560)."""

from torch import Tensor

from .base import DistillLoss
from .common import full_precision


def abkd_loss(
    logit_s: Tensor, logit_t: Tensor, alpha: float = 0.8, beta: float = 0.3, temp: float = 4.0, released: bool = False
) -> Tensor:
    r"""Compute the α-β divergence of the softened distributions.

    .. math:: -\frac{1}{\alpha\beta} \frac{1}{N} \sum_{n,i} p^\alpha q^\beta - \frac{\alpha}{\alpha+\beta} p^{\alpha+\beta}
        - \frac{\beta}{\alpha+\beta} q^{\alpha+\beta}

    with p = softmax(z_t / T), q = softmax(z_s / T). Where a denominator is 0 it is the limit: (1, 0) is KL(p ‖ q) and (0, 1)
    KL(q ‖ p). Unlike KD it has no factor T². A negative exponent gives values that grow with p/q without bound.

    The limits of the released code have one factor 1/α (for α = 0, 1/β) too few, so they jump: they are too small, and
    negative for α = −β < 0. ``released`` selects them.

    Args:
        logit_s: Student logits z_s, (N, C).
        logit_t: Teacher logits z_t, (N, C).
        alpha: Exponent α of the teacher's probabilities.
        beta: Exponent β of the student's.
        temp: Temperature T.
        released: Multiply the limits by α (for α = 0, by β), as the authors' code does.

    Returns:
        The loss, a scalar; not negative, 0 where student equals teacher.

    Example:
        >>> import torch
        >>> logit_s, logit_t = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, -1.0]])
        >>> abkd_loss(logit_s, logit_t, alpha=1.0, beta=0.0, temp=1.0)
        tensor(0.3278)
    """
    log_q, log_p = (logit_s / temp).log_softmax(dim=1), (logit_t / temp).log_softmax(dim=1)
    total = alpha + beta
    if alpha == beta == 0:
        terms, factor = 0.5 * (log_p - log_q) ** 2, 1.0
    elif beta == 0:
        terms, factor = _one_is_0(log_p, log_q, alpha), alpha
    elif alpha == 0:
        terms, factor = _one_is_0(log_q, log_p, beta), beta
    elif total == 0:
        ratio = alpha * (log_p - log_q)
        terms, factor = (ratio.exp() - 1 - ratio) / alpha**2, alpha
    else:
        mixed = (alpha * log_p + beta * log_q).exp()
        sums = alpha / total * (total * log_p).exp() + beta / total * (total * log_q).exp()
        terms, factor = (sums - mixed) / (alpha * beta), 1.0
    return (factor if released else 1.0) * terms.sum(dim=1).mean()


def _one_is_0(log_a: Tensor, log_b: Tensor, power: float) -> Tensor:
    """Return the terms of the limit in which the exponent of b is 0: a generalised KL divergence of the powers."""
    log_a, log_b = power * log_a, power * log_b
    return (log_a.exp() * (log_a - log_b) - log_a.exp() + log_b.exp()) / power**2


class ABKDLoss(DistillLoss):
    """:func:`abkd_loss`.

    Args:
        alpha: Exponent α of the teacher's probabilities.
        beta: Exponent β of the student's.
        temp: Temperature T.
        released: Use the limits of the authors' code.
        loss_weight: Weight of this loss.
    """

    needs = 'softmax'

    def __init__(
        self,
        alpha: float = 0.8,
        beta: float = 0.3,
        temp: float = 4.0,
        released: bool = False,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.alpha = alpha
        self.beta = beta
        self.temp = temp
        self.released = released
        self.loss_weight = loss_weight

    @full_precision
    def forward(self, logit_s: Tensor, logit_t: Tensor) -> Tensor:
        return self.loss_weight * abkd_loss(logit_s, logit_t, self.alpha, self.beta, self.temp, self.released)
