"""DIST: student and teacher agree in how they relate classes and samples (Huang et al., NeurIPS 2022, arXiv 2205.10536)."""

import torch
from torch import Tensor

from .base import DistillLoss
from .common import bounded, full_precision, whole_batch


def correlation(a: Tensor, b: Tensor) -> Tensor:
    r"""Compute the Pearson correlation of matching rows, :math:`\rho = a \cdot b / (|a| |b| + 10^{-8})`, centred first.

    Args:
        a: Rows, (M, D).
        b: Rows, (M, D).

    Returns:
        The correlations, (M,): from -1 to 1, and 0 where a row is constant.
    """
    a, b = a - a.mean(dim=1, keepdim=True), b - b.mean(dim=1, keepdim=True)
    norms = torch.linalg.vector_norm(a, dim=1) * torch.linalg.vector_norm(b, dim=1)
    return (a * b).sum(dim=1) / (norms + 1e-8)


def dist_loss(logit_s: Tensor, logit_t: Tensor, temp: float = 1.0, beta: float = 1.0, gamma: float = 1.0) -> Tensor:
    r"""Compute the DIST loss (distillation from a stronger teacher).

    .. math:: T^2 \left[ \beta \Big( 1 - \frac{1}{N} \sum_n \rho(q_n, p_n) \Big)
        + \gamma \Big( 1 - \frac{1}{C} \sum_c \rho(q_{\cdot c}, p_{\cdot c}) \Big) \right]

    with p = softmax(z_t / T), q = softmax(z_s / T) and :func:`correlation` ρ: over the classes of each sample, and over the
    samples of each class. The latter says nothing of a single sample: at N = 1 its term is γ T², without gradient. Neither
    has a gradient where a sample's or a class's probabilities are all equal, see :func:`.common.bounded`.

    Args:
        logit_s: Student logits z_s, (N, C).
        logit_t: Teacher logits z_t, (N, C).
        temp: Temperature T.
        beta: Weight of the correlation over classes.
        gamma: Weight of the correlation over samples.

    Returns:
        The loss, a scalar without unit times T², not negative.

    Example:
        >>> logit = torch.tensor([[1.0, 2.0, 4.0], [4.0, 2.0, 1.0]])
        >>> dist_loss(logit, logit.flip(1), gamma=0.0)
        tensor(1.6339)
    """
    log_q = (logit_s / temp).log_softmax(dim=1)
    q, p = log_q.exp(), (logit_t / temp).softmax(dim=1)
    of_sample, of_class = (temp * log_q.std(dim=dim, keepdim=True, correction=0) for dim in (1, 0))
    over_classes = 1 - correlation(bounded(q, of_sample), p).mean()
    over_samples = 1 - correlation(bounded(q, of_class).t(), p.t()).mean()
    return temp**2 * (beta * over_classes + gamma * over_samples)


class DISTLoss(DistillLoss):
    """:func:`dist_loss`.

    Args:
        temp: Temperature T.
        beta: Weight of the correlation over classes.
        gamma: Weight of the correlation over samples.
        sync_batch: Compare the samples of all processes' batches, not those of this process's alone, see
            :func:`~mmcls_kd.dis_losses.common.whole_batch`: the loss is then the same however a batch is divided among them.
        loss_weight: Weight of this loss.
    """

    needs = 'softmax'

    def __init__(
        self, temp: float = 1.0, beta: float = 1.0, gamma: float = 1.0, sync_batch: bool = False, loss_weight: float = 1.0
    ) -> None:
        super().__init__()
        self.temp = temp
        self.beta = beta
        self.gamma = gamma
        self.sync_batch = sync_batch
        self.loss_weight = loss_weight

    @full_precision
    def forward(self, logit_s: Tensor, logit_t: Tensor) -> Tensor:
        logit_s, logit_t = whole_batch(logit_s, self.sync_batch), whole_batch(logit_t, self.sync_batch)
        return self.loss_weight * dist_loss(logit_s, logit_t, self.temp, self.beta, self.gamma)
