"""OFA-KD: distillation between different architectures (Hao et al., NeurIPS 2023, arXiv 2310.19444)."""

import torch
from torch import Tensor

from .base import DistillLoss
from .common import full_precision, hard_label


def ofa_logit_loss(logit_s: Tensor, logit_t: Tensor, gt_label: Tensor, eps: float = 1.5, temp: float = 1.0) -> Tensor:
    r"""Compute the OFA-KD loss: the target class counts more, the surer of it the teacher is.

    .. math:: -\frac{1}{N} \sum_n \sum_i \left( (p_i + 1[i = y])^\varepsilon - 1[i = y] \right) \log q_i

    with p = softmax(z_t / T), q = softmax(z_s / T). At ε = 1 it is KD's cross entropy.

    Args:
        logit_s: Student logits z_s, (N, C).
        logit_t: Teacher logits z_t, (N, C).
        gt_label: Class indices (N,), or scores (N, C), of which the arg-max class is y.
        eps: Power ε.
        temp: Temperature T; the loss is not multiplied by its square.

    Returns:
        The loss, a scalar in nats.

    Example:
        >>> logit_s, logit_t = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, -1.0]])
        >>> ofa_logit_loss(logit_s, logit_t, torch.tensor([0]), eps=2.0)
        tensor(1.7686)
    """
    prob_t = (logit_t / temp).softmax(dim=1)
    target = torch.zeros_like(prob_t).scatter(1, hard_label(gt_label)[:, None], 1.0)
    weight = (prob_t + target) ** eps - target
    return -(weight * (logit_s / temp).log_softmax(dim=1)).sum(dim=1).mean()


class OFALogitLoss(DistillLoss):
    """:func:`ofa_logit_loss`.

    Args:
        eps: Power ε.
        temp: Temperature T.
        loss_weight: Weight of this loss.
    """

    needs = 'softmax'

    def __init__(self, eps: float = 1.5, temp: float = 1.0, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.eps = eps
        self.temp = temp
        self.loss_weight = loss_weight

    @full_precision
    def forward(self, logit_s: Tensor, logit_t: Tensor, gt_label: Tensor) -> Tensor:
        return self.loss_weight * ofa_logit_loss(logit_s, logit_t, gt_label, self.eps, self.temp)
