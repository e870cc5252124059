"""NKD: KD whose non-target classes are normalised first (Yang et al., ICCV 2023, arXiv 2303.13005)."""

from torch import Tensor

from .base import DistillLoss
from .common import full_precision, hard_label, mask_classes, standardize_classes


def nkd_target_term(logit_s: Tensor, logit_t: Tensor, target: Tensor) -> Tensor:
    r"""Compute the target term of NKD, :math:`-\frac{1}{N} \sum_n t_y \log s_y`; no gradient flows through t_y.

    Args:
        logit_s: Student logits z_s, (N, C).
        logit_t: Teacher logits z_t, (N, C).
        target: The class y of each sample, (N, 1).
    """
    prob_t = logit_t.softmax(dim=1).gather(1, target).detach()
    return -(prob_t * logit_s.log_softmax(dim=1).gather(1, target)).mean()


def nkd_loss(
    logit_s: Tensor,
    logit_t: Tensor,
    gt_label: Tensor,
    temp: float = 1.0,
    gamma: float = 1.5,
    standardize: bool = False,
) -> Tensor:
    r"""Compute the normalised knowledge distillation loss.

    .. math:: -\frac{1}{N} \sum_n \left( t_y \log s_y + \gamma T^2 \sum_{i \neq y} \hat p_i \log \hat q_i \right)

    with s and t the softmax of the logits at temperature 1, and :math:`\hat q, \hat p` the softmax of z_s / T and z_t / T
    over the classes other than y. No gradient flows through t_y.

    Args:
        logit_s: Student logits z_s, (N, C).
        logit_t: Teacher logits z_t, (N, C).
        gt_label: Class indices (N,), or scores (N, C), of which the arg-max class is y.
        temp: Temperature T of the non-target term.
        gamma: Weight of the non-target term, which is 0 in value and gradient where C = 2.
        standardize: Standardise both logits over the classes first, see :func:`.common.standardize_classes`.

    Returns:
        The loss, a scalar in nats (its non-target term times T²).

    Example:
        >>> import torch
        >>> logit_s, logit_t = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[3.0, 2.0, 1.0]])
        >>> nkd_loss(logit_s, logit_t, torch.tensor([1]), gamma=1.0)
        tensor(2.2330)
    """
    if standardize:
        logit_s, logit_t = standardize_classes(logit_s), standardize_classes(logit_t)
    target = hard_label(gt_label)[:, None]
    other_t = mask_classes(logit_t / temp, target).softmax(dim=1)
    other_s = mask_classes(logit_s / temp, target).log_softmax(dim=1).scatter(1, target, 0)
    other_term = -(other_t * other_s).sum(dim=1).mean()
    return nkd_target_term(logit_s, logit_t, target) + gamma * temp**2 * other_term


class NKDLoss(DistillLoss):
    """:func:`nkd_loss`.

    Args:
        temp: Temperature T of the non-target term.
        gamma: Weight of the non-target term.
        standardize: Standardise both logits over the classes first.
    """

    needs = 'softmax'
    masks_target = True  # the temperature softens the other classes by themselves

    def __init__(self, temp: float = 1.0, gamma: float = 1.5, standardize: bool = False) -> None:
        super().__init__()
        self.temp = temp
        self.gamma = gamma
        self.standardize = standardize

    @full_precision
    def forward(self, logit_s: Tensor, logit_t: Tensor, gt_label: Tensor) -> Tensor:
        return nkd_loss(logit_s, logit_t, gt_label, self.temp, self.gamma, self.standardize)
