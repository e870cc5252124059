"""Wide ResNets for images of 32 × 32, whose blocks begin with norm and ReLU."""

from __future__ import annotations

from torch import Tensor, nn

from .base import BenchmarkNetwork, Place, conv1x1, conv3x3, init_by_outputs, pooled


class PreactBlock(nn.Module):
    """Norm, ReLU and 3×3 convolution, twice, and a shortcut; nothing behind the sum."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.act1 = nn.ReLU()
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.act2 = nn.ReLU()
        self.conv2 = conv3x3(out_channels, out_channels)
        self.convShortcut = None if in_channels == out_channels else conv1x1(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum; where the width changes, the shortcut begins behind norm and ReLU."""
        active = self.act1(self.bn1(x))
        out = self.conv2(self.act2(self.bn2(self.conv1(active))))
        return out + (x if self.convShortcut is None else self.convShortcut(active))


class NetworkBlock(nn.Module):
    """A stage of blocks."""

    def __init__(self, count: int, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        later = (PreactBlock(out_channels, out_channels, 1) for _ in range(count - 1))
        self.layer = nn.Sequential(PreactBlock(in_channels, out_channels, stride), *later)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum at the end of the last block."""
        return self.layer(x)


class WideResNet(BenchmarkNetwork):
    """A wide ResNet.

    The maps of its stages are sums without a ReLU. The maps before the ReLU are the same ones behind the norm that follows,
    which runs once: the maps are read where it runs.

    Args:
        depth: Number of layers, 6n + 4 with n blocks in a stage.
        widen: Factor of the widths 16, 32, 64.
        num_classes: Number of classes.
    """

    stem = 'conv1'
    classifier_path = 'fc'
    stage_places = (Place('block1'), Place('block2'), Place('block3'))
    norm_paths = ('block2.layer.0.bn1', 'block3.layer.0.bn1', 'bn1')
    preact_places = tuple(Place(path) for path in norm_paths)

    def __init__(self, depth: int, widen: int = 1, num_classes: int = 100) -> None:
        super().__init__()
        count = (depth - 4) // 6
        self.conv1 = conv3x3(3, 16)
        self.block1 = NetworkBlock(count, 16, 16 * widen, 1)
        self.block2 = NetworkBlock(count, 16 * widen, 32 * widen, 2)
        self.block3 = NetworkBlock(count, 32 * widen, 64 * widen, 2)
        self.bn1 = nn.BatchNorm2d(64 * widen)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(64 * widen, num_classes)
        init_by_outputs(self)
        nn.init.zeros_(self.fc.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, (N, C), of images, (N, 3, H, W)."""
        x = self.block3(self.block2(self.block1(self.conv1(images))))
        return self.fc(pooled(self.relu(self.bn1(x))))
