"""VkD: an orthonormal projection of the student's vector follows the teacher's (CVPR 2024, arXiv 2403.06213)."""

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal

from .base import DistillLoss
from .common import check_widths, full_precision


def vkd_loss(projected_s: Tensor, vector_t: Tensor) -> Tensor:
    r"""Compute the smooth L1 distance to the teacher's normalised vector.

    .. math:: \frac{1}{N D} \sum_{n,d} h(U v_s - LN(v_t))

    with h(x) = x² / 2 where |x| < 1, else |x| − ½, and LN the layer norm without trainable parts (ε 1e-5).

    Args:
        projected_s: Student vectors, projected to the teacher's width, U v_s, (N, D).
        vector_t: Teacher vectors v_t, (N, D).

    Returns:
        The loss, a scalar, not negative.

    Example:
        >>> import torch
        >>> vkd_loss(torch.zeros(1, 4), torch.tensor([[1.0, 1.0, 3.0, 3.0]]))
        tensor(0.5000)
    """
    return F.smooth_l1_loss(projected_s, F.layer_norm(vector_t, vector_t.shape[1:]))


class VkDLoss(DistillLoss):
    """:func:`vkd_loss` on the student's vector, projected without a change of lengths and angles.

    Trainable part: ``projector``, a linear layer without bias. Its weight has orthonormal columns (rows, where the teacher's
    vector is the shorter one) after each optimizer step. An assignment sets it: ``loss.projector.weight = matrix``.

    The authors compare the mean of a transformer's patch tokens with a CNN's pooled map. ``vector_s`` of a transformer is
    the class token; ``taps=dict(vector_s=PATH)`` names the norm after its last block to read that mean.

    Args:
        student_channels: Width of the student's vector.
        teacher_channels: Width of the teacher's.
        loss_weight: Weight of this loss.

    Raises:
        ValueError: If the vectors have other widths.
    """

    sizes = {'student_channels': ('vector_s', 1), 'teacher_channels': ('vector_t', 1)}

    def __init__(self, student_channels: int, teacher_channels: int, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.student_channels = student_channels
        self.teacher_channels = teacher_channels
        self.loss_weight = loss_weight
        # torch's default, Householder reflections, keeps signs in the parameter: weight decay or an average turns them to 0
        linear = nn.Linear(student_channels, teacher_channels, bias=False)
        self.projector = orthogonal(linear, orthogonal_map='cayley')

    @full_precision
    def forward(self, vector_s: Tensor, vector_t: Tensor) -> Tensor:
        check_widths(self, 'channels', vector_s, vector_t)
        return self.loss_weight * vkd_loss(self.projector(vector_s), vector_t)
