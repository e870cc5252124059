"""ICKD: the student's channels correlate as the teacher's do (Liu et al., ICCV 2021, arXiv 2202.03680)."""

from torch import Tensor, nn

from .base import DistillLoss
from .common import check_statistics, check_widths, full_precision, unit


def channel_correlation(feat: Tensor) -> Tensor:
    """Compute the inner product of each pair of channels over all places, (N, c, c); each row has length 1.

    Args:
        feat: Features, (N, c, H, W).
    """
    channels = feat.flatten(2)
    return unit(channels @ channels.transpose(1, 2))


def ickd_loss(predicted: Tensor, feat_t: Tensor) -> Tensor:
    r"""Compute the ICKD loss, :math:`\frac{1}{N c} \sum (G_s - G_t)^2`, G as in :func:`channel_correlation`.

    The sizes of the maps may differ. This is the authors' code for CIFAR-100; that for ImageNet divides by N² c.

    Args:
        predicted: Student features with the teacher's number of channels, (N, c, H_s, W_s).
        feat_t: Teacher features, (N, c, H_t, W_t).

    Returns:
        The loss, a scalar without unit from 0 (equal correlations) to 4.

    Example:
        >>> import torch
        >>> ickd_loss(torch.tensor([[[[1.0, 1.0]], [[1.0, 1.0]]]]), torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]]))
        tensor(0.5858)
    """
    difference = channel_correlation(predicted) - channel_correlation(feat_t)
    return difference.square().sum(dim=(1, 2)).mean() / feat_t.shape[1]


class ICKDLoss(DistillLoss):
    """:func:`ickd_loss` of the student's features, connected to the teacher's width.

    Trainable part: ``projector``, a 1×1 convolution without bias and batch norm, also where the widths are equal.

    Args:
        student_channels: Channels of the student's features.
        teacher_channels: Channels of the teacher's features.
        loss_weight: Weight of this loss.

    Raises:
        ValueError: If the features have other channels, or the batch has one value a channel, which has no statistics.
    """

    sizes = {'student_channels': ('feat_s', 1), 'teacher_channels': ('feat_t', 1)}

    def __init__(self, student_channels: int, teacher_channels: int, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.student_channels = student_channels
        self.teacher_channels = teacher_channels
        self.loss_weight = loss_weight
        self.projector = nn.Sequential(
            nn.Conv2d(student_channels, teacher_channels, kernel_size=1, bias=False), nn.BatchNorm2d(teacher_channels)
        )

    @full_precision
    def forward(self, feat_s: Tensor, feat_t: Tensor) -> Tensor:
        check_widths(self, 'channels', feat_s, feat_t)
        check_statistics(self, feat_s)
        return self.loss_weight * ickd_loss(self.projector(feat_s), feat_t)
