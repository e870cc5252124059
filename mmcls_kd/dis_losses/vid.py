"""VID: the teacher's features can be told from the student's (Ahn et al., CVPR 2019, arXiv 1904.05835)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import DistillLoss
from .common import check_widths, full_precision, smaller_maps

#: The least variance of a channel.
EPSILON = 1e-5


def vid_loss(predicted: Tensor, feat_t: Tensor, variance: Tensor) -> Tensor:
    r"""Compute the variational information distillation loss: the mean of :math:`\frac{1}{2} ((F_t - \mu)^2 / v + \log v)`.

    The negative logarithm of a normal density, up to a constant, over channels, places and samples.

    Args:
        predicted: Features μ that the student's predict, (N, c, H, W).
        feat_t: Teacher features F_t, (N, c, H, W).
        variance: Variance v of each channel, (c,).

    Returns:
        The loss, a scalar in nats; it may be negative.

    Example:
        >>> vid_loss(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2), torch.ones(1))
        tensor(0.5000)
    """
    v = variance[:, None, None]
    return 0.5 * ((predicted - feat_t).square() / v + v.log()).mean()


class VIDLoss(DistillLoss):
    """:func:`vid_loss`; maps of two sizes are averaged to the smaller one first.

    Trainable parts: ``regressor``, three 1×1 convolutions without bias and ReLU between them; ``log_scale``, of which the
    variance of each channel is log(1 + exp(log_scale)) + 1e-5.

    Args:
        student_channels: Channels of the student's features.
        mid_channels: Channels between the convolutions; if None, as many as the teacher's.
        teacher_channels: Channels of the teacher's features; they have to be given.
        init_pred_var: Variance that training starts from.
        loss_weight: Weight of this loss.

    Raises:
        ValueError: If the teacher's channels are missing, that variance is not above 1e-5, or features have other channels.
    """

    sizes = {'student_channels': ('feat_s', 1), 'teacher_channels': ('feat_t', 1)}

    def __init__(
        self,
        student_channels: int,
        mid_channels: int | None = None,
        teacher_channels: int | None = None,
        init_pred_var: float = 5.0,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if teacher_channels is None:
            raise ValueError('VIDLoss(teacher_channels=None): set teacher_channels to those of the teacher’s features')
        if not init_pred_var > EPSILON:
            raise ValueError(f'VIDLoss(init_pred_var={init_pred_var}): choose a variance above {EPSILON}')
        self.student_channels = student_channels
        self.teacher_channels = teacher_channels
        self.mid_channels = mid_channels or teacher_channels
        self.init_pred_var = init_pred_var
        self.loss_weight = loss_weight
        self.regressor = nn.Sequential(
            nn.Conv2d(student_channels, self.mid_channels, kernel_size=1, bias=False),
            nn.ReLU(),
            nn.Conv2d(self.mid_channels, self.mid_channels, kernel_size=1, bias=False),
            nn.ReLU(),
            nn.Conv2d(self.mid_channels, teacher_channels, kernel_size=1, bias=False),
        )
        start = init_pred_var - EPSILON
        # log(exp(start) − 1), which would overflow
        self.log_scale = nn.Parameter(torch.full((teacher_channels,), start + math.log(-math.expm1(-start))))

    @full_precision
    def forward(self, feat_s: Tensor, feat_t: Tensor) -> Tensor:
        check_widths(self, 'channels', feat_s, feat_t)
        feat_s, feat_t = smaller_maps(feat_s, feat_t)
        return self.loss_weight * vid_loss(self.regressor(feat_s), feat_t, F.softplus(self.log_scale) + EPSILON)
