"""WSLD: KD weighted by how much the student has still to learn (Zhou et al., ICLR 2021, arXiv 2102.00650)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import DistillLoss
from .common import check_width, entropy_target, full_precision


def wsld_loss(logit_s: Tensor, logit_t: Tensor, gt_label: Tensor, temp: float = 4.0, alpha: float = 2.25) -> Tensor:
    r"""Compute the weighted soft label distillation loss.

    .. math:: -\alpha T^2 \frac{1}{N} \sum_n w_n \sum_i p_{ni} \log q_{ni}, \quad
        w_n = 1 - \exp(-\max(0, \ell_s / (\ell_t + 10^{-7})))

    with p = softmax(z_t / T), q = softmax(z_s / T), and ℓ the cross entropy with the label at temperature 1. No gradient
    flows through w.

    Args:
        logit_s: Student logits z_s, (N, C).
        logit_t: Teacher logits z_t, (N, C).
        gt_label: Class indices (N,), or scores (N, C). (The original crashes on scores.)
        temp: Temperature T.
        alpha: Weight of this loss.

    Returns:
        The loss, a scalar in nats times T².

    Example:
        >>> logit_s, logit_t = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, -1.0]])
        >>> wsld_loss(logit_s, logit_t, torch.tensor([0]), temp=1.0, alpha=1.0)
        tensor(0.6902)
    """
    target = entropy_target(gt_label, logit_s.dtype)
    with torch.no_grad():
        task_s = F.cross_entropy(logit_s, target, reduction='none')
        task_t = F.cross_entropy(logit_t, target, reduction='none')
        weight = 1 - torch.exp(-(task_s / (task_t + 1e-7)).clamp(min=0))
    soft = F.cross_entropy(logit_s / temp, (logit_t / temp).softmax(dim=1), reduction='none')
    return alpha * temp**2 * (weight * soft).mean()


class WSLDLoss(DistillLoss):
    """:func:`wsld_loss`.

    Args:
        temp: Temperature T.
        alpha: Weight of this loss.
        num_classes: Number of classes C.

    Raises:
        ValueError: If the logits have another number of classes.
    """

    needs = 'softmax'
    sizes = {'num_classes': ('logit_s', 1)}

    def __init__(self, temp: float = 4.0, alpha: float = 2.25, num_classes: int = 100) -> None:
        super().__init__()
        self.temp = temp
        self.alpha = alpha
        self.num_classes = num_classes

    @full_precision
    def forward(self, logit_s: Tensor, logit_t: Tensor, gt_label: Tensor) -> Tensor:
        check_width(self, 'num_classes', logit_s.shape[1])
        return wsld_loss(logit_s, logit_t, gt_label, self.temp, self.alpha)
