"""OFD: the student follows the teacher before the ReLU, as far as it matters (Heo et al., ICCV 2019, arXiv 1904.01866)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .ab import check_stage_counts, connect_stages, stage_connectors
from .base import DistillLoss
from .common import full_precision, smaller_maps

NO_MARGINS = (
    'OFD takes margins from the batch norm before the ReLU of each of the teacher’s stages, which are not found in this '
    'teacher: give them by margins=[...], one number a channel for each stage, or choose another network or method'
)
#: Share of negative values of a channel from which its margin is their mean.
LEAST_SHARE = 1e-3


@torch.no_grad()
def ofd_margin(bn_weight: Tensor, bn_bias: Tensor) -> Tensor:
    r"""Compute the margin of each channel: the mean of its negative values, if a batch norm makes them normal.

    .. math:: m = \mu - \sigma \frac{\varphi(\mu / \sigma)}{\Phi(-\mu / \sigma)}, \quad \sigma = |\gamma|, \mu = \beta

    with φ and Φ the standard normal density and distribution. Where at most one value in a thousand is negative, it is
    −3σ, as released. For γ = 0 it is the limit: min(μ, 0). (The released code divides by 0 there.)

    Args:
        bn_weight: Weight γ of the batch norm, (C,).
        bn_bias: Its bias β, (C,).

    Returns:
        The margins, (C,), not positive.

    Example:
        >>> ofd_margin(torch.tensor([1.0, 1.0, 0.0]), torch.tensor([0.0, 5.0, -2.0]))
        tensor([-0.7979, -3.0000, -2.0000])
    """
    deviation, mean = bn_weight.double().abs(), bn_bias.double()
    ratio = mean / deviation.clamp(min=torch.finfo(torch.float64).tiny)
    density = torch.exp(-ratio.square() / 2) / (2 * torch.pi) ** 0.5
    share = torch.special.ndtr(-ratio)
    expected = mean - deviation * density / share.clamp(min=LEAST_SHARE)
    return torch.where(share > LEAST_SHARE, expected, -3 * deviation).to(bn_weight.dtype)


def ofd_loss(stages_s: Sequence[Tensor], stages_t: Sequence[Tensor], margins: Sequence[Tensor]) -> Tensor:
    r"""Compute the partial distance of maps before the ReLU.

    .. math:: \sum_i 2^{i - (n - 1)} \frac{1}{N} \sum [s > t' \text{ or } t' > 0] (s - t')^2, \quad t' = \max(t, m)

    with i from 0 for the shallowest of n stages. Maps of two sizes are averaged to one first.

    Args:
        stages_s: Student features s before the ReLU, connected to the teacher's channels, each (N, c_i, H_i, W_i).
        stages_t: Teacher features t before the ReLU, each (N, c_i, H'_i, W'_i).
        margins: Margin m of each channel of each stage, (c_i,).

    Returns:
        The loss, a scalar in squared units of the features.

    Example:
        >>> ofd_loss([torch.tensor([[[[0.5, -3.0]]]])], [torch.tensor([[[[-2.0, -2.0]]]])], [torch.tensor([-1.0])])
        tensor(2.2500)
    """
    total = stages_s[0].new_zeros(())
    for i, (own, other, margin) in enumerate(zip(stages_s, stages_t, margins, strict=True)):
        feat_s, feat_t = smaller_maps(own, other)
        target = torch.maximum(feat_t, margin.to(feat_t)[:, None, None])
        counts = (feat_s > target) | (target > 0)
        distance = torch.where(counts, feat_s - target, 0).square().sum() / len(feat_s)
        total = total + 2.0 ** (i - len(stages_s) + 1) * distance
    return total


def margins_of(norms: Sequence[Any]) -> list[Tensor]:
    """Return the margins of the channels behind each batch norm; one without parameters has weight 1 and bias 0."""
    margins = []
    for norm in norms:
        weight, bias = norm.weight, norm.bias
        weight = torch.ones(norm.num_features) if weight is None else weight.detach()
        margins.append(ofd_margin(weight, torch.zeros_like(weight) if bias is None else bias.detach()))
    return margins


class OFDLoss(DistillLoss):
    """:func:`ofd_loss` of the student's maps before the ReLU, connected to the teacher's channels.

    Trainable parts: ``connectors``, a 1×1 convolution without bias and batch norm for each stage. The authors run the
    teacher with batch statistics, ``teacher_mode='train'``.

    Args:
        student_channels: Channels of the student's stages, shallow to deep.
        teacher_channels: Channels of the teacher's stages, as many.
        margins: Margin of each of the teacher's channels, by stage; not given, those of the teacher's batch norms when the
            distiller is built.
        loss_weight: Weight of this loss.

    Raises:
        ValueError: If the two have different numbers of stages, stages or margins have other widths, margins are missing, or
            the batch has one value a channel, which has no statistics.
    """

    sizes = {'student_channels': ('stages_preact_s', 1), 'teacher_channels': ('stages_preact_t', 1)}
    facts = {'margins': ('teacher_norms', margins_of)}
    needed_facts = {'margins': NO_MARGINS}

    def __init__(
        self,
        student_channels: Sequence[int],
        teacher_channels: Sequence[int],
        margins: Sequence[Any] | None = None,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_stage_counts('OFDLoss', student_channels, teacher_channels)
        if margins is None:
            raise ValueError(NO_MARGINS)
        values = [torch.as_tensor(margin) for margin in margins]
        shapes = [tuple(value.shape) for value in values]
        if shapes != [(width,) for width in teacher_channels]:
            raise ValueError(
                f'OFDLoss(margins=...) has the shapes {shapes}: give one number for each of the teacher’s channels, '
                f'{tuple(teacher_channels)}'
            )
        self.student_channels = tuple(student_channels)
        self.teacher_channels = tuple(teacher_channels)
        self.loss_weight = loss_weight
        for i, value in enumerate(values):
            self.register_buffer(f'margin{i}', value, persistent=False)
        self.connectors = stage_connectors(student_channels, teacher_channels)
        for connector, out in zip(self.connectors, teacher_channels, strict=True):
            nn.init.normal_(connector[0].weight, std=(2 / out) ** 0.5)  # type: ignore[index]

    @property
    def margins(self) -> list[Tensor]:
        """The margins of the teacher's channels, by stage."""
        return [getattr(self, f'margin{i}') for i in range(len(self.teacher_channels))]

    @full_precision
    def forward(self, stages_preact_s: tuple[Tensor, ...], stages_preact_t: tuple[Tensor, ...]) -> Tensor:
        connected = connect_stages(self, stages_preact_s, stages_preact_t)
        return self.loss_weight * ofd_loss(connected, stages_preact_t, self.margins)
