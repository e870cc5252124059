"""Classifiers of other libraries, and any module that returns logits, as classifiers of mmpretrain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torchvision
from mmengine.model import BaseModule
from mmpretrain.models.classifiers import BaseClassifier
from mmpretrain.models.heads import ClsHead, MultiLabelClsHead
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn
from torchvision.models import WeightsEnum

from ..backbones.cifar_benchmark import build
from ..errors import close_names
from ..features.dry_run import scores

#: Auxiliary classifiers, with which torchvision trains two models; they have no part in distillation.
AUXILIARY = ('aux1', 'aux2', 'AuxLogits')
#: The classification loss of several labels an image.
BINARY = dict(type='CrossEntropyLoss', use_sigmoid=True)


@MODELS.register_module()
class ModuleClassifier(BaseClassifier):
    """Any module from images to logits, as a classifier of mmpretrain.

    Args:
        model: The module, or its config: ``type`` is an import path (``'package.module.Class'``, or a function that returns
            it), the other keys are its keywords.
        loss: Config of the classification loss.
        train_cfg: Batch augmentation.
        data_preprocessor: Data preprocessor of the batch.
        init_cfg: As in mmengine.
        multi_label: Whether an image has several labels: sigmoids and the binary cross entropy, as in mmpretrain's
            multi-label heads.
    """

    def __init__(
        self,
        model: nn.Module | Mapping,
        loss: Mapping | None = None,
        train_cfg: Mapping | None = None,
        data_preprocessor: Mapping | None = None,
        init_cfg: Mapping | None = None,
        multi_label: bool = False,
    ) -> None:
        preprocessor = {'type': 'mmpretrain.ClsDataPreprocessor', **(data_preprocessor or {})}
        if train_cfg:
            preprocessor.setdefault('batch_augments', train_cfg)
        super().__init__(init_cfg=init_cfg, data_preprocessor=preprocessor)
        self.model: Any = model if isinstance(model, nn.Module) else MODELS.build(dict(model))
        if not isinstance(self.model, BaseModule):
            self.model.is_init = True  # it made its weights itself, or loaded them; mmengine would call its init_weights
        own = BINARY if multi_label else dict(type='CrossEntropyLoss')
        self.head = (MultiLabelClsHead if multi_label else ClsHead)(loss=dict(loss or own))

    def forward(
        self, inputs: Tensor, data_samples: list[DataSample] | None = None, mode: str = 'tensor'
    ) -> Tensor | list[DataSample] | dict[str, Tensor]:
        """Return logits, (N, C), for ``'tensor'``, losses for ``'loss'``, samples with predictions for ``'predict'``."""
        logit = scores(self.model(inputs))
        if mode == 'tensor':
            return logit
        if mode not in ('loss', 'predict'):
            raise ValueError(f"mode={mode!r}: choose one of 'tensor', 'loss', 'predict'")
        return getattr(self.head, mode)((logit,), data_samples)


@MODELS.register_module()
class TorchvisionClassifier(ModuleClassifier):
    """A classifier of torchvision.

    Args:
        model_name: Its name in ``torchvision.models``, e.g. ``'resnet50'``.
        weights: Name of torchvision's weights to load (``'DEFAULT'``, ``'IMAGENET1K_V2'``, or torchvision's object);
            None for random ones.
        loss: Config of the classification loss.
        train_cfg: Batch augmentation.
        data_preprocessor: Data preprocessor of the batch.
        init_cfg: As in mmengine.
        multi_label: Whether an image has several labels, see :class:`ModuleClassifier`.
        **keywords: Further keywords of the model, e.g. ``num_classes``.

    Attributes:
        weights: torchvision's object for its weights; None for random ones.

    Raises:
        ValueError: If torchvision has no such model, or no such weights for it (suggests close names).
    """

    def __init__(
        self,
        model_name: str,
        weights: str | WeightsEnum | None = None,
        loss: Mapping | None = None,
        train_cfg: Mapping | None = None,
        data_preprocessor: Mapping | None = None,
        init_cfg: Mapping | None = None,
        multi_label: bool = False,
        **keywords: Any,
    ) -> None:
        if weights is None and model_name in ('googlenet', 'inception_v3'):
            keywords.setdefault('init_weights', True)  # they warn where this is left open
        found = torchvision_weights(model_name, weights)
        model: Any = builder(model_name)(weights=found, **keywords)
        if getattr(model, 'aux_logits', False):
            model.aux_logits = False
            for name in AUXILIARY:
                if hasattr(model, name):
                    setattr(model, name, None)
        if hasattr(model, 'transform_input'):
            model.transform_input = False  # else it depended on where the weights come from
        super().__init__(model, loss, train_cfg, data_preprocessor, init_cfg, multi_label)
        self.model_name, self.weights = model_name, found
        self._register_load_state_dict_pre_hook(_drop_auxiliary)


@MODELS.register_module()
class CifarClassifier(ModuleClassifier):
    """A network of the CIFAR-100 distillation benchmark, see :func:`mmcls_kd.backbones.cifar_benchmark.build`.

    Args:
        model_name: Its published name, e.g. ``'resnet32x4'``.
        num_classes: Number of classes.
        loss: Config of the classification loss.
        train_cfg: Batch augmentation.
        data_preprocessor: Data preprocessor of the batch.
        init_cfg: As in mmengine.

    Raises:
        ValueError: If there is no such network (suggests close names).
    """

    def __init__(
        self,
        model_name: str,
        num_classes: int = 100,
        loss: Mapping | None = None,
        train_cfg: Mapping | None = None,
        data_preprocessor: Mapping | None = None,
        init_cfg: Mapping | None = None,
    ) -> None:
        super().__init__(build(model_name, num_classes), loss, train_cfg, data_preprocessor, init_cfg)
        self.model_name, self.num_classes = model_name, num_classes


def _drop_auxiliary(weights: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Drop weights of :data:`AUXILIARY` from torchvision's files, in place."""
    for key in [key for key in weights if key.startswith(tuple(f'{prefix}model.{name}.' for name in AUXILIARY))]:
        del weights[key]


def torchvision_weights(model_name: str, weights: str | WeightsEnum | None) -> WeightsEnum | None:
    """Return torchvision's object for the weights in a config; an unknown name is refused with close ones."""
    builder(model_name)
    known = torchvision.models.get_model_weights(model_name)
    try:
        return known.verify(weights)
    except (KeyError, TypeError) as error:
        names = [weight.name for weight in known]
        raise ValueError(
            f'torchvision has no weights {weights!r} for {model_name}, but DEFAULT, {", ".join(names)}'
            f'{close_names(str(weights), names)}'
        ) from error


def builder(model_name: str) -> Callable[..., nn.Module]:
    """Return the function that builds a classifier of torchvision; an unknown name is refused with close ones."""
    known = torchvision.models.list_models(module=torchvision.models)
    if model_name not in known:
        raise ValueError(f'torchvision has no classifier {model_name!r}{close_names(model_name, known)}')
    return torchvision.models.get_model_builder(model_name)
