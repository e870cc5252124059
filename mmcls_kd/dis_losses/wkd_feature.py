"""WKD-F: the channels' means and spreads follow the teacher's (Lv et al., NeurIPS 2024, arXiv 2412.08139)."""

from itertools import product

import torch
from torch import Tensor, nn

from .base import DistillLoss
from .common import check_widths, full_precision


def cell_statistics(feat: Tensor, grid: int) -> tuple[Tensor, Tensor]:
    """Compute mean and standard deviation of each channel in each cell of a map.

    The cells are those of adaptive pooling: they overlap by a row or column where the size is no multiple of ``grid``. Under
    the root of the unbiased variance 1e-5 is added.

    Args:
        feat: Features, (N, c, H, W).
        grid: Number of rows and of columns of cells.

    Returns:
        Both as (N, c, grid²).

    Raises:
        ValueError: If a cell has a single place, which has no spread.
    """
    rows, columns = ([(i * size // grid, -(-(i + 1) * size // grid)) for i in range(grid)] for size in feat.shape[2:])
    cells = [feat[:, :, top:bottom, left:right] for (top, bottom), (left, right) in product(rows, columns)]
    if any(cell.shape[2] * cell.shape[3] < 2 for cell in cells):
        raise ValueError(
            f'WKDFeatureLoss(grid={grid}): a map of {feat.shape[2]}×{feat.shape[3]} has cells of one place, which have no '
            'spread; choose a smaller grid or an earlier stage'
        )
    both = [torch.var_mean(cell, dim=(2, 3)) for cell in cells]
    variance, mean = (torch.stack(values, dim=2) for values in zip(*both, strict=True))
    return mean, (variance + 1e-5).sqrt()


def wkd_feature_loss(
    feat_s: Tensor, feat_t: Tensor, grid: int = 1, mean_weight: float = 1.0, std_weight: float = 1.0
) -> Tensor:
    r"""Compute the Wasserstein distance between features, as normal distributions with independent channels.

    .. math:: \frac{1}{g^2 N} \sum_n \sum_{cells} \sum_c w_\mu (\mu_s - \mu_t)^2 + w_\sigma (\sigma_s - \sigma_t)^2

    with μ and σ as in :func:`cell_statistics`. Each map has its own cells, so the sizes may differ.

    Args:
        feat_s: Student features, (N, c, H_s, W_s).
        feat_t: Teacher features, (N, c, H_t, W_t).
        grid: g, number of rows and of columns of cells.
        mean_weight: Weight of the means.
        std_weight: Weight of the standard deviations.

    Returns:
        The loss, a scalar in squared units of the features, not negative, 0 where the statistics are equal.

    Raises:
        ValueError: If a cell has a single place.

    Example:
        >>> wkd_feature_loss(torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4))
        tensor(3.)
    """
    mean_s, std_s = cell_statistics(feat_s, grid)
    mean_t, std_t = cell_statistics(feat_t, grid)
    distance = mean_weight * (mean_s - mean_t).square().sum() + std_weight * (std_s - std_t).square().sum()
    return distance / (grid**2 * len(feat_s))


class WKDFeatureLoss(DistillLoss):
    """:func:`wkd_feature_loss`; features of another width are projected to the teacher's first.

    Trainable part, only where the widths differ: ``project``, a 1×1 convolution without bias and a batch norm. Where they
    are equal, or none is given, the features are compared as they are.

    Args:
        grid: Number of rows and of columns of cells.
        mean_weight: Weight of the means.
        std_weight: Weight of the standard deviations.
        student_channels: Channels of the student's features.
        teacher_channels: Channels of the teacher's features.
        loss_weight: Weight of this loss.

    Raises:
        ValueError: If the grid has no cells, or cells of a single place, or the features have other channels.
    """

    sizes = {'student_channels': ('feat_s', 1), 'teacher_channels': ('feat_t', 1)}

    def __init__(
        self,
        grid: int = 1,
        mean_weight: float = 1.0,
        std_weight: float = 1.0,
        student_channels: int | None = None,
        teacher_channels: int | None = None,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if grid < 1:
            raise ValueError(f'WKDFeatureLoss(grid={grid}): choose 1 or more')
        self.grid = grid
        self.mean_weight = mean_weight
        self.std_weight = std_weight
        self.student_channels = student_channels
        self.teacher_channels = teacher_channels
        self.loss_weight = loss_weight
        self.project: nn.Sequential | None = None
        if student_channels and teacher_channels and student_channels != teacher_channels:
            self.project = nn.Sequential(
                nn.Conv2d(student_channels, teacher_channels, kernel_size=1, bias=False), nn.BatchNorm2d(teacher_channels)
            )

    @full_precision
    def forward(self, feat_s: Tensor, feat_t: Tensor) -> Tensor:
        check_widths(self, 'channels', feat_s, feat_t)
        feat_s = feat_s if self.project is None else self.project(feat_s)
        return self.loss_weight * wkd_feature_loss(feat_s, feat_t, self.grid, self.mean_weight, self.std_weight)
