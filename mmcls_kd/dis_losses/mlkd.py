"""MLKD: multi-level logit distillation, of instances, batch and classes (Jin et al., CVPR 2023).

The released code (Jin-Ying/Multi-Level-Logit-Distillation) multiplies means by masks, so that a mask is a constant factor,
computes the strong view's terms of the last two temperatures on the weak logits, and leaves the strong view's batch and
class terms out. ``mask='released'`` does so; ``mask='sample'``, the default, masks each sample and class, and reads the
strong logits at every temperature.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from .base import DistillLoss
from .common import full_precision, whole_batch

MASKS = ('sample', 'released')
#: Number of the last temperatures whose strong terms the released code computes on the weak logits.
WEAK_AGAIN = 2


def up_to_median(values: Tensor) -> Tensor:
    """Return 1 for each value up to the median, (n,), else 0; of an even number, the median is the mean of the middle two.

    Example:
        >>> import torch
        >>> up_to_median(torch.tensor([3.0, 1.0, 2.0, 2.0]))
        tensor([0., 1., 1., 1.])
    """
    ordered, count = values.sort().values, len(values)
    return (values <= (ordered[(count - 1) // 2] + ordered[count // 2]) / 2).to(values.dtype)


def instance_term(logit_s: Tensor, logit_t: Tensor, temp: float) -> Tensor:
    """Return T² times the KL divergence of each sample, (N,)."""
    log_q, log_p = (logit_s / temp).log_softmax(dim=1), (logit_t / temp).log_softmax(dim=1)
    return temp**2 * (log_p.exp() * (log_p - log_q)).sum(dim=1)


def mlkd_loss(
    logit_s: Tensor,
    logit_t: Tensor,
    logit_s_strong: Tensor | None = None,
    logit_t_strong: Tensor | None = None,
    temps: Sequence[float] = (4.0, 3.0, 5.0, 2.0, 6.0),
    mask: str = 'sample',
) -> Tensor:
    r"""Compute the loss of multi-level logit distillation, a sum over the temperatures T.

    .. math:: \sum_T \Big[ \frac{T^2}{N} \sum_n m_n KL(p_n \| q_n)
        + \frac{1}{N} \sum_n m_n \sum_j (Q Q^\top - P P^\top)_{nj}^2
        + \frac{1}{C} \sum_c k_c \sum_d (Q^\top Q - P^\top P)_{cd}^2 + \frac{T^2}{N} \sum_n KL(p_n^* \| q_n^*) \Big]

    with the probabilities p = softmax(z_t / T) and q = softmax(z_s / T), the rows of P and Q, and those of the strong view,
    marked by a star. m is 1 for the samples of which the teacher's largest probability (at T = 1) is at most the batch's
    median; k is 1 for the classes of which the teacher's probabilities add up to at most the median of the classes.

    Args:
        logit_s: Student logits z_s of the weak view, (N, C).
        logit_t: Teacher logits z_t of the weak view, (N, C).
        logit_s_strong: Student logits of the strong view, (N, C); None without a strong view.
        logit_t_strong: Teacher logits of the strong view, (N, C).
        temps: Temperatures T.
        mask: ``'sample'`` for m and k as above, ``'released'`` for the released code: their means in the place of both, and
            the strong terms of the last two temperatures on the weak logits.

    Returns:
        The loss, a scalar, not negative, 0 where student equals teacher.

    Example:
        >>> import torch
        >>> mlkd_loss(torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]]), temps=[1.0])
        tensor(0.5689)
    """
    confidence = logit_t.softmax(dim=1)
    of_sample, of_class = up_to_median(confidence.amax(dim=1)), up_to_median(confidence.sum(dim=0))
    if mask == 'released':
        of_sample, of_class = of_sample.mean(), of_class.mean()
    count, classes = logit_t.shape
    total = logit_s.new_zeros(())
    for place, temp in enumerate(temps):
        q, p = (logit_s / temp).softmax(dim=1), (logit_t / temp).softmax(dim=1)
        of_batch, of_classes = q @ q.t() - p @ p.t(), q.t() @ q - p.t() @ p
        total = total + (of_sample * instance_term(logit_s, logit_t, temp)).sum() / count
        total = total + (of_sample * of_batch.square().sum(dim=1)).sum() / count
        total = total + (of_class * of_classes.square().sum(dim=1)).sum() / classes
        if logit_s_strong is not None and logit_t_strong is not None:
            weak = mask == 'released' and place >= len(temps) - WEAK_AGAIN
            pair = (logit_s, logit_t) if weak else (logit_s_strong, logit_t_strong)
            total = total + instance_term(*pair, temp).mean()
    return total


class MLKDLoss(DistillLoss):
    """:func:`mlkd_loss`; with two views, the task loss is that of both, as in the authors' code.

    Args:
        temps: Temperatures T.
        views: 2 to read a strong view, too; 1 for one view.
        mask: ``'sample'``, or ``'released'`` as in the released code.
        sync_batch: Compare the samples of all processes' batches, not those of this process's alone, see
            :func:`~mmcls_kd.dis_losses.common.whole_batch`: the loss is then the same however a batch is divided among them.
        loss_weight: Weight of this loss.

    Raises:
        ValueError: If a setting is none of these.
    """

    needs = 'softmax'

    def __init__(
        self,
        temps: Sequence[float] = (4.0, 3.0, 5.0, 2.0, 6.0),
        views: int = 2,
        mask: str = 'sample',
        sync_batch: bool = False,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if views not in (1, 2):
            raise ValueError(f'views={views!r}: choose 2, for a weak and a strong view of each image, or 1')
        if mask not in MASKS:
            raise ValueError(f'mask={mask!r}: choose one of {", ".join(map(repr, MASKS))}')
        if not temps or not all(temp > 0 for temp in temps):
            raise ValueError(f'temps={temps!r}: give at least one temperature, each above 0')
        self.temps, self.views, self.mask = tuple(temps), views, mask
        self.sync_batch = sync_batch
        self.loss_weight = loss_weight

    @property
    def task_views(self) -> Sequence[str]:  # type: ignore[override]
        """Views of the task loss."""
        return ('weak', 'strong')[: self.views]

    @staticmethod
    def further_inputs(settings: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the inputs of the strong view, if it is read."""
        return ('logit_s_strong', 'logit_t_strong') if settings.get('views', 2) == 2 else ()

    @full_precision
    def forward(
        self,
        logit_s: Tensor,
        logit_t: Tensor,
        logit_s_strong: Tensor | None = None,
        logit_t_strong: Tensor | None = None,
    ) -> Tensor:
        if self.views == 1:
            logit_s_strong = logit_t_strong = None
        elif logit_s_strong is None or logit_t_strong is None:
            raise ValueError('MLKDLoss(views=2) got the logits of one view: give those of the strong view, or set views=1')
        weak = (whole_batch(logit, self.sync_batch) for logit in (logit_s, logit_t))
        strong = (z if z is None else whole_batch(z, self.sync_batch) for z in (logit_s_strong, logit_t_strong))
        return self.loss_weight * mlkd_loss(*weak, *strong, temps=self.temps, mask=self.mask)  # type: ignore[misc, arg-type]
