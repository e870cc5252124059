"""NormKD: each sample's temperature follows the spread of its logits (arXiv 2308.00520)."""

import torch.nn.functional as F
from torch import Tensor

from .base import DistillLoss
from .common import bounded, full_precision, hard_label
from .dkd import decoupled


def _normalized(logit: Tensor) -> tuple[Tensor, Tensor]:
    """Divide logits by their standard deviation over the classes; return both, (N, C) and (N, 1).

    Equal logits stay equal: they become 0, and their gradient, too, see :func:`.common.bounded`.
    """
    std = logit.std(dim=1, keepdim=True)
    return bounded((logit - logit.mean(dim=1, keepdim=True)) / std.clamp(min=1e-7), std), std


def normkd_loss(logit_s: Tensor, logit_t: Tensor, temp: float = 2.0) -> Tensor:
    r"""Compute the normalized knowledge distillation loss.

    .. math:: \frac{1}{N} \sum_n \tau_t^2 KL(softmax(z_t / \tau_t) \| softmax(z_s / \tau_s)), \quad \tau = T \, std(z)

    The deviation is the unbiased one of a sample's own logits over the classes. The gradient flows through :math:`\tau_s`.
    The released code divides by 0 where all logits of a sample are equal. Here a student's equal logits are the uniform
    distribution, without gradient, and a teacher's give the sample no weight.

    Args:
        logit_s: Student logits z_s, (N, C).
        logit_t: Teacher logits z_t, (N, C).
        temp: Temperature T, in units of the logits' deviation.

    Returns:
        The loss, a scalar in nats times τ², not negative.

    Example:
        >>> import torch
        >>> normkd_loss(torch.tensor([[1.0, 0.0, -1.0]]), torch.tensor([[-2.0, 0.0, 2.0]]), temp=1.0)
        tensor(4.6017)
    """
    (scaled_s, _), (scaled_t, std_t) = _normalized(logit_s), _normalized(logit_t)
    log_q, log_p = (scaled_s / temp).log_softmax(dim=1), (scaled_t / temp).log_softmax(dim=1)
    divergence = F.kl_div(log_q, log_p, reduction='none', log_target=True).sum(dim=1, keepdim=True)
    return temp**2 * (std_t**2 * divergence).mean()


def normdkd_loss(
    logit_s: Tensor, logit_t: Tensor, gt_label: Tensor, temp: float = 2.0, alpha: float = 1.0, beta: float = 8.0
) -> Tensor:
    r"""Compute DKD's two terms with NormKD's temperatures: those of a sample are multiplied by its :math:`\tau_t^2`.

    Args:
        logit_s: Student logits z_s, (N, C).
        logit_t: Teacher logits z_t, (N, C).
        gt_label: Class indices (N,), or scores (N, C), of which the arg-max class is the target.
        temp: Temperature T, in units of the logits' deviation.
        alpha: Weight of the target class's term.
        beta: Weight of the other classes' term.

    Returns:
        The loss, a scalar in nats times τ², not negative.

    Example:
        >>> import torch
        >>> logit_s, logit_t = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[3.0, 2.0, 1.0]])
        >>> normdkd_loss(logit_s, logit_t, torch.tensor([1]), temp=1.0, beta=1.0)
        tensor(1.5232)
    """
    target = hard_label(gt_label)[:, None]
    (scaled_s, _), (scaled_t, std_t) = _normalized(logit_s), _normalized(logit_t)
    pairs = zip(decoupled(scaled_s / temp, target), decoupled(scaled_t / temp, target), strict=True)
    of_target, of_others = (
        F.kl_div(log_q, log_p, reduction='none', log_target=True).sum(dim=1, keepdim=True) for log_q, log_p in pairs
    )
    return temp**2 * (std_t**2 * (alpha * of_target + beta * of_others)).mean()


class NormKDLoss(DistillLoss):
    """:func:`normkd_loss`.

    Args:
        temp: Temperature T, in units of the logits' deviation.
        loss_weight: Weight of this loss.
    """

    needs = 'softmax'
    standardize = True  # the temperature counts in units of each sample's deviation

    def __init__(self, temp: float = 2.0, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.temp = temp
        self.loss_weight = loss_weight

    @full_precision
    def forward(self, logit_s: Tensor, logit_t: Tensor) -> Tensor:
        return self.loss_weight * normkd_loss(logit_s, logit_t, self.temp)


class NormDKDLoss(DistillLoss):
    """:func:`normdkd_loss`.

    Args:
        temp: Temperature T, in units of the logits' deviation.
        alpha: Weight of the target class's term.
        beta: Weight of the other classes' term.
        loss_weight: Weight of this loss.
    """

    needs = 'softmax'
    standardize = True
    masks_target = True  # the temperature softens the other classes by themselves

    def __init__(self, temp: float = 2.0, alpha: float = 1.0, beta: float = 8.0, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.temp = temp
        self.alpha = alpha
        self.beta = beta
        self.loss_weight = loss_weight

    @full_precision
    def forward(self, logit_s: Tensor, logit_t: Tensor, gt_label: Tensor) -> Tensor:
        return self.loss_weight * normdkd_loss(logit_s, logit_t, gt_label, self.temp, self.alpha, self.beta)
