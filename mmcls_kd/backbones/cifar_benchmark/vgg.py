"""VGG networks with batch norm for images of 32 × 32."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from .base import BenchmarkNetwork, Place, init_by_outputs, pooled

#: Number of convolutions in each of the five blocks, by number of layers.
COUNTS = {8: (1, 1, 1, 1, 1), 11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
WIDTHS = (64, 128, 256, 512, 512)


class VGG(BenchmarkNetwork):
    """A VGG network of five blocks; the last two have maps of the same size unless the images have 64 × 64 or more.

    Args:
        depth: Number of layers: 8, 11, 13, 16 or 19.
        num_classes: Number of classes.
    """

    stem = 'act0'
    classifier_path = 'classifier'
    stage_places = tuple(Place(f'act{i}') for i in range(1, 5))
    preact_places = tuple(Place(f'block{i}') for i in range(1, 5))

    def __init__(self, depth: int, num_classes: int = 100) -> None:
        super().__init__()
        counts = COUNTS[depth]
        for i, (before, width, count) in enumerate(zip((3, *WIDTHS), WIDTHS, counts, strict=False)):
            self.add_module(f'block{i}', _block(before, width, count))
            self.add_module(f'act{i}', nn.ReLU())
        self.classifier = nn.Linear(WIDTHS[-1], num_classes)
        self.norm_paths = tuple(f'block{i}.{3 * counts[i] - 2}' for i in range(1, 5))
        init_by_outputs(self)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, (N, C), of images, (N, 3, H, W)."""
        x = images
        pooling = 4 if min(images.shape[2:]) >= 64 else 3
        for i in range(5):
            if 0 < i <= pooling:
                x = F.max_pool2d(x, 2)
            x = self.get_submodule(f'act{i}')(self.get_submodule(f'block{i}')(x))
        return self.classifier(pooled(x))


def _block(in_channels: int, out_channels: int, count: int) -> nn.Sequential:
    """Return convolutions with norms, a ReLU between them and none at the end."""
    layers: list[nn.Module] = []
    widths: Sequence[int] = (in_channels, *[out_channels] * (count - 1))
    for before in widths:
        layers += [nn.Conv2d(before, out_channels, 3, padding=1), nn.BatchNorm2d(out_channels), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
