"""AB: the student's neurons are active where the teacher's are (Heo et al., AAAI 2019, arXiv 1811.03233)."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from .base import DistillLoss
from .common import check_statistics, check_width, full_precision, smaller_maps

#: Factor of the released code.
SCALE = 0.003


def ab_loss(stages_s: Sequence[Tensor], stages_t: Sequence[Tensor], margin: float = 1.0) -> Tensor:
    r"""Compute the activation boundary loss of maps before the ReLU.

    .. math:: \sum_i 2^{i - (n - 1)} \frac{0.003}{N} \sum \begin{cases}
        \max(s + m, 0)^2 & t \le 0 \\ \max(m - s, 0)^2 & t > 0 \end{cases}

    with i from 0 for the shallowest of n stages. This is RepDistiller's scale; maps of two sizes are averaged to one.

    Args:
        stages_s: Student features s before the ReLU, connected to the teacher's channels, each (N, c_i, H_i, W_i).
        stages_t: Teacher features t before the ReLU, each (N, c_i, H'_i, W'_i).
        margin: Distance m from the boundary at 0 from which a neuron costs nothing.

    Returns:
        The loss, a scalar in squared units of the features.

    Example:
        >>> ab_loss([torch.tensor([[[[0.5]]]])], [torch.tensor([[[[-1.0]]]])])
        tensor(0.0068)
    """
    total = stages_s[0].new_zeros(())
    for i, pair in enumerate(zip(stages_s, stages_t, strict=True)):
        feat_s, feat_t = smaller_maps(*pair)
        distance = torch.where(feat_t > 0, margin - feat_s, margin + feat_s).clamp(min=0)
        total = total + 2.0 ** (i - len(stages_s) + 1) * distance.square().sum() / len(feat_s)
    return SCALE * total


def check_stage_counts(name: str, student_channels: Sequence[int], teacher_channels: Sequence[int]) -> None:
    """Refuse two networks with different numbers of stages, for a loss that compares stage by stage."""
    if len(student_channels) != len(teacher_channels):
        raise ValueError(
            f'{name} compares stage by stage, but the student has {len(student_channels)} of them and the teacher '
            f'{len(teacher_channels)}: name as many by taps (model.taps in a config)'
        )


def stage_connectors(student_channels: Sequence[int], teacher_channels: Sequence[int]) -> nn.ModuleList:
    """Build for each stage a 1×1 convolution to the teacher's channels, without bias, and batch norm."""
    return nn.ModuleList(
        nn.Sequential(nn.Conv2d(width, out, kernel_size=1, bias=False), nn.BatchNorm2d(out))
        for width, out in zip(student_channels, teacher_channels, strict=True)
    )


def connect_stages(loss: nn.Module, stages_s: Sequence[Tensor], stages_t: Sequence[Tensor]) -> list[Tensor]:
    """Return the student's stages behind the ``connectors`` of a loss; refuse other widths, and too few values."""
    check_width(loss, 'student_channels', tuple(feat.shape[1] for feat in stages_s))
    check_width(loss, 'teacher_channels', tuple(feat.shape[1] for feat in stages_t))
    for feat in stages_s:
        check_statistics(loss, feat)
    connectors: Iterable = loss.connectors  # type: ignore[assignment]
    return [layer(feat) for layer, feat in zip(connectors, stages_s, strict=True)]


class ABLoss(DistillLoss):
    """:func:`ab_loss` of the student's maps before the ReLU, connected to the teacher's channels.

    Trainable parts: ``connectors``, a 1×1 convolution without bias and batch norm for each stage. The authors train with it
    alone in a phase before the training; here it is trained together with the task.

    Args:
        student_channels: Channels of the student's stages, shallow to deep.
        teacher_channels: Channels of the teacher's stages, as many.
        margin: Distance from the boundary from which a neuron costs nothing.
        loss_weight: Weight of this loss.

    Raises:
        ValueError: If the two have different numbers of stages, stages have other widths, or the batch has one value a
            channel, which has no statistics.
    """

    sizes = {'student_channels': ('stages_preact_s', 1), 'teacher_channels': ('stages_preact_t', 1)}

    def __init__(
        self,
        student_channels: Sequence[int],
        teacher_channels: Sequence[int],
        margin: float = 1.0,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_stage_counts('ABLoss', student_channels, teacher_channels)
        self.student_channels = tuple(student_channels)
        self.teacher_channels = tuple(teacher_channels)
        self.margin = margin
        self.loss_weight = loss_weight
        self.connectors = stage_connectors(student_channels, teacher_channels)

    @full_precision
    def forward(self, stages_preact_s: tuple[Tensor, ...], stages_preact_t: tuple[Tensor, ...]) -> Tensor:
        connected = connect_stages(self, stages_preact_s, stages_preact_t)
        return self.loss_weight * ab_loss(connected, stages_preact_t, self.margin)
