"""The networks of the CIFAR-100 distillation benchmark, in plain torch, under their published names.

The facts are those of RepDistiller (github.com/HobbitLong/RepDistiller, b84f547) and mdistiller
(github.com/megvii-research/mdistiller, a08d46f), whose networks are the same: names and order of the weights, so that the
published checkpoints load, layers, features and initialisation. Poolings before the classifier take maps of any size.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ...errors import close_names
from .base import BenchmarkNetwork
from .mobilenet import MobileNetV2
from .resnet import Bottleneck, CifarResNet, FourStageResNet, ShortcutBlock
from .shufflenet import ShuffleV1, ShuffleV2
from .vgg import COUNTS, VGG
from .wrn import WideResNet

__all__ = ['NETWORKS', 'BenchmarkNetwork', 'build', 'stage_count']

#: The networks by their published names.
NETWORKS: dict[str, Callable[..., BenchmarkNetwork]] = {
    **{f'resnet{depth}': partial(CifarResNet, depth) for depth in (8, 14, 20, 32, 44, 56, 110)},
    **{f'resnet{depth}x4': partial(CifarResNet, depth, (32, 64, 128, 256)) for depth in (8, 32)},
    **{f'wrn_{depth}_{widen}': partial(WideResNet, depth, widen) for depth in (16, 40) for widen in (1, 2)},
    **{f'vgg{depth}': partial(VGG, depth) for depth in COUNTS},
    'MobileNetV2': MobileNetV2,
    'ShuffleV1': ShuffleV1,
    'ShuffleV2': ShuffleV2,
    'ResNet18': partial(FourStageResNet, ShortcutBlock, (2, 2, 2, 2), (64, 128, 256, 512)),  # of Tiny-ImageNet
    'ResNet50': partial(FourStageResNet, Bottleneck, (3, 4, 6, 3), (256, 512, 1024, 2048)),
}


def build(name: str, num_classes: int = 100) -> BenchmarkNetwork:
    """Build a network of the benchmark with random weights, drawn as published.

    Args:
        name: One of :data:`NETWORKS`, e.g. ``'resnet32x4'``, ``'wrn_40_2'``, ``'MobileNetV2'``.
        num_classes: Number of classes.

    Raises:
        ValueError: If there is no such network (suggests close names).
    """
    return _maker(name)(num_classes=num_classes)


def stage_count(name: str) -> int:
    """Return the number of stages of a network, without building it.

    Raises:
        ValueError: If there is no such network (suggests close names).
    """
    maker: Any = _maker(name)
    return len(getattr(maker, 'func', maker).stage_places)


def _maker(name: str) -> Callable[..., BenchmarkNetwork]:
    """Return the callable that builds a network; refuse an unknown name."""
    if name not in NETWORKS:
        raise ValueError(
            f'the CIFAR benchmark has no network {name!r}{close_names(name, NETWORKS)}; it has {", ".join(NETWORKS)}'
        )
    return NETWORKS[name]
