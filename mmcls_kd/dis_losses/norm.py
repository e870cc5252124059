"""NORM: each of several parts of the student's expanded map is the teacher's map (Liu et al., ICLR 2023)."""

import torch.nn.functional as F
from torch import Tensor, nn

from .base import DistillLoss
from .common import check_widths, full_precision


def norm_loss(feat_s: Tensor, feat_t: Tensor, parts: int) -> Tensor:
    """Compute the NORM loss: the mean squared difference of each part to the teacher's map, summed over parts.

    A larger teacher map is max-pooled to the student's size, as released; a larger student map is averaged to the teacher's.

    Args:
        feat_s: Student features, one part after the other, (N, parts · c, H, W).
        feat_t: Teacher features, (N, c, H', W').
        parts: Number of parts.

    Returns:
        The loss, a scalar in squared units of the teacher's features.

    Example:
        >>> import torch
        >>> norm_loss(torch.zeros(2, 6, 4, 4), torch.ones(2, 3, 4, 4), parts=2)
        tensor(2.)
    """
    size = (min(feat_s.shape[2], feat_t.shape[2]), min(feat_s.shape[3], feat_t.shape[3]))
    if feat_s.shape[2:] != size:
        feat_s = F.adaptive_avg_pool2d(feat_s, size)
    if feat_t.shape[2:] != size:
        feat_t = F.adaptive_max_pool2d(feat_t, size)
    return (feat_s.unflatten(1, (parts, feat_t.shape[1])) - feat_t[:, None]).square().mean() * parts


class NORMLoss(DistillLoss):
    """:func:`norm_loss` of the student's features, expanded to several times the teacher's width.

    Trainable part: ``expand``, a 1×1 convolution without bias. In the paper this layer and one that contracts again stand in
    the student, and are merged with its linear layer afterwards; here they do not, the student keeps its own layers.

    Args:
        student_channels: Channels of the student's features.
        teacher_channels: Channels of the teacher's features.
        parts: Number of parts.
        loss_weight: Weight of this loss.

    Raises:
        ValueError: If there is no part, or the features have other channels.
    """

    sizes = {'student_channels': ('feat_s', 1), 'teacher_channels': ('feat_t', 1)}

    def __init__(self, student_channels: int, teacher_channels: int, parts: int = 8, loss_weight: float = 1.0) -> None:
        super().__init__()
        if parts < 1:
            raise ValueError(f'NORMLoss(parts={parts}): choose 1 or more')
        self.student_channels = student_channels
        self.teacher_channels = teacher_channels
        self.parts = parts
        self.loss_weight = loss_weight
        self.expand = nn.Conv2d(student_channels, parts * teacher_channels, kernel_size=1, bias=False)

    @full_precision
    def forward(self, feat_s: Tensor, feat_t: Tensor) -> Tensor:
        check_widths(self, 'channels', feat_s, feat_t)
        return self.loss_weight * norm_loss(self.expand(feat_s), feat_t, self.parts)
