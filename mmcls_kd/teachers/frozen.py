"""The teacher: a frozen network, run for the features that the losses need."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ..features.classifier import linear_classifier, weight_and_bias
from ..features.dry_run import dry_run
from ..features.families import default_taps
from ..features.layouts import Read
from ..features.norms import norms_before_relu
from ..features.taps import given_taps, shapes_of
from .fast import PRECISIONS, FastNetwork, in_own_type, run
from .head import Head, find_head
from .inputs import InputAdapter, InputSpec
from .tail import Tail, find_tail

MODES = ('eval', 'train')


class FrozenTeacher:
    """A frozen classifier, deliberately no ``nn.Module``.

    A distiller that holds it does not register it: it is in no parameter list, optimizer, state dict, DDP wrapper or moving
    average, and neither ``train()`` nor ``init_weights()`` of the distiller reaches it. A deep copy of the distiller shares
    it, until that is moved to another device or type.

    Args:
        network: A classifier: it takes images, (N, C, H, W), and returns logits, (N, C), or an object with ``logits``; or a
            network without classes that returns embeddings. It is frozen in place.
        given: Input preprocessing of the images that it receives, that of the student.
        wanted: Input preprocessing that the network was trained with; ``given`` if None.
        class_map: Index of the teacher's class for each class of the student; None if the label spaces are identical.
        taps: Taps that replace or extend the defaults, see :func:`mmcls_kd.features.taps.given_taps`.
        mode: ``'eval'``, or ``'train'`` for batch statistics and drop path in the teacher.
        precision: ``'bf16'`` or ``'fp16'`` to compute in it; None for float32, or that of autocast.
        compile_options: Keywords of ``torch.compile``; None for no compilation.
        size: Height and width of the images, where ``wanted`` has none.

    Attributes:
        network: The network as given.
        dry_run: Its :class:`~mmcls_kd.features.dry_run.DryRun`.
        taps: Taps of its features, by name.
        shapes: Shape of each feature for two images, by name.
        num_classes: Number of classes of its logits: the student's, where there is a class map; 0 without classes.

    Raises:
        ValueError: If mode or precision are unknown, the network does not run or changes its images, or a tap does not fit.
    """

    def __init__(
        self,
        network: nn.Module,
        given: InputSpec | None = None,
        wanted: InputSpec | None = None,
        class_map: Sequence[int] | None = None,
        taps: Mapping[str, Any] | None = None,
        mode: str = 'eval',
        precision: str | None = None,
        compile_options: Mapping[str, Any] | None = None,
        size: tuple[int, int] | None = None,
    ) -> None:
        check_run(mode, precision)
        given = given or InputSpec()
        wanted = wanted or given
        self.network, self.mode = network.requires_grad_(False), mode
        network.train(mode == 'train')  # some networks' train() and eval() return nothing
        self.dry_run = dry_run(network, 'teacher', wanted.size or size, whole=True)
        self.dry_run.check_images_stay('teacher')
        self.adapt = InputAdapter(given, wanted, self.dry_run.channels)
        self.taps = default_taps(network, self.dry_run) | given_taps(taps or {}, '_t', self.dry_run)
        self.fast = FastNetwork(network, precision, compile_options)
        self.shapes = shapes_of(self.taps, self.dry_run)
        self.map_classes(class_map)

    def map_classes(self, class_map: Sequence[int] | None) -> None:
        """Select and order the classes of the logits.

        Args:
            class_map: Index of the teacher's class for each class of the student; None for all of them in their order.
        """
        count = self.dry_run.num_classes
        self.num_classes, self._index = count, None
        if not count and class_map is not None:
            raise ValueError('class_map: the teacher has no classes: leave it out')
        if not count:
            return
        indices: Any = class_map
        if hasattr(indices, 'tolist'):
            indices = indices.tolist()
        if indices is not None and not (
            isinstance(indices, list | tuple) and all(type(index) is int and 0 <= index < count for index in indices)
        ):
            raise ValueError(f'class_map={class_map!r}: give the teacher’s class of each class, a list of 0 to {count - 1}')
        if indices is not None and len({*indices}) < len(indices):
            twice = next(index for place, index in enumerate(indices) if index in indices[:place])
            raise ValueError(f'class_map gives the teacher’s class {twice} to two classes of the student')
        self._index = None if indices is None else torch.tensor(indices)
        self.num_classes = count if indices is None else len(indices)
        self.shapes['logit'] = (2, self.num_classes)

    @property
    def networks(self) -> list[nn.Module]:
        """The network, as the only one."""
        return [self.network]

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenTeacher:
        return self

    def apart(self) -> FrozenTeacher:
        """Return the same teacher with a network of its own."""
        other = copy.copy(self)
        vars(other).pop('tail', None)  # found anew in that network
        vars(other).update(copy.deepcopy({name: vars(self)[name] for name in {'network', 'fast', 'head'} & {*vars(self)}}))
        return other

    @cached_property
    def head(self) -> Head | None:
        """The part that maps features of the last stage, (N, C_t, H, W), to logits; gradients flow to the features.

        None where other layers lie between that stage and the classifier, or its input is another feature (a class token).
        """
        found = find_head(self.network, self.dry_run, self.taps)
        return None if found is None else Head(found, self._index)

    @cached_property
    def tail(self) -> Tail | None:
        """The part that maps the map of the stage before the last to that of the last one; gradients flow to the former.

        None where it is not a sequence of modules, or takes prefix tokens.
        """
        return find_tail(self.network, self.dry_run, self.taps)

    @property
    def linear_weight(self) -> Tensor | None:
        """The rows of the last linear layer, (C, D), for the student's classes; None if the logits come otherwise."""
        if self.dry_run.linear_path is None:
            return None
        weight = self.network.get_submodule(self.dry_run.linear_path).weight.detach().flatten(1)  # type: ignore[operator]
        return weight if self._index is None else weight[self._index.to(weight.device)]

    @cached_property
    def classifier_path(self) -> str | None:
        """The path of the linear layer behind the pooled ``feat``, see :func:`.classifier.linear_classifier`."""
        return linear_classifier(self.network, self.dry_run, self.taps)

    @property
    def classifier(self) -> tuple[Tensor, Tensor] | None:
        """The weight, (C, D), and bias, (C,), of that layer for the student's classes; None if there is none."""
        if self.classifier_path is None:
            return None
        weight, bias = (part.detach() for part in weight_and_bias(self.network.get_submodule(self.classifier_path)))
        if self._index is None:
            return weight, bias
        index = self._index.to(weight.device)
        return weight[index], bias[index]

    @property
    def norms(self) -> list[Any] | None:
        """The batch norms before the ReLU of each stage, see :func:`.norms.norms_before_relu`; None if there are none."""
        preact = self.taps.get('stages_preact')
        return None if preact is None else norms_before_relu(self.network, self.dry_run, preact)

    @property
    def facts(self) -> dict[str, Callable[[], Any]]:
        """Facts for constructors of losses, by name."""
        return {
            'teacher_weight': lambda: self.linear_weight,
            'teacher_head': lambda: self.head,
            'teacher_tail': lambda: self.tail,
            'teacher_norms': lambda: self.norms,
        }

    @torch.no_grad()
    def __call__(self, inputs: Tensor, samples: Any, names: Iterable[str], view: str = 'weak') -> dict[str, Read]:  # noqa: ARG002
        """Run the network as far as the named features need it, in eval mode by :class:`.fast.FastNetwork`.

        Args:
            inputs: Images as the student sees them, (N, C, H, W).
            samples: Samples of the images; unused here, a stored teacher reads them.
            names: Names of its taps.
            view: The images' view, as for a stored teacher.

        Returns:
            The features by name, without gradient.
        """
        taps = {name: self.taps[name] for name in names}
        inputs = in_own_type(self.network, self.adapt(inputs))
        if self.mode == 'eval' and self.network.training:  # set by a module, or another distiller, that holds it too
            self.network.eval()
        tensors = run(self.network, inputs, taps, stop=False) if self.network.training else self.fast(inputs, taps)
        if 'logit' in tensors and self._index is not None:  # those of the student's classes, in its order
            self._index = self._index.to(tensors['logit'].device)
            tensors['logit'] = tensors['logit'][:, self._index]
        return tensors


def check_run(mode: str, precision: str | None) -> None:
    """Refuse an unknown mode or precision of a teacher, and both where they exclude each other."""
    if mode not in MODES:
        raise ValueError(f'teacher_mode={mode!r}: choose one of {", ".join(map(repr, MODES))}')
    if precision is not None and precision not in PRECISIONS:
        raise ValueError(f'teacher_precision={precision!r}: choose one of {", ".join(map(repr, PRECISIONS))}, or None')
    if precision is not None and mode == 'train':
        raise ValueError("teacher_precision is for teacher_mode='eval': statistics of a batch need float32")
