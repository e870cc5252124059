"""Embedding: the student predicts the teacher's embedding of the image (cosine, smooth L1, or UNIC's half of each).

The cosine and the smooth L1 distance, their equal shares, and the dropping of teachers are UNIC's (Sariyildiz et al., ECCV
2024, arXiv 2408.05088).
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import check_number, close_names
from .base import DistillLoss
from .common import check_width, check_widths, full_precision, unit

#: The share of the cosine distance in each kind of the loss; the other share is smooth L1.
KINDS = {'cosine': 1.0, 'smooth_l1': 0.0, 'both': 0.5}


def embedding_loss(predicted: Tensor, vector_t: Tensor, kind: str = 'cosine') -> Tensor:
    r"""Compute the distance of predicted embeddings to the teacher's.

    .. math:: \frac{1}{N} \sum_n \left[ \lambda (1 - \cos(p_n, e_n))
        + (1 - \lambda) \frac{1}{d} \sum_i h(p_{ni} - e_{ni}) \right]

    with h the smooth L1 loss (Huber's at 1), and λ = 1 for ``'cosine'``, 0 for ``'smooth_l1'``, ½ for ``'both'``. No
    gradient flows to the teacher. A vector of length 0 has the cosine 0 to any other.

    Args:
        predicted: Embeddings p that the student's predict, (N, d).
        vector_t: Teacher embeddings e, (N, d).
        kind: One of :data:`KINDS`.

    Returns:
        The loss, a scalar. The cosine distance, from 0 to 2, has no unit; smooth L1 has that of the teacher's embedding.

    Example:
        >>> import torch
        >>> given = torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 4.0]])
        >>> embedding_loss(*given), embedding_loss(*given, kind='smooth_l1'), embedding_loss(*given, kind='both')
        (tensor(0.4000), tensor(2.5000), tensor(1.4500))
    """
    return distances(predicted, vector_t, kind).mean()


def distances(predicted: Tensor, vector_t: Tensor, kind: str) -> Tensor:
    """Compute the term of each image in :func:`embedding_loss`, (N,)."""
    share, vector_t = KINDS[kind], vector_t.detach()
    cosine = 1 - (unit(predicted) * unit(vector_t)).sum(dim=1)
    return share * cosine + (1 - share) * F.smooth_l1_loss(predicted, vector_t, reduction='none').mean(dim=1)


def kept_teachers(values: Tensor, drop: float) -> Tensor:
    """Draw the teachers that teach each image: the one with the largest loss, and each other one with probability 1 − drop.

    Args:
        values: Loss of each teacher and image, (K, N).
        drop: Probability of leaving out a teacher.

    Returns:
        1 for those that teach, else 0, (K, N).
    """
    largest = torch.zeros_like(values).scatter(0, values.argmax(dim=0, keepdim=True), 1.0)
    return torch.where(torch.rand_like(values) >= drop, 1.0, largest)


class EmbeddingLoss(DistillLoss):
    """:func:`embedding_loss` of a linear prediction from the student's embedding.

    It needs no label and no classes. Of several teachers the losses of each image are added; in training, a teacher that has
    not the largest loss of an image is dropped for it with probability ``drop``. Trainable part: ``project``, a linear layer
    for each teacher, also where the widths are equal.

    Args:
        student_dims: Width of the student's embedding.
        teacher_dims: Width of the teacher's embedding; a tuple for several teachers.
        kind: ``'cosine'``, ``'smooth_l1'`` or ``'both'`` (half of each).
        drop: Probability of dropping one of several teachers.
        loss_weight: Weight of this loss.

    Raises:
        ValueError: If the kind is unknown, drop is no probability, or the embeddings have other widths.
    """

    several_teachers = True
    sizes = {'student_dims': ('vector_s', 1), 'teacher_dims': ('vector_t', 1)}

    def __init__(
        self,
        student_dims: int,
        teacher_dims: int | Sequence[int],
        kind: str = 'cosine',
        drop: float = 0.5,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_number('EmbeddingLoss (the probability to leave out a teacher): drop', drop, 0, 1)
        if not isinstance(kind, str) or kind not in KINDS:
            raise ValueError(
                f'EmbeddingLoss(kind={kind!r}): choose one of {", ".join(map(repr, KINDS))}{close_names(str(kind), KINDS)}'
            )
        self.student_dims = student_dims
        widths = (teacher_dims,) if isinstance(teacher_dims, int) else tuple(teacher_dims)
        layers = [nn.Linear(student_dims, width) for width in widths]
        self.teacher_dims = teacher_dims if isinstance(teacher_dims, int) else widths
        self.kind = kind
        self.drop = drop
        self.loss_weight = loss_weight
        self.project: Any = layers[0] if isinstance(teacher_dims, int) else nn.ModuleList(layers)

    @full_precision
    def forward(self, vector_s: Tensor, vector_t: Tensor | Sequence[Tensor]) -> Tensor:
        if isinstance(vector_t, Tensor):
            check_widths(self, 'dims', vector_s, vector_t)
            return self.loss_weight * embedding_loss(self.project(vector_s), vector_t, self.kind)
        check_width(self, 'student_dims', vector_s.shape[1])
        check_width(self, 'teacher_dims', tuple(vector.shape[1] for vector in vector_t))
        pairs = zip(self.project, vector_t, strict=True)
        values = torch.stack([distances(project(vector_s), vector, self.kind) for project, vector in pairs])
        if self.training:
            values = values * kept_teachers(values.detach(), self.drop)
        return self.loss_weight * values.sum(dim=0).mean()
