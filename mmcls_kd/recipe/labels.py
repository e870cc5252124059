"""Labels of images: one class, several that do not exclude each other, or none; and the methods that fit them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..dis_losses import LOSSES
from ..dis_losses.common import entropy_target
from ..teachers.several import each_teacher
from ..teachers.store import TeacherStore
from .methods import GT_LABEL, TEACHER_LINEAR, Method, needs_teacher, parameters_of, weak_name

#: Label of an image that has none; of scores, each of them.
UNLABELLED = -1
#: The failure where a mean cannot leave out samples without a label, and the first batch had none to show that there are.
UNKNOWN = (
    'samples without a label, and task_loss returns a mean that would include them: let it return the loss of each sample '
    "(reduction='none')"
)
#: Substitutes for a missing label, in the methods that need one; None for none.
SUBSTITUTES = (None, 'teacher')


def check_scores(methods: Iterable[Method]) -> None:
    """Refuse methods on softmax probabilities for a student whose labels do not exclude each other.

    Args:
        methods: The methods.

    Raises:
        ValueError: Names them, and the types of all losses that fit.
    """
    if wrong := [method.name for method in methods if getattr(method.kind, 'needs', None) == 'softmax']:
        fitting = [name for name, kind in LOSSES.items() if kind.needs != 'softmax']
        raise ValueError(
            f'{", ".join(wrong)}: for classes that exclude each other (softmax), but the student’s head is multi-label or '
            f'has one logit (sigmoid): choose among {", ".join(fitting)}'
        )


def check_substitute(label: str | None, reading: Sequence[str], teaching: bool) -> None:
    """Check the substitute of missing labels.

    Args:
        label: The substitute.
        reading: Names of the methods that need a label.
        teaching: Whether there is a teacher.

    Raises:
        ValueError: If it is unknown, or comes from a teacher that is not there.
    """
    if label not in SUBSTITUTES:
        raise ValueError(f"label={label!r}: choose 'teacher', for the teacher's class where an image has no label, or None")
    if label and reading and not teaching:
        raise ValueError(f"label='teacher': {', '.join(reading)} has no teacher to take the class of: leave it out")


def check_unlabelled(inputs: Mapping[str, Sequence[str]], label: str | None) -> None:
    """Refuse images without labels under methods that need labels.

    Args:
        inputs: The names of each method's inputs, by its name.
        label: The substitute of missing labels.

    Raises:
        ValueError: Names the methods, and the types of all losses that need no label.
    """
    if label is None and (reading := [name for name, names in inputs.items() if GT_LABEL in names]):
        free = [name for name, kind in LOSSES.items() if GT_LABEL not in parameters_of(kind.forward)]
        raise ValueError(
            f"images without labels, and {', '.join(reading)} needs a label: set label='teacher' to take the teacher's "
            f'class, or choose among {", ".join(free)}'
        )


def check_classes(student: int, teacher: int, remedy: str) -> None:
    """Refuse a student and a teacher with different numbers of classes, unless one has none.

    ``remedy`` says how to give both the same, or by which key to map the teacher's classes to the student's.
    """
    if student != teacher and student and teacher:
        forms = 'one logit and two logits are two forms of two classes, and do not mix: '
        hint = forms if {student, teacher} == {1, 2} else ''
        raise ValueError(
            f'the student has {student} classes and the teacher {teacher}: {hint}{remedy} which of the teacher’s classes is '
            'which of the student’s'
        )


def as_labels(labels: Any, count: int, num_classes: int, device: torch.device) -> Tensor:
    """Return labels as losses compute with them: class indices, (N,), in int64, or scores, (N, C).

    Args:
        labels: Class indices of any type of integers, or scores; a tensor, an array or a list.
        count: Number of samples.
        num_classes: Number of the student's logits.
        device: Device for arrays and lists.

    Raises:
        ValueError: If they are neither; names the form to give.
    """
    labels = labels if isinstance(labels, Tensor) else torch.as_tensor(labels, device=device)
    one_row = labels.shape == (count,)
    if not one_row and labels.shape != (count, num_classes):
        raise ValueError(
            f'labels of shape {tuple(labels.shape)} for {count} images: give class indices, ({count},), or scores, '
            f'({count}, {num_classes})'
        )
    if one_row and labels.is_floating_point() and num_classes > 1:
        raise ValueError(f'labels of shape ({count},) in {labels.dtype}: give class indices as integers: labels.long()')
    if labels.dtype == torch.bool or (one_row and not labels.is_floating_point()):
        return labels.to(torch.int64 if one_row else torch.float32)
    return labels


def check_range(labels: Tensor, num_classes: int, multi_label: bool = False, shares: bool = False) -> None:
    """Refuse labels outside of the classes, or of another form than the student's.

    Args:
        labels: Class indices (N,), or scores (N, C); −1 for none.
        num_classes: Number of the student's logits.
        multi_label: Whether labels do not exclude each other.
        shares: Whether scores have to be shares of one label.

    Raises:
        ValueError: Names the wrong labels, and the form to give.
    """
    low, high = labels.min().item(), labels.max().item()
    if labels.dim() == 1 and multi_label and num_classes > 1 and high >= 0:
        raise ValueError(
            f'multi_label: labels are scores (N, {num_classes}), 1 for each label that an image has, not indices (N,)'
        )
    last = 1 if multi_label else num_classes - 1
    if labels.dim() == 1 and (low < UNLABELLED or high > last):
        raise ValueError(
            f'labels go from {low} to {high}, and the student has {max(num_classes, 2)} classes, from 0 (−1: no label)'
        )
    if labels.dim() == 2 and multi_label and high > 1:
        raise ValueError(f'multi_label: scores go up to {high}, and a label is there (1) or not (0)')
    if labels.dim() == 2 and shares and not multi_label and (most := labels.sum(dim=1).max().item()) > 1.5:
        raise ValueError(
            f'the scores of an image add up to {most}, and those of one label to 1: set multi_label=True for several labels'
        )


def is_labelled(labels: Tensor) -> Tensor:
    """Return whether each sample has a label, (N,): its index is not −1, or none of its scores is negative.

    Args:
        labels: Class indices (N,), or scores (N, C).
    """
    return labels >= 0 if labels.dim() == 1 else (labels >= 0).all(dim=1)


def unlabelled(count: int, num_classes: int, multi_label: bool, device: torch.device) -> Tensor:
    """Return the labels of a batch that has none: −1, (N,), or (N, C) for several labels a sample."""
    return torch.full((count, num_classes) if multi_label else (count,), UNLABELLED, device=device)


def filled(labels: Tensor, logit_t: Tensor, multi_label: bool = False) -> Tensor:
    """Fill in missing labels by the teacher's class; of several labels a sample, by those with a positive logit.

    Args:
        labels: Class indices (N,), or scores (N, C).
        logit_t: Teacher logits, (N, C).
        multi_label: Whether samples have several labels, or there is one logit.

    Example:
        >>> filled(torch.tensor([2, -1]), torch.tensor([[9.0, 0.0, 0.0], [0.0, 5.0, 0.0]]))
        tensor([2, 1])
    """
    known = is_labelled(labels)
    if labels.dim() == 1:
        taught = logit_t[:, 0] > 0 if multi_label else logit_t.argmax(dim=1)  # several labels without classes: one logit
        return torch.where(known, labels, taught.to(labels.dtype))
    taught = logit_t > 0 if multi_label else F.one_hot(logit_t.argmax(dim=1), logit_t.shape[1])
    return torch.where(known[:, None], labels, taught.to(labels.dtype))


def binary_target(labels: Tensor, logit: Tensor) -> Tensor:
    """Return the label of each logit, (N, C), in its type; labels (N,) are those of one logit."""
    return (labels[:, None] if labels.dim() == 1 else labels).to(logit.dtype)


def each_task_loss(logit: Tensor, labels: Tensor, multi_label: bool) -> Tensor:
    """Return each sample's cross entropy, (N,); of several labels the sum of their binary cross entropies.

    Args:
        logit: Logits, (N, C).
        labels: Class indices (N,), or scores (N, C); the value of an unlabelled sample is finite, and means nothing.
        multi_label: Whether labels do not exclude each other.
    """
    if multi_label:
        return F.binary_cross_entropy_with_logits(logit, binary_target(labels, logit), reduction='none').sum(dim=1)
    return F.cross_entropy(logit, entropy_target(labels, logit.dtype), reduction='none', ignore_index=UNLABELLED)


def task_loss(
    logit: Tensor,
    labels: Tensor,
    multi_label: bool = False,
    given: Callable[[Tensor, Tensor], Tensor] | None = None,
    missing: bool = False,
) -> Tensor:
    """Return the task loss of the samples that have a label, a mean or what ``given`` returns; 0 where none has one.

    Neither a GPU nor a compiled graph has to wait for the labels, unless labels are missing and ``given`` returns a mean.

    Args:
        logit: Logits, (N, C).
        labels: Class indices (N,), or scores (N, C).
        multi_label: Whether labels do not exclude each other.
        given: The task loss, a mean or the loss of each sample; None for the cross entropy.
        missing: Whether ``given`` is called with the labelled samples alone on a GPU, too, which waits for the labels.
    """
    known = is_labelled(labels)
    if torch.compiler.is_compiling() or (labels.device.type != 'cpu' and not (missing and given)):
        return _masked(logit, labels, known, multi_label, given)
    if not known.all():
        if not known.any():
            return 0 * logit.sum()
        logit, labels = logit[known], labels[known]
    if given is not None:
        return given(logit, labels)
    return each_task_loss(logit, labels, multi_label).mean()  # rounded as mmpretrain's loss, to the bit


def _masked(
    logit: Tensor, labels: Tensor, known: Tensor, multi_label: bool, given: Callable[[Tensor, Tensor], Tensor] | None
) -> Tensor:
    """Return the task loss from all samples: its mean is that of :func:`task_loss`, unlabelled ones count 0 times."""
    share = known / known.sum().clamp(min=1)
    if given is None:
        return (each_task_loss(logit, labels, multi_label) * share).sum()
    each = given(logit, labels.clamp(min=0))
    if each.dim() == 0 or len(each) != len(known):  # a mean, which unlabelled samples would be part of
        torch._assert_async(known.all(), UNKNOWN)
        return each
    return each * (len(known) * share).view(-1, *[1] * (each.dim() - 1))


def _stores(teacher: Any) -> list[TeacherStore]:
    """List the stores of a teacher, or of several."""
    return [one.store for one in each_teacher(teacher) if hasattr(one, 'store')]


def check_stored(teacher: object, multi_label: bool) -> None:
    """Refuse stored logits that are not whole for a student whose labels do not exclude each other.

    Args:
        teacher: The teacher, or several.
        multi_label: Whether the labels do not exclude each other.

    Raises:
        ValueError: Names the store, and the remedy.
    """
    for store in _stores(teacher) if multi_label else ():
        manifest = store.manifest
        if manifest.k < manifest.classes:
            raise ValueError(
                f'teacher_store {store.folder} has the {manifest.k} largest of {manifest.classes} logits, from which '
                'softmax probabilities are restored, not those of single labels: store all (leave --top-k, or k, out)'
            )


def check_stored_views(teacher: object, reason: str) -> None:
    """Refuse stored logits of one view where the strong view's are read.

    Args:
        teacher: The teacher, or several.
        reason: The reason why there have to be two views.

    Raises:
        ValueError: Names the store, and the remedy.
    """
    for store in _stores(teacher):
        if store.manifest.views_each < 2:
            raise ValueError(
                f'teacher_store {store.folder} has the logits of one view of each image, and {reason}: make a store of '
                'both views (a pipeline with TwoViews; in plain PyTorch, batches of pairs of images)'
            )


def check_stored_inputs(teacher: Any, methods: Sequence[Method]) -> None:
    """Refuse methods that need more of a stored teacher than its store holds.

    Args:
        teacher: The teacher.
        methods: The methods.

    Raises:
        ValueError: Names the method, its input, and the remedy.
    """
    if not hasattr(teacher, 'store'):
        return
    store, there = f'teacher_store {teacher.store.folder}', [f'{name}_t' for name in teacher.shapes]
    read = [(method, weak_name(name)) for method in methods for name in method.inputs if needs_teacher(name)]
    beyond = [(method, name) for method, name in read if name not in (*there, *TEACHER_LINEAR)]
    for method, name in [*beyond, *_parts(methods, {method.name for method, _ in beyond})]:
        if not name.endswith('_t'):
            raise ValueError(
                f'{store} holds features, and {method.name} needs {name!r}, a part of the network; leave one of the two out'
            )
    if beyond:
        method, name = beyond[0]
        taps = [*dict.fromkeys(of.removesuffix('_t') for _, of in read if of not in ('logit_t', *TEACHER_LINEAR))]
        raise ValueError(
            f'{store} holds {" and ".join(there)}, and {method.name} needs {name!r}: make a store that holds it, in another '
            f'folder (`python -m mmcls_kd store ... --with {" ".join(taps)}`; '
            f'in plain PyTorch store_logits(..., features={taps}))'
        )
    for method, name in read:
        if name in TEACHER_LINEAR and teacher.classifier is None:
            raise ValueError(
                f'{store} holds no linear classifier behind the teacher’s last map, and {method.name} needs {name!r}: the '
                'same `python -m mmcls_kd store` command again adds it, if the teacher has one; in plain PyTorch '
                "store_logits(..., features=['feat']) stores it, in another folder"
            )


def _parts(methods: Iterable[Method], lacking: Collection[str]) -> Iterator[tuple[Method, str]]:
    """Iterate over the parts of the teacher from which losses are built: needed ones, and any where features lack, too."""
    for method in methods:
        needed = getattr(method.kind, 'needed_facts', {})
        for key, name in method.facts.items():
            if name.startswith('teacher') and name not in TEACHER_LINEAR and (key in needed or method.name in lacking):
                yield method, name
