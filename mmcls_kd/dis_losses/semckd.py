"""SemCKD: attention over the teacher's stages for each of the student's (Chen et al., AAAI 2021, arXiv 2012.03236)."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import DistillLoss
from .common import check_several, check_width, full_precision, smaller_maps, unit


def semckd_loss(pairs: Sequence[Sequence[tuple[Tensor, Tensor]]], attention: Tensor) -> Tensor:
    r"""Compute the SemCKD loss, :math:`\frac{1}{N n_s} \sum_{n,i,j} a_{nij}\, mean (r_{nij} - F_{nij})^2`.

    Args:
        pairs: For each of the student's n_s stages i and each teacher stage j the prediction r, (N, c_j, H, W), and the
            teacher's map F of the same shape.
        attention: Weight a of each pair of stages, (N, stages of the student, stages of the teacher).

    Returns:
        The loss, a scalar in squared units of the teacher's features.

    Example:
        >>> zeros = torch.zeros(2, 3, 4, 4)
        >>> semckd_loss([[(zeros, zeros), (zeros, zeros + 2)]], torch.full((2, 1, 2), 0.5))
        tensor(2.)
    """
    distance = [torch.stack([(r - feat_t).square().mean(dim=(1, 2, 3)) for r, feat_t in row], dim=1) for row in pairs]
    return (attention * torch.stack(distance, dim=1)).sum(dim=(1, 2)).mean() / len(pairs)


class Embedding(nn.Module):
    """Two linear layers with ReLU between, from a row of N similarities to ⌊N/4⌋ numbers of length 1.

    Args:
        dims: Number N of similarities.
    """

    def __init__(self, dims: int) -> None:
        super().__init__()
        out = max(dims // 4, 1)
        self.linear1 = nn.Linear(dims, 2 * out)
        self.linear2 = nn.Linear(2 * out, out)

    def forward(self, similarity: Tensor) -> Tensor:
        """Map rows, (N, dims), to vectors, (N, dims // 4)."""
        return unit(self.linear2(self.linear1(similarity).relu()))


def regressor(channels: int, out_channels: int) -> nn.Sequential:
    """Build the convolutions (1×1, 3×3, 1×1, without bias) that predict a stage of the teacher."""
    middle = 2 * out_channels
    return nn.Sequential(
        nn.Conv2d(channels, middle, kernel_size=1, bias=False),
        nn.BatchNorm2d(middle),
        nn.ReLU(inplace=True),
        nn.Conv2d(middle, middle, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(middle),
        nn.ReLU(inplace=True),
        nn.Conv2d(middle, out_channels, kernel_size=1, bias=False),
    )


class SemCKDLoss(DistillLoss):
    r""":func:`semckd_loss` with learnt attention: softmax over the teacher's stages of :math:`query_{ni} \cdot key_{nj}`.

    A query is made of the inner products of a sample's map with those of all samples of the batch, a key likewise for the
    teacher. So a layer is as wide as the batch. Smaller batches, such as the last one, are filled with similarities of 0;
    the authors skip them. A pair of maps of two sizes is averaged to the smaller one.

    Trainable parts: ``query`` and ``key``, an :class:`Embedding` for each stage; ``regressor``, a :func:`regressor` for each
    pair of stages.

    Args:
        student_channels: Channels of the student's stages, shallow to deep.
        teacher_channels: Channels of the teacher's stages, shallow to deep.
        batch_size: Number of samples of a batch of one process.
        loss_weight: Weight of this loss.

    Raises:
        ValueError: If stages have other widths, a batch is larger, or one in training is of one sample.
    """

    sizes = {'student_channels': ('stages_s', 1), 'teacher_channels': ('stages_t', 1)}
    facts = {'batch_size': 'batch_size'}
    needed_facts = {
        'batch_size': 'SemCKDLoss has layers as wide as the batch: set batch_size to the number of samples of a batch in '
        'one process'
    }

    def __init__(
        self,
        student_channels: Sequence[int],
        teacher_channels: Sequence[int],
        batch_size: int,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.student_channels = tuple(student_channels)
        self.teacher_channels = tuple(teacher_channels)
        self.batch_size = batch_size
        self.loss_weight = loss_weight
        self.query = nn.ModuleList(Embedding(batch_size) for _ in student_channels)
        self.key = nn.ModuleList(Embedding(batch_size) for _ in teacher_channels)
        self.regressor = nn.ModuleList(
            nn.ModuleList(regressor(width, width_t) for width_t in teacher_channels) for width in student_channels
        )

    def similarity(self, feat: Tensor) -> Tensor:
        """Return the inner product of each sample's map with that of each sample, (N, batch_size), filled with zeros."""
        vectors = feat.flatten(1)
        return F.pad(vectors @ vectors.T, (0, self.batch_size - len(feat)))

    def attention(self, stages_s: Sequence[Tensor], stages_t: Sequence[Tensor]) -> Tensor:
        """Compute the weight of each pair of stages, (N, stages of the student, stages of the teacher)."""
        queries = [layer(self.similarity(feat)) for layer, feat in zip(self.query, stages_s, strict=True)]
        keys = [layer(self.similarity(feat)) for layer, feat in zip(self.key, stages_t, strict=True)]
        return (torch.stack(queries, dim=1) @ torch.stack(keys, dim=1).transpose(1, 2)).softmax(dim=2)

    @full_precision
    def forward(self, stages_s: tuple[Tensor, ...], stages_t: tuple[Tensor, ...]) -> Tensor:
        check_width(self, 'student_channels', tuple(feat.shape[1] for feat in stages_s))
        check_width(self, 'teacher_channels', tuple(feat.shape[1] for feat in stages_t))
        check_several(self, stages_s[0])
        if len(stages_s[0]) > self.batch_size:
            raise ValueError(
                f'SemCKDLoss(batch_size={self.batch_size}) got {len(stages_s[0])} samples: set batch_size={len(stages_s[0])}'
            )
        pairs = []
        for row, feat_s in zip(self.regressor, stages_s, strict=True):
            layers: Any = row
            pairs.append([self._pair(layer, feat_s, feat_t) for layer, feat_t in zip(layers, stages_t, strict=True)])
        return self.loss_weight * semckd_loss(pairs, self.attention(stages_s, stages_t))

    @staticmethod
    def _pair(layer: nn.Module, feat_s: Tensor, feat_t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the prediction of a teacher stage, and that stage, both of the smaller size."""
        feat_s, feat_t = smaller_maps(feat_s, feat_t)
        return layer(feat_s), feat_t
