"""Two views of each image on their way from the dataloader to the distiller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

#: How to give a second view of each image in a config.
PIPELINE = (
    'put the random transforms of train_pipeline into TwoViews, right before PackInputs, such as '
    "dict(type='TwoViews', weak=[dict(type='RandomCrop', crop_size=32, padding=4), dict(type='RandomFlip', prob=0.5)]), "
    "dict(type='PackInputs') (docs/two_views.md)"
)


def is_pair(inputs: Any) -> bool:
    """Check whether the inputs of a batch are two views, each a list of images (C, H, W) or a tensor (N, C, H, W).

    Example:
        >>> image = torch.zeros(3, 4, 4)
        >>> is_pair([[image], [image]]), is_pair([image, image])
        (True, False)
    """
    return (
        isinstance(inputs, (list, tuple))
        and len(inputs) == 2
        and all(isinstance(view, (list, tuple)) or (isinstance(view, Tensor) and view.dim() == 4) for view in inputs)
    )


def take_pairs(preprocessor: nn.Module) -> None:
    """Let a data preprocessor take two views of each image, in place: it preprocesses both alike.

    In training it returns both, (weak, strong), else the weak one. Mixup and CutMix mix both alike: with the same images,
    shares and boxes.

    Args:
        preprocessor: A preprocessor such as ``ClsDataPreprocessor``.
    """
    preprocessor.forward = MethodType(_both_views, preprocessor)


def _both_views(self: Any, data: Mapping[str, Any], training: bool = False) -> dict[str, Any]:
    """Preprocess a batch of one or two views."""
    forward = type(self).forward
    inputs = data['inputs']
    if not is_pair(inputs):
        return forward(self, data, training)
    augment = getattr(self, 'batch_augments', None) if training else None
    made = dict(forward(self, {**data, 'inputs': inputs[0]}, training and not augment))
    if not training:
        return made
    strong = forward(self, {'inputs': inputs[1]}, training and not augment)['inputs']
    made['inputs'] = _mixed(augment, made['inputs'], strong, made['data_samples']) if augment else (made['inputs'], strong)
    return made


def _mixed(augment: Any, weak: Tensor, strong: Tensor, samples: Sequence[Any]) -> tuple[Tensor, Tensor]:
    """Mix both views alike, as more channels of one image, and set the mixed labels."""
    if not all('gt_score' in sample for sample in samples):
        return weak, strong
    both, scores = augment(torch.cat([weak, strong], dim=1), torch.stack([sample.gt_score for sample in samples]))
    for sample, score in zip(samples, scores, strict=True):
        sample.set_gt_score(score)
    weak, strong = (view.contiguous() for view in both.chunk(2, dim=1))
    return weak, strong
