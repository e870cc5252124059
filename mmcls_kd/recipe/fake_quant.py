"""Fake quantisation: in training, a network computes with weights and activations that are rounded to 8 bits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import listed

#: Kinds of layers whose weight and input an int8 file holds in 8 bits.
LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
#: Smallest scale, for tensors of zeros.
SMALLEST = torch.finfo(torch.float32).tiny


def quantised_weight(weight: Tensor) -> Tensor:
    r"""Round a weight to 8 bits: symmetric, with a scale for each output channel.

    .. math:: s_c = \max |w_c| / 127, \quad w_c \to s_c \operatorname{round}(w_c / s_c)

    The gradient passes through unchanged. A factor for each output channel may be applied before or after, with the same
    result, so the rounding of a convolution is that of the folded one that batch normalisation follows.

    Args:
        weight: Weight of a convolution or linear layer, output channels first.

    Example:
        >>> quantised_weight(torch.tensor([[1.27, 0.504], [127.0, -50.4]]))
        tensor([[  1.2700,   0.5000],
                [127.0000, -50.0000]])
    """
    plain = weight.float()
    scale = (plain.detach().abs().flatten(1).amax(dim=1) / 127).clamp_min(SMALLEST)
    zeros = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(plain, scale, zeros, 0, -127, 127).to(weight.dtype)


def quantised_input(tensor: Tensor, symmetric: bool = False) -> Tensor:
    r"""Round an activation to 8 bits over the range of the batch, which includes zero.

    .. math:: s = (\max x - \min x) / 255, \quad z = \operatorname{round}(-\min x / s), \quad
        x \to s (\operatorname{clamp}(\operatorname{round}(x / s) + z, 0, 255) - z)

    The gradient passes through unchanged.

    Args:
        tensor: The activation.
        symmetric: Use :math:`z = 0` and integers from −127 to 127, as TensorRT does.

    Example:
        >>> quantised_input(torch.tensor([-1.0, 0.013, 0.5, 1.55]))
        tensor([-1.0000,  0.0100,  0.5000,  1.5500])
    """
    plain = tensor.float()
    with torch.no_grad():
        low, high = plain.amin().clamp(max=0), plain.amax().clamp(min=0)
        if symmetric:
            high = torch.maximum(high, -low)
            scale, zero, least, most = high / 127, torch.zeros_like(high), -127, 127
        else:
            scale, least, most = (high - low) / 255, 0, 255
            zero = (-low / scale.clamp_min(SMALLEST)).round()
        scale = scale.clamp_min(SMALLEST)
    return torch.fake_quantize_per_tensor_affine(plain, scale, zero.int(), least, most).to(tensor.dtype)


class FakeQuantisation:
    """Fake quantisation of a network's convolutions and linear layers while the network is in training mode.

    Each layer computes with its rounded weight and its rounded input. Parameters, their names and the state dict stay those
    of the network in float. Ranges are those of the batch, so there is no state to save. ``nn.MultiheadAttention`` computes
    its projections without a layer, in float.

    Args:
        network: The network.
        symmetric: See :func:`quantised_input`.

    Attributes:
        layers: The quantised layers by name.

    Raises:
        ValueError: If the network has none, or computes a weight in each pass.

    Example:
        >>> network = nn.Sequential(nn.Linear(2, 2, bias=False))
        >>> _ = network[0].weight.data.copy_(torch.tensor([[1.27, 0.504], [127.0, -50.4]]))
        >>> quantisation = FakeQuantisation(network)
        >>> network(torch.tensor([[0.0, 1.0]])).tolist()
        [[0.5, -50.0]]
        >>> quantisation.remove()
    """

    def __init__(self, network: nn.Module, symmetric: bool = False) -> None:
        uncalled = {
            id(module.out_proj)  # its weight is read by the attention
            for module in network.modules()
            if isinstance(module, nn.MultiheadAttention) and type(module).forward is nn.MultiheadAttention.forward
        }
        self.layers = {
            name: module
            for name, module in network.named_modules()
            if isinstance(module, LAYERS) and id(module) not in uncalled
        }
        if not self.layers:
            raise ValueError(f'{type(network).__name__} has no convolution and no linear layer to quantise')
        if computed := [name for name, layer in self.layers.items() if 'weight' not in layer._parameters]:
            raise ValueError(
                f'the weight of {listed(computed)} is computed in each pass (weight norm, spectral norm, pruning), and '
                'cannot be rounded: remove that from the network, or train it without fake quantisation'
            )
        self.network, self.symmetric = network, symmetric
        self.handles: list[Any] = []
        for layer in self.layers.values():
            self.handles.append(layer.register_forward_pre_hook(self._enter))
            self.handles.append(layer.register_forward_hook(self._leave, always_call=True))

    def _enter(self, layer: nn.Module, inputs: tuple) -> tuple:
        """Let a layer compute with its rounded weight, which hides the parameter, and its rounded input."""
        if not self.network.training:
            return inputs
        vars(layer)['weight'] = quantised_weight(layer._parameters['weight'])  # type: ignore[arg-type]
        return (quantised_input(inputs[0], self.symmetric), *inputs[1:])

    @staticmethod
    def _leave(layer: nn.Module, *_: Any) -> None:
        """Show a layer's parameter again."""
        vars(layer).pop('weight', None)

    def remove(self) -> None:
        """Return the network to float."""
        for handle in self.handles:
            handle.remove()
