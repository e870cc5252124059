"""AFD: attention finds the student's stages that each of the teacher's teaches (Ji et al., AAAI 2021, arXiv 2102.02973)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import DistillLoss
from .common import check_several, check_width, full_precision, unit


def strength(feat: Tensor, size: tuple[int, int]) -> Tensor:
    """Compute the mean square over channels, averaged to a size, as vectors (N, h·w) of length 1.

    Args:
        feat: Features, (N, c, H, W).
        size: Height h and width w.
    """
    square = feat.square().mean(dim=1, keepdim=True)
    return unit(F.adaptive_avg_pool2d(square, size).flatten(1) if feat.shape[2:] != torch.Size(size) else square.flatten(1))


def afd_loss(stages_s: Sequence[Tensor], stages_t: Sequence[Tensor], attention: Tensor) -> Tensor:
    r"""Compute the AFD loss, :math:`\frac{1}{N} \sum_{n,i,j} a_{nij}\, mean (v_{ni} - v_{nj})^2`.

    v is the :func:`strength` of each place, the student's at the size of the teacher's stage j.

    Args:
        stages_s: Student features, each (N, c_i, H_i, W_i).
        stages_t: Teacher features, each (N, c_j, H_j, W_j).
        attention: Weight a of each pair of stages, (N, stages of the student, stages of the teacher).

    Returns:
        The loss, a scalar without unit, not negative.

    Example:
        >>> student, teacher = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[0.0, 2.0]]]])
        >>> afd_loss([student], [teacher], torch.ones(1, 1, 1))
        tensor(1.)
    """
    total = attention.new_zeros(())
    for j, feat_t in enumerate(stages_t):
        size = (feat_t.shape[2], feat_t.shape[3])
        own = torch.stack([strength(feat_s, size) for feat_s in stages_s], dim=1)
        distance = (own - strength(feat_t, size)[:, None]).square().mean(dim=2)
        total = total + (attention[:, :, j] * distance).sum(dim=1).mean()
    return total


class LinearNorm(nn.Module):
    """A linear layer and batch norm.

    Args:
        dims: Width of the input.
        out_dims: Width of the output.
    """

    def __init__(self, dims: int, out_dims: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dims, out_dims)
        self.bn = nn.BatchNorm1d(out_dims)

    def forward(self, vector: Tensor) -> Tensor:
        """Map vectors, (N, dims), to (N, out_dims)."""
        return self.bn(self.linear(vector))


class AFDLoss(DistillLoss):
    r""":func:`afd_loss` with learnt attention.

    It is the softmax over the student's stages i of :math:`(k_{ij} \cdot q_j + p_{t,j} \cdot p_{s,i}) / \sqrt{d}`.

    The networks may have different numbers of stages. Trainable parts: ``query``, of each teacher stage's pooled map, and
    ``key``, of each student stage's, a :class:`LinearNorm` each (with ReLU for the keys); ``bilinear``, which turns a key
    into one for each teacher stage; ``p_t`` and ``p_s``, a vector for each stage.

    Args:
        student_channels: Channels of the student's stages, shallow to deep.
        teacher_channels: Channels of the teacher's stages, shallow to deep.
        qk_dim: Width d of queries and keys.
        loss_weight: Weight of this loss.

    Raises:
        ValueError: If stages have other widths, or a batch in training is of one sample, which has no batch statistics.
    """

    sizes = {'student_channels': ('stages_s', 1), 'teacher_channels': ('stages_t', 1)}

    def __init__(
        self,
        student_channels: Sequence[int],
        teacher_channels: Sequence[int],
        qk_dim: int = 128,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.student_channels = tuple(student_channels)
        self.teacher_channels = tuple(teacher_channels)
        self.qk_dim = qk_dim
        self.loss_weight = loss_weight
        self.key = nn.ModuleList(LinearNorm(width, qk_dim) for width in student_channels)
        self.query = nn.ModuleList(LinearNorm(width, qk_dim) for width in teacher_channels)
        self.bilinear = LinearNorm(qk_dim, qk_dim * len(teacher_channels))
        self.p_t = nn.Parameter(nn.init.xavier_normal_(torch.empty(len(teacher_channels), qk_dim)))
        self.p_s = nn.Parameter(nn.init.xavier_normal_(torch.empty(len(student_channels), qk_dim)))

    def attention(self, stages_s: Sequence[Tensor], stages_t: Sequence[Tensor]) -> Tensor:
        """Compute the weight of each pair of stages, (N, stages of the student, stages of the teacher)."""
        keys = [layer(feat.mean(dim=(2, 3))).relu() for layer, feat in zip(self.key, stages_s, strict=True)]
        queries = [layer(feat.mean(dim=(2, 3))) for layer, feat in zip(self.query, stages_t, strict=True)]
        each = self.bilinear(torch.stack(keys, dim=1).flatten(0, 1))
        each = each.view(-1, len(keys), len(queries), self.qk_dim)
        score = (each * torch.stack(queries, dim=1)[:, None]).sum(dim=3) + self.p_s @ self.p_t.T
        return (score / self.qk_dim**0.5).softmax(dim=1)

    @full_precision
    def forward(self, stages_s: tuple[Tensor, ...], stages_t: tuple[Tensor, ...]) -> Tensor:
        check_width(self, 'student_channels', tuple(feat.shape[1] for feat in stages_s))
        check_width(self, 'teacher_channels', tuple(feat.shape[1] for feat in stages_t))
        check_several(self, stages_s[0])
        return self.loss_weight * afd_loss(stages_s, stages_t, self.attention(stages_s, stages_t))
