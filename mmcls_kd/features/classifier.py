"""The linear classifier of a network whose logits are made of the pooled last map."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .dry_run import DryRun, evaluating, uncompiled
from .taps import Tap, record, tap


def linear_classifier(network: nn.Module, found: DryRun, taps: Mapping[str, Tap]) -> str | None:
    """Find the linear layer that makes the logits of the mean of ``feat`` over its places.

    The mean is compared with the layer's input on random images, so the layer's own weights, which may be 0, do not count.

    Args:
        network: A classifier.
        found: Its dry run.
        taps: Its taps, by name.

    Returns:
        The path of the layer; None where another layer makes the logits, they are made of another vector, or ``feat`` is no
        map.
    """
    if found.linear_path is None or found.vector_place is None or 'feat' not in taps:
        return None
    path, index, goes_in = found.vector_place
    places = {'feat': taps['feat'], 'vector': tap(found, [path], 'flat', index, goes_in=goes_in)}
    with torch.random.fork_rng(devices=[]), evaluating(network), uncompiled(network), torch.no_grad():
        images = torch.randn(2, found.channels, *found.size).to(next(network.parameters()))
        with record(network, places) as tensors:
            network(images)
    vector, feat = tensors['vector'], tensors['feat']
    if feat.dim() != 4:  # a tap of the user's, of another form
        return None
    mean, largest = feat.mean(dim=(2, 3)), vector.abs().max()
    same = mean.shape == vector.shape and largest > 0 and (mean - vector).abs().max() < 1e-3 * largest
    return found.linear_path if same else None


def weight_and_bias(linear: nn.Module) -> tuple[Tensor, Tensor]:
    """Return the weight, (C, D), and the bias, (C,), of a linear layer or 1×1 convolution; zeros where it has no bias."""
    weight: Tensor = linear.weight.flatten(1)  # type: ignore[operator]
    bias = linear.bias
    return weight, weight.new_zeros(len(weight)) if bias is None else bias  # type: ignore[return-value]
