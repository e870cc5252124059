"""NST: the student's channels match the teacher's in distribution (Huang and Wang, arXiv 1707.01219)."""

from torch import Tensor

from .base import DistillLoss
from .common import check_places, full_precision, smaller_maps, unit


def kernel_mean(a: Tensor, b: Tensor) -> Tensor:
    r"""Average the kernel ⟨x, y⟩² over samples and pairs of a channel x of ``a`` and a channel y of ``b``.

    Computed from the products between channels, or those between places (:math:`\|A B^T\|^2 = \langle A^T A, B^T B
    \rangle`), of which there are fewer in deep stages.

    Args:
        a: Channels, (N, c_a, H·W).
        b: Channels, (N, c_b, H·W).
    """
    n, channels_a, places = a.shape
    channels_b = b.shape[1]
    fewer_places = places**2 < channels_a * channels_b
    squares = (a.mT @ a) * (b.mT @ b) if fewer_places else (a @ b.mT).square()
    return squares.sum() / (n * channels_a * channels_b)


def nst_loss(feat_s: Tensor, feat_t: Tensor) -> Tensor:
    """Compute the neuron selectivity transfer loss: the squared maximum mean discrepancy between the channels.

    k(t, t) + k(s, s) − 2 k(s, t), with k as in :func:`kernel_mean` of channels divided by their length over the places. Maps
    of two sizes are averaged to the smaller one first. No gradient flows to the teacher.

    Args:
        feat_s: Student features, (N, c_s, H_s, W_s).
        feat_t: Teacher features, (N, c_t, H_t, W_t); the widths may differ.

    Returns:
        The loss, a scalar without unit, not negative up to rounding, 0 where the channels are the same in any order.

    Example:
        >>> import torch
        >>> nst_loss(torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[3.0, 4.0]]]]))
        tensor(1.2800)
    """
    feat_s, feat_t = smaller_maps(feat_s, feat_t.detach())
    s, t = unit(feat_s.flatten(2)), unit(feat_t.flatten(2))
    return kernel_mean(t, t) + kernel_mean(s, s) - 2 * kernel_mean(s, t)


class NSTLoss(DistillLoss):
    """:func:`nst_loss`: no hyper-parameters but its weight, no trainable parts.

    Args:
        loss_weight: Weight of this loss.

    Raises:
        ValueError: If the maps have a single place.
    """

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    @full_precision
    def forward(self, feat_s: Tensor, feat_t: Tensor) -> Tensor:
        check_places(self, feat_s, feat_t)
        return self.loss_weight * nst_loss(feat_s, feat_t)
