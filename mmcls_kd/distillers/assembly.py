"""The parts of a distiller: its methods, losses, data preprocessor and teacher."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from mmengine.config import ConfigDict
from torch import nn

from ..errors import refusals_named
from ..files.checkpoint import read_checkpoint
from ..files.paths import find_file
from ..networks.classes import compare_order, data_names
from ..networks.sources import find_network, network_cfg
from ..recipe.methods import Method, loss_class, method_entries, needs_teacher
from ..teachers.several import TeacherGroup
from .teacher import StoredTeacher, StudentSpec, Teacher, TeacherSettings

TeacherHolder = Teacher | TeacherGroup | StoredTeacher


def deployed_cfg(distiller: Mapping) -> ConfigDict:
    """Return the config of the network that predicts after training: the student, or the network that a method makes of it.

    Args:
        distiller: Config of the distiller.

    Raises:
        ValueError: As :func:`~mmcls_kd.recipe.methods.method_entries`.
    """
    for entry in method_entries(distiller.get('distill_cfg') or []):
        kind = loss_class(entry)
        if entry.get('use_this', True) and hasattr(kind, 'deployed'):
            networks = {key: find_network(distiller[f'{key}_cfg']).in_full for key in ('student', 'teacher')}
            others = {key: distiller[key] for key in ('teacher_classes', 'taps') if distiller.get(key)}
            return ConfigDict(**kind.deployed(entry), **networks, **others)
    return network_cfg(distiller['student_cfg'])


def read_files(methods: list[Method]) -> list[Method]:
    """Read the values that methods give as the path of a file, in place.

    Args:
        methods: The methods; the class of a loss lists in ``files`` the keywords that may be a path.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it does not hold the value, or was made for another order of classes than the data's.
    """
    for method in methods:
        for keyword, key in getattr(method.kind, 'files', {}).items():
            if isinstance(path := method.keywords.get(keyword), (str, os.PathLike)):
                with refusals_named(method.name):
                    method.keywords[keyword] = _read_value(os.fspath(path), key)
    return methods


def _read_value(path: str, key: str) -> Any:
    content = read_checkpoint(find_file(path))
    if key not in content:
        raise ValueError(f'{path} holds no `{key}`: it is no file that `python -m mmcls_kd class-cost` wrote')
    compare_order(content.get('classes'), data_names(), path, refuse=True)
    return content[key]


def preprocessor_cfg(given: Mapping | None, train_cfg: Mapping | None, student_cfg: Mapping) -> dict[str, Any]:
    """Return the config of the distiller's data preprocessor, with mixup and CutMix: the given one, else the student's."""
    cfg = {'type': 'ClsDataPreprocessor', **(given or student_cfg.get('data_preprocessor') or {})}
    cfg.setdefault('batch_augments', train_cfg or student_cfg.get('train_cfg'))
    return cfg


def refuse_narrow(network: nn.Module) -> None:
    """Refuse a network whose training in channels-last would damage memory on this processor.

    torch 2.14.1 writes past its memory in the backward pass of a 1 × 1 convolution that has a stride and fewer channels than
    a vector of the processor has numbers: 8 with AVX2, 16 with AVX-512.

    Args:
        network: The network to train.

    Raises:
        ValueError: Names such a convolution.
    """
    least = dict(AVX2=8, AVX512=16).get(torch.backends.cpu.get_cpu_capability(), 0)
    if torch.cuda.is_available():
        return
    for name, conv in network.named_modules():
        if isinstance(conv, nn.Conv2d) and conv.kernel_size == (1, 1) and max(conv.stride) > 1 and conv.in_channels < least:
            raise ValueError(
                f'channels_last: torch would damage memory on this processor in the backward pass of {name}, a 1 × 1 '
                f'convolution with a stride and {conv.in_channels} channels (fewer than {least}); leave it out'
            )


def check_classes(num_classes: int, teacher: TeacherHolder | None) -> None:
    """Refuse a teacher and a student with different numbers of classes.

    Args:
        num_classes: Number of classes of the student.
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


def teacher_settings(cfg: Any, **lists: Any) -> list[TeacherSettings]:
    """Collect a config's settings of each teacher.

    Args:
        cfg: The config of one, or a list of them.
        **lists: The other fields of :class:`.teacher.TeacherSettings`: for one teacher the value; for several a list of
            values, one each, or True or False for all; None for the default.

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
    """Return the distiller's keyword of a field of the settings."""
    return 'teacher_weights' if field == 'weight' else f'teacher_{field}'


def build_teacher(
    methods: Iterable[Method], settings: Sequence[TeacherSettings], store: str | None, student: StudentSpec, **keywords: Any
) -> TeacherHolder | None:
    """Build the teacher, several as one, or a stored one; None if no method needs it.

    Args:
        methods: The methods.
        settings: Settings of each teacher.
        store: Folder of a store; None for the networks themselves.
        student: The student.
        **keywords: The other keywords of :class:`.teacher.Teacher`.

    Raises:
        ValueError: As :class:`.teacher.Teacher`; or if a method needs more than a store or several teachers can give, or
            the mode is one whose logits are not stored.
        FileNotFoundError: If config, weights or store are missing.
    """
    wanted = [(method.name, name) for method in methods for name in method.inputs if needs_teacher(name)]
    if not wanted:
        return None
    beyond = next(((method, name) for method, name in wanted if name != 'logit_t'), None)
    if store:
        if keywords.get('mode') == 'train':
            raise ValueError("a teacher_store holds logits of teacher_mode='eval'; leave one of the two out")
        if beyond:
            raise ValueError(
                f'a teacher_store holds logits alone, and {beyond[0]} needs {beyond[1]!r}; leave one of the two out'
            )
        return StoredTeacher(store)
    if len(settings) == 1:
        return Teacher(settings[0], student, **keywords)
    if beyond:
        raise ValueError(
            f'several teachers have no common features, and {beyond[0]} needs {beyond[1]!r}: choose methods that need '
            'logits alone, or one teacher'
        )
    return TeacherGroup([Teacher(one, student, **keywords) for one in settings], [one.weight for one in settings])
