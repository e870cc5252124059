"""RLD: the teacher's knowledge, refined by the label (Refined Logit Distillation, ICCV 2025, arXiv 2408.07703)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import DistillLoss
from .common import full_precision, hard_label, standardize_classes
from .dkd import decoupled


def rld_loss(
    logit_s: Tensor,
    logit_t: Tensor,
    gt_label: Tensor,
    temp: float = 4.0,
    tau_alpha: float = 1.0,
    alpha: float = 1.0,
    beta: float = 8.0,
    standardize: bool = False,
) -> Tensor:
    r"""Compute the refined logit distillation loss.

    .. math:: \frac{1}{N} \sum_n \alpha \tau_\alpha^2 KL((p_{max}, 1 - p_{max}) \| (q_y, 1 - q_y))
        + \beta T^2 KL(\hat p \| \hat q)

    The first term has softmax probabilities at :math:`\tau_\alpha`: the student's of the true class y follows the teacher's
    largest one, whatever its class. In the second, :math:`\hat p, \hat q` are the softmax at T over the classes whose
    teacher logit is below that of y; it is 0 where there is none or one.

    Args:
        logit_s: Student logits z_s, (N, C).
        logit_t: Teacher logits z_t, (N, C).
        gt_label: Class indices (N,), or scores (N, C), of which the arg-max class is y.
        temp: Temperature T of the second term.
        tau_alpha: Temperature of the first term.
        alpha: Weight of the first term.
        beta: Weight of the second term.
        standardize: Standardise both logits over the classes first, see :func:`.common.standardize_classes`.

    Returns:
        The loss, a scalar in nats times the squared temperatures, not negative.

    Example:
        >>> logit_s, logit_t = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.0, 3.0, 2.0]])
        >>> rld_loss(logit_s, logit_t, torch.tensor([1]), temp=1.0, beta=1.0)
        tensor(0.4755)
    """
    if standardize:
        logit_s, logit_t = standardize_classes(logit_s), standardize_classes(logit_t)
    target = hard_label(gt_label)[:, None]
    largest = logit_t.argmax(dim=1, keepdim=True)
    (binary_s, _), (binary_t, _) = decoupled(logit_s / tau_alpha, target), decoupled(logit_t / tau_alpha, largest)
    first = F.kl_div(binary_s, binary_t, reduction='batchmean', log_target=True)

    below = logit_t < logit_t.gather(1, target)

    def among_those_below(logit: Tensor) -> Tensor:
        return torch.where(below, logit / temp, torch.finfo(logit.dtype).min / 2).log_softmax(dim=1)

    second = F.kl_div(among_those_below(logit_s), among_those_below(logit_t), reduction='batchmean', log_target=True)
    return alpha * tau_alpha**2 * first + beta * temp**2 * second


class RLDLoss(DistillLoss):
    """:func:`rld_loss`.

    Args:
        temp: Temperature T of the classes below the true one.
        tau_alpha: Temperature of the true class's term.
        alpha: Weight of the true class's term.
        beta: Weight of the term of the classes below.
        standardize: Standardise both logits over the classes first.
        loss_weight: Weight of this loss.
    """

    needs = 'softmax'
    masks_target = True  # the temperature softens other classes by themselves

    def __init__(
        self,
        temp: float = 4.0,
        tau_alpha: float = 1.0,
        alpha: float = 1.0,
        beta: float = 8.0,
        standardize: bool = False,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.temp = temp
        self.tau_alpha = tau_alpha
        self.alpha = alpha
        self.beta = beta
        self.standardize = standardize
        self.loss_weight = loss_weight

    @full_precision
    def forward(self, logit_s: Tensor, logit_t: Tensor, gt_label: Tensor) -> Tensor:
        value = rld_loss(logit_s, logit_t, gt_label, self.temp, self.tau_alpha, self.alpha, self.beta, self.standardize)
        return self.loss_weight * value
