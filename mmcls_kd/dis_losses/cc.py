"""CC: the distances to the teacher, correlated from sample to sample (Peng et al., ICCV 2019, arXiv 1904.01802)."""

from torch import Tensor, nn

from .base import DistillLoss
from .common import check_widths, full_precision, whole_batch


def cc_loss(vector_s: Tensor, vector_t: Tensor) -> Tensor:
    r"""Compute the correlation congruence loss.

    .. math:: \frac{1}{N - 1} \sum_{n < N} \langle \delta_n, \delta_{n+1} \rangle, \quad \delta_n = |f_s - f_t|

    This is the accepted code; the paper compares matrices of correlations between samples. It depends on the order of the
    samples, which is random in a training.

    Args:
        vector_s: Student vectors f_s, (N, d).
        vector_t: Teacher vectors f_t, (N, d).

    Returns:
        The loss, a scalar in squared units of the vectors, not negative, 0 where student equals teacher, and for N = 1.

    Example:
        >>> import torch
        >>> cc_loss(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[0.0, 0.0], [3.0, 2.0]]))
        tensor(3.)
    """
    far = (vector_s - vector_t).abs()
    return (far[:-1] * far[1:]).sum() / max(len(far) - 1, 1)


class CCLoss(DistillLoss):
    """:func:`cc_loss`; vectors of two widths are embedded in a common one first.

    Trainable parts, only where the widths differ: ``embed_s`` and ``embed_t``, linear layers. Where they are equal, or none
    is given, the vectors are compared as they are.

    Args:
        student_dims: Width of the student's vectors.
        teacher_dims: Width of the teacher's vectors.
        feat_dim: Width of the embedded vectors.
        sync_batch: Compare the samples of all processes' batches, not those of this process's alone, see
            :func:`~mmcls_kd.dis_losses.common.whole_batch`: the loss is then the same however a batch is divided among them.
        loss_weight: Weight of this loss.

    Raises:
        ValueError: If the vectors have other widths.
    """

    sizes = {'student_dims': ('vector_s', 1), 'teacher_dims': ('vector_t', 1)}

    def __init__(
        self,
        student_dims: int | None = None,
        teacher_dims: int | None = None,
        feat_dim: int = 128,
        sync_batch: bool = False,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.student_dims = student_dims
        self.teacher_dims = teacher_dims
        self.feat_dim = feat_dim
        self.sync_batch = sync_batch
        self.loss_weight = loss_weight
        self.embed_s: nn.Linear | None = None
        self.embed_t: nn.Linear | None = None
        if student_dims and teacher_dims and student_dims != teacher_dims:
            self.embed_s = nn.Linear(student_dims, feat_dim)
            self.embed_t = nn.Linear(teacher_dims, feat_dim)

    @full_precision
    def forward(self, vector_s: Tensor, vector_t: Tensor) -> Tensor:
        check_widths(self, 'dims', vector_s, vector_t)
        if self.embed_s is not None and self.embed_t is not None:
            vector_s, vector_t = self.embed_s(vector_s), self.embed_t(vector_t)
        vector_s, vector_t = whole_batch(vector_s, self.sync_batch), whole_batch(vector_t, self.sync_batch)
        return self.loss_weight * cc_loss(vector_s, vector_t)
