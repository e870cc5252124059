"""SRRL: the teacher's own classifier judges the student's features (Yang et al., ICLR 2021, openreview ZzwDy_wiWv)."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from .base import DistillLoss
from .common import check_widths, full_precision


def srrl_loss(
    feat_s: Tensor, feat_t: Tensor, logit_st: Tensor, logit_t: Tensor, alpha: float = 1.0, beta: float = 5.0
) -> Tensor:
    r"""Compute the softmax regression representation learning loss.

    .. math:: \alpha\, mean (GAP \hat F - GAP F_t)^2 + \beta\, mean (z_{st} - z_t)^2

    with GAP the global average pool over height and width; both means run over all entries.

    Args:
        feat_s: Student features connected to the teacher's width, (N, C_t, H, W).
        feat_t: Teacher features F_t, (N, C_t, H', W').
        logit_st: The teacher's head on ``feat_s``, (N, C).
        logit_t: Teacher logits z_t, (N, C).
        alpha: Weight of the features' term.
        beta: Weight of the logits' term.

    Returns:
        The loss, a scalar; 0 where both pairs are equal.

    Example:
        >>> import torch
        >>> ones, zeros = torch.ones(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
        >>> srrl_loss(ones, zeros, torch.ones(2, 5), torch.zeros(2, 5))
        tensor(6.)
    """
    feature_term = F.mse_loss(feat_s.mean(dim=(2, 3)), feat_t.mean(dim=(2, 3)))
    return alpha * feature_term + beta * F.mse_loss(logit_st, logit_t)


class SRRLLoss(DistillLoss):
    """:func:`srrl_loss` on the student's features, connected to the teacher's width.

    Trainable part: ``Connectors``, a 1×1 convolution without bias, batch norm and ReLU.

    Args:
        student_channels: Channels of the student's last stage.
        teacher_channels: Channels of the teacher's last stage.
        alpha: Weight of the features' term.
        beta: Weight of the logits' term.

    Raises:
        ValueError: If the features have other channels.
    """

    sizes = {'student_channels': ('feat_s', 1), 'teacher_channels': ('feat_t', 1)}

    def __init__(self, student_channels: int, teacher_channels: int, alpha: float = 1.0, beta: float = 5.0) -> None:
        super().__init__()
        self.student_channels = student_channels
        self.teacher_channels = teacher_channels
        self.alpha = alpha
        self.beta = beta
        conv = nn.Conv2d(student_channels, teacher_channels, kernel_size=1, bias=False)
        nn.init.normal_(conv.weight, std=(2 / teacher_channels) ** 0.5)
        self.Connectors = nn.Sequential(conv, nn.BatchNorm2d(teacher_channels), nn.ReLU(inplace=True))

    @full_precision
    def forward(self, feat_s: Tensor, feat_t: Tensor, logit_t: Tensor, teacher_head: Callable[[Tensor], Tensor]) -> Tensor:
        check_widths(self, 'channels', feat_s, feat_t)
        connected = self.Connectors(feat_s)
        return srrl_loss(connected, feat_t, teacher_head(connected), logit_t, self.alpha, self.beta)
