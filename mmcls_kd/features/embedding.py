"""Networks without classes: towers and backbones that return one embedding an image."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor, nn

#: Names of the parameter that is the class token.
CLASS_TOKEN = r'(cls|class)_(token|embedding)$'
#: Attributes of an output that hold the embedding, the most pooled first.
POOLED = ('image_embeds', 'pooler_output')


def pooled_in(output: Any) -> Tensor | None:
    """Return the embedding, (N, D), in an output object; None if it has none."""
    found = (getattr(output, name, None) for name in POOLED)
    return next((tensor for tensor in found if isinstance(tensor, Tensor) and tensor.dim() == 2), None)


def has_classes(network: nn.Module, output: Any) -> bool:
    """Check whether a network's output is logits; a network that states 0 classes, or returns no tensor, has none."""
    if not isinstance(output, Tensor):
        return hasattr(output, 'logits')
    return all(getattr(owner, 'num_classes', None) != 0 for owner in (network, getattr(network, 'model', None)))


class Pooling(nn.Module):
    """The last step of a network without classes: from its output to one embedding an image.

    Args:
        class_token: Whether the first token stands for the image; else the mean of all tokens does.
    """

    def __init__(self, class_token: bool) -> None:
        super().__init__()
        self.class_token = class_token

    def forward(self, output: Any) -> Tensor:
        """Return the embedding, (N, D).

        Args:
            output: A tensor (map, tokens or vector), the last of several, or an object with ``image_embeds``,
                ``pooler_output`` or ``last_hidden_state``.

        Raises:
            ValueError: If it is none of these.
        """
        found = output[-1] if isinstance(output, (list, tuple)) else output
        for name in (*POOLED, 'last_hidden_state'):
            if isinstance(getattr(output, name, None), Tensor):
                found = getattr(output, name)
                break
        if not isinstance(found, Tensor) or not 2 <= found.dim() <= 4:
            raise ValueError(f'an embedding is made of a map, tokens or a vector, not of {type(output).__name__}')
        if found.dim() == 4:
            return found.mean(dim=(2, 3))
        if found.dim() == 3:
            return found[:, 0] if self.class_token else found.mean(dim=1)
        return found


def has_class_token(network: nn.Module) -> bool:
    """Check whether a network has a class token."""
    return any(re.search(CLASS_TOKEN, name) for name, _ in network.named_parameters())


class EmbeddingNetwork(nn.Module):
    """Any network as one without classes, whose output is pooled to one embedding an image.

    Args:
        model: The network; it returns a feature map, tokens, a vector, the last of several, or an object with
            ``image_embeds``, ``pooler_output`` or ``last_hidden_state``.

    Example:
        >>> import torch
        >>> EmbeddingNetwork(nn.Conv2d(3, 4, 3))(torch.zeros(2, 3, 8, 8)).shape
        torch.Size([2, 4])
    """

    num_classes = 0

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.pool = Pooling(has_class_token(model))

    def forward(self, images: Tensor) -> Tensor:
        """Return the embeddings of images, (N, D)."""
        return self.pool(self.model(images))
