"""ShuffleNets, the first and the second, for images of 32 × 32."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import BenchmarkNetwork, Place, conv1x1, conv3x3, pooled


def shuffled(x: Tensor, groups: int) -> Tensor:
    """Interleave the channels of so many groups."""
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


class GroupBlock(nn.Module):
    """Grouped 1×1, depthwise 3×3 and grouped 1×1 convolution; at stride 2 the pooled input is joined, else added."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, groups: int) -> None:
        super().__init__()
        out_channels -= in_channels if stride == 2 else 0
        inner = out_channels // 4
        self.stride, self.groups = stride, 1 if in_channels == 24 else groups
        self.conv1 = conv1x1(in_channels, inner, groups=self.groups)
        self.bn1 = nn.BatchNorm2d(inner)
        self.act1 = nn.ReLU()
        self.conv2 = conv3x3(inner, inner, stride, groups=inner)
        self.bn2 = nn.BatchNorm2d(inner)
        self.act2 = nn.ReLU()
        self.conv3 = conv1x1(inner, out_channels, groups=groups)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return the map after the ReLU."""
        out = shuffled(self.act1(self.bn1(self.conv1(x))), self.groups)
        out = self.bn3(self.conv3(self.act2(self.bn2(self.conv2(out)))))
        if self.stride == 2:
            return self.act(torch.cat([out, F.avg_pool2d(x, 3, 2, padding=1)], dim=1))
        return self.act(out + x)


class ShuffleV1(BenchmarkNetwork):
    """A ShuffleNet of three groups.

    Args:
        num_classes: Number of classes.
    """

    stage_places = tuple(Place(f'layer{i}') for i in (1, 2, 3))
    preact_places = tuple(Place(f'layer{i}.{last}.act', goes_in=True) for i, last in ((1, 3), (2, 7), (3, 3)))
    no_norms = 'the benchmark names none for ShuffleNets, whose stages end in a sum with activated maps'

    def __init__(self, num_classes: int = 100) -> None:
        super().__init__()
        self.conv1 = conv1x1(3, 24)
        self.bn1 = nn.BatchNorm2d(24)
        self.relu = nn.ReLU()
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(GroupBlock(before, width, 2, 3), *(GroupBlock(width, width, 1, 3) for _ in range(count - 1)))
            for before, width, count in ((24, 240, 4), (240, 480, 8), (480, 960, 4))
        )
        self.linear = nn.Linear(960, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, (N, C), of images, (N, 3, H, W)."""
        x = self.relu(self.bn1(self.conv1(images)))
        return self.linear(pooled(self.layer3(self.layer2(self.layer1(x)))))


class SplitBlock(nn.Module):
    """A block that keeps one half of the channels and computes the other, then interleaves both."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = conv1x1(half, half)
        self.bn1 = nn.BatchNorm2d(half)
        self.act1 = nn.ReLU()
        self.conv2 = conv3x3(half, half, groups=half)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = conv1x1(half, half)
        self.bn3 = nn.BatchNorm2d(half)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return the map; the kept half is activated already, so a ReLU on both halves changes the computed one alone."""
        kept, out = x.chunk(2, dim=1)
        out = self.bn2(self.conv2(self.act1(self.bn1(self.conv1(out)))))
        return shuffled(self.act(torch.cat([kept, self.bn3(self.conv3(out))], dim=1)), 2)


class DownBlock(nn.Module):
    """A block of stride 2 that computes both halves of its channels, then interleaves them."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.conv1 = conv3x3(in_channels, in_channels, 2, groups=in_channels)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv2 = conv1x1(in_channels, half)
        self.bn2 = nn.BatchNorm2d(half)
        self.act2 = nn.ReLU()
        self.conv3 = conv1x1(in_channels, half)
        self.bn3 = nn.BatchNorm2d(half)
        self.act3 = nn.ReLU()
        self.conv4 = conv3x3(half, half, 2, groups=half)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = conv1x1(half, half)
        self.bn5 = nn.BatchNorm2d(half)
        self.act5 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return the map after the ReLU."""
        first = self.act2(self.bn2(self.conv2(self.bn1(self.conv1(x)))))
        second = self.bn4(self.conv4(self.act3(self.bn3(self.conv3(x)))))
        return shuffled(torch.cat([first, self.act5(self.bn5(self.conv5(second)))], dim=1), 2)


class ShuffleV2(BenchmarkNetwork):
    """A ShuffleNetV2 of size 1.

    Args:
        num_classes: Number of classes.
    """

    stage_places = tuple(Place(f'layer{i}') for i in (1, 2, 3))
    preact_places = tuple(Place(f'layer{i}.{last}.act', goes_in=True) for i, last in ((1, 3), (2, 7), (3, 3)))
    no_norms = 'the benchmark names none for ShuffleNets, whose stages end in two halves of which one is activated before'

    def __init__(self, num_classes: int = 100) -> None:
        super().__init__()
        self.conv1 = conv1x1(3, 24)
        self.bn1 = nn.BatchNorm2d(24)
        self.relu = nn.ReLU()
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(DownBlock(before, width), *(SplitBlock(width) for _ in range(count)))
            for before, width, count in ((24, 116, 3), (116, 232, 7), (232, 464, 3))
        )
        self.conv2 = conv1x1(464, 1024)
        self.bn2 = nn.BatchNorm2d(1024)
        self.relu2 = nn.ReLU()
        self.linear = nn.Linear(1024, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, (N, C), of images, (N, 3, H, W)."""
        x = self.relu(self.bn1(self.conv1(images)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(pooled(self.relu2(self.bn2(self.conv2(x)))))
