"""PEFD: the mean of several projections follows the teacher's vector (Chen et al., NeurIPS 2022, arXiv 2210.15274)."""

import torch
from torch import Tensor, nn

from .base import DistillLoss
from .common import check_widths, full_precision, unit


def pefd_loss(projected_s: Tensor, vector_t: Tensor) -> Tensor:
    r"""Compute one minus the cosine between vectors, :math:`\frac{1}{N} \sum_n 1 - \cos(\bar v_s, v_t)`.

    A vector of length 0 has the cosine 0, without gradient.

    Args:
        projected_s: Mean of the student's projections, (N, D).
        vector_t: Teacher vectors v_t, (N, D).

    Returns:
        The loss, a scalar from 0 to 2.

    Example:
        >>> pefd_loss(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([[3.0, 4.0], [1.0, 0.0]]))
        tensor(0.7000)
    """
    return 1 - (unit(projected_s) * unit(vector_t)).sum(dim=1).mean()


class PEFDLoss(DistillLoss):
    """:func:`pefd_loss` on the mean of several projections of the student's vector.

    Trainable part: ``projectors``, linear layers, each followed by a ReLU. (The released code builds one more, which it
    neither uses nor trains.)

    Args:
        student_channels: Width of the student's vector.
        teacher_channels: Width of the teacher's.
        num_projectors: Number of projections.
        loss_weight: Weight of this loss.

    Raises:
        ValueError: If there is no projection, or the vectors have other widths.
    """

    sizes = {'student_channels': ('vector_s', 1), 'teacher_channels': ('vector_t', 1)}

    def __init__(
        self, student_channels: int, teacher_channels: int, num_projectors: int = 3, loss_weight: float = 1.0
    ) -> None:
        super().__init__()
        if num_projectors < 1:
            raise ValueError(f'PEFDLoss(num_projectors={num_projectors}): choose 1 or more')
        self.student_channels = student_channels
        self.teacher_channels = teacher_channels
        self.loss_weight = loss_weight
        self.projectors = nn.ModuleList(nn.Linear(student_channels, teacher_channels) for _ in range(num_projectors))

    @full_precision
    def forward(self, vector_s: Tensor, vector_t: Tensor) -> Tensor:
        check_widths(self, 'channels', vector_s, vector_t)
        projected = torch.stack([projector(vector_s).relu() for projector in self.projectors]).mean(dim=0)
        return self.loss_weight * pefd_loss(projected, vector_t)
