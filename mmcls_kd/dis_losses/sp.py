"""SP: samples that the teacher finds alike, the student finds alike (Tung and Mori, ICCV 2019, arXiv 1907.09682)."""

from torch import Tensor
from torch.nn.functional import mse_loss

from .base import DistillLoss
from .common import full_precision, unit, whole_batch


def sample_similarity(feat: Tensor) -> Tensor:
    """Compute inner products between the samples of a batch, each row divided by its length, (N, N).

    Args:
        feat: Features, (N, c, H, W).
    """
    flat = feat.flatten(1)
    return unit(flat @ flat.T)


def sp_loss(feat_s: Tensor, feat_t: Tensor) -> Tensor:
    r"""Compute the similarity-preserving loss: :math:`\frac{1}{N^2} \| G_t - G_s \|^2`, G as in :func:`sample_similarity`.

    Args:
        feat_s: Student features, (N, c_s, H_s, W_s).
        feat_t: Teacher features, (N, c_t, H_t, W_t); widths and sizes may differ.

    Returns:
        The loss, a scalar without unit, not negative, 0 where the similarities are equal, and for N = 1.

    Example:
        >>> import torch
        >>> apart, alike = torch.eye(2).view(2, 2, 1, 1), torch.ones(2, 1, 1, 1)
        >>> sp_loss(apart, alike)
        tensor(0.2929)
    """
    return mse_loss(sample_similarity(feat_s), sample_similarity(feat_t))


class SPLoss(DistillLoss):
    """:func:`sp_loss`; without trainable parts.

    Args:
        sync_batch: Compare the samples of all processes' batches, not those of this process's alone, see
            :func:`~mmcls_kd.dis_losses.common.whole_batch`: the loss is then the same however a batch is divided among them.
        loss_weight: Weight of this loss.
    """

    def __init__(self, sync_batch: bool = False, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.sync_batch = sync_batch
        self.loss_weight = loss_weight

    @full_precision
    def forward(self, feat_s: Tensor, feat_t: Tensor) -> Tensor:
        feat_s, feat_t = whole_batch(feat_s, self.sync_batch), whole_batch(feat_t, self.sync_batch)
        return self.loss_weight * sp_loss(feat_s, feat_t)
