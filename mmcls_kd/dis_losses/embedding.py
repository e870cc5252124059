"""Embedding: the student predicts the teacher's embedding of the image (cosine, smooth L1, or UNIC's half of each).

The cosine and the smooth L1 distance, and their equal shares, are the loss of one teacher in UNIC (Sariyildiz et al., ECCV
2024, arXiv 2408.05088).
"""

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import close_names
from .base import DistillLoss
from .common import check_widths, full_precision, unit

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
    share, vector_t = KINDS[kind], vector_t.detach()
    cosine = 1 - (unit(predicted) * unit(vector_t)).sum(dim=1).mean()
    return share * cosine + (1 - share) * F.smooth_l1_loss(predicted, vector_t)


class EmbeddingLoss(DistillLoss):
    """:func:`embedding_loss` of a linear prediction from the student's embedding.

    It needs no label and no classes. Trainable part: ``project``, a linear layer, also where the widths are equal.

    Args:
        student_dims: Width of the student's embedding.
        teacher_dims: Width of the teacher's embedding.
        kind: ``'cosine'``, ``'smooth_l1'`` or ``'both'`` (half of each).
        loss_weight: Weight of this loss.

    Raises:
        ValueError: If the kind is unknown, or the embeddings have other widths.
    """

    sizes = {'student_dims': ('vector_s', 1), 'teacher_dims': ('vector_t', 1)}

    def __init__(self, student_dims: int, teacher_dims: int, kind: str = 'cosine', loss_weight: float = 1.0) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ValueError(
                f'EmbeddingLoss(kind={kind!r}): choose one of {", ".join(map(repr, KINDS))}{close_names(str(kind), KINDS)}'
            )
        self.student_dims = student_dims
        self.teacher_dims = teacher_dims
        self.kind = kind
        self.loss_weight = loss_weight
        self.project = nn.Linear(student_dims, teacher_dims)

    @full_precision
    def forward(self, vector_s: Tensor, vector_t: Tensor) -> Tensor:
        check_widths(self, 'dims', vector_s, vector_t)
        return self.loss_weight * embedding_loss(self.project(vector_s), vector_t, self.kind)
