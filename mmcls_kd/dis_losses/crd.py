"""CRD: contrastive representation distillation (Tian et al., ICLR 2020, arXiv 1910.10699).

The negatives of a sample are drawn from all other images, as in the paper; no labels are needed. RepDistiller draws them
from other classes than the sample's: its weight of 0.8 and the published numbers belong to that. With few classes, many
of the negatives here are of the sample's own class.
"""

import logging
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import DistillLoss
from .common import all_samples, check_widths, full_precision, need_memory

logger = logging.getLogger(__name__)
EPS = 1e-7
#: Limit of scores computed at once against whole memories: 64 MiB in float32.
SCORES_AT_ONCE = 2**24
#: Number of entries up to which a memory is multiplied whole, however few of its entries a sample is compared with.
WHOLE = 2**19


def _posterior_logit(scores: Tensor, log_z: Tensor, num_samples: int) -> Tensor:
    """Return the logit of the probability that an entry is the sample's own, given its score: log P - log(k Pn + eps)."""
    noise = (scores.shape[1] - 1) / num_samples
    return scores - log_z - math.log(noise + EPS)


def nce_loss(scores: Tensor, log_z: Tensor, num_samples: int) -> Tensor:
    r"""Compute the noise-contrastive loss that tells a sample's own entry of a memory from k drawn ones.

    .. math::
        -\frac{1}{N} \sum_n \left( \log \frac{P_{n0}}{P_{n0} + k P_n + \epsilon}
        + \sum_{j=1}^k \log \frac{k P_n}{P_{nj} + k P_n + \epsilon} \right), \quad P = e^{score} / Z, \quad P_n = 1 / M

    with M the number of samples and :math:`\epsilon` = 1e-7.

    Args:
        scores: Products of a sample's embedding with entries, divided by the temperature, (N, 1 + k); first its own.
        log_z: Logarithm of the constant Z, a scalar.
        num_samples: Number of samples M from which the noise is drawn.

    Returns:
        The loss, a scalar in nats.

    Example:
        >>> nce_loss(torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor(0.0), num_samples=2)
        tensor(1.6996)
    """
    negatives = scores.shape[1] - 1
    noise = negatives / num_samples
    own, drawn = _posterior_logit(scores, log_z, num_samples).split([1, negatives], dim=1)
    per_sample = F.softplus(-own).sum(dim=1) + F.softplus(drawn).sum(dim=1)
    return per_sample.mean() + negatives * math.log((noise + EPS) / noise)


def nce_gradient(scores: Tensor, log_z: Tensor, num_samples: int) -> Tensor:
    """Return the derivative of :func:`nce_loss` by the scores, (N, 1 + k)."""
    chance = _posterior_logit(scores, log_z, num_samples).sigmoid()
    own, drawn = chance.split([1, chance.shape[1] - 1], dim=1)
    return torch.cat([own - 1, drawn], dim=1) / len(scores)


def draw_entries(sample_idx: Tensor, num_samples: int, number: int) -> Tensor:
    """Return each sample's index and those of other samples, drawn uniformly and with replacement.

    Args:
        sample_idx: Indices of the samples, (N,).
        num_samples: Number of samples.
        number: Number of others to draw for each.

    Returns:
        Indices, (N, 1 + number).
    """
    own = sample_idx[:, None]
    drawn = torch.randint(num_samples - 1, (len(own), number), device=own.device)
    return torch.cat([own, drawn + (drawn >= own)], dim=1)  # the own index is left out, those behind it move up


def _chunks(count: int, num_samples: int) -> list[slice]:
    """Split a batch so that a part has at most :data:`SCORES_AT_ONCE` scores with all of a memory, or is one sample."""
    size = max(SCORES_AT_ONCE // num_samples, 1)
    return [slice(start, start + size) for start in range(0, count, size)]


def entry_products(embedding: Tensor, memory: Tensor, index: Tensor) -> Tensor:
    """Compute the inner product of each sample's embedding with its entries of a memory, without gradient.

    All products with all entries are computed, and most of them dropped: on a CPU, copying the entries of each sample takes
    five times as long for 50,000 entries. For 1.3 million it takes a sixth, and so it is done there.

    Args:
        embedding: Embeddings, (N, d).
        memory: Entries, (M, d).
        index: Entries of each sample, (N, k).

    Returns:
        Products, (N, k).
    """
    if memory.device.type == 'cpu' and len(memory) > max(WHOLE, 32 * index.shape[1]):
        copied = memory.new_empty(index.shape[1], memory.shape[1])  # one place for the copies of all samples is faster
        samples = zip(embedding, index, strict=True)
        return torch.stack([torch.index_select(memory, 0, entries, out=copied) @ query for query, entries in samples])
    parts = _chunks(len(embedding), len(memory))
    return torch.cat([(embedding[part] @ memory.T).gather(1, index[part]) for part in parts])


def entry_sums(weights: Tensor, memory: Tensor, index: Tensor) -> Tensor:
    """Compute the weighted sum of each sample's entries.

    Args:
        weights: Weight of each entry, (N, k).
        memory: Entries, (M, d).
        index: Entries of each sample, (N, k); repeated ones count twice.

    Returns:
        Sums, (N, d).
    """
    if len(weights) * len(memory) > SCORES_AT_ONCE:  # a tenth of the time for 1.3 million entries, 1.5 times for 50,000
        return F.embedding_bag(index, memory, mode='sum', per_sample_weights=weights)
    row = torch.arange(len(index), device=index.device)[:, None]
    place = (row * len(memory) + index).flatten()  # in one dimension CUDA can add in a fixed order, if asked to
    of_all = weights.new_zeros(len(row) * len(memory)).scatter_add(0, place, weights.flatten())
    return of_all.view(len(row), -1) @ memory


def contrast(query: Tensor, memory: Tensor, index: Tensor, scores: Tensor, log_z: Tensor) -> Tensor:
    """Compute :func:`nce_loss` of queries with a memory, with its gradient by the queries.

    The gradient is computed here, not in the backward pass: by then the memory has changed.

    Args:
        query: Embeddings divided by the temperature, (N, d).
        memory: Entries, (M, d).
        index: Entries of each sample, (N, 1 + k); first its own.
        scores: Their :func:`entry_products`, (N, 1 + k), without gradient.
        log_z: Logarithm of the constant Z, a scalar.

    Returns:
        The loss, a scalar in nats.
    """
    with torch.no_grad():
        value = nce_loss(scores, log_z, len(memory))
        if not query.requires_grad:
            return value
        gradient = entry_sums(nce_gradient(scores, log_z, len(memory)), memory, index)
    return value + ((query - query.detach()) * gradient).sum()  # the sum is 0, but for its gradient


class CRDLoss(DistillLoss):
    r"""Contrastive representation distillation: :func:`nce_loss` of each network against a memory of the other.

    Both vectors are embedded by a linear layer and normalised to length 1. Each embedding is compared with entries of the
    other network's memory, which holds one entry of each training sample: its own, and ``nce_k`` drawn for it uniformly from
    the other samples. Scores are inner products divided by the temperature. The constants Z, one for each direction, are M
    times the mean of exp(score) in the first batch and then stay. Both directions are summed. Then the entries of the batch
    become :math:`m \cdot old + (1 - m) \cdot new`, normalised; not in eval mode and not without gradients.

    Trainable parts: ``embed_s`` and ``embed_t``. Buffers, and so in checkpoints: ``memory_s`` and ``memory_t``, together
    8 · M · ``feat_dim`` bytes (1.3 GB for ImageNet), and ``log_z``, -inf before the first batch. A moving average
    of the model shares them (``memories``). From a checkpoint with memories of another size none of the three is taken.

    Several processes make the same changes to their memories: each takes the embeddings of all. Of a sample that stands in a
    step's batches twice the last counts, those of later processes after those of earlier ones. Negatives are drawn by each.
    The memories start from random numbers that are the same in every process and run.

    The index is that of one sample. An image of mixup or CutMix counts as the one before mixing, and its embedding
    goes into that one's entry: the published results are without them.

    Args:
        student_dims: Width of the student's vectors.
        teacher_dims: Width of the teacher's vectors.
        num_samples: Number M of training samples; the distiller knows it.
        feat_dim: Width of the embeddings.
        nce_k: Number k of negatives for a sample; None for 16,384, or all other samples where there are fewer.
        nce_t: Temperature of the scores.
        nce_m: Momentum m of the memories.
        loss_weight: Weight of this loss.

    Raises:
        ValueError: If the number of samples is not known or too small for ``nce_k``, or vectors have another width.
        TrainingError: If the memories cannot fit into this machine's.
        RuntimeError: If an index is not one of M samples.
    """

    sizes = {'student_dims': ('vector_s', 1), 'teacher_dims': ('vector_t', 1)}
    facts = {'num_samples': 'num_samples'}
    #: Buffers that the model shares with all copies of it in a training.
    memories = ('memory_s', 'memory_t', 'log_z')
    memory_s: Tensor
    memory_t: Tensor
    log_z: Tensor

    def __init__(
        self,
        student_dims: int,
        teacher_dims: int,
        num_samples: int | None = None,
        feat_dim: int = 128,
        nce_k: int | None = 16384,
        nce_t: float = 0.07,
        nce_m: float = 0.5,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if num_samples is None:
            raise ValueError(
                'CRDLoss(num_samples=None): set num_samples to the number of training images, as '
                '`python -m mmcls_kd train` does'
            )
        if nce_k is None:
            nce_k = min(16384, num_samples - 1)
        if not 1 <= nce_k < num_samples:
            raise ValueError(
                f'CRDLoss(nce_k={nce_k}): there are {num_samples} training samples, so a sample has {num_samples - 1} '
                'others; set nce_k to 1 or more, and no more than these'
            )
        need_memory(
            f'CRDLoss with the entries of {num_samples} images, {feat_dim} numbers in each of two memories,',
            2 * num_samples * feat_dim,
            'lower feat_dim, or choose another method',
        )
        self.student_dims = student_dims
        self.teacher_dims = teacher_dims
        self.num_samples = num_samples
        self.feat_dim = feat_dim
        self.nce_k = nce_k
        self.nce_t = nce_t
        self.nce_m = nce_m
        self.loss_weight = loss_weight
        self.embed_s = nn.Linear(student_dims, feat_dim)
        self.embed_t = nn.Linear(teacher_dims, feat_dim)
        bound = (3 / feat_dim) ** 0.5  # entries of length 1 on average
        same_everywhere = torch.Generator().manual_seed(0)
        for name in ('memory_s', 'memory_t'):
            memory = torch.empty(num_samples, feat_dim).uniform_(-bound, bound, generator=same_everywhere)
            self.register_buffer(name, memory)
        self.register_buffer('log_z', torch.full((2,), -torch.inf))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Load the memories and their constants, or none of them."""
        memory = state_dict.get(f'{prefix}memory_s')
        if memory is not None and memory.shape != self.memory_s.shape:
            text = f'CRD begins anew: the checkpoint remembers {len(memory)} images, not {self.num_samples}'
            logger.warning(text)
            state_dict.update({prefix + name: getattr(self, name) for name in self.memories})
        super()._load_from_state_dict(state_dict, prefix, *args)

    @full_precision
    def forward(self, vector_s: Tensor, vector_t: Tensor, sample_idx: Tensor) -> Tensor:
        check_widths(self, 'dims', vector_s, vector_t)
        self._check_index(sample_idx)
        new_s, new_t = F.normalize(self.embed_s(vector_s)), F.normalize(self.embed_t(vector_t))
        index = draw_entries(sample_idx, self.num_samples, self.nce_k)
        against = [(new_s / self.nce_t, self.memory_t), (new_t / self.nce_t, self.memory_s)]
        with torch.no_grad():
            scores = [entry_products(query, memory, index) for query, memory in against]
            log_sums = torch.stack([score.logsumexp(dim=1) for score in scores], dim=1)
        learning = self.training and torch.is_grad_enabled()
        if learning:
            seen = all_samples(torch.cat([new_s, new_t, log_sums], dim=1))
            new_s, new_t, log_sums = seen.split([self.feat_dim, self.feat_dim, 2], dim=1)
        log_z = self._log_constants(log_sums)
        terms = [contrast(*pair, index, score, z) for pair, score, z in zip(against, scores, log_z, strict=True)]
        if learning:
            sample_idx = all_samples(sample_idx)
            self._remember(self.memory_s, new_s, sample_idx)
            self._remember(self.memory_t, new_t, sample_idx)
            self.log_z.copy_(log_z)
        return self.loss_weight * (terms[0] + terms[1])

    def _check_index(self, sample_idx: Tensor) -> None:
        """Refuse indices of no sample; on CUDA without waiting for them."""
        if sample_idx.device.type not in ('cpu', 'cuda'):  # others do not have this
            return
        torch._assert_async(
            ((sample_idx >= 0) & (sample_idx < self.num_samples)).all(),
            f'CRDLoss(num_samples={self.num_samples}) got a sample_idx that is not from 0 to {self.num_samples - 1}: set '
            'num_samples to the size of the data set that it counts',
        )

    def _log_constants(self, log_sums: Tensor) -> Tensor:
        """Return the logarithms of both constants Z, from the first batch or, if this one is the first, from it.

        Args:
            log_sums: Logarithm of the sum of exp(score) for each sample and direction, (N, 2).
        """
        count = len(log_sums) * (1 + self.nce_k)
        found = log_sums.logsumexp(dim=0) - math.log(count) + math.log(self.num_samples)
        return torch.where(self.log_z.isfinite(), self.log_z, found)

    @torch.no_grad()
    def _remember(self, memory: Tensor, new: Tensor, sample_idx: Tensor) -> None:
        """Move the entries of a batch towards new embeddings, in place."""
        mixed = F.normalize(self.nce_m * memory[sample_idx] + (1 - self.nce_m) * new)
        place = torch.arange(len(sample_idx), device=sample_idx.device)
        last = ((sample_idx[:, None] == sample_idx) * place).amax(dim=1)  # then equal indices write equal entries
        memory.index_copy_(0, sample_idx, mixed[last])
