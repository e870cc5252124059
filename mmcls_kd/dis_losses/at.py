"""AT: the student looks where the teacher looks (Zagoruyko and Komodakis, ICLR 2017, arXiv 1612.03928)."""

from torch import Tensor
from torch.nn.functional import mse_loss

from .base import DistillLoss
from .common import full_precision, smaller_maps, unit


def attention(feat: Tensor) -> Tensor:
    """Compute the strength of each place of a map: the mean square over its channels, as vectors (N, H·W) of length 1.

    Args:
        feat: Features, (N, c, H, W).
    """
    return unit(feat.square().mean(dim=1).flatten(1))


def at_loss(feat_s: Tensor, feat_t: Tensor) -> Tensor:
    r"""Compute the AT loss: the mean of :math:`(a_s - a_t)^2` over places and samples, a as in :func:`attention`.

    Maps of two sizes are averaged to the smaller one first. This is the released code; the paper has half of the Euclidean
    distance between both a, summed over the stages.

    Args:
        feat_s: Student features, (N, c_s, H_s, W_s).
        feat_t: Teacher features, (N, c_t, H_t, W_t).

    Returns:
        The loss, a scalar without unit, not negative, at most 2 / (H·W), 0 where the attentions are equal.

    Example:
        >>> import torch
        >>> at_loss(torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[0.0, 2.0]], [[0.0, 1.0]]]]))
        tensor(1.)
    """
    feat_s, feat_t = smaller_maps(feat_s, feat_t)
    return mse_loss(attention(feat_s), attention(feat_t))


class ATLoss(DistillLoss):
    """:func:`at_loss`: no hyper-parameters but its weight, no trainable parts.

    Args:
        loss_weight: Weight of this loss.
    """

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    @full_precision
    def forward(self, feat_s: Tensor, feat_t: Tensor) -> Tensor:
        return self.loss_weight * at_loss(feat_s, feat_t)
