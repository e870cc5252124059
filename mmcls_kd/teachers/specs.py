"""The teachers of a distiller in plain PyTorch: their description, and the building of a teacher from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .frozen import FrozenTeacher
from .inputs import InputSpec, changed
from .libraries import load_network
from .several import TeacherGroup
from .stored import StoredTeacher

TeacherLike = FrozenTeacher | TeacherGroup | StoredTeacher


@dataclass
class TeacherSpec:
    """A teacher and its settings.

    Attributes:
        network: A classifier, or a network without classes (:class:`~mmcls_kd.EmbeddingNetwork`); its name, see
            :func:`~mmcls_kd.teachers.libraries.load_network`; or a teacher that is built, such as a stored one.
        inputs: Input preprocessing that it was trained with: ``mean`` and ``std`` (of values from 0 to 255 or 0 to 1),
            ``size``, ``to_rgb``, ``interpolation``, ``backend``; None for that of the student.
        class_map: Index of the teacher's class for each class of the student; None if the label spaces are identical.
        weight: Weight of its probabilities in the mean of several teachers.
    """

    network: nn.Module | str | TeacherLike
    inputs: Mapping[str, Any] | None = None
    class_map: Sequence[int] | None = None
    weight: float = 1.0


def check_plain(role: str, network: Any) -> None:
    """Refuse anything but a module, and wrappers, which hide the features of one."""
    if not isinstance(network, nn.Module):
        raise ValueError(f'{role}: give a module, not {network!r}')
    exported = isinstance(network, torch.fx.GraphModule) and 'train' in vars(network)  # torch.export refuses its call
    if isinstance(network, torch.jit.ScriptModule) or exported:
        raise ValueError(
            f'{role}: {"torch.export" if exported else "TorchScript"} hides the parts of a network: give the module that it '
            'was made from; for losses on logits, TorchScript may stand inside of a module whose forward calls it'
        )
    if any(parameter.is_meta for parameter in network.parameters()):
        raise ValueError(f'{role}: its parameters are on the meta device, without values: load its weights first')
    if hasattr(network, '_orig_mod'):
        raise ValueError(f'{role}: torch.compile wraps it: give the module itself, and compile that: module.compile()')
    if isinstance(network, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise ValueError(f'{role}: {type(network).__name__} wraps it: give the module itself, and wrap the distiller')


def _check_apart(student: nn.Module, networks: Sequence[nn.Module]) -> None:
    """Refuse a teacher that shares parameters with the student."""
    own = {id(parameter) for parameter in student.parameters()}
    if any(id(parameter) in own for network in networks for parameter in network.parameters()):
        raise ValueError('teacher: it shares parameters with the student, and is frozen: give copy.deepcopy(teacher)')


def build_teacher(
    given: Any, student: nn.Module, inputs: Mapping[str, Any] | None, keywords: Mapping[str, Any]
) -> TeacherLike:
    """Build a distiller's teacher.

    Args:
        given: A network, its name, a :class:`TeacherSpec`, a teacher that is built, or a list of these.
        student: The student, with which it must share no parameters.
        inputs: Input preprocessing of the images; None if unknown.
        keywords: Keywords of each :class:`~mmcls_kd.teachers.FrozenTeacher`.

    Raises:
        ValueError: If ``given`` is something else, hides its parts, or has settings that it would not heed.
    """
    if isinstance(given, list | tuple):
        specs = [one if isinstance(one, TeacherSpec) else TeacherSpec(one) for one in given]
        if not specs:
            raise ValueError('teacher: the list is empty: give at least one teacher')
        several: list[Any] = [build_teacher(spec, student, inputs, keywords) for spec in specs]
        return TeacherGroup(several, [spec.weight for spec in specs])
    spec = given if isinstance(given, TeacherSpec) else TeacherSpec(given)
    network = load_network(spec.network) if isinstance(spec.network, str) else spec.network
    if isinstance(network, TeacherLike):
        _check_apart(student, network.networks)
        _check_unset(type(network).__name__, spec, keywords)
        return network
    if not isinstance(network, nn.Module):
        raise ValueError(f'teacher: give a module, a name, a TeacherSpec, a StoredTeacher or a list, not {network!r}')
    if spec.inputs and not inputs:
        raise ValueError(
            'the input preprocessing of the teacher is given, and that of the images is not: '
            'Distiller(..., inputs=dict(mean=..., std=...))'
        )
    check_plain('teacher', network)
    _check_apart(student, [network])
    ours = changed(InputSpec(), inputs or {}, 'inputs')
    return FrozenTeacher(network, ours, changed(ours, spec.inputs or {}, 'TeacherSpec.inputs'), spec.class_map, **keywords)


def _check_unset(kind: str, spec: TeacherSpec, keywords: Mapping[str, Any]) -> None:
    """Refuse settings of a teacher that is built already, and would not heed them."""
    settings = {
        'inputs': spec.inputs,
        'class_map': spec.class_map is not None,
        'teacher_mode': keywords['mode'] != 'eval',
        'teacher_precision': keywords['precision'],
        **{f'taps[{name!r}]': name.endswith('_t') for name in keywords['taps']},
    }
    if given := [name for name, value in settings.items() if value]:
        raise ValueError(f'teacher: a {kind} does not heed {", ".join(given)}: build it with that, or leave it out')
