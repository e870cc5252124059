"""Patches of other libraries: all that this package changes in them, why, and until which version that is needed.

The module imports none of them: each function imports the library that it patches. "Needed up to" names the last version
that was looked into. Loading without code is no patch, but set by mmengine's own interface (:mod:`.networks.loading`).
"""

from __future__ import annotations

import functools
import os
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from .errors import listed

if TYPE_CHECKING:
    from torch import nn

# ---- when the library is imported, see JOINS of this package


def ignore_missing_operator(_mmcv: ModuleType) -> None:
    """Ignore a warning of mmcv about an operator that no classifier needs. Needed up to mmcv 2.3.6, as mmcv-lite."""
    warnings.filterwarnings('ignore', 'Fail to import ``MultiScaleDeformableAttention``')


def join_configs(utils: ModuleType) -> None:
    """Let mmengine read configs by ``mmcls_kd::PATH``; up to 0.10.12 it does so for the packages of its own list alone."""
    utils.MODULE2PACKAGE['mmcls_kd'] = 'mmcls_kd'


def join_registries(registry: ModuleType) -> None:
    """Let mmpretrain's registries import :mod:`mmcls_kd.registry` when a class is first looked up in one of them.

    Up to mmengine 0.10.12, a registry's places of import are fixed when it is made.
    """
    for found in vars(registry).values():
        if getattr(found, 'scope', None) == 'mmpretrain':
            found._locations.append('mmcls_kd.registry')
            found._imported = False  # also where it has looked into the others already


# ---- while networks run


@contextmanager
def without_reentry() -> Iterator[None]:
    """Make ``torch.utils.checkpoint.checkpoint`` its variant without re-entry into autograd in the ``with`` block.

    mmpretrain's networks (``with_cp``) call it without a choice, up to 1.3.6, and get the other variant, which refuses
    ``torch.autograd.grad``. Values and gradients are the same.
    """
    from torch.utils import checkpoint

    kept = checkpoint.checkpoint

    @functools.wraps(kept)
    def plain(*args: Any, **kwargs: Any) -> Any:
        return kept(*args, **{**kwargs, 'use_reentrant': False})

    checkpoint.checkpoint = plain
    try:
        yield
    finally:
        checkpoint.checkpoint = kept


def left_out_in_eval_mode(network: nn.Module) -> list[str]:
    """Return the paths of the modules and methods that torch's encoder layers call in training and leave out in eval mode.

    In eval mode, up to torch 2.14.1, ``nn.TransformerEncoderLayer`` reads the weights of its parts and calls none of them:
    its fast path. What a part computes beside, such as the adapters of peft's linear layers, then has no effect.
    """
    from torch import nn

    kind: Any = nn.TransformerEncoderLayer
    plain = {'linear1': nn.Linear, 'linear2': nn.Linear, 'norm1': nn.LayerNorm, 'norm2': nn.LayerNorm}
    plain |= {'self_attn': nn.MultiheadAttention, 'dropout': nn.Dropout, 'dropout1': nn.Dropout, 'dropout2': nn.Dropout}
    found = []
    for path, layer in network.named_modules():
        if not isinstance(layer, kind) or type(layer).forward is not kind.forward:
            continue
        if not getattr(layer.self_attn, 'batch_first', False):  # then there is no fast path
            continue
        names = [name for name, usual in plain.items() if not _computes_as(getattr(layer, name), usual)]
        names += [name for name in ('_sa_block', '_ff_block') if getattr(type(layer), name) is not getattr(kind, name)]
        found += [f'{path}.{name}'.lstrip('.') for name in names]
    return found


def note_of_left_out(network: nn.Module) -> str:
    """Tell of the parts of a student that are left out in eval mode; empty if there are none."""
    if not (found := left_out_in_eval_mode(network)):
        return ''
    return (
        f'in eval mode, torch’s encoder layers would leave out {listed(found, 3)} of the student, which they call in '
        'training: evaluate it under torch.backends.mha.set_fastpath_enabled(False); or merge adapters'
    )


def _computes_as(part: nn.Module, kind: Any) -> bool:
    """Check whether a module has the forward of a class of torch, or does nothing."""
    from torch import nn

    return getattr(part.forward, '__func__', None) in (kind.forward, nn.Identity.forward)


@contextmanager
def without_fast_path() -> Iterator[None]:
    """Let torch's encoder layers call their parts in eval mode, too; see :func:`left_out_in_eval_mode`."""
    from torch.backends import mha

    kept = mha.get_fastpath_enabled()
    mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        mha.set_fastpath_enabled(kept)


#: The attributes in which a module keeps its hooks; torch 2.14 has no other way to read or share them.
HOOKS = (
    '_forward_hooks',
    '_forward_hooks_with_kwargs',
    '_forward_hooks_always_called',
    '_forward_pre_hooks',
    '_forward_pre_hooks_with_kwargs',
)


def no_hooks(network: nn.Module) -> dict[int, OrderedDict]:
    """Return the memo by which ``copy.deepcopy`` copies a network without its hooks."""
    return {id(hooks): OrderedDict() for part in network.modules() for name in HOOKS if (hooks := getattr(part, name))}


def share_hooks(network: nn.Module, other: nn.Module) -> None:
    """Share a network's present and later hooks with its twin."""
    for path, part in other.named_modules():
        for name in HOOKS:
            setattr(part, name, getattr(network.get_submodule(path), name))


def know_several_labels(kind: Any, head: Callable[..., nn.Module], loss: dict[str, Any]) -> None:
    """Give mmpretrain's ``TimmClassifier`` or ``HuggingFaceClassifier`` the keyword ``multi_label``. Needed up to 1.3.6.

    With it, the classifier has a ``head``, which computes its loss and predictions.

    Args:
        kind: The class of the classifier.
        head: The class of the head.
        loss: Config of the classification loss, if none is given.
    """
    make = kind.__init__

    @functools.wraps(make)
    def init(self: Any, *arguments: Any, multi_label: bool = False, **keywords: Any) -> None:
        make(self, *arguments, **({'loss': dict(loss), **keywords} if multi_label else keywords))
        if multi_label:
            self.head = head(loss=self.loss_module)
            del self.loss_module

    def by_head(name: str) -> Callable[..., Any]:
        own = getattr(kind, name)

        @functools.wraps(own)
        def method(self: Any, *arguments: Any, **keywords: Any) -> Any:
            one_label = hasattr(self, 'loss_module')
            return own(self, *arguments, **keywords) if one_label else getattr(self.head, name)(*arguments, **keywords)

        return method

    kind.__init__ = init
    for name in ('_get_loss', '_get_predictions'):
        setattr(kind, name, by_head(name))


def prepare_hugging_face(kind: Any, make_trainable: Callable[[Any], nn.Module]) -> None:
    """Prepare the network of mmpretrain's ``HuggingFaceClassifier`` for a training. Needed up to 1.3.6.

    Args:
        kind: The class of the classifier.
        make_trainable: What does so, in place.
    """
    make = kind.__init__

    @functools.wraps(make)
    def init(self: Any, *arguments: Any, **keywords: Any) -> None:
        make(self, *arguments, **keywords)
        make_trainable(self.model)

    kind.__init__ = init


def replace_deit3(models: Any, deit3: type) -> None:
    """Register :class:`.backbones.DeiT3` under the name of mmpretrain's, which is wrong up to 1.3.6 (its issue 1614)."""
    models.register_module(module=deit3, force=True)


# ---- when a command starts


def import_when_used(name: str) -> None:
    """Let a module be imported when an attribute of it is first used; one that is not installed stays unknown.

    mmpretrain imports albumentations, up to 1.3.6; few runs use it, and it asks the network for its version.
    """
    if name in sys.modules or (spec := find_spec(name)) is None:
        return

    def load(attribute: str) -> Any:
        if sys.modules.get(name) is later:
            del sys.modules[name]
        return getattr(import_module(name), attribute)

    sys.modules[name] = later = ModuleType(name)
    vars(later).update(__spec__=spec, __file__=spec.origin, __getattr__=load)


@functools.cache
def start_faster() -> None:
    """Leave out work of mmengine and mmpretrain that a run does not need: up to 0.10.12 and 1.3.6, a second."""
    import numpy as np
    from mmengine.config import config
    from mmpretrain.datasets import mnist

    config._get_external_cfg_path = functools.partial(_path_by_name, config._get_external_cfg_path)
    mnist.read_label_file = functools.partial(_label_array, mnist.read_label_file)
    _pack_lists()
    _make_figures_late()
    np.empty(31 << 20, np.uint8)  # freed at once: glibc keeps the memory of smaller tensors from then on (a fifth of a step)


def _path_by_name(by_index: Callable[[str, str], str], package: str, name: str) -> str:
    """Return the file of ``mmpretrain::NAME``; mmengine reads the 85 metafiles of mmpretrain before it looks there."""
    path = Path(package, '.mim', 'configs', name)
    return str(path) if path.is_file() else by_index(package, name)


def _label_array(read_labels: Callable[[str], Any], path: str) -> Any:
    """Read the labels of a data set like MNIST as one array; of a tensor mmpretrain makes 60,000, and an array of each."""
    return read_labels(path).numpy()


def _pack_lists() -> None:
    """Let data sets with lists of images in mmpretrain's own way keep them packed, unless ``serialize_data=False``.

    A line of an annotation file that cannot be read is named.

    Up to 1.3.6, mmpretrain makes a dict of each image, and mmengine pickles it: 5 s and 0.9 GB for ImageNet.
    """
    from mmengine.dataset import BaseDataset
    from mmengine.fileio import LocalBackend, get_file_backend
    from mmpretrain.datasets import CustomDataset

    from .files.packed_list import PackedList, packed_file, packed_samples, refuse_faulty_line

    initialise = CustomDataset.full_init
    theirs = [CustomDataset.load_data_list, BaseDataset.filter_data, BaseDataset._serialize_data]

    def packed(dataset: CustomDataset) -> PackedList | None:
        own = [getattr(type(dataset), function.__name__) for function in theirs]
        places = [dataset.img_prefix, dataset.ann_file]
        if (
            own != theirs
            or not dataset.serialize_data
            or {type(get_file_backend(place)) for place in places} != {LocalBackend}
        ):
            return None
        head = os.path.join(dataset.img_prefix, '')  # noqa: PTH118  (as they join it)
        if dataset.ann_file:
            return packed_file(dataset.ann_file, head, dataset.with_label)
        return packed_samples(dataset._find_samples(), head, dataset.with_label)

    @functools.wraps(initialise)
    def full_init(self: CustomDataset) -> None:
        if not self._fully_initialized and (found := packed(self)) is not None:
            self.data_list, indices = found, self._indices
            if indices is not None:
                several = isinstance(indices, Sequence)
                self.data_list = found[indices] if several else self._get_unserialized_subset(indices)
            self.serialize_data, self._fully_initialized = False, True
        try:
            initialise(self)
        except ValueError as error:
            if self.ann_file and self.with_label and type(self).load_data_list is theirs[0]:
                refuse_faulty_line(self.ann_file, error)
            raise

    CustomDataset.full_init = full_init


def _make_figures_late() -> None:
    """Make figures with the first image; for them mmengine imports matplotlib in every run, though few draw an image."""
    from mmengine.visualization import Visualizer

    make_figure, set_image = Visualizer._initialize_fig, Visualizer.set_image

    def no_figure(_self: Visualizer, _cfg: dict) -> tuple[None, SimpleNamespace, None]:
        return None, SimpleNamespace(get_dpi=lambda: None), None

    def set_first_image(self: Visualizer, image: Any) -> None:
        if self.ax_save is None:
            self.fig_save_canvas, self.fig_save, self.ax_save = make_figure(self, self.fig_save_cfg)
            self.dpi = self.fig_save.get_dpi()
        set_image(self, image)

    Visualizer._initialize_fig, Visualizer.set_image = no_figure, set_first_image
