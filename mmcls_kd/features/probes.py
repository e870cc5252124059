"""Measures of embeddings, and heads on networks without classes: nearest neighbours and linear probes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import check_number
from .dry_run import dry_run

#: Number of test embeddings that are compared at once.
ROWS = 1024


def knn_scores(train: Tensor, labels: Tensor, test: Tensor, k: int = 20, temperature: float = 0.07) -> Tensor:
    r"""Compute the votes of each test embedding's nearest neighbours among the training embeddings.

    .. math:: s_{nc} = \sum_{i \in \mathcal{N}_k(n)} [y_i = c] \exp(\cos(e_n, e_i) / \tau)

    over the k most similar training embeddings, as Wu et al. (CVPR 2018, arXiv 1805.01978) do.

    Args:
        train: Training embeddings, (M, D).
        labels: Their classes, (M,).
        test: Test embeddings, (N, D).
        k: Number k of neighbours; all where there are fewer.
        temperature: Temperature τ of the votes.

    Returns:
        The votes in units of exp(1 / τ), (N, classes).

    Example:
        >>> knn_scores(torch.eye(2), torch.tensor([0, 1]), torch.tensor([[1.0, 0.0]]), temperature=1.0)
        tensor([[1.0000, 0.3679]], dtype=torch.float64)
    """
    check_number('k', k, 1, whole=True)
    check_number('temperature', temperature, 0, above=True)
    train, votes = F.normalize(train.double()), F.one_hot(labels.long()).double()
    rows = []
    for part in F.normalize(test.double()).split(ROWS):
        alike, nearest = (part @ train.T).topk(min(k, len(train)), dim=1)
        weights = ((alike - 1) / temperature).exp()
        rows.append((weights[:, :, None] * votes[nearest]).sum(dim=1))
    return torch.cat(rows)


def knn_accuracy(
    train: Tensor, labels: Tensor, test: Tensor, test_labels: Tensor, k: int = 20, temperature: float = 0.07
) -> float:
    """Compute the accuracy, from 0 to 1, of the class with most :func:`knn_scores`.

    Args:
        train: Training embeddings, (M, D).
        labels: Their classes, (M,).
        test: Test embeddings, (N, D).
        test_labels: Their classes, (N,).
        k: Number of neighbours.
        temperature: Temperature of the votes.
    """
    found = knn_scores(train, labels, test, k, temperature).argmax(dim=1)
    return float((found == test_labels).double().mean())


def knn_agreement(
    student_train: Tensor,
    teacher_train: Tensor,
    student: Tensor,
    teacher: Tensor,
    labels: Tensor | None = None,
    k: int = 20,
    temperature: float = 0.07,
) -> float:
    r"""Compute how far the student's nearest neighbours agree with the teacher's, from 0 to 1; no image needs a label.

    With classes c of the teacher for the training images (its arg-max), the share of images whose neighbours vote alike:

    .. math:: \frac{1}{N} \sum_n \left[ \arg\max_c s^S_{nc} = \arg\max_c s^T_{nc} \right]

    with the votes s of :func:`knn_scores` under either network's embeddings. Without classes, the mean share of common
    neighbours:

    .. math:: \frac{1}{N} \sum_n \frac{1}{k} \left| \mathcal{N}^S_k(n) \cap \mathcal{N}^T_k(n) \right|

    Args:
        student_train: The student's embeddings of the training images, (M, D).
        teacher_train: The teacher's, (M, E).
        student: The student's embeddings of the images to measure, (N, D).
        teacher: The teacher's, (N, E).
        labels: The teacher's class of each training image, (M,); None if it has no classes.
        k: Number of neighbours; all training images where there are fewer.
        temperature: Temperature of the votes.

    Example:
        >>> train, test = torch.eye(3), torch.tensor([[1.0, 0.5, 0.0]])
        >>> knn_agreement(train, train.flip(0), test, test, k=2)
        0.5
    """
    if labels is not None:
        pairs = ((student_train, student), (teacher_train, teacher))
        found = [knn_scores(train, labels, test, k, temperature).argmax(dim=1) for train, test in pairs]
        return float((found[0] == found[1]).double().mean())
    check_number('k', k, 1, whole=True)
    k = min(k, len(student_train))
    ours, theirs = nearest(student_train, student, k), nearest(teacher_train, teacher, k)
    return float((ours[:, :, None] == theirs[:, None, :]).sum(dim=(1, 2)).double().mean() / k)


def nearest(train: Tensor, test: Tensor, k: int) -> Tensor:
    """Return the indices of the k most similar training embeddings of each test embedding, (N, k)."""
    train = F.normalize(train.double())
    return torch.cat([(part @ train.T).topk(k, dim=1).indices for part in F.normalize(test.double()).split(ROWS)])


def linear_probe_accuracy(
    train: Tensor, labels: Tensor, test: Tensor, test_labels: Tensor, weight_decay: float = 1e-3, steps: int = 100
) -> float:
    r"""Compute the accuracy, from 0 to 1, of a linear classifier of frozen embeddings.

    It minimises the mean cross entropy plus :math:`\frac{w}{2} \lVert W \rVert^2` from zero weights by L-BFGS, in float64,
    for embeddings with training mean 0 and standard deviation 1. It draws no numbers.

    Args:
        train: Training embeddings, (M, D).
        labels: Their classes, (M,).
        test: Test embeddings, (N, D).
        test_labels: Their classes, (N,).
        weight_decay: Weight w of the squared weights.
        steps: Largest number of steps.
    """
    train, test = train.detach().double(), test.detach().double()
    mean, std = train.mean(dim=0), train.std(dim=0, correction=0).clamp(min=1e-6)
    train, test, labels = (train - mean) / std, (test - mean) / std, labels.long()
    count = int(labels.max()) + 1
    weight, bias = (train.new_zeros(shape).requires_grad_() for shape in ((train.shape[1], count), (count,)))
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=steps, line_search_fn='strong_wolfe')

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(train @ weight + bias, labels) + weight_decay / 2 * weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(closure)
    return float(((test @ weight + bias).argmax(dim=1) == test_labels).double().mean())


class LinearHead(nn.Module):
    """A network without classes and a linear classifier behind it; see :func:`with_linear_head`."""

    def __init__(self, backbone: nn.Module, dims: int, num_classes: int, frozen: bool) -> None:
        super().__init__()
        self.backbone, self.num_classes, self.frozen = backbone, num_classes, frozen
        self.head = nn.Linear(dims, num_classes)
        self.train()

    def train(self, mode: bool = True) -> LinearHead:
        """Set the mode; a frozen backbone stays in eval mode."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of images, (N, classes)."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            embedding = self.backbone(images)
        return self.head(embedding)


def with_linear_head(
    backbone: nn.Module, num_classes: int, frozen: bool = False, image_size: tuple[int, int] | None = None
) -> LinearHead:
    """Put a linear classifier on a network without classes, to train it on labels.

    Args:
        backbone: The network, used as it is; it returns embeddings, (N, D).
        num_classes: Number of classes.
        frozen: Whether the classifier alone learns (a linear probe), and the backbone stays in eval mode; else all does.
        image_size: Height and width of the images; found by trying if None.

    Raises:
        ValueError: If the network does not run, or has classes.

    Example:
        >>> from mmcls_kd import EmbeddingNetwork
        >>> with_linear_head(EmbeddingNetwork(nn.Conv2d(3, 4, 3)), 10)(torch.zeros(2, 3, 8, 8)).shape
        torch.Size([2, 10])
    """
    check_number('num_classes', num_classes, 1, whole=True)
    found = dry_run(backbone, 'student', image_size, whole=True)
    if found.has_classes:
        raise ValueError(
            f'the network has {found.num_classes} classes: give one without (num_classes=0), or wrap it into '
            'mmcls_kd.EmbeddingNetwork'
        )
    if frozen:
        backbone.requires_grad_(False)
    return LinearHead(backbone, found.logit.shape[1], num_classes, frozen)
