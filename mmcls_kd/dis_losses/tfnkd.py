"""tf-NKD: NKD's target term with the student as its own teacher (Yang et al., arXiv 2208.10139)."""

import torch
from torch import Tensor

from .base import DistillLoss
from .common import batch_mean, full_precision, label_columns


def tfnkd_loss(logit_s: Tensor, gt_label: Tensor, sync_batch_mean: bool = False) -> Tensor:
    r"""Compute the teacher-free NKD loss.

    .. math:: -\sum_k \frac{1}{N} \sum_n w_{nk} \log s_{nk}, \quad w_{nk} = s_{nk} + V_{nk} - \frac{1}{N} \sum_m s_{mk}

    over the label columns k (see :func:`~mmcls_kd.dis_losses.common.label_columns`), with s the softmax of the logits at
    the column's class, and w = 0 where V = 0. No gradient flows through w.

    Args:
        logit_s: Student logits, (N, C).
        gt_label: Class indices (N,), or scores (N, C).
        sync_batch_mean: Take the mean inside w over the batches of all processes, see
            :func:`~mmcls_kd.dis_losses.common.batch_mean`; the outer mean stays this process's.

    Returns:
        The loss, a scalar in nats.

    Example:
        >>> tfnkd_loss(torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 0]))
        tensor(0.3561)
    """
    value, classes = label_columns(gt_label, logit_s.dtype)
    log_prob = logit_s.log_softmax(dim=1).gather(1, classes)
    prob = log_prob.detach().exp()
    weight = torch.where(value == 0, 0, prob + value - batch_mean(prob, sync_batch_mean))
    return -(weight * log_prob).mean(dim=0).sum()


class TFNKDLoss(DistillLoss):
    """``loss_weight`` times :func:`tfnkd_loss`: no teacher, no parameters.

    Args:
        loss_weight: Weight of this loss.
        sync_batch_mean: Take the mean inside w over the batches of all processes, which the original does not: it is then
            the same however a batch is divided among them. Gradient accumulation divides it all the same.
    """

    needs = 'softmax'

    def __init__(self, loss_weight: float = 1.0, sync_batch_mean: bool = False) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.sync_batch_mean = sync_batch_mean

    @full_precision
    def forward(self, logit_s: Tensor, gt_label: Tensor) -> Tensor:
        return self.loss_weight * tfnkd_loss(logit_s, gt_label, self.sync_batch_mean)
