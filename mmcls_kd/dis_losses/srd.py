"""SRD: the projected vector follows the teacher's, each dimension in units of its spread (AAAI 2024, arXiv 2303.11098)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import DistillLoss
from .common import bounded, check_widths, full_precision, whole_batch


def _in_the_batch(vector: Tensor, eps: float) -> Tensor:
    """Standardise each dimension over the batch; one with equal values becomes 0, without gradient.

    Raises:
        ValueError: If there is only one image.
    """
    if len(vector) < 2:
        raise ValueError(
            'SRD standardises each dimension over the batch, so it needs two images or more; set drop_last=True in '
            'train_dataloader where the last batch has one'
        )
    variance, mean = vector.var(dim=0, correction=0), vector.mean(dim=0)
    return bounded((vector - mean) / (variance + eps).sqrt(), variance.sqrt())


def srd_loss(
    projected_s: Tensor, vector_t: Tensor, logit_s: Tensor, logit_t: Tensor, exponent: float = 4.0, temp: float = 1.0
) -> Tensor:
    r"""Compute the loss of the simple recipe for distillation.

    .. math:: 2 \log \sum_{n,d} |B(P v_s) - B(v_t)|^e + \frac{1}{N} \sum_n KL(p \| q)

    with p = softmax(z_t / T), q = softmax(z_s / T), and B the standardisation of each dimension over the batch (biased
    variance plus 1e-4). The factor 2, and the KL term without T², are the authors' code's. The first term is a sum, so batch
    and width move it by a constant.

    Args:
        projected_s: Student vectors, projected to the teacher's width, P v_s, (N, D).
        vector_t: Teacher vectors v_t, (N, D).
        logit_s: Student logits z_s, (N, C).
        logit_t: Teacher logits z_t, (N, C).
        exponent: Exponent e.
        temp: Temperature T.

    Returns:
        The loss, a scalar. It has no lower bound, and becomes smaller than 0.

    Raises:
        ValueError: If there is only one image.

    Example:
        >>> vectors = torch.tensor([[1.0, 5.0], [3.0, 2.0]])
        >>> srd_loss(vectors, vectors.flip(1), torch.zeros(2, 3), torch.zeros(2, 3))
        tensor(8.3175)
    """
    difference = _in_the_batch(projected_s, 1e-4) - _in_the_batch(vector_t, 1e-4)
    total = difference.abs().pow(exponent).sum().clamp(min=torch.finfo(difference.dtype).tiny)
    log_q, log_p = (logit_s / temp).log_softmax(dim=1), (logit_t / temp).log_softmax(dim=1)
    return 2 * total.log() + F.kl_div(log_q, log_p, reduction='batchmean', log_target=True)


def srd_correlation_loss(projected_s: Tensor, vector_t: Tensor) -> Tensor:
    r"""Compute the other loss of the same repository, on the correlation of each dimension.

    .. math:: \log \Big( 10^{-5} + \sum_d |c_d - 1|^4 \Big), \quad c_d = \frac{1}{N} \sum_n B(P v_s)_{nd} B(v_t)_{nd}

    Args:
        projected_s: Student vectors, projected to the teacher's width, P v_s, (N, D).
        vector_t: Teacher vectors v_t, (N, D).

    Returns:
        The loss, a scalar: log 1e-5 where all correlations are 1.

    Raises:
        ValueError: If there is only one image.

    Example:
        >>> vectors = torch.tensor([[1.0, 5.0], [3.0, 2.0]])
        >>> srd_correlation_loss(vectors, vectors.flip(1))
        tensor(3.4657)
    """
    correlation = (_in_the_batch(projected_s, 1e-12) * _in_the_batch(vector_t, 1e-12)).mean(dim=0)
    return (1e-5 + (correlation - 1).pow(4).sum()).log()


class SRDLoss(DistillLoss):
    """:func:`srd_loss` on the student's vector, projected.

    Trainable part: ``projector``, a linear layer.

    Args:
        student_channels: Width of the student's vector.
        teacher_channels: Width of the teacher's.
        exponent: Exponent of the differences.
        temp: Temperature of the logits' term.
        sync_batch: Standardise over the samples of all processes, not over this process's alone, see
            :func:`~mmcls_kd.dis_losses.common.whole_batch`: the loss is then the same however a batch is divided among them.
        loss_weight: Weight of this loss.

    Raises:
        ValueError: If the vectors have other widths, or there is only one image.
    """

    sizes = {'student_channels': ('vector_s', 1), 'teacher_channels': ('vector_t', 1)}
    needs = 'softmax'

    def __init__(
        self,
        student_channels: int,
        teacher_channels: int,
        exponent: float = 4.0,
        temp: float = 1.0,
        sync_batch: bool = False,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.student_channels = student_channels
        self.teacher_channels = teacher_channels
        self.exponent = exponent
        self.temp = temp
        self.sync_batch = sync_batch
        self.loss_weight = loss_weight
        self.projector = nn.Linear(student_channels, teacher_channels)

    @full_precision
    def forward(self, vector_s: Tensor, vector_t: Tensor, logit_s: Tensor, logit_t: Tensor) -> Tensor:
        check_widths(self, 'channels', vector_s, vector_t)
        projected, target = (whole_batch(v, self.sync_batch) for v in (self.projector(vector_s), vector_t))
        logit_s, logit_t = (whole_batch(z, self.sync_batch) for z in (logit_s, logit_t))
        return self.loss_weight * srd_loss(projected, target, logit_s, logit_t, self.exponent, self.temp)


class SRDCorrelationLoss(DistillLoss):
    """:func:`srd_correlation_loss` on the student's vector, projected.

    Trainable part: ``projector``, a linear layer.

    Args:
        student_channels: Width of the student's vector.
        teacher_channels: Width of the teacher's.
        sync_batch: Correlate over the samples of all processes, not over this process's alone, as in :class:`SRDLoss`.
        loss_weight: Weight of this loss.

    Raises:
        ValueError: If the vectors have other widths, or there is only one image.
    """

    sizes = {'student_channels': ('vector_s', 1), 'teacher_channels': ('vector_t', 1)}

    def __init__(
        self, student_channels: int, teacher_channels: int, sync_batch: bool = False, loss_weight: float = 1.0
    ) -> None:
        super().__init__()
        self.student_channels = student_channels
        self.teacher_channels = teacher_channels
        self.sync_batch = sync_batch
        self.loss_weight = loss_weight
        self.projector = nn.Linear(student_channels, teacher_channels)

    @full_precision
    def forward(self, vector_s: Tensor, vector_t: Tensor) -> Tensor:
        check_widths(self, 'channels', vector_s, vector_t)
        projected, target = (whole_batch(v, self.sync_batch) for v in (self.projector(vector_s), vector_t))
        return self.loss_weight * srd_correlation_loss(projected, target)
