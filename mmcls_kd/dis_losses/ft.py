"""Factor transfer: the teacher's map in short, which the student learns to say (Kim et al., NeurIPS 2018, 1802.04977)."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from .base import DistillLoss
from .common import check_places, check_statistics, check_widths, full_precision, smaller_maps, unit

#: Slope of the activations below 0.
SLOPE = 0.1


def factor(feat: Tensor, p1: int = 2) -> Tensor:
    """Compute the mean of the p1-th power over channels, as vectors (N, H·W) of length 1.

    Args:
        feat: Features, (N, c, H, W).
        p1: The power.
    """
    return unit(feat.pow(p1).mean(dim=1).flatten(1))


def ft_loss(factor_s: Tensor, factor_t: Tensor, p1: int = 2, p2: int = 1) -> Tensor:
    r"""Compute the factor transfer loss: the mean of :math:`|f_s - f_t|^{p_2}`, f as in :func:`factor`.

    Maps of two sizes are averaged to the smaller one first. This is RepDistiller's variant; the paper compares all channels
    of the factors, each factor as one vector of length 1.

    Args:
        factor_s: The student's factors, (N, c_s, H_s, W_s).
        factor_t: The teacher's factors, (N, c_t, H_t, W_t).
        p1: Power of the factors.
        p2: Power of the differences: 1 or 2.

    Returns:
        The loss, a scalar without unit, not negative.

    Example:
        >>> ft_loss(torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[0.0, 2.0]], [[0.0, 1.0]]]]))
        tensor(1.)
    """
    factor_s, factor_t = smaller_maps(factor_s, factor_t)
    return (factor(factor_s, p1) - factor(factor_t, p1)).abs().pow(p2).mean()


def coder(channels: tuple[int, int, int, int], back: bool = False) -> nn.Sequential:
    """Build three 3×3 convolutions (``back``: transposed ones), each with batch norm and leaky ReLU."""
    kind = nn.ConvTranspose2d if back else nn.Conv2d
    layers: list[nn.Module] = []
    for width, out in pairwise(channels):
        layers += [kind(width, out, kernel_size=3, padding=1), nn.BatchNorm2d(out), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers)


class Paraphraser(nn.Module):
    """An autoencoder of the teacher's map; its code is the teacher's factors.

    Args:
        channels: Channels of the teacher's map.
        factors: Channels of the factors.
    """

    def __init__(self, channels: int, factors: int) -> None:
        super().__init__()
        self.encoder = coder((channels, channels, factors, factors))
        self.decoder = coder((factors, factors, channels, channels), back=True)

    def forward(self, feat: Tensor) -> tuple[Tensor, Tensor]:
        """Return the factors, (N, factors, H, W), and the reconstruction of the map, (N, channels, H, W)."""
        factors = self.encoder(feat)
        return factors, self.decoder(factors)


class FTLoss(DistillLoss):
    r""":func:`ft_loss` of the student's factors, which ``translator`` makes, and the teacher's, which ``paraphraser`` makes.

    The paraphraser learns first, in the same run: over the first ``paraphraser_steps`` steps the value is
    :math:`\lambda\, mean (F_t - \hat F_t)^2 / mean F_t^2` alone, with the reconstruction :math:`\hat F_t`, and the student
    learns from the task. Later the transfer adds to it, without a gradient for the paraphraser, which goes on to learn from
    the reconstruction alone. (The paper stops it there.) With ``paraphraser`` of a run before, it stays as it is, in eval
    mode, and there is no first phase: the paper's procedure.

    Args:
        student_channels: Channels of the student's features.
        teacher_channels: Channels of the teacher's features.
        rate: Channels of the factors, as a part of the teacher's.
        p1: Power of the factors.
        p2: Power of the differences: 1 or 2.
        paraphraser_steps: Steps in which the paraphraser learns alone.
        reconstruction: Weight λ of the reconstruction, before ``loss_weight``.
        paraphraser: State dict of a trained :class:`Paraphraser`, or of an FTLoss that has it; None to train one.
        loss_weight: Weight of this loss.

    Raises:
        ValueError: If the features have other channels, or the batch has one value a channel, which has no statistics,
            or the maps have a single place.
    """

    sizes = {'student_channels': ('feat_s', 1), 'teacher_channels': ('feat_t', 1)}
    memories = ('steps',)

    def __init__(
        self,
        student_channels: int,
        teacher_channels: int,
        rate: float = 0.5,
        p1: int = 2,
        p2: int = 1,
        paraphraser_steps: int = 1000,
        reconstruction: float = 0.005,
        paraphraser: Mapping[str, Any] | None = None,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        factors = max(int(rate * teacher_channels), 1)
        self.student_channels = student_channels
        self.teacher_channels = teacher_channels
        self.p1 = p1
        self.p2 = p2
        self.paraphraser_steps = paraphraser_steps
        self.first_phase = paraphraser_steps if paraphraser is None else 0
        self.reconstruction = reconstruction
        self.loss_weight = loss_weight
        self.translator = coder((student_channels, student_channels, factors, factors))
        self.paraphraser = Paraphraser(teacher_channels, factors)
        self.fixed = paraphraser is not None
        self.steps: Tensor
        self.register_buffer('steps', torch.zeros((), dtype=torch.long))
        if paraphraser is not None:
            own = {key.rpartition('paraphraser.')[2]: value for key, value in paraphraser.items()}
            self._fix(own)

    def _fix(self, state: Mapping[str, Any]) -> None:
        """Load a trained paraphraser and freeze it."""
        shapes = {key: value.shape for key, value in self.paraphraser.state_dict().items()}
        if wrong := [key for key, shape in shapes.items() if getattr(state.get(key), 'shape', None) != shape]:
            raise ValueError(
                f'FTLoss: the given paraphraser lacks {wrong[0]} of shape {tuple(shapes[wrong[0]])}: give the state dict of '
                f'one for a teacher of {self.teacher_channels} channels with the same rate'
            )
        self.paraphraser.load_state_dict({key: state[key] for key in shapes})
        self.paraphraser.requires_grad_(False)

    def train(self, mode: bool = True) -> 'FTLoss':
        """Set the mode of all parts but a given paraphraser."""
        super().train(mode)
        self.paraphraser.train(mode and not self.fixed)
        return self

    @full_precision
    def forward(self, feat_s: Tensor, feat_t: Tensor) -> Tensor:
        check_widths(self, 'channels', feat_s, feat_t)
        check_places(self, feat_s, feat_t)
        check_statistics(self, feat_s)
        check_statistics(self, feat_t)
        factor_s = self.translator(feat_s)
        if self.fixed:
            return self.loss_weight * ft_loss(factor_s, self.paraphraser.encoder(feat_t), self.p1, self.p2)
        factor_t, rebuilt = self.paraphraser(feat_t)
        scale = feat_t.detach().square().mean().clamp(min=1e-12)
        transfer = ft_loss(factor_s, factor_t.detach(), self.p1, self.p2) * (self.steps >= self.paraphraser_steps)
        if self.training:
            self.steps += 1
        return self.loss_weight * (transfer + self.reconstruction * mse_loss(rebuilt, feat_t) / scale)
