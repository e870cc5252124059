"""What each library's own files of weights need before they fit its networks, and whether they are all there."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from mmpretrain.models.classifiers import HuggingFaceClassifier, TimmClassifier
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


def refuse_partial(network: nn.Module, role: str) -> None:
    """Refuse a network whose library has loaded its own weights in part and left the rest random.

    timm does so without a word where the number of classes is another, Hugging Face with a warning where a file has no head.

    Args:
        network: A classifier that has loaded its library's weights.
        role: Whose it is, for the message.

    Raises:
        ValueError: Names what would be random.
    """
    inner: Any = getattr(network, 'model', None)
    random: list[str] = []
    if isinstance(network, TimmClassifier):
        published = (getattr(inner, 'pretrained_cfg', None) or {}).get('num_classes')
        if published is not None and published != inner.num_classes:
            random = [f'the classifier of {inner.num_classes} classes, where the weights have {published}']
    elif isinstance(network, HuggingFaceClassifier):
        name, cfg = inner.config.name_or_path, inner.config
        _, info = type(inner).from_pretrained(name, config=cfg, output_loading_info=True)
        random = sorted(info['missing_keys'])
    if random:
        raise ValueError(
            f'the weights that come with the {role} do not fill it: random would stay {", ".join(random[:6])}. Take a '
            f'network that was trained to classify, or set model.{role}_pretrained to weights for these classes'
        )
