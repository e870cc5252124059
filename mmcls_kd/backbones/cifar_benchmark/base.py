"""The common part of the benchmark's networks: features, maps before the ReLU, batch norms before it."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


class Place(NamedTuple):
    """A tensor in a network: the output, or the input, of a module."""

    path: str
    goes_in: bool = False


class BenchmarkNetwork(nn.Module):
    """A classifier of the benchmark; a subclass computes logits in ``forward`` and states the places of its features.

    Attributes:
        image_size: Height and width of the benchmark's images.
        stem: Path of the module that returns the first feature.
        stage_places: Places of the stages' maps, shallow to deep.
        preact_places: Places of the same maps before their ReLU; None where there are none.
        no_preacts: The reason, where there are none.
        norm_paths: Paths of the batch norms that end before the stages' ReLUs; empty where there are none.
        no_norms: The reason, where there are none.
        classifier_path: Path of the linear layer.
    """

    image_size = 32
    stem = 'relu'
    classifier_path = 'linear'
    stage_places: tuple[Place, ...]
    preact_places: tuple[Place, ...] | None
    norm_paths: tuple[str, ...] = ()
    no_preacts = ''
    no_norms = ''

    def features(self, images: Tensor) -> tuple[list[Tensor], list[Tensor] | None, Tensor]:
        """Run the network once.

        Args:
            images: Images, (N, 3, H, W).

        Returns:
            The features: stem, stages, input of the classifier; the same with the stages before their ReLU, or None where
            there are none; the logits, (N, C).
        """
        first, last = Place(self.stem), Place(self.classifier_path, goes_in=True)
        preacts = self.preact_places
        found: dict[Place, Tensor] = {}
        handles = [self._keep(place, found) for place in {first, last, *self.stage_places, *(preacts or ())}]
        try:
            logit = self(images)
        finally:
            for handle in handles:
                handle.remove()
        features = [found[place] for place in (first, *self.stage_places, last)]
        return features, None if preacts is None else [found[place] for place in (first, *preacts, last)], logit

    def _keep(self, place: Place, found: dict[Place, Tensor]) -> RemovableHandle:
        """Keep the tensor of a place in the next forward pass."""
        module = self.get_submodule(place.path)
        if place.goes_in:
            return module.register_forward_pre_hook(lambda _module, args: found.__setitem__(place, args[0]))
        return module.register_forward_hook(lambda _module, _args, output: found.__setitem__(place, output))

    def bn_before_relu(self) -> list[nn.BatchNorm2d]:
        """Return the batch norm before the ReLU of each stage.

        Raises:
            ValueError: If the stages end otherwise.
        """
        if not self.norm_paths:
            raise ValueError(f'{type(self).__name__} has no batch norm alone before the ReLU of each stage: {self.no_norms}')
        return [self.get_submodule(path) for path in self.norm_paths]  # type: ignore[misc]


def conv3x3(in_channels: int, out_channels: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Return a 3×3 convolution without bias that keeps the size at stride 1."""
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, groups=groups, bias=False)


def conv1x1(in_channels: int, out_channels: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Return a 1×1 convolution without bias."""
    return nn.Conv2d(in_channels, out_channels, 1, stride, groups=groups, bias=False)


def pooled(feat: Tensor) -> Tensor:
    """Average a map over its places, (N, C)."""
    return feat.mean(dim=(2, 3))


def init_by_fan_out(network: nn.Module) -> None:
    """Draw the convolutions from N(0, 2 / fan-out) (Kaiming's for ReLU), in place; other layers keep torch's values."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')


def init_by_outputs(network: nn.Module) -> None:
    """Draw the convolutions from N(0, 2 / (k² · output channels)), in place: a depthwise one's groups do not count.

    The biases of convolutions become 0.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=math.sqrt(2 / (math.prod(module.kernel_size) * module.out_channels)))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
