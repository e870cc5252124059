"""FitNets: a middle stage of the student predicts the teacher's (Romero et al., ICLR 2015, arXiv 1412.6550)."""

from torch import Tensor, nn
from torch.nn.functional import mse_loss

from .base import DistillLoss
from .common import check_widths, full_precision, smaller_maps


def fitnet_loss(predicted: Tensor, feat_t: Tensor) -> Tensor:
    r"""Compute the FitNets hint loss: the mean of :math:`(G - F_t)^2` over channels, places and samples.

    (The paper has half of the sum.)

    Args:
        predicted: Features G that the student's predict, (N, c, H, W).
        feat_t: Teacher features F_t, (N, c, H, W).

    Returns:
        The loss, a scalar in squared units of the teacher's features.

    Example:
        >>> import torch
        >>> fitnet_loss(torch.zeros(2, 3, 4, 4), 2 * torch.ones(2, 3, 4, 4))
        tensor(4.)
    """
    return mse_loss(predicted, feat_t)


class FitNetLoss(DistillLoss):
    """:func:`fitnet_loss`; maps of two sizes are averaged to the smaller one first.

    Trainable part: ``regressor``, a 1×1 convolution, also where the widths are equal. It is trained together with the task,
    not in a stage of its own before it, as the paper has it. RepDistiller, whose weight of 100 is the usual one, has batch
    norm and ReLU behind the convolution: ``norm_act``. Without them that weight can make a training diverge.

    Args:
        student_channels: Channels of the student's features.
        teacher_channels: Channels of the teacher's features.
        norm_act: Whether batch norm and ReLU follow the convolution, for teacher features that come from a ReLU themselves.
        loss_weight: Weight of this loss.

    Raises:
        ValueError: If the features have other channels.
    """

    sizes = {'student_channels': ('feat_s', 1), 'teacher_channels': ('feat_t', 1)}

    def __init__(
        self, student_channels: int, teacher_channels: int, norm_act: bool = False, loss_weight: float = 1.0
    ) -> None:
        super().__init__()
        self.student_channels = student_channels
        self.teacher_channels = teacher_channels
        self.loss_weight = loss_weight
        self.regressor = nn.Conv2d(student_channels, teacher_channels, kernel_size=1)
        self.norm_act = nn.Sequential(nn.BatchNorm2d(teacher_channels), nn.ReLU()) if norm_act else nn.Identity()

    @full_precision
    def forward(self, feat_s: Tensor, feat_t: Tensor) -> Tensor:
        check_widths(self, 'channels', feat_s, feat_t)
        feat_s, feat_t = smaller_maps(feat_s, feat_t)
        return self.loss_weight * fitnet_loss(self.norm_act(self.regressor(feat_s)), feat_t)
