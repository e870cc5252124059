"""What a distiller is put together from: its methods, its losses, its data preprocessor, its teacher."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmpretrain.registry import MODELS
from torch import nn

from ..configs import check_methods, method_entries, method_name
from ..errors import close_names
from .stored_teacher import StoredTeacher
from .teacher import Student, Teacher, TeacherGroup, TeacherSettings

# What a loss may ask for beside the networks' tensors, and what its short name means.
GT_LABEL, TEACHER_HEAD = 'gt_label', 'teacher_head'
ALIASES = {'feat_mid': 'feat_mid_s'}
#: What an entry of a method has beside its loss's keywords; the last is mmengine's, in what comes from a packaged config.
NO_KEYWORDS = ('type', 'name', 'use_this', 'loss_weight', '_scope_')
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
    """

    name: str
    kind: type[nn.Module]
    keywords: dict[str, Any]
    weight: float

    @property
    def asked(self) -> tuple[str, ...]:
        """The names of the tensors that it asks for: the parameters of its ``forward`` that have no default."""
        _, *parameters = inspect.signature(self.kind.forward).parameters.values()
        variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        return tuple(p.name for p in parameters if p.default is p.empty and p.kind not in variable)

    def build(self, shapes: Mapping[str, tuple[int, ...]]) -> nn.Module:
        """Its loss; the sizes that the config leaves out are those of the tensors.

        Args:
            shapes: The shape of each tensor, by name, for two images.

        Raises:
            ValueError: If a size is given and wrong, or a keyword does not fit.
        """
        keywords = dict(self.keywords)
        for keyword, (tensor, dim) in getattr(self.kind, 'sizes', {}).items():
            if tensor not in shapes or dim >= len(shapes[tensor]):
                raise ValueError(
                    f'{self.name}: {self.kind.__name__}.sizes says that {keyword} is size {dim} of {tensor!r}, which is not '
                    f'there; there are {", ".join(f"{n} {shape}" for n, shape in shapes.items())}'
                )
            size = shapes[tensor][dim]
            if keywords.setdefault(keyword, size) != size:
                raise ValueError(
                    f'{self.name}: {keyword}={keywords[keyword]} is wrong, {tensor} has the shape '
                    f'(N, {", ".join(map(str, shapes[tensor][1:]))}): set {keyword}={size}, or leave it out'
                )
        try:
            return self.kind(**keywords)
        except TypeError as error:  # a keyword that the loss does not have, or one too few
            raise ValueError(f'{self.name}: {error}') from error


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
        loss = MODELS.get(kind) if isinstance(kind, str) else kind
        if loss is None:
            raise ValueError(f'{name}: unknown loss type {kind!r}{close_names(kind, MODELS.module_dict)}')
        if not hasattr(loss, 'forward'):
            raise ValueError(f'{name}: {kind!r} is no loss, a module with a `forward` that names the tensors it needs')
        methods[name] = Method(name, loss, keywords, entry.get('loss_weight', 1.0))
    return list(methods.values())


def preprocessor_cfg(given: Mapping | None, train_cfg: Mapping | None, student_cfg: Mapping) -> dict[str, Any]:
    """Config of the distiller's data preprocessor: the given one, else the student's; its mixup and CutMix likewise."""
    cfg = {'type': 'ClsDataPreprocessor', **(given or student_cfg.get('data_preprocessor') or {})}
    cfg.setdefault('batch_augments', train_cfg or student_cfg.get('train_cfg'))
    return cfg


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
