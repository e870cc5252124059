"""MobileNetV2 of half the width for images of 32 × 32."""

from __future__ import annotations

from torch import Tensor, nn

from .base import BenchmarkNetwork, Place, conv1x1, conv3x3, init_by_outputs, pooled

#: Expansion, channels at full width, number of blocks and stride of each group of blocks.
GROUPS = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class InvertedResidual(nn.Module):
    """Expansion, depthwise and linear 1×1 convolution; a shortcut where the shape stays."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = in_channels * expansion
        self.conv = nn.Sequential(
            conv1x1(in_channels, inner),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            conv3x3(inner, inner, stride, groups=inner),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            conv1x1(inner, out_channels),
            nn.BatchNorm2d(out_channels),
        )
        self.adds = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's map, behind which there is no ReLU."""
        return x + self.conv(x) if self.adds else self.conv(x)


class MobileNetV2(BenchmarkNetwork):
    """A MobileNetV2 with a stem of stride 2 and plain ReLUs.

    Args:
        width: Factor of the widths.
        num_classes: Number of classes.
    """

    stem = 'conv1'
    classifier_path = 'classifier.0'
    stage_places = tuple(Place(f'blocks.{i}') for i in (1, 2, 4, 6))
    preact_places = None
    no_preacts = no_norms = 'MobileNetV2’s blocks are linear at their end, with no ReLU behind them'

    def __init__(self, width: float = 0.5, num_classes: int = 100) -> None:
        super().__init__()
        before = int(32 * width)
        self.conv1 = nn.Sequential(conv3x3(3, before, 2), nn.BatchNorm2d(before), nn.ReLU())
        self.blocks = nn.ModuleList()
        for expansion, channels, count, stride in GROUPS:
            after = int(channels * width)
            first = InvertedResidual(before, after, stride, expansion)
            later = (InvertedResidual(after, after, 1, expansion) for _ in range(count - 1))
            self.blocks.append(nn.Sequential(first, *later))
            before = after
        self.conv2 = nn.Sequential(conv1x1(before, 1280), nn.BatchNorm2d(1280), nn.ReLU())
        linear = nn.Linear(1280, num_classes)
        self.classifier = nn.Sequential(linear)
        init_by_outputs(self)
        nn.init.normal_(linear.weight, std=0.01)
        nn.init.zeros_(linear.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, (N, C), of images, (N, 3, H, W)."""
        x = self.conv1(images)
        for group in self.blocks:
            x = group(x)
        return self.classifier(pooled(self.conv2(x)))
