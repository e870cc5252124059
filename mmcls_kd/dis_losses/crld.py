"""CRLD: consistency of logits within and across two views of an image (ACM MM 2024, arXiv 2412.16493).

Formula and settings are those of the copy in haiduo/DeepKD: the teacher's confidence on the weak view decides on both terms
within a view, that on the strong view on both across views.
"""

import torch
from torch import Tensor

from .base import DistillLoss
from .common import full_precision
from .mlkd import instance_term


def crld_loss(
    logit_s: Tensor,
    logit_t: Tensor,
    logit_s_strong: Tensor,
    logit_t_strong: Tensor,
    temp: float = 4.0,
    within_weight: float = 2.0,
    cross_weight: float = 0.5,
    tau_weak: float = 0.9,
    tau_strong: float = 0.2,
) -> Tensor:
    r"""Compute the loss of cross-view consistency.

    .. math:: \frac{1}{N} \sum_n \lambda_w [c_w \ge \tau_w] \big( K(s_w, t_w) + K(s_s, t_s) \big)
        + \lambda_c [c_s \ge \tau_s] \big( K(s_s, t_w) + K(s_w, t_s) \big)

    with :math:`K(a, b) = T^2 KL(softmax(b / T) \| softmax(a / T))`, the logits of student (s) and teacher (t) on the weak
    (w) and strong (s) view, and the teacher's largest probability c on each, at T = 1. The mean is over all N samples.

    Args:
        logit_s: Student logits of the weak view, (N, C).
        logit_t: Teacher logits of the weak view, (N, C).
        logit_s_strong: Student logits of the strong view, (N, C).
        logit_t_strong: Teacher logits of the strong view, (N, C).
        temp: Temperature T.
        within_weight: Weight λ_w of the terms within a view.
        cross_weight: Weight λ_c of the terms across views.
        tau_weak: Least confidence τ_w of the teacher on the weak view.
        tau_strong: Least confidence τ_s of the teacher on the strong view.

    Returns:
        The loss, a scalar in nats times T², not negative.

    Example:
        >>> weak, strong = torch.tensor([[3.0, 0.0]]), torch.tensor([[1.0, 0.0]])
        >>> crld_loss(weak, weak, strong, strong, temp=1.0)
        tensor(0.2215)
    """
    sure, sure_strong = (
        (logit.softmax(dim=1).amax(dim=1) >= tau).to(logit.dtype)
        for logit, tau in ((logit_t, tau_weak), (logit_t_strong, tau_strong))
    )
    within = instance_term(logit_s, logit_t, temp) + instance_term(logit_s_strong, logit_t_strong, temp)
    across = instance_term(logit_s_strong, logit_t, temp) + instance_term(logit_s, logit_t_strong, temp)
    return torch.mean(within_weight * sure * within + cross_weight * sure_strong * across)


class CRLDLoss(DistillLoss):
    """:func:`crld_loss`; the task loss is that of both views.

    Args:
        temp: Temperature T.
        within_weight: Weight of the terms within a view.
        cross_weight: Weight of the terms across views.
        tau_weak: Least confidence of the teacher on the weak view.
        tau_strong: Least confidence of the teacher on the strong view.
        loss_weight: Weight of this loss.
    """

    needs = 'softmax'
    task_views = ('weak', 'strong')

    def __init__(
        self,
        temp: float = 4.0,
        within_weight: float = 2.0,
        cross_weight: float = 0.5,
        tau_weak: float = 0.9,
        tau_strong: float = 0.2,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.temp = temp
        self.within_weight, self.cross_weight = within_weight, cross_weight
        self.tau_weak, self.tau_strong = tau_weak, tau_strong
        self.loss_weight = loss_weight

    @full_precision
    def forward(self, logit_s: Tensor, logit_t: Tensor, logit_s_strong: Tensor, logit_t_strong: Tensor) -> Tensor:
        value = crld_loss(
            logit_s,
            logit_t,
            logit_s_strong,
            logit_t_strong,
            self.temp,
            self.within_weight,
            self.cross_weight,
            self.tau_weak,
            self.tau_strong,
        )
        return self.loss_weight * value
