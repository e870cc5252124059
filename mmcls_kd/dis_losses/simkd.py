"""SimKD: the teacher's own classifier on the student's features (Chen et al., CVPR 2022, arXiv 2203.14001)."""

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import mse_loss

from .base import DistillLoss
from .common import check_widths, full_precision, smaller_maps

NO_HEAD = (
    'SimKD needs a teacher whose class scores are made of the pooled map of its last stage, as a CNN’s are, and a student '
    'with such a map: choose another network or method'
)


def simkd_loss(projected: Tensor, feat_t: Tensor) -> Tensor:
    r"""Average :math:`(P(F_s) - F_t)^2` over channels, places and samples.

    Args:
        projected: The student's features, projected to the teacher's width, P(F_s), (N, c, H, W).
        feat_t: Teacher features F_t, (N, c, H, W).

    Returns:
        The loss, a scalar in squared units of the teacher's features.

    Example:
        >>> import torch
        >>> simkd_loss(torch.zeros(2, 3, 4, 4), 3 * torch.ones(2, 3, 4, 4))
        tensor(9.)
    """
    return mse_loss(projected, feat_t)


class ReusedHead(nn.Module):
    """The teacher's head behind a projector of the student's features; it predicts during and after training.

    The projector: 1×1 convolution to the teacher's width divided by ``factor``, 3×3 convolution, 1×1 convolution to the
    teacher's width, each with batch norm and ReLU and without bias.

    Args:
        student_channels: Channels of the student's last stage.
        teacher_channels: Channels of the teacher's last stage.
        factor: Divisor of the inner width.
        head: Map from the teacher's last stage to logits; frozen, always in eval mode. None for no prediction.

    Raises:
        ValueError: If the teacher's width divided by ``factor`` is below 1, or a prediction is needed without a head.
    """

    def __init__(self, student_channels: int, teacher_channels: int, factor: int, head: nn.Module | None) -> None:
        super().__init__()
        if not 1 <= factor <= teacher_channels:
            raise ValueError(f'SimKD(factor={factor}): choose one from 1 to teacher_channels={teacher_channels}')
        inside = teacher_channels // factor
        self.projector = nn.Sequential(
            *conv_bn_relu(student_channels, inside, 1),
            *conv_bn_relu(inside, inside, 3),
            *conv_bn_relu(inside, teacher_channels, 1),
        )
        self.head = head.requires_grad_(False) if head is not None else None
        self.train()

    def train(self, mode: bool = True) -> 'ReusedHead':
        """Set the mode as in torch; the head stays in eval mode."""
        super().train(mode)
        if self.head is not None:
            self.head.eval()
        return self

    def forward(self, feat_s: Tensor) -> Tensor:
        """Return the logits, (N, C), of the student's features, (N, c_s, H, W)."""
        if self.head is None:
            raise ValueError('SimKD was built without a head, so it predicts nothing: give it the teacher’s (head=...)')
        return self.head(self.projector(feat_s))


def conv_bn_relu(channels_in: int, channels_out: int, kernel_size: int) -> tuple[nn.Module, ...]:
    """Build a convolution that keeps the map's size, batch norm and ReLU."""
    conv = nn.Conv2d(channels_in, channels_out, kernel_size, padding=kernel_size // 2, bias=False)
    return conv, nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True)


class SimKD(DistillLoss):
    """:func:`simkd_loss` alone: the task loss has weight 0, and the teacher's head makes the predictions.

    The student's map is projected first, then maps of two sizes are averaged to the smaller one. So a head behind a global
    average pool predicts from trained features without the teacher's map. (The authors' code averages a larger map of the
    student before the projection, in training and prediction.)

    Trainable part: ``predictor.projector``, see :class:`ReusedHead`. The teacher's head is ``predictor.head``, so a
    checkpoint holds all parts of the prediction. ``mmcls_kd transfer`` keeps both, for
    :class:`~mmcls_kd.distillers.simkd_classifier.SimKDClassifier`.

    Args:
        student_channels: Channels of the student's last stage.
        teacher_channels: Channels of the teacher's last stage.
        factor: Divisor of the teacher's width inside of the projector.
        head: The teacher's head, given by the distiller; without it, there is no prediction.
        loss_weight: Weight of this loss.

    Raises:
        ValueError: If the features have other channels, or a prediction is needed without a head.
    """

    needs = 'softmax'
    sizes = {'student_channels': ('feat_s', 1), 'teacher_channels': ('feat_t', 1)}
    facts = {'head': 'teacher_head'}
    #: The error message if the fact is missing.
    needed_facts = {'head': NO_HEAD}
    #: Factor of the task loss.
    task_weight = 0.0

    def __init__(
        self,
        student_channels: int,
        teacher_channels: int,
        factor: int = 2,
        head: nn.Module | None = None,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.student_channels = student_channels
        self.teacher_channels = teacher_channels
        self.factor = factor
        self.loss_weight = loss_weight
        self.predictor = ReusedHead(student_channels, teacher_channels, factor, copy.deepcopy(head))

    @staticmethod
    def deployed(entry: Mapping[str, Any]) -> dict[str, Any]:
        """Return the method's part of the config of the trained network.

        Args:
            entry: Entry of the method in ``distill_cfg``.
        """
        return dict(type='SimKDClassifier', factor=entry.get('factor', 2))

    @full_precision
    def forward(self, feat_s: Tensor, feat_t: Tensor) -> Tensor:
        check_widths(self, 'channels', feat_s, feat_t)
        return self.loss_weight * simkd_loss(*smaller_maps(self.predictor.projector(feat_s), feat_t))

    def predict_logit(self, feat_s: Tensor) -> Tensor:
        """Return the logits of the teacher's head, (N, C), for the student's map, (N, c_s, H, W)."""
        return self.predictor(feat_s)
