"""What a distiller is put together from: its methods, its losses, its data preprocessor, its teacher."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmpretrain.registry import MODELS
from torch import nn

from ..configs import check_methods, find_network, loss_class, method_entries, method_name, network_cfg
from ..errors import close_names, refusals_named
from .schedules import LossWeight
from .stored_teacher import StoredTeacher
from .taps import Shape
from .teacher import Student, Teacher, TeacherGroup, TeacherSettings
from .wrappers import AT_STAGES, AtStages, CurriculumTemperature, at_stage, check_stages

# What a loss may ask for beside the networks' tensors, and what its short name means.
GT_LABEL, SAMPLE_IDX, TEACHER_HEAD = 'gt_label', 'sample_idx', 'teacher_head'
ALIASES = {'feat_mid': 'feat_mid_s'}
#: What an entry of a method has beside its loss's keywords; the last is mmengine's, in what comes from a packaged config.
NO_KEYWORDS = ('type', 'name', 'use_this', 'loss_weight', 'stages', 'curriculum', '_scope_')
#: Why something may not be there.
REASONS = {
    TEACHER_HEAD: ' (it needs one teacher whose class scores are made of the pooled map of its last stage, as a CNN’s are)'
}

TeacherHolder = Teacher | TeacherGroup | StoredTeacher


@dataclass
class Method:
    """A method that is switched on.

    Attributes:
        name: Its name, under which its loss is logged.
        kind: The class of its loss.
        keywords: What the config gives this class.
        weight: Its ``loss_weight``.
        stages: At which stages it reads maps, see :class:`.wrappers.AtStages`; None for the last one.
        curriculum: Keywords of :class:`.wrappers.CurriculumTemperature`; None for a fixed temperature.
    """

    name: str
    kind: type[nn.Module]
    keywords: dict[str, Any]
    weight: LossWeight
    stages: int | Sequence[int] | None = None
    curriculum: Mapping[str, Any] | None = None

    @property
    def asked(self) -> tuple[str, ...]:
        """The names of the tensors that it asks for: the parameters of its ``forward`` that have no default.

        Raises:
            ValueError: If it has ``stages``, but reads no maps of a stage.
        """
        names = parameters_of(self.kind.forward)
        if self.stages is None:
            return names
        if not set(names) & set(AT_STAGES):
            raise ValueError(f'{self.name}: stages is for losses of feat_s or feat_t; it asks for {", ".join(names)}')
        return tuple(AT_STAGES.get(name, name) for name in names)

    def build(self, shapes: Mapping[str, Shape], facts: Mapping[str, Callable[[], Any]] | None = None) -> nn.Module:
        """Its loss; what the config leaves out of sizes and facts is filled in.

        Args:
            shapes: The shape of each tensor, by name, for two images; of a tuple the shapes of its tensors.
            facts: What else is known of networks and data, by name; a loss says in ``facts`` which keywords are such.

        Raises:
            ValueError: If a size is given and wrong, a keyword does not fit, or a fact is not known that is needed.
        """
        if self.curriculum is not None and not isinstance(self.curriculum, Mapping):
            raise ValueError(f'{self.name}: curriculum={self.curriculum!r} has to be a dict of start, range, epochs')
        with refusals_named(self.name):
            loss = self._at_stages(shapes, facts or {}) if self.stages is not None else self._build(shapes, facts or {})
            return loss if self.curriculum is None else CurriculumTemperature(loss, **self.curriculum)

    def _at_stages(self, shapes: Mapping[str, Shape], facts: Mapping[str, Callable[[], Any]]) -> AtStages:
        read = {name: shapes[of] for name, of in AT_STAGES.items() if of in self.asked}
        numbers = check_stages(self.stages, {AT_STAGES[name]: len(shape) for name, shape in read.items()})
        losses = {}
        for number in numbers:
            maps = {name: at_stage(shape, number) for name, shape in read.items()}
            losses[number] = self._build({**shapes, **maps}, facts)
        return AtStages(losses)

    def _build(self, shapes: Mapping[str, Shape], facts: Mapping[str, Callable[[], Any]]) -> nn.Module:
        keywords = dict(self.keywords)
        for keyword, (tensor, dim) in getattr(self.kind, 'sizes', {}).items():
            size = size_of(shapes.get(tensor, ()), dim)
            if size is None:
                raise ValueError(
                    f'{self.kind.__name__}.sizes says that {keyword} is size {dim} of {tensor!r}, which is not there; there '
                    f'are {", ".join(f"{n} {shape}" for n, shape in shapes.items())}'
                )
            given = keywords.setdefault(keyword, size)
            if (tuple(given) if isinstance(given, list) else given) != size:
                raise ValueError(
                    f'{keyword}={given} is wrong, {tensor} has the shape {shown_shape(shapes[tensor])}: set '
                    f'{keyword}={size}, or leave it out'
                )
        for keyword, fact in getattr(self.kind, 'facts', {}).items():
            name, made = fact if isinstance(fact, tuple) else (fact, None)
            if keywords.get(keyword) is None and name in facts and (value := facts[name]()) is not None:
                keywords[keyword] = made(value) if made else value
        for keyword, message in getattr(self.kind, 'needed_facts', {}).items():
            if keywords.get(keyword) is None:
                raise ValueError(message)
        return self.kind(**keywords)


def parameters_of(function: Callable[..., Any]) -> tuple[str, ...]:
    """The names of a method's parameters that have no default."""
    _, *parameters = inspect.signature(function).parameters.values()
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return tuple(p.name for p in parameters if p.default is p.empty and p.kind not in variable)


def size_of(shape: Shape, dim: int) -> Any:
    """A size of a tensor, or of each of a tuple's; None where there is none."""
    if shape and isinstance(shape[0], tuple):
        sizes = [size_of(part, dim) for part in shape]
        return None if None in sizes else tuple(sizes)
    return shape[dim] if dim < len(shape) else None


def shown_shape(shape: Shape) -> str:
    """A shape for people, of a tuple each."""
    if shape and isinstance(shape[0], tuple):
        return ', '.join(map(shown_shape, shape))
    return f'(N, {", ".join(map(str, shape[1:]))})'


def chosen_methods(distill_cfg: Sequence[Mapping]) -> list[Method]:
    """The methods of a ``distill_cfg`` that are switched on.

    Raises:
        ValueError: If none is switched on, a type is unknown (suggests close names), or a name stands twice.
    """
    entries = list(method_entries(distill_cfg))
    active = [entry for entry in entries if entry.get('use_this', True)]
    check_methods([method_name(e) for e in active], [method_name(e) for e in entries])
    methods: dict[str, Method] = {}
    for entry in active:
        keywords = {k: v for k, v in entry.items() if k not in NO_KEYWORDS}
        name, kind = entry['name'], entry['type']
        if name in methods:
            raise ValueError(f'two methods have the name {name!r}; give each its own')
        if '.' in name or hasattr(nn.ModuleDict(), name):
            raise ValueError(f'a method cannot have the name {name!r}; take one such as loss_{method_name(entry)}_1')
        loss = loss_class(entry)
        if loss is None:
            raise ValueError(f'{name}: unknown loss type {kind!r}{close_names(kind, MODELS.module_dict)}')
        if not hasattr(loss, 'forward'):
            raise ValueError(f'{name}: {kind!r} is no loss, a module with a `forward` that names the tensors it needs')
        try:
            weight = LossWeight.of(entry.get('loss_weight', 1.0))
        except ValueError as error:
            raise ValueError(f'{name}: {error}') from error
        methods[name] = Method(name, loss, keywords, weight, entry.get('stages'), entry.get('curriculum'))
    return list(methods.values())


def deployed_cfg(distiller: Mapping) -> ConfigDict:
    """What the student of a distiller's config predicts with after training: its network, or what a method makes of it.

    Args:
        distiller: Config of the distiller.

    Raises:
        ValueError: As :func:`~mmcls_kd.configs.method_entries`.
    """
    for entry in method_entries(distiller.get('distill_cfg') or []):
        kind = loss_class(entry)
        if entry.get('use_this', True) and hasattr(kind, 'deployed'):
            networks = {key: find_network(distiller[f'{key}_cfg']).in_full for key in ('student', 'teacher')}
            others = {key: distiller[key] for key in ('teacher_classes', 'taps') if distiller.get(key)}
            return ConfigDict(**kind.deployed(entry), **networks, **others)
    return network_cfg(distiller['student_cfg'])


def preprocessor_cfg(given: Mapping | None, train_cfg: Mapping | None, student_cfg: Mapping) -> dict[str, Any]:
    """Config of the distiller's data preprocessor: the given one, else the student's; its mixup and CutMix likewise."""
    cfg = {'type': 'ClsDataPreprocessor', **(given or student_cfg.get('data_preprocessor') or {})}
    cfg.setdefault('batch_augments', train_cfg or student_cfg.get('train_cfg'))
    return cfg


def refuse_narrow(network: nn.Module) -> None:
    """Refuse a network whose training, channels-last, would damage memory on this processor.

    With AVX2 alone torch 2.14.1 writes past its memory in the backward pass of a 1 × 1 convolution that has a stride and
    fewer than eight channels.

    Args:
        network: The network to train.

    Raises:
        ValueError: Names such a convolution.
    """
    if torch.cuda.is_available() or torch.backends.cpu.get_cpu_capability() != 'AVX2':
        return
    for name, conv in network.named_modules():
        if isinstance(conv, nn.Conv2d) and conv.kernel_size == (1, 1) and max(conv.stride) > 1 and conv.in_channels < 8:
            raise ValueError(
                f'channels_last: torch would damage memory on this processor, which has no AVX-512, in the backward pass of '
                f'{name}, a 1 × 1 convolution with a stride and {conv.in_channels} channels (fewer than 8); leave it out'
            )


def check_classes(num_classes: int, teacher: TeacherHolder | None) -> None:
    """Refuse a teacher and a student that tell apart different numbers of classes.

    Args:
        num_classes: The student's.
        teacher: The teacher.

    Raises:
        ValueError: Names both numbers.
    """
    if teacher and teacher.num_classes != num_classes:
        raise ValueError(
            f'the student has {num_classes} classes and the teacher {teacher.num_classes}: set model.student_cfg and '
            'model.teacher_cfg (head.num_classes) to the same data, or say by model.teacher_classes which of the '
            'teacher’s classes is which of the student’s'
        )


def check_asked(methods: Iterable[Method], offered: Sequence[str]) -> None:
    """Refuse methods that ask for what nobody provides.

    Args:
        methods: The methods.
        offered: The names of what there is.

    Raises:
        ValueError: Names the method, what it asks for, and what there is.
    """
    for method in methods:
        for name in method.asked:
            if name not in offered:
                raise ValueError(
                    f'{method.name} ({method.kind.__name__}) asks for {name!r}, which nobody provides'
                    f'{REASONS.get(name, close_names(name, offered))}; this student and teacher offer: {", ".join(offered)} '
                    '(model.taps names further ones)'
                )


def needs_teacher(name: str) -> bool:
    """Whether a tensor of that name comes from the teacher."""
    return name == TEACHER_HEAD or name.endswith('_t')


def teacher_settings(cfg: Any, **lists: Any) -> list[TeacherSettings]:
    """What a config says of each teacher.

    Args:
        cfg: The config of one, or a list of them.
        **lists: The other fields of :class:`.teacher.TeacherSettings`: for one teacher each value itself; for several a
            list of values, one each, or True or False for all; None where nothing is said.

    Raises:
        ValueError: If a list is not as long as ``cfg``.
    """
    if cfg is None:  # a store takes the teacher's place, whatever else is still said of it
        return [TeacherSettings(None)]
    if not isinstance(cfg, (list, tuple)):
        for key in ('pretrained', 'pixels', 'weight'):
            if isinstance(lists.get(key), (list, tuple)):
                raise ValueError(
                    f'{_keyword(key)} is a list, but teacher_cfg is one teacher: give a list of teachers, or one value'
                )
        return [TeacherSettings(cfg, **{key: value for key, value in lists.items() if value is not None})]
    if not cfg:
        raise ValueError('teacher_cfg is an empty list: name at least one teacher')
    columns = {}
    for key, value in lists.items():
        if value is None or isinstance(value, bool):
            value = [value] * len(cfg)
        if not isinstance(value, (list, tuple)) or len(value) != len(cfg):
            raise ValueError(
                f'{_keyword(key)} has to be a list with one entry for each of the {len(cfg)} teachers, but is {value!r}'
            )
        columns[key] = value
    rows = [{key: column[i] for key, column in columns.items() if column[i] is not None} for i in range(len(cfg))]
    return [TeacherSettings(one, **row) for one, row in zip(cfg, rows, strict=True)]


def _keyword(field: str) -> str:
    """What the distiller calls a field of the settings."""
    return 'teacher_weights' if field == 'weight' else f'teacher_{field}'


def build_teacher(
    methods: Iterable[Method], settings: Sequence[TeacherSettings], store: str | None, student: Student, **keywords: Any
) -> TeacherHolder | None:
    """The teacher, several as one, or what was stored; None where no method asks for it.

    Args:
        methods: The methods.
        settings: Of each teacher.
        store: Folder of a store; None for the networks themselves.
        student: Whom they teach.
        **keywords: The other keywords of :class:`.teacher.Teacher`.

    Raises:
        ValueError: As :class:`.teacher.Teacher`; or if a method needs more than a store or several teachers can give, or
            the mode is one whose logits are not stored.
        FileNotFoundError: If config, weights or store are missing.
    """
    wanted = [(method.name, name) for method in methods for name in method.asked if needs_teacher(name)]
    if not wanted:
        return None
    beyond = next(((method, name) for method, name in wanted if name != 'logit_t'), None)
    if store:
        if keywords.get('mode') == 'train':
            raise ValueError("a teacher_store holds logits of teacher_mode='eval'; leave one of the two out")
        if beyond:
            raise ValueError(
                f'a teacher_store holds logits alone, and {beyond[0]} asks for {beyond[1]!r}; leave one of the two out'
            )
        return StoredTeacher(store)
    if len(settings) == 1:
        return Teacher(settings[0], student, **keywords)
    if beyond:
        raise ValueError(
            f'several teachers have no common features, and {beyond[0]} asks for {beyond[1]!r}: choose methods that need '
            'logits alone, or one teacher'
        )
    return TeacherGroup([Teacher(one, student, **keywords) for one in settings], [one.weight for one in settings])
