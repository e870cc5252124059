"""The settings of a made config by number of images and by network: the tables of ``docs/own_images.md``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import nn


class ByImages(NamedTuple):
    """Settings for at most so many training images; ``area`` is the least share of an image that a random crop keeps."""

    images: float
    epochs: int
    batch_size: int
    area: float


class ByNetwork(NamedTuple):
    """Settings of the optimizer; the learning rates are for batches of 64, from random and from pretrained weights."""

    optimizer: dict
    lr: float
    pretrained_lr: float


BY_IMAGES = (
    ByImages(1_000, 100, 32, 0.5),
    ByImages(10_000, 60, 32, 0.35),
    ByImages(100_000, 30, 64, 0.2),
    ByImages(float('inf'), 15, 128, 0.08),
)
#: Sizes of images in training: the least that is not below the images' own, at most the last.
SIZES = (64, 96, 128, 160, 192, 224)
WITH_BATCH_NORM = ByNetwork(dict(type='SGD', momentum=0.9, nesterov=True, weight_decay=1e-4), 0.05, 0.01)
WITHOUT = ByNetwork(dict(type='AdamW', weight_decay=0.05), 1e-3, 2e-4)
#: Size from which images are loaded by workers of their own.
LARGE = 96
#: Share of the epochs in which the learning rate rises.
WARM_UP = 0.1


@dataclass(frozen=True)
class Choices:
    """The settings of a made config."""

    epochs: int
    batch_size: int
    size: int
    area: float
    optimizer: dict
    warm_up: int
    workers: int
    drop_last: bool


def size_of(side: int) -> int:
    """Return the size of images in training for images of a shorter side.

    Example:
        >>> size_of(28), size_of(100), size_of(600)
        (64, 128, 224)
    """
    return next((size for size in SIZES if size >= side), SIZES[-1])


def choose(images: int, size: int, network: nn.Module, pretrained: bool = False, epochs: int | None = None) -> Choices:
    """Choose the settings of a training.

    Args:
        images: Number of training images.
        size: Size of images in training.
        network: The student.
        pretrained: Whether it starts from pretrained weights.
        epochs: Number of epochs; None for the table's.
    """
    row = next(row for row in BY_IMAGES if images <= row.images)
    batch_size = max(2, min(row.batch_size, images // 4))
    kind = WITH_BATCH_NORM if any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules()) else WITHOUT
    rate = (kind.pretrained_lr if pretrained else kind.lr) * batch_size / 64
    epochs = epochs or row.epochs
    return Choices(
        epochs=epochs,
        batch_size=batch_size,
        size=size,
        area=row.area,
        optimizer=dict(kind.optimizer, lr=float(f'{rate:.3g}')),
        warm_up=min(max(1, round(WARM_UP * epochs)), epochs - 1),
        workers=2 if size >= LARGE else 0,
        drop_last=images % batch_size == 1,
    )
