"""Networks without classes in a config: image towers of Hugging Face, backbones of mmpretrain, and a head for them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import ConfigDict
from mmpretrain.models.classifiers import BaseClassifier, HuggingFaceClassifier
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor

from ..errors import need_library
from ..features.embedding import Pooling, has_class_token
from ..features.probes import with_linear_head
from ..teachers.towers import in_order, is_tower, load_tower
from .classifiers import ModuleClassifier
from .loading import load_strictly
from .sources import Source, find_network, kind_of
from .weights import rename_to_own


class _Embedding:
    """The answers of a network without classes in mmpretrain's modes."""

    num_classes = 0

    def forward(
        self, inputs: Tensor, data_samples: Sequence[DataSample] | None = None, mode: str = 'tensor'
    ) -> Tensor | list[DataSample]:
        """Return the embeddings, (N, D), for ``'tensor'``, samples with their ``embedding`` for ``'predict'``."""
        if mode not in ('tensor', 'predict'):
            raise ValueError(f'mode={mode!r}: a network without classes has no loss of its own: distil it')
        embedding = self.embed(inputs)  # type: ignore[attr-defined]
        return embedding if mode == 'tensor' else with_embedding(embedding, data_samples)


def with_embedding(embedding: Tensor, data_samples: Sequence[DataSample] | None) -> list[DataSample]:
    """Set the ``embedding`` of each sample; new samples if there are none."""
    samples = list(data_samples) if data_samples is not None else [DataSample() for _ in embedding]
    for sample, vector in zip(samples, embedding, strict=True):
        sample.set_field(vector, 'embedding')
    return samples


@MODELS.register_module()
class HuggingFaceTower(_Embedding, HuggingFaceClassifier):
    """An image tower of Hugging Face, such as DINOv2, DINOv3, CLIP, SigLIP or MAE.

    Its embedding is the projected one (CLIP), else the pooled one, else the class token or the mean of the tokens.

    Args:
        model_name: Name of the model, or its folder.
        pretrained: Whether to load its weights.
        train_cfg: Batch augmentation.
        data_preprocessor: Data preprocessor of the batch.
        init_cfg: As in mmengine.
        **keywords: Keywords of ``from_pretrained``, or of the config.

    Raises:
        ValueError: If the tower of such a model is unknown.
    """

    #: Starts of the names of weights that belong to the text half, or to a masked autoencoder's decoder.
    other_half = ('text_model.', 'text_projection.', 'logit_scale', 'logit_bias', 'decoder.')

    def __init__(
        self,
        model_name: str,
        pretrained: bool = False,
        train_cfg: Mapping | None = None,
        data_preprocessor: Mapping | None = None,
        init_cfg: Mapping | None = None,
        **keywords: Any,
    ) -> None:
        need_library('transformers', 'HuggingFaceTower', 'hf')
        import transformers

        BaseClassifier.__init__(self, init_cfg=init_cfg, data_preprocessor=_preprocessor(data_preprocessor, train_cfg))
        self.model = load_tower(transformers, model_name, pretrained, **keywords)
        self.pool = Pooling(has_class_token(self.model))
        self._register_state_dict_hook(self._remove_state_dict_prefix)
        self._register_load_state_dict_pre_hook(self._add_state_dict_prefix)

    def embed(self, inputs: Tensor) -> Tensor:
        """Return the embeddings of images, (N, D)."""
        return self.pool(self.model(inputs, **in_order(self.model, inputs)))


@MODELS.register_module()
class BackboneNetwork(_Embedding, BaseClassifier):
    """A backbone of mmpretrain without a head.

    Its embedding is the mean of its last map, or its vector (the class token, by the backbone's ``out_type``). Weights of a
    whole classifier fill it; their ``neck`` and ``head`` are left out.

    Args:
        backbone: Config of the backbone.
        train_cfg: Batch augmentation.
        data_preprocessor: Data preprocessor of the batch.
        init_cfg: As in mmengine.
    """

    def __init__(
        self,
        backbone: Mapping,
        train_cfg: Mapping | None = None,
        data_preprocessor: Mapping | None = None,
        init_cfg: Mapping | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg, data_preprocessor=_preprocessor(data_preprocessor, train_cfg))
        self.backbone: Any = MODELS.build(dict(backbone))
        self.pool = Pooling(has_class_token(self.backbone))
        masks = 'mask' in inspect.signature(self.backbone.forward).parameters  # those of masked image modelling
        self.unmasked = {'mask': None} if masks else {}
        self._register_load_state_dict_pre_hook(_drop_head)

    def embed(self, inputs: Tensor) -> Tensor:
        """Return the embeddings of images, (N, D)."""
        return self.pool(self.backbone(inputs, **self.unmasked))

    def extract_feat(self, inputs: Tensor) -> Any:
        """Return the backbone's features."""
        return self.backbone(inputs)


def _preprocessor(given: Mapping | None, train_cfg: Mapping | None) -> dict[str, Any]:
    """Return the config of a data preprocessor with batch augmentation."""
    return {
        'type': 'mmpretrain.ClsDataPreprocessor',
        **(given or {}),
        **({'batch_augments': train_cfg} if train_cfg else {}),
    }


def _drop_head(weights: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Drop the weights of neck and head, in place."""
    for key in [key for key in weights if key.startswith((f'{prefix}neck.', f'{prefix}head.'))]:
        del weights[key]


def find_teacher(source: str | Mapping) -> Source:
    """Find a teacher, as :func:`.sources.find_network` does; of Hugging Face a model without a classifier as a tower."""
    found = find_network(source)
    cfg = found.cfg
    if cfg.get('type') == 'HuggingFaceClassifier' and 'num_labels' not in cfg:
        found.cfg = _tower_or_classifier(cfg)
    return found


def _tower_or_classifier(cfg: ConfigDict) -> ConfigDict:
    """Return the config of a tower, if the model was saved as one; else the given one."""
    import transformers

    return _as_tower(cfg) if is_tower(transformers, cfg.model_name) else cfg


def _as_tower(cfg: Mapping) -> ConfigDict:
    """Return the config of a model of Hugging Face as that of its tower."""
    left_out = ('loss', 'with_cp', 'num_labels')
    return ConfigDict({**{key: value for key, value in cfg.items() if key not in left_out}, 'type': 'HuggingFaceTower'})


def lacks_classes(cfg: Mapping) -> bool:
    """Check whether the network of a config has no classes, without building it; False if unknown."""
    kind = kind_of(cfg)
    if kind != 'TimmClassifier':
        return kind in ('HuggingFaceTower', 'BackboneNetwork')
    if 'num_classes' in cfg:
        return cfg['num_classes'] == 0
    import timm

    published = timm.models.get_pretrained_cfg(str(cfg.get('model_name')))
    return published is not None and published.num_classes == 0


def without_classes(cfg: Mapping) -> ConfigDict:
    """Return the config of a network without its classifier.

    Raises:
        ValueError: If there is no such form of this kind of network.
    """
    kind = kind_of(cfg)
    if kind == 'TimmClassifier':
        return ConfigDict({**cfg, 'num_classes': 0})
    if kind == 'HuggingFaceClassifier':
        return _as_tower(cfg)
    if kind == 'ImageClassifier':
        return find_network({**cfg, 'head': None}).cfg
    if lacks_classes(cfg):
        return ConfigDict(cfg)
    raise ValueError(
        f'the student of a teacher without classes has none either, and a {kind} has no form without: give a network of '
        'timm (`timm:NAME`), Hugging Face (`hf:NAME`) or mmpretrain (its name)'
    )


@MODELS.register_module()
class LinearHeadClassifier(ModuleClassifier):
    """A network without classes with a linear classifier behind it, to train on labels.

    Args:
        network: The network, in any form of :func:`~mmcls_kd.networks.sources.find_network`.
        num_classes: Number of classes.
        pretrained: File of its weights, such as a distiller's checkpoint; True for those of its library.
        frozen: Whether the classifier alone learns (a linear probe); else all does (fine-tuning).
        loss: Config of the classification loss.
        train_cfg: Batch augmentation.
        data_preprocessor: Data preprocessor of the batch.
        init_cfg: As in mmengine.
        multi_label: Whether an image has several labels, see :class:`~.classifiers.ModuleClassifier`.

    Raises:
        ValueError: If the network has classes, or the weights do not fit.
    """

    def __init__(
        self,
        network: str | Mapping,
        num_classes: int,
        pretrained: str | bool | None = None,
        frozen: bool = False,
        loss: Mapping | None = None,
        train_cfg: Mapping | None = None,
        data_preprocessor: Mapping | None = None,
        init_cfg: Mapping | None = None,
        multi_label: bool = False,
    ) -> None:
        source = find_network(network)
        cfg, weights = source.with_weights(pretrained, 'student')
        backbone = MODELS.build(cfg).float()
        if weights:
            load_strictly(backbone, weights, 'student')
        if pretrained:
            backbone.is_init = True
        given = data_preprocessor or cfg.get('data_preprocessor')
        super().__init__(with_linear_head(backbone, num_classes, frozen), loss, train_cfg, given, init_cfg, multi_label)
        self.model.is_init = True
        self._register_state_dict_hook(_own_names_inside)


def _own_names_inside(classifier: LinearHeadClassifier, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Rename the backbone in a state dict to its own names, in place."""
    rename_to_own(state, f'{prefix}model.backbone.', classifier.model.backbone)
