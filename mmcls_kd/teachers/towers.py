"""Image towers of Hugging Face as networks without classes: DINOv2, DINOv3, CLIP, SigLIP, MAE and others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..features.embedding import EmbeddingNetwork
from .hub import check_hub

#: The class of the image tower in a model of images and texts, by its ``model_type``.
IMAGE_TOWERS = {
    'clip': 'CLIPVisionModelWithProjection',
    'metaclip_2': 'MetaClip2VisionModelWithProjection',
    'siglip': 'SiglipVisionModel',
}


def is_tower(transformers: Any, name: str) -> bool:
    """Check whether a model was saved without a classifier, by the class in its config; False if there is no config.

    Args:
        transformers: The library.
        name: Name of the model, or its folder.

    Raises:
        ValueError: If the model cannot be had, see :func:`.hub.check_hub`.
    """
    check_hub(name)
    try:
        config, _ = transformers.PretrainedConfig.get_config_dict(name)
    except (OSError, ValueError):
        return False
    kinds = config.get('architectures') or []
    return bool(kinds) and not any('ForImageClassification' in kind for kind in kinds)


def load_tower(transformers: Any, name: str, pretrained: bool = True, **keywords: Any) -> nn.Module:
    """Build the image tower of a model.

    Args:
        transformers: The library.
        name: Name of the model, or its folder.
        pretrained: Whether to load its weights; else they are random.
        **keywords: Keywords of ``from_pretrained``, or of the config.

    Raises:
        ValueError: If the tower of such a model is unknown, or the model cannot be had.
    """
    check_hub(name)
    config, _ = transformers.PretrainedConfig.get_config_dict(name)
    kind = _tower_class(transformers, name, config)
    if 'vision_config' in config and 'projection_dim' in config:  # the tower's own config may have another
        keywords.setdefault('projection_dim', config['projection_dim'])
    if pretrained:
        model = kind.from_pretrained(name, **keywords)
    elif kind is transformers.AutoModel:
        model = kind.from_config(transformers.AutoConfig.from_pretrained(name, **keywords))
    else:
        model = kind(kind.config_class.from_pretrained(name, **keywords))
    if hasattr(model.config, 'mask_ratio'):
        model.config.mask_ratio = 0.0  # a masked autoencoder hides patches in eval mode too
    return make_trainable(model)


def make_trainable(model: Any) -> nn.Module:
    """Prepare a model of transformers for training, in place.

    The network computes in float32: transformers 5 keeps the precision of its file. Batch norms with TensorFlow's momentum
    (of EfficientNet 0.99, MobileNet 0.997 and 0.9997) get torch's, 0.1: in torch it is the weight of the last batch, of
    which alone they would keep the statistics.
    """
    if hasattr(model.config, 'dtype'):
        model.config.dtype = torch.float32  # of networks that are made of this config
    for norm in of_the_last_batch(model):
        norm.momentum = 0.1
    return model.float()


def of_the_last_batch(network: nn.Module) -> list[Any]:
    """Return the batch norms whose running statistics are, for more than half, those of the last batch."""
    return [part for part in network.modules() if isinstance(part, _BatchNorm) and (part.momentum or 0) > 0.5]


def _tower_class(transformers: Any, name: str, config: Mapping[str, Any]) -> Any:
    """Return the class of a model's image tower."""
    model_type = config.get('model_type')
    kinds = [IMAGE_TOWERS.get(str(model_type)), *(k for k in config.get('architectures') or () if 'VisionModel' in k)]
    kind = next(filter(None, kinds), None)
    if kind is None and 'vision_config' in config:
        raise ValueError(
            f'{name}: the image tower of a {model_type!r} model is not known here, but those of {", ".join(IMAGE_TOWERS)}: '
            'save the tower by itself (save_pretrained) and name that folder'
        )
    return getattr(transformers, kind or 'AutoModel')


def in_order(model: Any, images: Tensor) -> dict[str, Tensor]:
    """Return the keywords that keep the patches of a masked autoencoder in their order; it shuffles them otherwise.

    Args:
        model: A tower.
        images: Images, (N, C, H, W).
    """
    if not hasattr(model.config, 'mask_ratio'):
        return {}
    patch = model.config.patch_size
    count = (images.shape[2] // patch) * (images.shape[3] // patch)
    return {'noise': torch.arange(count, device=images.device, dtype=torch.float32).expand(len(images), -1)}


class Tower(EmbeddingNetwork):
    """An image tower as a network without classes."""

    def forward(self, images: Tensor) -> Tensor:
        """Return the embeddings of images, (N, D)."""
        return self.pool(self.model(images, **in_order(self.model, images)))
