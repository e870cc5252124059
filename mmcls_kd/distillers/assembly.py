"""What a distiller is put together from: its losses, its data preprocessor, its teacher."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmpretrain.registry import MODELS
from torch import nn

from ..configs import check_methods, close_names, method_entries, method_name
from .stored_teacher import StoredTeacher
from .teacher import Teacher

# What a loss may ask for beside the networks' tensors, and what its short name means.
GT_LABEL, TEACHER_HEAD = 'gt_label', 'teacher_head'
ALIASES = {'feat_mid': 'feat_mid_s'}


def build_losses(distill_cfg: Sequence[Mapping]) -> tuple[nn.ModuleDict, dict[str, float]]:
    """The losses that are switched on, by name, and the ``loss_weight`` of each.

    Raises:
        ValueError: If none is switched on, a type is unknown (suggests close names), a keyword does not fit, or a name
            stands twice.
    """
    entries = list(method_entries(distill_cfg))
    active = [entry for entry in entries if entry.get('use_this', True)]
    check_methods([method_name(e) for e in active], [method_name(e) for e in entries])
    losses, weights = nn.ModuleDict(), {}
    for entry in active:
        keywords = {k: v for k, v in entry.items() if k not in ('name', 'use_this', 'loss_weight')}
        name, kind = entry['name'], entry['type']
        if name in losses:
            raise ValueError(f'two methods have the name {name!r}; give each its own')
        if '.' in name or hasattr(losses, name):
            raise ValueError(f'a method cannot have the name {name!r}; take one such as loss_{method_name(entry)}_1')
        if isinstance(kind, str) and MODELS.get(kind) is None:
            raise ValueError(f'{name}: unknown loss type {kind!r}{close_names(kind, MODELS.module_dict)}')
        try:
            losses[name] = MODELS.build(keywords)
        except TypeError as error:  # a keyword that the loss does not have, or one too few
            raise ValueError(f'{name}: {error}') from error
        weights[name] = entry.get('loss_weight', 1.0)
    return losses, weights


def asked_tensors(loss: nn.Module) -> tuple[str, ...]:
    """The names of the tensors that a loss asks for: the parameters of its ``forward`` that have no default."""
    parameters = inspect.signature(loss.forward).parameters.values()
    return tuple(p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD))


def preprocessor_cfg(given: Mapping | None, train_cfg: Mapping | None, student_cfg: Mapping) -> dict[str, Any]:
    """Config of the distiller's data preprocessor: the given one, else the student's; its mixup and CutMix likewise."""
    cfg = {'type': 'ClsDataPreprocessor', **(given or student_cfg.get('data_preprocessor') or {})}
    cfg.setdefault('batch_augments', train_cfg or student_cfg.get('train_cfg'))
    return cfg


def check_classes(student: nn.Module, teacher: Teacher | StoredTeacher | None) -> None:
    """Refuse a teacher and a student that tell apart different numbers of classes.

    Raises:
        ValueError: Names both numbers.
    """
    counts = [getattr(getattr(student, 'head', None), 'num_classes', None), teacher.num_classes if teacher else None]
    if None not in counts and counts[0] != counts[1]:
        raise ValueError(
            f'the student has {counts[0]} classes and the teacher {counts[1]}: '
            'set model.student_cfg and model.teacher_cfg (their head.num_classes) to the same data'
        )


def needs_teacher(name: str) -> bool:
    """Whether a tensor of that name comes from the teacher."""
    return name == TEACHER_HEAD or name.endswith('_t')


def build_teacher(
    asked: Mapping[str, Iterable[str]], store: str | None, mode: str, **keywords: Any
) -> Teacher | StoredTeacher | None:
    """The teacher, or what was stored of it; None where no loss asks for it.

    Args:
        asked: The names of the tensors that each loss asks for.
        store: Folder of a store; None for the network itself.
        mode: The teacher's mode.
        **keywords: The other keywords of :class:`~mmcls_kd.distillers.teacher.Teacher`.

    Raises:
        ValueError: As :class:`~mmcls_kd.distillers.teacher.Teacher`; or if a loss needs more than is stored, or the mode is
            one whose logits are not.
        FileNotFoundError: If config, weights or store are missing.
    """
    wanted = [(loss, name) for loss, names in asked.items() for name in names if needs_teacher(name)]
    if not wanted:
        return None
    if not store:
        return Teacher(mode=mode, **keywords)
    if mode == 'train':
        raise ValueError("a teacher_store holds logits of teacher_mode='eval'; leave one of the two out")
    for loss, name in wanted:
        if name != 'logit_t':
            raise ValueError(f'a teacher_store holds logits alone, and {loss} asks for {name!r}; leave one of the two out')
    return StoredTeacher(store)
