"""Sources of networks: the forms of a teacher or student in a config, turned into the config of a classifier."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from importlib import import_module
from logging import WARNING
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log
from mmpretrain.apis import list_models
from mmpretrain.apis.model import ModelHub
from mmpretrain.models.backbones.base_backbone import BaseBackbone
from mmpretrain.models.classifiers import BaseClassifier
from mmpretrain.registry import DATASETS, MODELS

from ..backbones.cifar_benchmark import stage_count
from ..configs.reading import read_config
from ..errors import close_names, need_library
from ..files.plain_data import MEND, plain_config
from ..teachers.hub import check_hub
from ..teachers.inputs import VALUES
from .pixels import output_spec
from .trial import UnclearError, pipeline_images
from .zero_shot import settle

#: Prefixes of names: the library, the classifier that wraps its networks, and the extra that installs it.
LIBRARIES = {
    'timm': ('timm', 'TimmClassifier', 'timm'),
    'hf': ('transformers', 'HuggingFaceClassifier', 'hf'),
    'torchvision': ('torchvision', 'TorchvisionClassifier', None),
    'cifar': ('torch', 'CifarClassifier', None),  # the networks of the CIFAR-100 distillation benchmark
}
#: Keywords that make each classifier load its library's own weights, into the library's own cache.
OWN_WEIGHTS: dict[str, dict[str, Any]] = {
    'TimmClassifier': dict(pretrained=True),
    'HuggingFaceClassifier': dict(pretrained=True),
    'HuggingFaceTower': dict(pretrained=True),
    'TorchvisionClassifier': dict(weights='DEFAULT'),
    'ZeroShotClassifier': {},
}
#: Further keywords that load weights.
FURTHER_WEIGHTS = {'TimmClassifier': ('checkpoint_path',), 'ZeroShotClassifier': ('model',)}
#: Suffixes of files of weights.
WEIGHTS_SUFFIXES = ('.pth', '.pt', '.ckpt', '.safetensors', '.bin', '.tar', '.onnx')
#: Key of the published facts in a network's config that was taken out of its file.
PUBLISHED = 'published'
#: Settings of a classifier that are not its module's.
AROUND = ('loss', 'train_cfg', 'data_preprocessor', 'init_cfg')

#: How timm's names of folders begin.
LOCAL = 'local-dir:'


class MissingFolderError(FileNotFoundError):
    """A network is a folder that is not there."""


@dataclass
class Source:
    """The known facts about a network before it is built.

    Attributes:
        cfg: Config of the classifier.
        pixels: Input preprocessing in the config, see :mod:`.pixels`.
        weights: Address of its published weights, if the config does not load them itself.
        classes: The classes of its training: their names, or the mmpretrain data set that defines them.
        unclear: Settings of its input preprocessing that are missing in the config, each with the reason.
    """

    cfg: ConfigDict
    pixels: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None
    classes: Sequence[str] | str | None = None
    unclear: dict[str, str] = field(default_factory=dict)

    @property
    def in_full(self) -> ConfigDict:
        """All of it as one config for :func:`find_network`."""
        published = {key: value for key in ('pixels', 'weights', 'classes', 'unclear') if (value := getattr(self, key))}
        return ConfigDict({**self.cfg, **({PUBLISHED: published} if published else {})})

    @property
    def class_names(self) -> list[str] | None:
        """Names of the classes of its training, if its config defines them."""
        if not isinstance(self.classes, str):
            return [str(name) for name in self.classes] if self.classes else None
        known = (getattr(DATASETS.get(self.classes), 'METAINFO', None) or {}).get('classes')
        return [str(name) for name in known] if known else None

    @property
    def rgb_images(self) -> bool | None:
        """Whether the data set of its config gives RGB; None if it names none."""
        if 'to_rgb' not in self.pixels:
            return None
        return self.pixels['to_rgb'] != bool((self.cfg.get('data_preprocessor') or {}).get('to_rgb'))

    def as_trained(self, meta: Mapping[str, Any], weights: str, told: bool = True) -> Source:
        """Return it with the input preprocessing of the training whose config weights hold, where nothing else says it.

        Args:
            meta: The metadata, as of mmengine's checkpoints.
            weights: Where they are from, for messages.
            told: Whether to log what was found.
        """
        text = meta.get('cfg')
        if self.pixels or self.unclear or 'data_preprocessor' in self.cfg or not isinstance(text, str):
            return self
        try:
            cfg = plain_config(text, Path(weights))
            network = cfg.get('model') or {}
            places = (network, cfg, network.get('student_cfg') or {})  # of a distiller, its student's comes last
            own = next((place['data_preprocessor'] for place in places if place.get('data_preprocessor')), None)
            part = cfg.get('test_dataloader') or cfg.get('val_dataloader')
            model = {**self.cfg, 'data_preprocessor': own}
            trained = _of_config(dict(model=model, test_dataloader=part), weights, own_preprocessor=False)
        except Exception as error:  # of a program, of parts that are not here, or of settings that do not fit them
            reason = f'{type(error).__name__}: {str(error).partition(MEND)[0]}'
        else:
            if not trained.unclear:
                if told and trained.pixels:
                    print_log(f'{weights}: the images of its training are found in the config that it holds', 'current')
                return replace(self, pixels=trained.pixels)
            reason = next(iter(trained.unclear.values()))
        if told:
            print_log(
                f'{weights}: its config does not tell which images it was trained with ({reason}): they are taken as '
                'without it; model.teacher_pixels=dict(mean=..., std=..., to_rgb=..., size=...) can say it',
                'current',
                WARNING,
            )
        return self

    def with_weights(self, pretrained: str | bool | None, role: str) -> tuple[ConfigDict, str | None]:
        """Return the config of the network, and the file or address of weights to load afterwards; None if there are none.

        Args:
            pretrained: File, folder or address of weights; True for the pretrained weights of a library.
            role: Role of the network, for the message.

        Raises:
            ValueError: If this kind of network has no pretrained weights, or ``pretrained`` is none of these.
        """
        if pretrained is not None and not isinstance(pretrained, (str, bool)):
            raise ValueError(f'{role}_pretrained={pretrained!r}: give a file, a folder or an address, True or False')
        if pretrained is not True:
            return self.cfg, pretrained or None
        return (self.cfg, self.weights) if self.weights else (own_weights(self.cfg, role), None)


def find_network(source: str | Mapping) -> Source:
    """Find a network and the known facts about it, from any form in a config.

    Args:
        source: ``timm:NAME``, ``hf:NAME_OR_FOLDER``, ``torchvision:NAME``, ``cifar:NAME``; the path of a config, or the
            name of a model of mmpretrain's zoo; a whole config; a ``model`` dict, whose ``type`` may be the import path of
            any module.

    Raises:
        FileNotFoundError: If no config is found at that path.
        ValueError: If the config has no ``model``, or the library has no network of that name.
        MissingLibraryError: If the network's library is not installed.
    """
    if isinstance(source, str):
        library, _, name = source.partition(':')
        if library in LIBRARIES and name and not name.startswith(':'):
            return Source(_wrapped(ConfigDict(type=LIBRARIES[library][1], model_name=name)))
        if is_weights(source):
            raise ValueError(
                f'{source} is a file of weights, not a network: name the network here (timm:NAME, a config, ...) and the '
                'file where its weights belong (student_pretrained, teacher_pretrained)'
            )
        try:
            cfg = read_config(source)
        except FileNotFoundError as error:
            model = _zoo_model(source, error)
            return _of_config(model.config, source, model.weights)
    elif isinstance(source, (Mapping, Config)):
        cfg = source
    else:
        raise ValueError(f'a network is given by a path, a name or a dict, not by {source!r}')
    if 'type' in cfg:
        model = ConfigDict(copy.deepcopy(dict(cfg)))
        published = model.pop(PUBLISHED, {})
        return Source(_wrapped(model), **published)
    return _of_config(cfg, source if isinstance(source, str) else 'the config')


def is_weights(source: Any) -> bool:
    """Check whether the name of a network is that of a file of weights."""
    return (
        isinstance(source, str) and source.lower().endswith(WEIGHTS_SUFFIXES) and source.partition(':')[0] not in LIBRARIES
    )


def _zoo_model(name: str, error: FileNotFoundError) -> Any:
    """Return the entry of a model in mmpretrain's zoo."""
    if '/' in name or '::' in name or name.endswith('.py'):
        raise error
    try:
        return ModelHub.get(name)
    except ValueError:
        known = close_names(name, list_models())
        others = f'; other libraries’ names begin with the library: {", ".join(f"{library}:NAME" for library in LIBRARIES)}'
        raise FileNotFoundError(f'{error}, and mmpretrain has no model of that name{known}{others}') from error


def _of_config(cfg: Mapping, name: str, weights: str | None = None, own_preprocessor: bool = True) -> Source:
    """Parse a whole config: the network, its classes, and the preprocessing of its test pipeline and preprocessor.

    If the network will not have the config's preprocessor as its own, what that does is in the pixels, too.
    """
    if 'model' not in cfg:
        hint = "; a dict of a network’s parts needs type='ImageClassifier'" if 'backbone' in cfg else ''
        raise ValueError(
            f'{name} has neither `type`, as a network’s dict, nor `model`, as a whole config, so no network to build, but '
            f'{", ".join(map(str, cfg)) or "nothing at all"}{hint}'
        )
    model = ConfigDict(copy.deepcopy(dict(cfg['model'])))
    if cfg.get('data_preprocessor') and not model.get('data_preprocessor'):
        model['data_preprocessor'] = copy.deepcopy(cfg['data_preprocessor'])
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    classes = declared_classes(dataset)
    if not dataset:
        return Source(_wrapped(model), {}, weights, classes)
    found = pipeline_images(dataset, resizing=True)
    pixels = {key: value for key, value in found.pixels.items() if key not in VALUES}
    unclear = dict(found.unclear)
    plain = set(found.pixels.get('mean', ())) <= {0.0} and set(found.pixels.get('std', ())) <= {1.0}
    all_values = not plain or not own_preprocessor
    if (own := model.get('data_preprocessor')) or all_values:
        own = {k: v for k, v in {'type': 'mmpretrain.ClsDataPreprocessor', **(own or {})}.items() if k != 'batch_augments'}
        try:
            made = output_spec(MODELS.build(own), bool(found.pixels.get('to_rgb')), found.pixels)
        except UnclearError as error:
            unclear |= dict.fromkeys(VALUES, str(error))
        else:
            pixels |= {key: getattr(made, key) for key in VALUES if key not in unclear and (key == 'to_rgb' or all_values)}
    elif 'mean' not in unclear:  # they are as the student's
        unclear.pop('to_rgb', None)
    return Source(_wrapped(model), pixels, weights, classes, unclear)


def declared_classes(dataset: Mapping) -> Sequence[str] | str | None:
    """Return the classes in a data set's config: their names, or the data set that defines them; None if there are none."""
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    names = (dataset.get('metainfo') or {}).get('classes') or dataset.get('classes')
    if isinstance(names, (list, tuple)):
        return [str(name) for name in names]
    kind = kind_of(dataset)
    return kind if 'classes' in (getattr(DATASETS.get(kind), 'METAINFO', None) or {}) else None


def kind_of(cfg: Mapping) -> str:
    """Return the name of the class that a config builds: ``type`` without scope or module, or that of the class itself."""
    kind = cfg.get('type')
    return str(getattr(kind, '__name__', kind)).rsplit('.', 1)[-1]


def _wrapped(cfg: ConfigDict) -> ConfigDict:
    """Return a network's config as a classifier's; another module is wrapped into :class:`~.classifiers.ModuleClassifier`.

    Raises:
        ValueError: If the kind of network, or its name in its library, is unknown (suggests close names).
        FileNotFoundError: If it names a folder that is not there.
        MissingLibraryError: If the network's library is not installed.
    """
    if 'student_cfg' in cfg:
        raise ValueError('this is the config of a distiller: give that of its student, whose weights its checkpoints hold')
    kind = cfg.type
    for library, wrapper, extra in LIBRARIES.values():
        if kind_of(cfg) == wrapper:
            need_library(library, wrapper, extra)
    known = MODELS.get(kind) if isinstance(kind, str) else kind
    if known is None:
        raise ValueError(f'unknown network type {kind!r}{close_names(kind.rsplit(".", 1)[-1], _names_beside(kind))}')
    if isinstance(weights := cfg.get('weights'), Enum):  # torchvision's object, which no config file can hold
        cfg.weights = weights.name
    if inspect.isclass(known) and issubclass(known, BaseClassifier):
        if check := CHECKS.get(kind_of(cfg)):
            check(cfg)
        if kind_of(cfg) == 'ImageClassifier' and 'multi_label' in cfg:
            raise ValueError(
                'multi_label: an ImageClassifier has several labels by its head: leave it out, and set '
                "head=dict(type='MultiLabelLinearClsHead', ...)"
            )
        if kind_of(cfg) == 'ImageClassifier' and not cfg.get('head'):
            kept = {key: cfg[key] for key in ('backbone', 'train_cfg', 'data_preprocessor') if key in cfg}
            return ConfigDict(type='BackboneNetwork', **kept)
        return cfg
    if inspect.isclass(known) and issubclass(known, BaseBackbone):
        around = {key: cfg.pop(key) for key in ('train_cfg', 'data_preprocessor') if key in cfg}
        return ConfigDict(type='BackboneNetwork', backbone=cfg, **around)
    if inspect.isclass(known) and known.__module__.startswith('mmpretrain.'):
        raise ValueError(
            f'{kind_of(cfg)} of mmpretrain is no classifier that gives class scores, only a part of one or another kind of '
            "model: give dict(type='ImageClassifier', backbone=..., neck=..., head=...), or a classifier’s config or name"
        )
    around = {key: cfg.pop(key) for key in AROUND if key in cfg}
    return ConfigDict(type='ModuleClassifier', model=cfg, **around)


def _names_beside(kind: str) -> list[str]:
    """List the likely meanings of a misspelt type: the names in its module, or the registered ones."""
    module, _, _ = kind.rpartition('.')
    with suppress(ImportError, ValueError):
        return [name for name in dir(import_module(module)) if not name.startswith('_')]
    return list(MODELS.module_dict)


def _check_timm(cfg: ConfigDict) -> None:
    """Refuse a name unknown to timm, which the tag of some weights may follow; make a folder’s path absolute, in place.

    Raises:
        FileNotFoundError: If there is no such folder.
    """
    import timm

    name = cfg.get('model_name')
    if isinstance(name, str) and name.startswith(LOCAL):
        folder = Path(name.removeprefix(LOCAL)).expanduser()
        if not folder.is_dir():
            raise MissingFolderError(f'timm:{name}: no such folder')
        cfg.model_name = f'{LOCAL}{folder.resolve()}'
        return
    if not isinstance(name, str) or ':' in name or '/' in name:  # a hub's or a folder's: timm's own business
        return
    architecture, _, tag = name.partition('.')
    if not timm.is_model(architecture):
        raise ValueError(f'timm has no model {architecture!r}{close_names(architecture, timm.list_models())}')
    if tag and not timm.models.is_model_pretrained(name):
        known = timm.list_pretrained(f'{architecture}.*')
        raise ValueError(f'timm has no weights {name!r}, but {", ".join(known) or "none"}{close_names(name, known)}')


def _check_cifar(cfg: ConfigDict) -> None:
    """Refuse a name unknown to the CIFAR benchmark."""
    stage_count(str(cfg.get('model_name')))


def _check_hugging_face(cfg: ConfigDict) -> None:
    """Make the path of a folder absolute, in place; refuse a missing one."""
    name = cfg.get('model_name')
    if not isinstance(name, str):
        return
    folder = Path(name).expanduser()
    if folder.is_dir():
        cfg.model_name = str(folder.resolve())
    elif name.startswith(('/', '.', '~')) or name.count('/') > 1:  # a hub's name is NAME or OWNER/NAME
        raise MissingFolderError(f'hf:{name}: no such folder')


#: Checks of a config's ``model_name`` before the network is built.
CHECKS: dict[str, Callable[[ConfigDict], None]] = {
    'TimmClassifier': _check_timm,
    'CifarClassifier': _check_cifar,
    'HuggingFaceClassifier': _check_hugging_face,
    'ZeroShotClassifier': settle,
    'HuggingFaceTower': _check_hugging_face,
}


def check_to_be_had(cfg: Mapping) -> None:
    """Refuse a model of Hugging Face that cannot be had, see :func:`~mmcls_kd.teachers.hub.check_hub`."""
    if kind_of(cfg) in ('HuggingFaceClassifier', 'HuggingFaceTower'):
        check_hub(str(cfg.get('model_name')))


def own_weights(cfg: ConfigDict, role: str) -> ConfigDict:
    """Return a network's config that loads the library's own weights.

    Args:
        cfg: The network's config.
        role: Role of the network, for the message.

    Raises:
        ValueError: If the kind of network has none.
    """
    kind = kind_of(cfg)
    if kind not in OWN_WEIGHTS:
        raise ValueError(
            f'{role}_pretrained=True means the weights that come with a network of timm (`timm:NAME`), Hugging Face '
            f'(`hf:NAME`), torchvision (`torchvision:NAME`) or mmpretrain’s zoo (its name), but this is a {kind}: give a '
            'file or an address'
        )
    return ConfigDict({**cfg, **{k: cfg.get(k) or v for k, v in OWN_WEIGHTS[kind].items()}})


def brings_weights(cfg: Mapping) -> bool:
    """Check whether a network's config loads weights by itself."""
    kind = kind_of(cfg)
    return any(cfg.get(key) for key in (*OWN_WEIGHTS.get(kind, ()), *FURTHER_WEIGHTS.get(kind, ())))


def network_cfg(source: str | Mapping) -> ConfigDict:
    """Return the config of a network, a classifier's with its data preprocessor, see :func:`find_network`.

    Args:
        source: Path of a config (see :func:`read_config`), a name, a whole config, or a ``model`` dict itself.

    Raises:
        FileNotFoundError: If no config is found at that path.
        ValueError: If the config has no ``model``.
    """
    return find_network(source).cfg


def zoo_weights(name: str) -> str:
    """Return the address of a model's weights in mmpretrain's model index, e.g. of ``resnet34_8xb32_in1k``.

    Raises:
        ValueError: If mmpretrain does not know the model, or has no weights for it.
    """
    weights = ModelHub.get(name).weights
    if not weights:
        raise ValueError(f'mmpretrain has no weights for {name}')
    return weights
