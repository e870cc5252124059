"""The classes of a teacher that knows more of them than the student, or has them in another order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmpretrain.models.classifiers import HuggingFaceClassifier, TimmClassifier
from torch import nn

from ..errors import close_names
from .classifiers import TorchvisionClassifier


def names_in(meta: Mapping[str, Any] | None) -> list[str] | None:
    """The names of the classes that a checkpoint of mmengine's (or of the older mmcls) says it was trained for."""
    meta = meta or {}
    names = (meta.get('dataset_meta') or {}).get('classes') or meta.get('CLASSES')
    return [str(name) for name in names] if isinstance(names, Sequence) and not isinstance(names, str) else None


def class_names(network: nn.Module, count: int) -> list[str] | None:
    """The names of a network's classes, as far as its library knows them.

    Args:
        network: A classifier.
        count: How many classes it tells apart.
    """
    names: Sequence[str] | None = None
    if isinstance(network, HuggingFaceClassifier):
        labels = network.model.config.id2label
        names = [labels[i] for i in sorted(labels)]
        if names and all(name == f'LABEL_{i}' for i, name in enumerate(names)):
            return None
    elif isinstance(network, TorchvisionClassifier) and network.weights:
        names = network.weights.meta['categories']
    elif isinstance(network, TimmClassifier):
        from timm.data import ImageNetInfo, infer_imagenet_subset

        if subset := infer_imagenet_subset(network.model):
            names = ImageNetInfo(subset).label_names()  # WordNet's numbers, which are ImageNet's folders
    return list(names) if names and len(names) == count else None


def class_index(classes: Sequence[int | str], names: Sequence[str] | None, count: int, wanted: int) -> list[int]:
    """The teacher's class for each class of the student.

    Args:
        classes: For each class of the student, in its order, the teacher's class: all by index, or all by name.
        names: The names of the teacher's classes, if they are known.
        count: How many classes the teacher tells apart.
        wanted: How many the student does.

    Raises:
        ValueError: If a class of the student has none, two have the same, or a class is not the teacher's.
    """
    if isinstance(classes, (str, Mapping)) or not isinstance(classes, Sequence):
        raise ValueError(
            f'teacher_classes is a list with the teacher’s class for each class of the student, not {classes!r}'
        )
    if len(classes) != wanted:
        raise ValueError(
            f'teacher_classes names {len(classes)} classes and the student has {wanted}: each class of the student needs '
            'the teacher’s class for it, in the order of the student’s classes'
        )
    if names is not None and len(names) != count:  # those of the data that it saw last, not of its outputs
        names = None
    index = [_index_of(chosen, place, names, count) for place, chosen in enumerate(classes)]
    for place, chosen in enumerate(index):
        if chosen in index[:place]:
            raise ValueError(
                f'teacher_classes gives the teacher’s class {classes[place]!r} to two classes of the student, '
                f'{index.index(chosen)} and {place}'
            )
    return index


def _index_of(chosen: int | str, place: int, names: Sequence[str] | None, count: int) -> int:
    """One class of the teacher by index or name."""
    if isinstance(chosen, int) and not isinstance(chosen, bool):
        if not 0 <= chosen < count:
            raise ValueError(f'teacher_classes: {chosen}, for class {place} of the student, is outside of 0 to {count - 1}')
        return chosen
    if names is None:
        raise ValueError(
            f'teacher_classes names {chosen!r}, but the names of this teacher’s classes are not known: give their indices '
            '(its checkpoint has no names, and neither has its library)'
        )
    for same in (lambda name: name == chosen, lambda name: str(name).lower() == str(chosen).lower()):
        if found := [i for i, name in enumerate(names) if same(name)]:
            if len(found) > 1:
                raise ValueError(f'teacher_classes: {chosen!r} is the name of the teacher’s classes {found}; give indices')
            return found[0]
    raise ValueError(
        f'teacher_classes leaves class {place} of the student out: the teacher has no class {chosen!r}'
        f'{close_names(str(chosen), names)}'
    )
