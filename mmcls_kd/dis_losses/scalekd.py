"""ScaleKD: a transformer teaches a network of any kind, by features (Fan et al., NeurIPS 2024, arXiv 2411.06786).

Three parts are the paper's: a cross attention projector (CAP) aligns the student's features with the teacher's tokens;
dual-view feature mimicking (DFM) compares them as they are and without their direct component; teacher parameter perception
(TPP) sends the student's features through the teacher's last stage. Which stages are joined, the weights, the numbers of
heads, and that the perceived features become the queries of the last projector, are those of the released settings
(deep-optimization/ScaleKD, configs). The rest is this toolbox's:

- A projector is one block of a transformer decoder without attention among the queries: layer norm, cross attention and a
  residual connection, layer norm, an MLP of twice the width and a residual connection.
- Both views are means of squared differences. The settings have a ``softmax_scale`` beside, which the paper does not name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import DistillLoss
from .common import check_width, full_precision

NO_TAIL = (
    'ScaleKD sends features through the teacher’s last stage, which is not found as a sequence of modules (a class token is '
    'in the way, for one): set perception=False'
)


def dual_view_loss(feat_s: Tensor, feat_t: Tensor, alpha: float = 0.08, beta: float = 0.06) -> Tensor:
    r"""Compare two maps as they are, and without their direct component.

    .. math:: \alpha\, mean (F_s - F_t)^2 + \beta\, mean (\phi(F_s) - \phi(F_t))^2

    with φ the discrete cosine transform over height and width, its first coefficient set to 0, and back. With an orthonormal
    transform, that coefficient is the mean of a channel, so φ subtracts it.

    Args:
        feat_s: Student map F_s, projected to the teacher's form, (N, C, H, W).
        feat_t: Teacher map F_t, (N, C, H, W).
        alpha: Weight of the first view.
        beta: Weight of the second view.

    Returns:
        The loss, a scalar in squared units of the teacher's map.

    Example:
        >>> ones = torch.ones(1, 2, 4, 4)
        >>> dual_view_loss(ones, 0 * ones, alpha=1.0, beta=1.0)  # only the direct component differs
        tensor(1.)
    """
    difference = feat_s - feat_t
    alternative = difference - difference.mean(dim=(2, 3), keepdim=True)
    return alpha * difference.square().mean() + beta * alternative.square().mean()


class CrossAttentionProjector(nn.Module):
    """Map of a student, read by queries that are laid out as the teacher's tokens.

    Args:
        channels: Channels of the student's map.
        width: Width of the teacher's tokens.
        grid: Height and width of the teacher's grid; positions and queries of another one are interpolated.
        heads: Number of attention heads.
        own_query: Whether to train the queries; else they are given.
    """

    def __init__(self, channels: int, width: int, grid: tuple[int, int], heads: int, own_query: bool = True) -> None:
        super().__init__()
        self.patches = nn.Conv2d(channels, width, 1)
        self.position = nn.Parameter(0.02 * torch.randn(1, width, *grid))
        self.query: Any = nn.Parameter(0.02 * torch.randn(1, width, *grid)) if own_query else None
        self.norm_query, self.norm_tokens, self.norm_mlp = (nn.LayerNorm(width) for _ in range(3))
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, feat: Tensor, grid: Sequence[int], query: Tensor | None = None) -> Tensor:
        """Return a map of the teacher's form, (N, D, H', W').

        Args:
            feat: Map of the student, (N, C, H, W).
            grid: Height and width of the teacher's map, (H', W').
            query: Map of the teacher's form, (N, D, H', W'), in the place of the trained queries.
        """
        tokens = self.patches(feat) + _laid_out(self.position, feat.shape[2:])
        tokens = self.norm_tokens(tokens.flatten(2).transpose(1, 2))
        wanted = _laid_out(self.query, grid).expand(len(feat), -1, -1, -1) if query is None else query
        found = wanted.flatten(2).transpose(1, 2)
        found = found + self.attention(self.norm_query(found), tokens, tokens, need_weights=False)[0]
        found = found + self.mlp(self.norm_mlp(found))
        return found.transpose(1, 2).reshape(wanted.shape)


def _laid_out(places: Tensor, grid: Sequence[int]) -> Tensor:
    """Return trained places of a grid, (1, D, H, W), those of another grid interpolated."""
    if places.shape[2:] == tuple(grid):
        return places
    return F.interpolate(places, tuple(grid), mode='bilinear', align_corners=False)


class ScaleKDLoss(DistillLoss):
    r"""The sum of :func:`dual_view_loss` at the last two stages, after a :class:`CrossAttentionProjector` each.

    .. math:: \hat F_3 = CAP_3(S_3), \quad \hat F_4 = CAP_4(S_4;\; query = T_4(\hat F_3)), \quad
        DFM_3(\hat F_3, F_3) + DFM_4(\hat F_4, F_4)

    with S the student's maps, F the teacher's, and T₄ its frozen last stage. Plain KD comes beside it, as another method.

    Trainable parts: ``projectors.0`` and ``projectors.1``.

    Args:
        student_channels: Channels of each of the student's stages.
        teacher_channels: Channels of each of the teacher's stages.
        teacher_heights: Heights of their grids.
        teacher_widths: Widths of their grids.
        alpha: Weight of the first view, at both stages.
        beta: Weight of the second view at the stage before the last, and at the last one.
        heads: Numbers of attention heads of the two projectors; one for each 64 channels if None.
        perception: Whether features pass through the teacher's last stage; else the last projector trains its own queries.
        tail: The teacher's last stage, given by the distiller: a function of maps.
        loss_weight: Weight of this loss.

    Raises:
        ValueError: If a width does not divide by its heads, the maps have other channels, or there is no ``tail``.
    """

    sizes = {
        'student_channels': ('stages_s', 1),
        'teacher_channels': ('stages_t', 1),
        'teacher_heights': ('stages_t', 2),
        'teacher_widths': ('stages_t', 3),
    }
    facts = {'tail': 'teacher_tail'}

    def __init__(
        self,
        student_channels: Sequence[int],
        teacher_channels: Sequence[int],
        teacher_heights: Sequence[int],
        teacher_widths: Sequence[int],
        alpha: float = 0.08,
        beta: Sequence[float] = (0.06, 0.06),
        heads: Sequence[int] | None = None,
        perception: bool = True,
        tail: Callable[[Tensor], Tensor] | None = None,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if min(len(student_channels), len(teacher_channels)) < 2:
            raise ValueError('ScaleKD compares the last two stages: both networks need at least two')
        if perception and tail is None:
            raise ValueError(NO_TAIL)
        heads = [max(1, width // 64) for width in teacher_channels[-2:]] if heads is None else heads
        if len(heads) != 2 or any(width % number for width, number in zip(teacher_channels[-2:], heads, strict=True)):
            raise ValueError(f'heads={list(heads)}: give two numbers that divide {list(teacher_channels[-2:])}')
        self.student_channels, self.teacher_channels = tuple(student_channels), tuple(teacher_channels)
        self.teacher_heights, self.teacher_widths = tuple(teacher_heights), tuple(teacher_widths)
        self.alpha, self.beta, self.loss_weight = alpha, tuple(beta), loss_weight
        self._tail: tuple[Any, ...] = (tail,) if perception else ()  # in a tuple, it is no module of this one
        grids = list(zip(teacher_heights, teacher_widths, strict=True))
        self.projectors = nn.ModuleList(
            CrossAttentionProjector(student_channels[i], teacher_channels[i], grids[i], heads[i], i == -2 or not perception)
            for i in (-2, -1)
        )

    @full_precision
    def forward(self, stages_s: Sequence[Tensor], stages_t: Sequence[Tensor], feat_t: Tensor) -> Tensor:
        check_width(self, 'student_channels', tuple(feat.shape[1] for feat in stages_s))
        check_width(self, 'teacher_channels', tuple(feat.shape[1] for feat in stages_t))
        before = self.projectors[0](stages_s[-2], stages_t[-2].shape[2:])
        query = self._tail[0](before) if self._tail else None
        last = self.projectors[1](stages_s[-1], feat_t.shape[2:], query)
        maps = zip((before, last), (stages_t[-2], feat_t), self.beta, strict=True)
        terms = [dual_view_loss(feat_s, wanted, self.alpha, beta) for feat_s, wanted, beta in maps]
        return self.loss_weight * torch.stack(terms).sum()
