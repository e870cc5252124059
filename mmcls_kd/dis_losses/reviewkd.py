"""ReviewKD: the student's deep stages help its shallow ones (Chen et al., CVPR 2021, arXiv 2104.09044)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .ab import check_stage_counts
from .base import DistillLoss
from .common import check_width, check_widths, full_precision, smaller_maps


def hcl_loss(feat_s: Tensor, feat_t: Tensor) -> Tensor:
    r"""Compute the hierarchical context loss: the mean squared difference of two maps, at several resolutions.

    .. math:: \frac{MSE(F_s, F_t) + \sum_j 2^{-j} MSE(P_{l_j} F_s, P_{l_j} F_t)}{1 + \sum_j 2^{-j}}

    with :math:`P_l` the average to l × l places, and :math:`l_1, l_2, \dots` those of 4, 2, 1 that are below the height.

    Args:
        feat_s: Student features F_s, (N, c, H, W).
        feat_t: Teacher features F_t, (N, c, H, W).

    Returns:
        The loss, a scalar in squared units of the features.

    Example:
        >>> hcl_loss(torch.tensor([[[[1.0, -1.0], [1.0, -1.0]]]]), torch.zeros(1, 1, 2, 2))
        tensor(0.6667)
    """
    total, weights, weight = F.mse_loss(feat_s, feat_t), 1.0, 1.0
    for places in (4, 2, 1):
        if places < feat_s.shape[2]:
            weight /= 2
            coarse_s, coarse_t = (F.adaptive_avg_pool2d(feat, places) for feat in (feat_s, feat_t))
            total = total + weight * F.mse_loss(coarse_s, coarse_t)
            weights += weight
    return total / weights


def conv_norm(channels: int, out_channels: int, kernel_size: int) -> nn.Sequential:
    """Build a convolution without bias that keeps the size, and batch norm."""
    return nn.Sequential(
        nn.Conv2d(channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False), nn.BatchNorm2d(out_channels)
    )


class AttentionFusion(nn.Module):
    """A stage of the student, mixed with the output of the deeper ones, and the teacher's stage predicted from it.

    Args:
        channels: Channels of the student's stage.
        mid_channels: Channels in which stages are mixed.
        out_channels: Channels of the teacher's stage.
        deepest: Whether it is the deepest stage.
    """

    def __init__(self, channels: int, mid_channels: int, out_channels: int, deepest: bool) -> None:
        super().__init__()
        self.reduce = conv_norm(channels, mid_channels, kernel_size=1)
        self.attend = None if deepest else nn.Conv2d(2 * mid_channels, 2, kernel_size=1)
        self.expand = conv_norm(mid_channels, out_channels, kernel_size=3)

    def forward(self, feat: Tensor, deeper: Tensor | None) -> tuple[Tensor, Tensor]:
        """Predict the teacher's stage.

        Args:
            feat: The student's stage, (N, channels, H, W).
            deeper: Output of the next deeper stage, (N, mid_channels, h, w); None for the deepest.

        Returns:
            The prediction (N, out_channels, H, W), and the input of the next shallower stage, (N, mid_channels, H, W).
        """
        mixed = self.reduce(feat)
        if self.attend is not None and deeper is not None:
            deeper = F.interpolate(deeper, mixed.shape[2:], mode='nearest')
            own, others = self.attend(torch.cat([mixed, deeper], dim=1)).sigmoid().split(1, dim=1)
            mixed = own * mixed + others * deeper
        return self.expand(mixed), mixed


class ReviewKDLoss(DistillLoss):
    """The :func:`hcl_loss` of every stage, summed; the student's stages are fused from the deepest on.

    The deepest stage is the vector that goes into the classifier, as a map of one place; then come the stages, the last one
    first. Trainable parts: ``fusions``, an :class:`AttentionFusion` each, in this order. A map is predicted at the student's
    size; where the teacher's has another, both are averaged to the smaller one afterwards.

    Args:
        student_channels: Channels of the student's stages, shallow to deep.
        teacher_channels: Channels of the teacher's stages, shallow to deep.
        student_dims: Width of the student's vector.
        teacher_dims: Width of the teacher's vector.
        mid_channels: Channels in which stages are mixed; not given: those of the student's vector, at most 512. (The authors
            take 256 for ResNet-50 and MobileNetV1.)
        loss_weight: Weight of this loss.

    Raises:
        ValueError: If the two have different numbers of stages, or stages or vectors have other widths, or a batch in
            training is of one sample, whose vector has no batch statistics.
    """

    sizes = {
        'student_channels': ('stages_s', 1),
        'teacher_channels': ('stages_t', 1),
        'student_dims': ('vector_s', 1),
        'teacher_dims': ('vector_t', 1),
    }

    def __init__(
        self,
        student_channels: Sequence[int],
        teacher_channels: Sequence[int],
        student_dims: int,
        teacher_dims: int,
        mid_channels: int | None = None,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_stage_counts('ReviewKDLoss', student_channels, teacher_channels)
        self.student_channels = tuple(student_channels)
        self.teacher_channels = tuple(teacher_channels)
        self.student_dims = student_dims
        self.teacher_dims = teacher_dims
        self.loss_weight = loss_weight
        self.mid_channels = mid_channels or min(512, student_dims)
        widths = zip((*student_channels, student_dims), (*teacher_channels, teacher_dims), strict=True)
        self.fusions = nn.ModuleList(
            AttentionFusion(width, self.mid_channels, width_t, deepest=i == 0)
            for i, (width, width_t) in enumerate(reversed(list(widths)))
        )

    @full_precision
    def forward(
        self, stages_s: tuple[Tensor, ...], stages_t: tuple[Tensor, ...], vector_s: Tensor, vector_t: Tensor
    ) -> Tensor:
        check_width(self, 'student_channels', tuple(feat.shape[1] for feat in stages_s))
        check_width(self, 'teacher_channels', tuple(feat.shape[1] for feat in stages_t))
        check_widths(self, 'dims', vector_s, vector_t)
        if self.training and len(vector_s) == 1:
            raise ValueError('ReviewKDLoss has batch norms: it needs two samples or more in every batch (drop_last=True)')
        levels_s = (vector_s[:, :, None, None], *reversed(stages_s))
        levels_t = (vector_t[:, :, None, None], *reversed(stages_t))
        total, deeper = vector_s.new_zeros(()), None
        for fusion, feat_s, feat_t in zip(self.fusions, levels_s, levels_t, strict=True):
            predicted, deeper = fusion(feat_s, deeper)
            total = total + hcl_loss(*smaller_maps(predicted, feat_t))
        return self.loss_weight * total
