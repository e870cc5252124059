"""Queue: the student's embedding is as similar to earlier images as the teacher's is.

To compare two distributions of similarities to a queue of the teacher's embeddings is the idea of SEED (Fang et al., ICLR
2021, arXiv 2101.04731) and CompRess (Koohpayegani et al., NeurIPS 2020, arXiv 2010.14713). One temperature for both, 0.07,
and the Kullback-Leibler divergence are those of LightlyTrain's first distillation method. SEED has the cross entropy, with
0.2 for the student and 0.01 for the teacher.
"""

import logging
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import check_number
from .base import DistillLoss
from .common import all_samples, check_widths, full_precision, need_memory, unit

logger = logging.getLogger(__name__)
#: A score whose probability is 0 in every precision.
NEVER = -1e4


def queue_loss(
    predicted: Tensor, vector_t: Tensor, entries: Tensor, tau: float = 0.07, filled: Tensor | None = None
) -> Tensor:
    r"""Compute the divergence of the student's similarities to some entries from the teacher's.

    .. math:: \frac{1}{N} \sum_{n,k} P_{nk} \log \frac{P_{nk}}{Q_{nk}}, \quad
        P_n = softmax(e_n \cdot E / \tau), \quad Q_n = softmax(p_n \cdot E / \tau)

    with all vectors of length 1. No gradient flows to the teacher.

    Args:
        predicted: Embeddings p that the student's predict, (N, d).
        vector_t: Teacher embeddings e, (N, d).
        entries: Teacher embeddings E to compare with, (M, d).
        tau: Temperature τ.
        filled: Whether each entry counts, (M,); all do if None.

    Returns:
        The loss, a scalar in nats, not negative, 0 where the predictions point where the teacher's embeddings point.

    Example:
        >>> queue_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), torch.eye(2), tau=1.0)
        tensor(0.4621)
    """
    entries = unit(entries.detach())
    scores = [unit(vectors) @ entries.T / tau for vectors in (predicted, vector_t.detach())]
    if filled is not None:
        scores = [score.masked_fill(~filled, NEVER) for score in scores]
    log_q, log_p = (score.log_softmax(dim=1) for score in scores)
    return (log_p.exp() * (log_p - log_q)).sum(dim=1).mean()


class QueueLoss(DistillLoss):
    """:func:`queue_loss` with the teacher's embeddings of the batch and of the batches before.

    It needs no label and no classes. The entries are the batch's own embeddings, those of all processes, and the queue of
    the last ``queue_size`` ones before it. In eval mode, and without gradients, the queue stays as it is.

    Trainable part: ``project``, a linear layer from the student's width to the teacher's. Buffers, and so in checkpoints:
    ``queue``, 4 · ``queue_size`` · ``teacher_dims`` bytes, and ``count``, the number of embeddings so far. A moving average
    of the model shares them (``memories``). From a checkpoint with a queue of another size neither is taken.

    Args:
        student_dims: Width of the student's embedding.
        teacher_dims: Width of the teacher's embedding.
        queue_size: Number of embeddings in the queue, at least those of one batch of all processes.
        tau: Temperature of both distributions.
        loss_weight: Weight of this loss.

    Raises:
        ValueError: If ``queue_size`` or ``tau`` does not fit, or the embeddings have other widths.
        TrainingError: If the queue cannot fit into this machine's memory.
    """

    sizes = {'student_dims': ('vector_s', 1), 'teacher_dims': ('vector_t', 1)}
    #: Buffers that the model shares with all copies of it in a training.
    memories = ('queue', 'count')
    queue: Tensor
    count: Tensor

    def __init__(
        self,
        student_dims: int,
        teacher_dims: int,
        queue_size: int = 8192,
        tau: float = 0.07,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_number('QueueLoss: queue_size', queue_size, 1, whole=True)
        check_number('QueueLoss: tau', tau, 0, above=True)
        need_memory(
            f'QueueLoss with a queue of {queue_size} embeddings of {teacher_dims} numbers',
            queue_size * teacher_dims,
            'lower queue_size',
        )
        self.student_dims = student_dims
        self.teacher_dims = teacher_dims
        self.queue_size = queue_size
        self.tau = tau
        self.loss_weight = loss_weight
        self.project = nn.Linear(student_dims, teacher_dims)
        self.register_buffer('queue', torch.zeros(queue_size, teacher_dims))
        self.register_buffer('count', torch.zeros((), dtype=torch.long))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Load the queue and its count, or neither."""
        queue = state_dict.get(f'{prefix}queue')
        if queue is not None and queue.shape != self.queue.shape:
            logger.warning(f'the queue begins anew: the checkpoint has {tuple(queue.shape)}, not {tuple(self.queue.shape)}')
            state_dict.update({prefix + name: getattr(self, name) for name in self.memories})
        super()._load_from_state_dict(state_dict, prefix, *args)

    @full_precision
    def forward(self, vector_s: Tensor, vector_t: Tensor) -> Tensor:
        check_widths(self, 'dims', vector_s, vector_t)
        learning = self.training and torch.is_grad_enabled()
        batch = unit(vector_t.detach())
        batch = all_samples(batch) if learning else batch
        if len(batch) > self.queue_size:
            raise ValueError(
                f'QueueLoss(queue_size={self.queue_size}) is smaller than a batch of {len(batch)} images: set queue_size '
                f'to {len(batch)} or more'
            )
        filled = torch.arange(self.queue_size, device=batch.device) < self.count
        filled = torch.cat([filled.new_ones(len(batch)), filled])
        entries = torch.cat([batch, self.queue.to(batch.dtype)])
        value = queue_loss(self.project(vector_s), vector_t, entries, self.tau, filled)
        if learning:
            self._remember(batch)
        return self.loss_weight * value

    @torch.no_grad()
    def _remember(self, batch: Tensor) -> None:
        """Replace the oldest entries by a batch of embeddings, in place."""
        place = (self.count + torch.arange(len(batch), device=batch.device)) % self.queue_size
        self.queue.index_copy_(0, place, batch.to(self.queue.dtype))
        self.count += len(batch)
