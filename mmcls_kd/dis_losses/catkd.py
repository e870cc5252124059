"""CAT-KD: class activation maps of the teacher are transferred (Guo et al., CVPR 2023, arXiv 2304.12777).

The formula is that of the authors' code (github.com/GzyAftermath/CAT-KD, 4467073), whose networks classify by a convolution
without bias: a classifier's bias is not in the maps.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import DistillLoss
from .common import check_places, full_precision, unit


def cat_loss(cam_s: Tensor, cam_t: Tensor, resolution: int = 2, normalize: bool = True) -> Tensor:
    r"""Average :math:`(A_s - A_t)^2` over samples, classes and cells.

    A are class activation maps, averaged to r × r cells and, with ``normalize``, divided by the Euclidean length of each
    class's cells.

    Args:
        cam_s: Class activation maps of the student, (N, C, H, W).
        cam_t: Those of the teacher, (N, C, H', W').
        resolution: Number r of cells in height and width.
        normalize: Whether to divide each map by its length; a map of zeros stays as it is.

    Returns:
        The loss, a scalar; with ``normalize`` from 0 (same maps) to 4 / r².

    Example:
        >>> ones, zeros = torch.ones(2, 3, 4, 4), torch.zeros(2, 3, 8, 8)
        >>> cat_loss(ones, zeros), cat_loss(ones, zeros, normalize=False)
        (tensor(0.2500), tensor(1.))
    """
    cells_s, cells_t = (F.adaptive_avg_pool2d(cam, resolution).flatten(2) for cam in (cam_s, cam_t))
    return F.mse_loss(unit(cells_s), unit(cells_t)) if normalize else F.mse_loss(cells_s, cells_t)


def check_classifier(loss: DistillLoss, side: str, feat: Tensor, weight: Tensor) -> None:
    """Refuse a feature map whose channels are not those that the classifier reads."""
    if feat.shape[1] != weight.shape[1]:
        raise ValueError(
            f'{type(loss).__name__} reads the map behind which the {side} classifies: feat_{side[0]} has {feat.shape[1]} '
            f'channels, and the classifier {weight.shape[1]} inputs; leave out `stages`, and taps of feat_{side[0]}'
        )


class CATKDLoss(DistillLoss):
    r""":func:`cat_loss` of the maps :math:`A_k = \sum_d W_{kd} F_d`, without the classifier's bias.

    F is the map whose mean the linear classifier reads. Its average over cells is taken first, which is the same.

    Args:
        resolution: Number of cells in height and width.
        normalize: Whether to divide each class's map by its length.
        loss_weight: Weight of this loss.

    Raises:
        ValueError: If ``resolution`` is below 1, or a map has other channels than its classifier reads, or a single place.
    """

    def __init__(self, resolution: int = 2, normalize: bool = True, loss_weight: float = 1.0) -> None:
        super().__init__()
        if resolution < 1:
            raise ValueError(f'CATKDLoss(resolution={resolution}): choose 1 or more')
        self.resolution = resolution
        self.normalize = normalize
        self.loss_weight = loss_weight

    @full_precision
    def forward(self, feat_s: Tensor, feat_t: Tensor, student_weight: Tensor, teacher_weight: Tensor) -> Tensor:
        check_classifier(self, 'student', feat_s, student_weight)
        check_classifier(self, 'teacher', feat_t, teacher_weight)
        if self.normalize:
            check_places(self, feat_s, feat_t)
        cam_s, cam_t = (
            torch.einsum('kd,ndhw->nkhw', weight, F.adaptive_avg_pool2d(feat, self.resolution))
            for feat, weight in ((feat_s, student_weight), (feat_t, teacher_weight))
        )
        return self.loss_weight * cat_loss(cam_s, cam_t, self.resolution, self.normalize)
