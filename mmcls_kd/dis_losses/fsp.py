"""FSP: how one stage turns into the next, by inner products of their channels (Yim et al., CVPR 2017)."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor
from torch.nn.functional import mse_loss

from .base import DistillLoss
from .common import full_precision, smaller_maps


def flow_matrix(feat: Tensor, deeper: Tensor) -> Tensor:
    """Compute the mean over places of the product of each channel with each of a deeper stage, (N, c, d).

    The larger map is averaged to the size of the smaller one.

    Args:
        feat: Features, (N, c, H, W).
        deeper: Features of a deeper stage, (N, d, h, w).
    """
    feat, deeper = smaller_maps(feat, deeper)
    return feat.flatten(2) @ deeper.flatten(2).transpose(1, 2) / feat[0, 0].numel()


def fsp_loss(stages_s: Sequence[Tensor], stages_t: Sequence[Tensor]) -> Tensor:
    """Compute the FSP loss: the mean squared difference of both :func:`flow_matrix`, summed over neighbouring stages.

    Args:
        stages_s: Student features, shallow to deep, each (N, c_i, H_i, W_i).
        stages_t: Teacher features of the same channels, each (N, c_i, H'_i, W'_i).

    Returns:
        The loss, a scalar in the features' unit to the fourth power.

    Raises:
        ValueError: If there are fewer than two stages, or the two have other stages or channels.

    Example:
        >>> import torch
        >>> ones = torch.ones(2, 3, 4, 4)
        >>> fsp_loss((ones, ones), (ones, 2 * ones))
        tensor(1.)
    """
    check_alike([feat.shape[1] for feat in stages_s], [feat.shape[1] for feat in stages_t])
    terms = [mse_loss(flow_matrix(*s), flow_matrix(*t)) for s, t in zip(pairwise(stages_s), pairwise(stages_t), strict=True)]
    return sum(terms[1:], terms[0])


def check_alike(student_channels: Sequence[int], teacher_channels: Sequence[int]) -> None:
    """Refuse stages of other channels than the other network's, and fewer than two of them."""
    student, teacher = tuple(student_channels), tuple(teacher_channels)
    if student != teacher:
        raise ValueError(
            f'FSPLoss compares stages of the same channels, and the student’s are {student} and the teacher’s {teacher}: '
            'choose networks of equal widths, name other stages by taps, or choose another method'
        )
    if len(student) < 2:
        raise ValueError(f'FSPLoss needs two stages or more, not {len(student)}: name them by taps')


class FSPLoss(DistillLoss):
    """:func:`fsp_loss`, without trainable parts, trained together with the task (the paper has it in a phase before it).

    Args:
        student_channels: Channels of the student's stages, shallow to deep; None to check them in each batch alone.
        teacher_channels: Channels of the teacher's stages, as many each.
        loss_weight: Weight of this loss.

    Raises:
        ValueError: If there are fewer than two stages, or the two have other stages or channels.
    """

    sizes = {'student_channels': ('stages_s', 1), 'teacher_channels': ('stages_t', 1)}

    def __init__(
        self,
        student_channels: Sequence[int] | None = None,
        teacher_channels: Sequence[int] | None = None,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if student_channels is not None and teacher_channels is not None:
            check_alike(student_channels, teacher_channels)
        self.student_channels = None if student_channels is None else tuple(student_channels)
        self.teacher_channels = None if teacher_channels is None else tuple(teacher_channels)
        self.loss_weight = loss_weight

    @full_precision
    def forward(self, stages_s: tuple[Tensor, ...], stages_t: tuple[Tensor, ...]) -> Tensor:
        return self.loss_weight * fsp_loss(stages_s, stages_t)
