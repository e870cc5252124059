"""MGD: the student's masked features generate the teacher's (Yang et al., ECCV 2022, arXiv 2205.01529)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import DistillLoss
from .common import check_widths, full_precision, resize_map


def mgd_loss(generated: Tensor, feat_t: Tensor, alpha: float = 7e-5) -> Tensor:
    r"""Compute the masked generative distillation loss: :math:`\frac{\alpha}{N} \| G - F_t \|^2`, a sum of squares.

    Args:
        generated: Features generated from the student's masked ones, (N, C, H, W).
        feat_t: Teacher features F_t, (N, C, H, W).
        alpha: Weight of this loss.

    Returns:
        The loss, a scalar in squared units of the teacher's features.

    Example:
        >>> mgd_loss(torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4), alpha=1.0)
        tensor(48.)
    """
    return alpha * F.mse_loss(generated, feat_t, reduction='sum') / len(feat_t)


def generation_block(channels: int) -> nn.Sequential:
    """Build the block that fills in masked places: conv 3×3, ReLU, conv 3×3, of one width."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, kernel_size=3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, channels, kernel_size=3, padding=1),
    )


class MGDLoss(DistillLoss):
    """:func:`mgd_loss` of G(M ⊙ align(F_s)); M drops each channel of each sample with probability λ.

    Trainable parts: ``align``, a 1×1 convolution, where the widths differ; ``generation``, see :func:`generation_block`. One
    uniform draw of shape (N, C, 1, 1) a call makes the mask: 0 where it is below λ. A student's map of another height and
    width than the teacher's is interpolated to it (the paper's pairs have the same).

    Args:
        student_channels: Channels of the student's last stage.
        teacher_channels: Channels of the teacher's last stage.
        alpha_mgd: Weight α of this loss.
        lambda_mgd: Share λ of channels that are masked.

    Raises:
        ValueError: If the features have other channels.
    """

    sizes = {'student_channels': ('feat_s', 1), 'teacher_channels': ('feat_t', 1)}

    def __init__(
        self, student_channels: int, teacher_channels: int, alpha_mgd: float = 7e-5, lambda_mgd: float = 0.15
    ) -> None:
        super().__init__()
        self.student_channels = student_channels
        self.teacher_channels = teacher_channels
        self.alpha_mgd = alpha_mgd
        self.lambda_mgd = lambda_mgd
        self.align = (
            nn.Conv2d(student_channels, teacher_channels, kernel_size=1) if student_channels != teacher_channels else None
        )
        self.generation = generation_block(teacher_channels)

    @full_precision
    def forward(self, feat_s: Tensor, feat_t: Tensor) -> Tensor:
        check_widths(self, 'channels', feat_s, feat_t)
        aligned = feat_s if self.align is None else self.align(feat_s)
        aligned = resize_map(aligned, feat_t.shape[2:])
        draw = torch.rand(*aligned.shape[:2], 1, 1, device=aligned.device)
        masked = aligned * (draw >= self.lambda_mgd)
        return mgd_loss(self.generation(masked), feat_t, self.alpha_mgd)
