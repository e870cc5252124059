"""PKT: similarities within a batch as probabilities (Passalis and Tefas, ECCV 2018, arXiv 1803.10837)."""

import torch
from torch import Tensor

from .base import DistillLoss
from .common import full_precision, whole_batch

EPSILON = 1e-7


def similarity(vectors: Tensor) -> Tensor:
    """Compute the similarities of each vector of a batch to the others, as probabilities.

    Args:
        vectors: Vectors, (N, d).

    Returns:
        Cosine similarities, moved from [−1, 1] to [0, 1], each row divided by its sum, (N, N); a vector of length 0 has no
        direction, nor a gradient.
    """
    length = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    direction = vectors * torch.where(length > 0, 1 / (length + EPSILON), 0)
    alike = ((direction @ direction.T + 1) / 2).clamp(min=0)  # opposite ones may be below by rounding
    return alike / alike.sum(dim=1, keepdim=True)


def pkt_loss(vector_s: Tensor, vector_t: Tensor) -> Tensor:
    r"""Compute the probabilistic knowledge transfer loss.

    .. math:: \frac{1}{N^2} \sum_{i,j} P_{ij} \log \frac{P_{ij} + 10^{-7}}{Q_{ij} + 10^{-7}}

    with P the teacher's and Q the student's :func:`similarity`. This is the released code. The paper sums instead of taking
    the mean, and leaves each sample's similarity to itself out.

    Args:
        vector_s: Student vectors, (N, d_s).
        vector_t: Teacher vectors, (N, d_t); the widths may differ.

    Returns:
        The loss, a scalar in nats divided by N, 0 where the similarities are equal, and for N = 1.

    Example:
        >>> pkt_loss(torch.eye(2), torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
        tensor(0.2027)
    """
    q, p = similarity(vector_s), similarity(vector_t)
    return (p * ((p + EPSILON) / (q + EPSILON)).log()).mean()


class PKTLoss(DistillLoss):
    """:func:`pkt_loss`; without trainable parts.

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
    def forward(self, vector_s: Tensor, vector_t: Tensor) -> Tensor:
        vector_s, vector_t = whole_batch(vector_s, self.sync_batch), whole_batch(vector_t, self.sync_batch)
        return self.loss_weight * pkt_loss(vector_s, vector_t)
