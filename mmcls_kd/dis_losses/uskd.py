"""USKD: self-distillation from a weak head and ranked classes (Yang et al., ICCV 2023, arXiv 2303.13005).

Paper and code differ: the released code ranks the classes by a ratio of log-probabilities, by a slip, so the student's
order alone decides. ``rank_by='prob'`` is the published method, ``rank_by='log_prob'`` reproduces the released code.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import DistillLoss
from .common import batch_mean, check_width, entropy_target, full_precision, label_columns, mask_classes

RANK_BY = ('prob', 'log_prob')


def zipf_label(logit_weak: Tensor, logit_s: Tensor, classes: Tensor, rank_by: str = 'prob') -> Tensor:
    """Compute the soft label of the non-label classes: 1 / rank, normalised (Zipf's law).

    Args:
        logit_weak: Logits of the weak head, (N, C).
        logit_s: Student logits, (N, C).
        classes: The label classes, (N, K): 0 there.
        rank_by: ``'prob'`` ranks by the sum of both heads' probabilities, each divided by (1 − Σ over the label classes +
            1e-6); ``'log_prob'`` takes the student's log-probabilities in that place.

    Returns:
        Rows that sum to 1, or are all 0 where no class is left; (N, C), without gradient.
    """

    def relative(score: Tensor) -> Tensor:
        return score / (1 - score.gather(1, classes).sum(dim=1, keepdim=True) + 1e-6)

    with torch.no_grad():
        student = logit_s.softmax(dim=1) if rank_by == 'prob' else logit_s.log_softmax(dim=1)
        score = relative(logit_weak.softmax(dim=1)) + relative(student)
        order = score.argsort(dim=1, descending=True, stable=True)
        by_rank = 1 / torch.arange(1, score.shape[1] + 1, dtype=score.dtype, device=score.device)
        zipf = torch.zeros_like(score).scatter(1, order, by_rank.expand_as(score)).scatter(1, classes, 0)
        return zipf / zipf.sum(dim=1, keepdim=True).clamp(min=torch.finfo(zipf.dtype).tiny)


def uskd_loss(
    logit_weak: Tensor,
    logit_s: Tensor,
    gt_label: Tensor,
    alpha: float = 1.0,
    beta: float = 0.1,
    mu: float = 0.005,
    rank_by: str = 'prob',
    sync_batch_mean: bool = False,
) -> Tensor:
    r"""Compute the universal self-knowledge distillation loss, :math:`\alpha L_t + \beta L_{non} + L_{weak}`.

    .. math::
        L_t &= -\frac{1}{N} \sum_{n,k} P_{nk} \log s_{nk}, \quad
            P_{nk} = s_{nk}^2 + V_{nk} - \frac{1}{N} \sum_m s_{mk}^2 \\
        L_{non} &= -\frac{1}{N} \sum_n \sum_{i \notin labels} \hat z_{ni} \log \hat s_{ni} \\
        L_{weak} &= -\frac{\mu}{N} \sum_{n,i} (0.9\, y_{ni} + 0.1 / C) \log w_{ni}

    over the label columns k (see :func:`~mmcls_kd.dis_losses.common.label_columns`); P = 0 where V = 0;
    :math:`\hat z` is :func:`zipf_label`, :math:`\hat s` the softmax over the non-label classes, w the weak head's softmax.
    No gradient flows through P and :math:`\hat z`.

    Args:
        logit_weak: Logits of the weak head, (N, C).
        logit_s: Student logits, (N, C).
        gt_label: Class indices (N,), or scores (N, C).
        alpha: Weight of L_t.
        beta: Weight of L_non.
        mu: Weight inside L_weak.
        rank_by: See :func:`zipf_label`.
        sync_batch_mean: Take the mean inside P over the batches of all processes, see
            :func:`~mmcls_kd.dis_losses.common.batch_mean`; the outer means stay this process's.

    Returns:
        The loss, a scalar in nats.

    Example:
        >>> logit = torch.tensor([[2.0, 1.0, 0.0]])
        >>> uskd_loss(logit, logit, torch.tensor([0]))
        tensor(0.4815)
    """
    value, classes = label_columns(gt_label, logit_s.dtype)
    log_prob = logit_s.log_softmax(dim=1).gather(1, classes)
    squared = (2 * log_prob.detach()).exp()
    soft_target = torch.where(value == 0, 0, squared + value - batch_mean(squared, sync_batch_mean))
    target_term = -(soft_target * log_prob).mean(dim=0).sum()
    other_term = F.cross_entropy(mask_classes(logit_s, classes), zipf_label(logit_weak, logit_s, classes, rank_by))
    weak_term = F.cross_entropy(logit_weak, entropy_target(gt_label, logit_weak.dtype), label_smoothing=0.1)
    return alpha * target_term + beta * other_term + mu * weak_term


class USKDLoss(DistillLoss):
    """:func:`uskd_loss` with the weak head ``fc`` on the student's middle features.

    Args:
        channel: Width of the middle features.
        alpha: Weight of the target term.
        beta: Weight of the non-target term.
        mu: Weight of the weak head's term.
        num_classes: Number of classes C.
        rank_by: ``'prob'`` (the paper) or ``'log_prob'`` (the released code).
        sync_batch_mean: Take the mean inside P over the batches of all processes, which the original does not: it is then
            the same however a batch is divided among them. Gradient accumulation divides it all the same.

    Raises:
        ValueError: If ``rank_by`` is neither, or features or logits have another width.
    """

    needs = 'softmax'
    sizes = {'channel': ('feat_mid', 1), 'num_classes': ('logit_s', 1)}

    def __init__(
        self,
        channel: int,
        alpha: float = 1.0,
        beta: float = 0.1,
        mu: float = 0.005,
        num_classes: int = 1000,
        rank_by: str = 'prob',
        sync_batch_mean: bool = False,
    ) -> None:
        super().__init__()
        if rank_by not in RANK_BY:
            raise ValueError(f'USKDLoss(rank_by={rank_by!r}): choose one of {", ".join(map(repr, RANK_BY))}')
        self.channel = channel
        self.alpha = alpha
        self.beta = beta
        self.mu = mu
        self.num_classes = num_classes
        self.rank_by = rank_by
        self.sync_batch_mean = sync_batch_mean
        self.fc = nn.Linear(channel, num_classes)

    @full_precision
    def forward(self, feat_mid: Tensor, logit_s: Tensor, gt_label: Tensor) -> Tensor:
        check_width(self, 'channel', feat_mid.shape[1])
        check_width(self, 'num_classes', logit_s.shape[1])
        return uskd_loss(
            self.fc(feat_mid),
            logit_s,
            gt_label,
            self.alpha,
            self.beta,
            self.mu,
            self.rank_by,
            self.sync_batch_mean,
        )
