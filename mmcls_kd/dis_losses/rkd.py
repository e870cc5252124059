"""RKD: the student's vectors lie to one another as the teacher's do (Park et al., CVPR 2019, arXiv 1904.05068)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import DistillLoss
from .common import full_precision, need_memory, unit, whole_batch


def relations(vectors: Tensor) -> tuple[Tensor, Tensor]:
    r"""Compute distances in units of their mean, and cosines of the angles, between all vectors of a batch.

    A pair closer than 1e-6 counts as this far apart, without a gradient; from a vector to an equal one there is no
    direction, so the cosine is 0.

    Args:
        vectors: Vectors f, (N, d).

    Returns:
        Distances (N, N), whose mean over the pairs is 1 (all of them are 0 for N = 1), and cosines (N, N, N): entry i, j, k
        is that of the angle at f_i between f_j and f_k.
    """
    n = len(vectors)
    difference = vectors[None] - vectors[:, None]
    other = ~torch.eye(n, dtype=torch.bool, device=vectors.device)
    distance = torch.linalg.vector_norm(difference, dim=2).clamp(min=1e-6) * other
    mean = distance.sum() / max(n * (n - 1), 1)
    direction = unit(difference, dim=2)
    return distance / mean.clamp(min=1e-6), direction @ direction.transpose(1, 2)


def rkd_loss(vector_s: Tensor, vector_t: Tensor, distance_weight: float = 25.0, angle_weight: float = 50.0) -> Tensor:
    r"""Compute the relational knowledge distillation loss.

    .. math:: \frac{\lambda_D}{N^2} \sum_{i,j} h(\psi^s_{ij} - \psi^t_{ij})
        + \frac{\lambda_A}{N^3} \sum_{i,j,k} h(\cos \angle^s_{jik} - \cos \angle^t_{jik})

    with ψ the distance between two vectors, divided by its mean over all pairs, and the angle at the first index, see
    :func:`relations`; h is the smooth L1 loss (Huber's at 1). No gradient flows to the teacher. The means are over all index
    combinations, those with equal indices too, as in the released code; the paper's sums are over distinct ones.

    Args:
        vector_s: Student vectors, (N, d_s).
        vector_t: Teacher vectors, (N, d_t); the widths may differ.
        distance_weight: λ_D, weight of the distances.
        angle_weight: λ_A, weight of the angles.

    Returns:
        The loss, a scalar without unit, not negative, 0 where the student's vectors are the teacher's up to rotation,
        shift and scale, and for N = 1. It takes memory for N²d and N³ numbers.

    Example:
        >>> line, triangle = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> rkd_loss(line, triangle)
        tensor(8.2740)
    """
    distance_s, cosine_s = relations(vector_s)
    distance_t, cosine_t = relations(vector_t.detach())
    return distance_weight * F.smooth_l1_loss(distance_s, distance_t) + angle_weight * F.smooth_l1_loss(cosine_s, cosine_t)


class RKDLoss(DistillLoss):
    """:func:`rkd_loss`; without trainable parts.

    Args:
        distance_weight: Weight λ_D of the distances.
        angle_weight: Weight λ_A of the angles.
        sync_batch: Compare the samples of all processes' batches, not those of this process's alone, see
            :func:`~mmcls_kd.dis_losses.common.whole_batch`: the loss is then the same however a batch is divided among them.
        loss_weight: Weight of this loss.
    """

    def __init__(
        self, distance_weight: float = 25.0, angle_weight: float = 50.0, sync_batch: bool = False, loss_weight: float = 1.0
    ) -> None:
        super().__init__()
        self.distance_weight = distance_weight
        self.angle_weight = angle_weight
        self.sync_batch = sync_batch
        self.loss_weight = loss_weight

    @full_precision
    def forward(self, vector_s: Tensor, vector_t: Tensor) -> Tensor:
        vector_s, vector_t = whole_batch(vector_s, self.sync_batch), whole_batch(vector_t, self.sync_batch)
        n, dims = vector_s.shape
        need_memory(
            f'RKDLoss of {n} images with vectors of {dims} numbers', 2 * n**2 * dims + 2 * n**3, 'lower the batch size'
        )
        return self.loss_weight * rkd_loss(vector_s, vector_t, self.distance_weight, self.angle_weight)
