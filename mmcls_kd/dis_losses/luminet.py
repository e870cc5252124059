"""LumiNet: each logit in units of its class's spread over the batch (arXiv 2310.03669)."""

import torch.nn.functional as F
from torch import Tensor

from .base import DistillLoss
from .common import bounded, full_precision, whole_batch


def luminet_loss(logit_s: Tensor, logit_t: Tensor, temp: float = 4.0, alpha: float | None = None) -> Tensor:
    r"""Compute the LumiNet loss.

    .. math:: \frac{\alpha^2}{N} \sum_n KL(softmax(u_t / T) \| softmax(u_s / T)), \quad
        u = (z - mean_n) / \sqrt{var_n + 10^{-5}}

    Mean and (biased) variance are those of each class over the batch, each network's own. So the loss says nothing of a
    single sample: at N = 1 it is 0, without gradient. Where a class has equal logits, it has no gradient, see
    :func:`.common.bounded`.

    Args:
        logit_s: Student logits z_s, (N, C).
        logit_t: Teacher logits z_t, (N, C).
        temp: Temperature T.
        alpha: Factor α. The authors have 33 to 75, by pair; T if None, as in KD.

    Returns:
        The loss, a scalar in nats times α², not negative.

    Example:
        >>> import torch
        >>> logit = torch.tensor([[1.0, 2.0], [2.0, 1.0]])
        >>> luminet_loss(logit, logit.flip(1), temp=1.0)
        tensor(1.5231)
    """

    def in_the_batch(logit: Tensor) -> Tensor:
        variance, mean = logit.var(dim=0, correction=0), logit.mean(dim=0)
        return bounded((logit - mean) / (variance + 1e-5).sqrt(), variance.sqrt())

    log_q, log_p = ((in_the_batch(logit) / temp).log_softmax(dim=1) for logit in (logit_s, logit_t))
    return (temp if alpha is None else alpha) ** 2 * F.kl_div(log_q, log_p, reduction='batchmean', log_target=True)


class LumiNetLoss(DistillLoss):
    """:func:`luminet_loss`.

    Args:
        temp: Temperature T.
        alpha: Factor α; T if None.
        sync_batch: Take mean and variance over all processes' batches, not over this process's alone, see
            :func:`~mmcls_kd.dis_losses.common.whole_batch`: the loss is then the same however a batch is divided among them.
        loss_weight: Weight of this loss.
    """

    needs = 'softmax'

    def __init__(
        self, temp: float = 4.0, alpha: float | None = None, sync_batch: bool = False, loss_weight: float = 1.0
    ) -> None:
        super().__init__()
        self.temp = temp
        self.alpha = alpha
        self.sync_batch = sync_batch
        self.loss_weight = loss_weight

    @full_precision
    def forward(self, logit_s: Tensor, logit_t: Tensor) -> Tensor:
        logit_s, logit_t = whole_batch(logit_s, self.sync_batch), whole_batch(logit_t, self.sync_batch)
        return self.loss_weight * luminet_loss(logit_s, logit_t, self.temp, self.alpha)
