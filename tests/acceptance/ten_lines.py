"""Distil on Fashion-MNIST with nothing but PyTorch and the core: ``python tests/acceptance/ten_lines.py DATA_FOLDER``.

A teacher is trained on all 60,000 images. Then a student learns from 300 of them, once from labels alone, once from labels
and teacher: with the same initial weights, order of images, augmentation and number of steps.
"""

import copy
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from mmcls_kd import Distiller, losses

IMAGES, EPOCHS = 300, 30


def read(folder: Path, split: str) -> TensorDataset:
    """Read images, normalised, and labels of a split."""
    images = np.frombuffer((folder / f'{split}-images-idx3-ubyte').read_bytes(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    labels = np.frombuffer((folder / f'{split}-labels-idx1-ubyte').read_bytes(), np.uint8, offset=8)
    return TensorDataset((torch.from_numpy(images.copy()).float() - 73) / 90, torch.from_numpy(labels.astype(np.int64)))


def network(width: int) -> nn.Module:
    """Build a CNN of three stages."""
    layers: list[nn.Module] = []
    for inside, outside in ((1, width), (width, 2 * width), (2 * width, 4 * width)):
        layers += [nn.Conv2d(inside, outside, 3, 2, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, 10))


def train(network: nn.Module, step, parameters, data, epochs: int, rate: float = 0.1) -> None:
    """Train by SGD with a cosine schedule; ``step`` returns the loss of a batch."""
    loader = DataLoader(data, 50 if len(data) < 5000 else 200, shuffle=True, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.SGD(parameters, rate, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * len(loader))
    network.train()
    for _ in range(epochs):
        for images, labels in loader:
            step(images, labels).backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()


def augmented(images: torch.Tensor) -> torch.Tensor:
    """Flip half of the images, and shift the batch by up to two pixels."""
    images = torch.where(torch.rand(len(images), 1, 1, 1) < 0.5, images.flip(3), images)
    return torch.roll(images, torch.randint(-2, 3, (2,)).tolist(), (2, 3))


@torch.no_grad()
def accuracy(network: nn.Module, data: TensorDataset) -> float:
    """Return the top-1 accuracy in percent."""
    network.eval()
    right = sum(int((network(images).argmax(1) == labels).sum()) for images, labels in DataLoader(data, 1000))
    return 100 * right / len(data)


def compare(folder: Path, seed: int = 0) -> dict[str, float]:
    """Train teacher, student alone and student with the teacher; return their accuracies on the test images."""
    torch.manual_seed(seed)
    train_set, test_set = read(folder, 'train'), read(folder, 't10k')
    teacher = network(24)
    train(teacher, lambda images, labels: cross_entropy(teacher(images), labels), teacher.parameters(), train_set, 2)
    few, alone = TensorDataset(*train_set[:IMAGES]), network(8)
    student = copy.deepcopy(alone)
    for learner, step in (
        (alone, lambda images, labels: cross_entropy(alone(augmented(images)), labels)),
        (
            distiller := Distiller(student, teacher, losses=dict(nkd=losses.NKDLoss(), dist=losses.DISTLoss)),
            lambda images, labels: distiller(augmented(images), labels)['loss'],
        ),
    ):
        torch.manual_seed(seed)  # of the augmentation
        train(learner, step, learner.parameters(), few, EPOCHS)
    assert distiller.student is student
    return dict(teacher=accuracy(teacher, test_set), alone=accuracy(alone, test_set), distilled=accuracy(student, test_set))


if __name__ == '__main__':
    print(compare(Path(sys.argv[1])))
