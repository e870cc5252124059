"""ResNets for images of 32 × 32: of basic blocks in three stages, and of four stages as on ImageNet."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from .base import BenchmarkNetwork, Place, conv1x1, conv3x3, init_by_fan_out, pooled


def _ends(blocks: Sequence[int], last_norm: str) -> dict[str, tuple]:
    """Return the places of the stages' maps before the ReLU of their last block, and the norms before it."""
    last = [f'layer{stage}.{count - 1}' for stage, count in enumerate(blocks, start=1)]
    return dict(
        preact_places=tuple(Place(f'{path}.act', goes_in=True) for path in last),
        norm_paths=tuple(f'{path}.{last_norm}' for path in last),
    )


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """Return the 1×1 convolution and norm of a shortcut that changes the shape; None where it does not."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(conv1x1(in_channels, out_channels, stride), nn.BatchNorm2d(out_channels))


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut, of which the sum goes through a ReLU."""

    shortcut_name = 'downsample'

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.act1 = nn.ReLU()
        self.conv2 = conv3x3(out_channels, out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.add_module(self.shortcut_name, _shortcut(in_channels, out_channels, stride))
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return the map after the ReLU."""
        out = self.bn2(self.conv2(self.act1(self.bn1(self.conv1(x)))))
        shortcut = getattr(self, self.shortcut_name)
        return self.act(out + (x if shortcut is None else shortcut(x)))


class ShortcutBlock(BasicBlock):
    """:class:`BasicBlock` under the names of the network of four stages."""

    shortcut_name = 'shortcut'


class CifarResNet(BenchmarkNetwork):
    """A ResNet of basic blocks in three stages.

    Args:
        depth: Number of layers, 6n + 2 with n blocks in a stage.
        widths: Number of channels of the stem and of each stage.
        num_classes: Number of classes.
    """

    classifier_path = 'fc'
    stage_places = tuple(Place(f'layer{i}') for i in (1, 2, 3))

    def __init__(self, depth: int, widths: Sequence[int] = (16, 16, 32, 64), num_classes: int = 100) -> None:
        super().__init__()
        count = (depth - 2) // 6
        self.conv1 = conv3x3(3, widths[0])
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU()
        self.layer1, self.layer2, self.layer3 = (
            _stage(BasicBlock, widths[i], widths[i + 1], count, stride) for i, stride in enumerate((1, 2, 2))
        )
        self.fc = nn.Linear(widths[-1], num_classes)
        vars(self).update(_ends([count] * 3, 'bn2'))
        init_by_fan_out(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, (N, C), of images, (N, 3, H, W)."""
        x = self.relu(self.bn1(self.conv1(images)))
        return self.fc(pooled(self.layer3(self.layer2(self.layer1(x)))))


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolution and a shortcut, of which the sum goes through a ReLU; four times as wide at its end."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        width = out_channels // 4
        self.conv1 = conv1x1(in_channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.act1 = nn.ReLU()
        self.conv2 = conv3x3(width, width, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.act2 = nn.ReLU()
        self.conv3 = conv1x1(width, out_channels)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.shortcut = _shortcut(in_channels, out_channels, stride)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return the map after the ReLU."""
        out = self.act2(self.bn2(self.conv2(self.act1(self.bn1(self.conv1(x))))))
        return self.act(self.bn3(self.conv3(out)) + (x if self.shortcut is None else self.shortcut(x)))


class FourStageResNet(BenchmarkNetwork):
    """ImageNet's ResNet of four stages with a 3×3 stem of stride 1 and no pooling behind it.

    Args:
        block: Class of its blocks.
        blocks: Number of blocks of each stage.
        widths: Number of channels of each stage.
        num_classes: Number of classes.
    """

    stage_places = tuple(Place(f'layer{i}') for i in (1, 2, 3, 4))

    def __init__(self, block: type[nn.Module], blocks: Sequence[int], widths: Sequence[int], num_classes: int = 100) -> None:
        super().__init__()
        self.conv1 = conv3x3(3, 64)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            _stage(block, before, width, count, stride)
            for before, width, count, stride in zip((64, *widths), widths, blocks, (1, 2, 2, 2), strict=False)
        )
        self.linear = nn.Linear(widths[-1], num_classes)
        vars(self).update(_ends(blocks, 'bn3' if block is Bottleneck else 'bn2'))
        init_by_fan_out(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, (N, C), of images, (N, 3, H, W)."""
        x = self.relu(self.bn1(self.conv1(images)))
        return self.linear(pooled(self.layer4(self.layer3(self.layer2(self.layer1(x))))))


def _stage(block: type[nn.Module], in_channels: int, out_channels: int, count: int, stride: int) -> nn.Sequential:
    """Return the blocks of a stage, of which the first one changes the shape."""
    later = (block(out_channels, out_channels, 1) for _ in range(count - 1))
    return nn.Sequential(block(in_channels, out_channels, stride), *later)
