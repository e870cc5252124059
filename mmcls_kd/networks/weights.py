"""What each library's own files of weights need before they fit its networks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import torch
from mmpretrain.models.classifiers import HuggingFaceClassifier
from torch import Tensor, nn


def as_in_memory(network: nn.Module, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Weights as a network has them, of weights as its library writes them into files.

    Hugging Face's files keep names, and sometimes shapes, of earlier versions, which it converts while it loads.

    Args:
        network: A classifier.
        weights: Any weights; those under the network's own names stay as they are.

    Returns:
        The weights; ones that do not fit are among them, ones that are missing are not.
    """
    if not isinstance(network, HuggingFaceClassifier) or weights.keys() == network.state_dict().keys():
        return weights
    inner = network.model
    with torch.random.fork_rng(devices=[]):
        made, info = type(inner).from_pretrained(
            None,
            config=inner.config,
            state_dict=dict(weights),
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    misshapen = {name: torch.empty(shape) for name, shape, _ in info['mismatched_keys']}
    unfit = {name: weights[name] for name in info['unexpected_keys'] if name in weights}
    found = {name: value for name, value in made.state_dict().items() if name not in info['missing_keys']}
    return OrderedDict({**found, **misshapen, **unfit})
