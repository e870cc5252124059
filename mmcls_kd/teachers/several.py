"""Several teachers as one: the mean of their probabilities."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..dis_losses.common import at_least_float32
from .frozen import FrozenTeacher


def each_teacher(teacher: Any) -> Sequence[Any]:
    """Return the teachers in a group; another teacher, or None, by itself."""
    return getattr(teacher, 'teachers', [teacher])


class TeacherGroup:
    r"""Several teachers as one: the logarithm of the weighted mean of their probabilities.

    .. math:: z = \log \sum_k w_k \, softmax(z_k), \quad \sum_k w_k = 1

    Of labels that do not exclude each other, the logit of the mean of each one's probability:
    :math:`z = \log p - \log(1 - p)`, :math:`p = \sum_k w_k \, \sigma(z_k)`.

    Args:
        teachers: The teachers.
        weights: Their weights w_k, in units of their sum.

    Attributes:
        multi_label: Whether the labels do not exclude each other; the distiller sets it by its student.
        shapes: Shapes of the logits and of each teacher's ``vector``: other features of several networks have no mean.
        num_classes: Their number of classes; 0 if one of them has none.

    Raises:
        ValueError: If a weight is not positive, or the numbers of classes differ.
    """

    head = classifier = None
    facts: Mapping[str, Any] = {}

    def __init__(self, teachers: Sequence[FrozenTeacher], weights: Sequence[float]) -> None:
        if not all(isinstance(weight, (int, float)) and 0 < weight < math.inf for weight in weights):
            raise ValueError(f'teacher_weights={list(weights)}: each has to be a number above 0')
        counts = [teacher.num_classes for teacher in teachers]
        if len({*counts} - {0}) > 1:
            raise ValueError(
                f'the teachers have {counts} classes: set model.teacher_classes of those that differ, or '
                'TeacherSpec(class_map=...)'
            )
        self.teachers, self.num_classes = list(teachers), min(counts)
        self.log_weights = [math.log(weight / sum(weights)) for weight in weights]
        self.multi_label = False
        self.shapes: dict[str, Any] = {'logit': (2, self.num_classes)} if self.num_classes else {}
        if all('vector' in teacher.shapes for teacher in teachers):
            self.shapes['vector'] = tuple(teacher.shapes['vector'] for teacher in teachers)

    @property
    def networks(self) -> list[nn.Module]:
        """The networks of all teachers."""
        return [network for teacher in self.teachers for network in teacher.networks]

    def __deepcopy__(self, memo: dict[int, Any]) -> TeacherGroup:
        return self

    def apart(self) -> TeacherGroup:
        """Return the same teachers with networks of their own."""
        other = copy.copy(self)
        other.teachers = [teacher.apart() for teacher in self.teachers]
        return other

    def __call__(self, inputs: Tensor, samples: Any, names: Iterable[str], *view: str) -> dict[str, Any]:
        """Return the joint logits, (N, C), and a tuple of each teacher's ``vector``; see :class:`.frozen.FrozenTeacher`."""
        names = [name for name in names if name in self.shapes]
        seen = [teacher(inputs, samples, names, *view) for teacher in self.teachers] if names else []
        vectors = {'vector': tuple(one['vector'] for one in seen)} if 'vector' in names else {}
        return {**({'logit': self._mean([one['logit'] for one in seen])} if 'logit' in names else {}), **vectors}

    def _mean(self, logits: Sequence[Tensor]) -> Tensor:
        """Return the joint logits of the teachers'."""
        logits = [at_least_float32(z) for z in logits]  # autocast may have left others
        if self.multi_label:
            present, absent = (self._log_mean([F.logsigmoid(sign * z) for z in logits]) for sign in (1, -1))
            return present - absent
        return self._log_mean([z.log_softmax(dim=1) for z in logits])

    def _log_mean(self, logs: Sequence[Tensor]) -> Tensor:
        """Return the logarithm of the weighted mean of probabilities, given by their logarithms."""
        parts = [log + weight for log, weight in zip(logs, self.log_weights, strict=True)]
        return torch.stack(parts).logsumexp(dim=0)
