"""Classes by name: two lists of names compared, and the classes of a teacher for those of the student."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from mmengine.logging import print_log
from mmpretrain.models.classifiers import HuggingFaceClassifier, TimmClassifier
from torch import nn

from ..errors import close_names
from .classifiers import TorchvisionClassifier

#: The names of some classes by label.
Names = Mapping[int, str]
#: What a library, or a folder, calls classes whose names it does not know: their numbers.
PLACEHOLDER = re.compile(r'(?:label|class|category)?[ _-]?(\d+)', re.IGNORECASE)
_DATA: ContextVar[Sequence[Names]] = ContextVar('names of the classes of the data', default=())


@contextmanager
def data_named(names: Sequence[Names]) -> Iterator[None]:
    """In the ``with`` block networks are built for data whose classes have these names; see :func:`data_names`."""
    token = _DATA.set(names)
    try:
        yield
    finally:
        _DATA.reset(token)


def data_names() -> Sequence[Names]:
    """What the data that a network is built for call their classes, in one or more ways; empty if that is not known."""
    return _DATA.get()


def synonyms(name: str) -> tuple[str, ...]:
    """What a class is called, as far as spelling counts: not case, underscores, hyphens, quotes or white space.

    Example:
        >>> synonyms('Tench, Tinca_tinca'), synonyms("jack-o'-lantern")
        (('tench', 'tinca tinca'), ('jack o lantern',))
    """
    text = re.sub('[\'’`"]', '', unicodedata.normalize('NFKC', name).casefold())
    words = (re.sub(r'[\s_-]+', ' ', part).strip() for part in re.split('[,;|]', text))
    return tuple(word for word in words if word) or (name,)


def match(names: Names, others: Names) -> dict[int, int]:
    """Which of some classes are which of others by their names; those without a counterpart are left out.

    The same text comes before the same words in any order; where that leaves all at their places, common words of classes
    with the same label come next; then those of any classes, the first word before all. What means several classes means
    none.

    Args:
        names: The names of some classes.
        others: Those of the others.

    Example:
        >>> match({0: 'tench', 1: 'Sea_Lion'}, {0: 'sea lion', 1: 'tench, Tinca tinca', 2: 'crane'})
        {0: 1, 1: 0}
    """
    ours, theirs = ({label: synonyms(name) for label, name in of.items()} for of in (names, others))
    found = _pairs({i: {name} for i, name in names.items()}, {i: {name} for i, name in others.items()}, {})
    found = _pairs({i: {frozenset(w)} for i, w in ours.items()}, {i: {frozenset(w)} for i, w in theirs.items()}, found)
    if all(i == j for i, j in found.items()):
        near = {i for i in ours.keys() & theirs.keys() if {*ours[i]} & {*theirs[i]}}
        found |= {i: i for i in near if i not in found}
    found = _pairs({i: {w[0]} for i, w in ours.items()}, {i: {w[0]} for i, w in theirs.items()}, found)
    found = _pairs({i: {*w} for i, w in ours.items()}, {i: {*w} for i, w in theirs.items()}, found)
    return dict(sorted(found.items()))


def _pairs(ours: Mapping[int, set], theirs: Mapping[int, set], found: Mapping[int, int]) -> dict[int, int]:
    """Pairs found before, and those of the other classes that have a key in common with each other and no one else."""
    taken = set(found.values())
    here = _by_key({i: keys for i, keys in ours.items() if i not in found})
    there = _by_key({j: keys for j, keys in theirs.items() if j not in taken})
    right: dict[int, set[int]] = {}
    left: dict[int, set[int]] = {}
    for key in here.keys() & there.keys():
        for i in here[key]:
            right.setdefault(i, set()).update(there[key])
        for j in there[key]:
            left.setdefault(j, set()).update(here[key])
    return {**found, **{i: next(iter(js)) for i, js in right.items() if len(js) == 1 and len(left[next(iter(js))]) == 1}}


def _by_key(keys: Mapping[int, set]) -> dict[Any, set[int]]:
    """The classes that have each key."""
    found: dict[Any, set[int]] = {}
    for label, own in keys.items():
        for key in own:
            found.setdefault(key, set()).add(label)
    return found


def moved(pairs: Mapping[int, int], names: Names, here: str, there: str) -> str:
    """Which classes have another label, in words; empty if none has.

    Args:
        pairs: What :func:`match` has found.
        names: The names of the classes.
        here: Where their labels are those of ``names``.
        there: Where the others are.

    Example:
        >>> moved({0: 0, 1: 2}, {0: 'ant', 1: 'bee'}, 'the data', 'the teacher')
        "'bee' is class 1 of the data and 2 of the teacher"
    """
    return some((f'{names[i]!r} is class {i} of {here} and {j} of {there}' for i, j in pairs.items() if i != j), 3)


def some(items: Iterable[Any], most: int = 5) -> str:
    """The first few, separated by commas, and how many more there are."""
    listed = [str(item) for item in items]
    return ', '.join(listed[:most]) + (f' and {len(listed) - most} more' if len(listed) > most else '')


def are_numbers(names: Names) -> bool:
    """Whether the names only count the classes, as ``LABEL_0``, ``LABEL_1``, ... do."""
    found = {label: PLACEHOLDER.fullmatch(name) for label, name in names.items()}
    return all(number is not None and int(number[1]) == label for label, number in found.items())


def miscounted(names: Names) -> str:
    """A class whose label is not its number's rank, in words, where the names are numbers, or differ in a number alone.

    Example:
        >>> miscounted(dict(enumerate(['0', '1', '10', '2']))), miscounted(dict(enumerate(['00', '01', '02', '10'])))
        ("'10' is class 2, and would be class 3 by number", '')
    """
    numbers = {label: re.findall(r'\d+', name) for label, name in names.items()}
    if len({re.sub(r'\d+', '#', name) for name in names.values()}) != 1 or any(len(n) != 1 for n in numbers.values()):
        return ''
    ranked = dict(zip(sorted(numbers, key=lambda label: int(numbers[label][0])), sorted(numbers), strict=True))
    return next(
        (f'{names[i]!r} is class {i}, and would be class {j} by number' for i, j in sorted(ranked.items()) if i != j), ''
    )


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
        labels = network.model.config.id2label or {}  # some kinds have none unless they are given
        names = [labels[i] for i in sorted(labels)]
        if names and all(name == f'LABEL_{i}' for i, name in enumerate(names)):
            return None
    elif isinstance(network, TorchvisionClassifier) and network.weights:
        names = network.weights.meta['categories']
    elif isinstance(network, TimmClassifier):
        from timm.data import ImageNetInfo, infer_imagenet_subset

        if subset := infer_imagenet_subset(network.model):
            info = ImageNetInfo(subset)  # WordNet's numbers, which are ImageNet's folders, and its words
            names = [f'{name}, {info.label_name_to_description(name, detailed=False)}' for name in info.label_names()]
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
    words = {*synonyms(str(chosen))}
    ways: list[Callable[[str], bool]] = [
        lambda name: name == chosen,
        lambda name: {*synonyms(name)} == words,
        lambda name: synonyms(name)[0] in words,
        lambda name: bool({*synonyms(name)} & words),
    ]
    for same in ways:
        if found := [i for i, name in enumerate(names) if same(name)]:
            if len(found) > 1:
                raise ValueError(f'teacher_classes: {chosen!r} is the name of the teacher’s classes {found}; give indices')
            return found[0]
    raise ValueError(
        f'teacher_classes leaves class {place} of the student out: the teacher has no class {chosen!r}'
        f'{close_names(str(chosen), names)}'
    )


def index_by_name(names: Sequence[Names], known: Sequence[str] | None, count: int, wanted: int) -> list[int] | None:
    """The teacher's class for each class of the student, where names put it at another place; the log says so.

    Args:
        names: What the data call their classes, in one or more ways.
        known: What the teacher calls its classes; None if that is not known.
        count: How many classes the teacher tells apart.
        wanted: How many the student does.

    Returns:
        None if the classes have the same labels, as far as the names tell.

    Raises:
        ValueError: If some classes are at other places, and others of the data are not among the teacher's.
    """
    if not names or any(len(of) > wanted for of in names):  # more than the student's are refused by their labels
        return None
    theirs = dict(enumerate(known or ()))
    ours, pairs = max(((of, match(of, theirs)) for of in names), key=lambda found: len(found[1]))
    if not pairs or len(theirs) != count:
        _warn_of_unnamed(names, {} if len(theirs) != count or are_numbers(theirs) else theirs)
        return None
    missing = {label: ours.get(label, 'a class without a name') for label in range(wanted) if label not in pairs}
    others = moved(pairs, ours, 'the data', 'the teacher')
    if not others and wanted == count:
        differing = [f'class {i} is {ours[i]!r} of the data and {theirs[i]!r} of the teacher' for i in missing if i in ours]
        if differing:
            _warn(f'some classes of data and teacher have other names, and are taken for the same: {some(differing, 3)}')
        return None
    if missing:
        raise ValueError(
            f'the teacher has the data’s classes at other places ({others or f"it has {count} classes"}), and has none with '
            f'the name of {some(f"{i} {name!r}" for i, name in missing.items())}: say by model.teacher_classes, a list of '
            'its classes by index or name, which of them is which of the student’s'
        )
    _warn(f'the teacher’s classes are taken in the order of the data’s, by name: {others or f"of {count} the first ones"}')
    return [pairs[label] for label in range(wanted)]


def compare_order(known: Sequence[str] | None, names: Sequence[Names], source: str, refuse: bool) -> None:
    """Compare the classes that weights were trained for with those of the data, by name.

    Args:
        known: What the weights' file calls its classes; None if it does not say.
        names: What the data call theirs, in one or more ways.
        source: The file.
        refuse: Whether another order is an error; if not, the log says it.

    Raises:
        ValueError: Names the classes whose label is another.
    """
    theirs = dict(enumerate(known or ()))
    if not theirs or not names:
        return
    ours, pairs = max(((of, match(of, theirs)) for of in names), key=lambda found: len(found[1]))
    other = moved(pairs, ours, 'the data', 'the file')
    if other and refuse:
        raise ValueError(
            f'{source} was trained for classes in another order than the data’s: {other}. Labels are numbered by the data: '
            'take those that it was trained on, or data whose class folders, or classes=[...], are in that order'
        )
    if other:
        _warn(f'{source} was trained for classes in another order than the data’s: {other}')
    elif not pairs and not are_numbers(theirs):
        _warn(
            f'no class of {source} ({some(map(repr, theirs.values()), 3)}) has a name of the data’s '
            f'({some(map(repr, ours.values()), 3)})'
        )


def _warn_of_unnamed(names: Sequence[Names], theirs: Names) -> None:
    """Say what may be wrong where names do not tell which class of a teacher is which of the data."""
    if theirs:
        _warn(
            f'no class of the teacher ({some(map(repr, theirs.values()), 3)}) has a name of the data’s '
            f'({some(map(repr, names[0].values()), 3)}): both are taken to be in the same order; if they are not, set '
            'model.teacher_classes'
        )
    elif counted := next(filter(None, map(miscounted, names)), ''):
        _warn(
            f'the class folders are in the order of their text ({counted}), and the teacher does not say what it calls its '
            'classes: if it counts them by number, set model.teacher_classes, or give the numbers leading zeros'
        )


def _warn(text: str) -> None:
    print_log(text, 'current', logging.WARNING)
