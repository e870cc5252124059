"""Distil several labels an image: ``python tests/acceptance/multi_label.py FASHION_MNIST_FOLDER``.

Each image is a collage of up to four garments of Fashion-MNIST, two by two, and its labels are their classes: ten in all. A
teacher is trained on 20,000 collages. Then a student learns from 400 of them, once from labels alone, once from labels and
teacher: with the same initial weights, order of images, augmentation and number of steps.
"""

import copy
import sys
from pathlib import Path

import torch
from ten_lines import augmented, network, read, train
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot
from torch.utils.data import DataLoader, TensorDataset

from mmcls_kd import Distiller, losses

MANY, FEW, TEST, EPOCHS = 20_000, 400, 5_000, 60


def collages(garments: TensorDataset, count: int, seed: int) -> TensorDataset:
    """Make collages of one to four garments, (count, 1, 56, 56), and their labels, (count, 10)."""
    images, labels = garments.tensors
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(images), (count, 4), generator=generator)
    there = torch.rand(count, 4, generator=generator).argsort(1) < torch.randint(1, 5, (count, 1), generator=generator)
    parts = torch.where(there[:, :, None, None], images[chosen, 0], images.min())
    rows = [torch.cat([parts[:, 2 * i], parts[:, 2 * i + 1]], dim=2) for i in (0, 1)]
    several = (one_hot(labels[chosen], 10) * there[:, :, None]).amax(dim=1)
    return TensorDataset(torch.cat(rows, dim=1)[:, None], several.float())


def task(logit: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the binary cross entropy, summed over labels, as mmpretrain's heads and the distiller do."""
    return binary_cross_entropy_with_logits(logit, labels, reduction='none').sum(dim=1).mean()


@torch.no_grad()
def mean_average_precision(network: nn.Module, data: TensorDataset) -> float:
    """Return the mAP in percent: of each label the mean precision at its images, in the order of the scores."""
    network.eval()
    scores = torch.cat([network(images) for images, _ in DataLoader(data, 1000)])
    there = data.tensors[1].gather(0, scores.argsort(dim=0, descending=True))
    precision = there.cumsum(dim=0) / torch.arange(1, len(there) + 1)[:, None]
    return float(100 * ((precision * there).sum(dim=0) / there.sum(dim=0)).mean())


def compare(folder: Path, seed: int = 0, loss_weight: float = 10.0) -> dict[str, float]:
    """Train teacher, student alone and student with the teacher; return the mAP of each on the test images."""
    torch.manual_seed(seed)
    garments, test = read(folder, 'train'), collages(read(folder, 't10k'), TEST, 1)
    many = collages(garments, MANY, 100 + seed)
    teacher = network(16)
    train(teacher, lambda images, labels: task(teacher(images), labels), teacher.parameters(), many, 8, rate=0.05)
    few, alone = TensorDataset(*many[:FEW]), network(6)
    student = copy.deepcopy(alone)
    distiller = Distiller(student, teacher, losses=dict(kd=losses.SigmoidKDLoss(loss_weight=loss_weight)), multi_label=True)
    steps = {
        alone: lambda images, labels: task(alone(augmented(images)), labels),
        distiller: lambda images, labels: distiller(augmented(images), labels)['loss'],
    }
    for learner, step in steps.items():
        torch.manual_seed(seed)  # of the augmentation
        train(learner, step, learner.parameters(), few, EPOCHS, rate=0.05)
    found = dict(teacher=teacher, alone=alone, distilled=student)
    return {name: mean_average_precision(network, test) for name, network in found.items()}


if __name__ == '__main__':
    print(compare(Path(sys.argv[1])))
