"""DeiT's distillation token: a classifier of its own learns the teacher's predictions (ICML 2021, arXiv 2012.12877)."""

import torch.nn.functional as F
from torch import Tensor

from .base import DistillLoss
from .common import full_precision


def deit_token_loss(
    logit_s: Tensor, logit_t: Tensor, kind: str = 'hard', temp: float = 1.0, batchmean: bool = False
) -> Tensor:
    r"""Compute the loss of the distillation token's logits.

    Hard: the cross entropy with the teacher's arg-max class, of equal ones the first. Soft:

    .. math:: \frac{T^2}{N C} \sum_n KL(softmax(z_t / T) \| softmax(z_s / T))

    Args:
        logit_s: Logits z_s of the student's distillation token, (N, C).
        logit_t: Teacher logits z_t, (N, C).
        kind: ``'hard'`` or ``'soft'``.
        temp: Temperature T of the soft one.
        batchmean: Divide the soft one by N, as timm does and as in KD, instead of by N · C as the authors' code does.

    Returns:
        The loss, a scalar in nats; the soft one times T².

    Example:
        >>> import torch
        >>> deit_token_loss(torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, -1.0]]))
        tensor(0.6931)
    """
    if kind == 'hard':
        return F.cross_entropy(logit_s, logit_t.argmax(dim=1))
    log_q, log_p = (logit_s / temp).log_softmax(dim=1), (logit_t / temp).log_softmax(dim=1)
    divergence = F.kl_div(log_q, log_p, reduction='batchmean', log_target=True)
    return temp**2 * (divergence if batchmean else divergence / logit_s.shape[1])


class DeiTTokenLoss(DistillLoss):
    """:func:`deit_token_loss`, on the logits of a student's distillation token (``logit_token``).

    Args:
        kind: ``'hard'`` or ``'soft'``.
        temp: Temperature T of the soft one.
        batchmean: Divide the soft one by N instead of by N · C.
        task_weight: Factor of the task loss, which is that of the class token. The authors have 0.5, and 0.5 for this loss.
        loss_weight: Weight of this loss.

    Raises:
        ValueError: If the kind is unknown.
    """

    needs = 'softmax'

    def __init__(
        self,
        kind: str = 'hard',
        temp: float = 1.0,
        batchmean: bool = False,
        task_weight: float = 1.0,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if kind not in ('hard', 'soft'):
            raise ValueError(f"DeiTTokenLoss(kind={kind!r}): choose one of 'hard', 'soft'")
        self.kind = kind
        if kind == 'soft':
            self.temp = temp  # of the hard one there is none to learn
        self.batchmean = batchmean
        self.task_weight = task_weight
        self.loss_weight = loss_weight

    @full_precision
    def forward(self, logit_token_s: Tensor, logit_t: Tensor) -> Tensor:
        value = deit_token_loss(logit_token_s, logit_t, self.kind, getattr(self, 'temp', 1.0), self.batchmean)
        return self.loss_weight * value
