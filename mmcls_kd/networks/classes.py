"""Classes by name: comparison of two lists of names, and the class map of a teacher."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import product
from typing import Any

from mmengine.logging import print_log
from mmpretrain.datasets.categories import IMAGENET_CATEGORIES
from mmpretrain.models.classifiers import HuggingFaceClassifier, TimmClassifier
from torch import nn

from ..errors import close_names, listed
from ..teachers.zero_shot import ZeroShot
from .classifiers import TorchvisionClassifier

#: Names of classes by label.
Names = Mapping[int, str]
#: Placeholder names for classes without names: their numbers.
PLACEHOLDER = re.compile(r'(?:label|class|category)?[ _-]?(\d+)', re.IGNORECASE)
#: ImageNet's class folders are numbers of WordNet.
SYNSET = re.compile(r'n\d{8}')
#: Names that torchvision tells apart with words of its own.
TORCHVISION_WORDS = {'n02012849': 'crane bird', 'n03710721': 'maillot tank suit'}
_DATA: ContextVar[Sequence[Names] | None] = ContextVar('names of the classes of the data', default=None)


@contextmanager
def data_named(names: Sequence[Names] | None) -> Iterator[None]:
    """Build networks in the ``with`` block for data with these class names; see :func:`data_names`."""
    token = _DATA.set(names)
    try:
        yield
    finally:
        _DATA.reset(token)


def data_names() -> Sequence[Names] | None:
    """Return the class names of the data that a network is built for, in one or more forms.

    Empty if the data number their classes without naming them; None if no data with labels are known.
    """
    return _DATA.get()


def synonyms(name: str) -> tuple[str, ...]:
    """Split a class name into its synonyms, without case, underscores, hyphens, quotes and white space.

    Example:
        >>> synonyms('Tench, Tinca_tinca'), synonyms("jack-o'-lantern")
        (('tench', 'tinca tinca'), ('jack o lantern',))
    """
    text = re.sub('[\'’`"]', '', unicodedata.normalize('NFKC', name).casefold())
    words = (re.sub(r'[\s_-]+', ' ', part).strip() for part in re.split('[,;|]', text))
    return tuple(word for word in words if word) or (name,)


def match(names: Names, others: Names) -> dict[int, int]:
    """Match classes by their names; those without a counterpart are left out.

    The same text comes before the same words in any order. If that leaves all labels unchanged, common words of classes with
    the same label come next; then those of any classes, the first word before all. An ambiguous name matches nothing.

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
    """Return the pairs found before, and those of other classes that share a key with each other and no one else."""
    taken = set(found.values())
    here = _by_key({i: keys for i, keys in ours.items() if i not in found})
    there = _by_key({j: keys for j, keys in theirs.items() if j not in taken})
    pairs = {pair for key in here.keys() & there.keys() for pair in product(here[key], there[key])}
    times_here, times_there = (Counter(labels) for labels in ([i for i, _ in pairs], [j for _, j in pairs]))
    return {**found, **{i: j for i, j in pairs if times_here[i] == times_there[j] == 1}}


def _by_key(keys: Mapping[int, set]) -> dict[Any, set[int]]:
    """Return the classes that have each key."""
    found = defaultdict(set)
    for label, own in keys.items():
        for key in own:
            found[key].add(label)
    return found


def moved(pairs: Mapping[int, int], names: Names, here: str, there: str) -> str:
    """Describe the classes whose labels differ in the pairs of :func:`match`; empty if none does.

    Example:
        >>> moved({0: 0, 1: 2}, {0: 'ant', 1: 'bee'}, 'the data', 'the teacher')
        "'bee' is class 1 of the data and 2 of the teacher"
    """
    return some((f'{names[i]!r} is class {i} of {here} and {j} of {there}' for i, j in pairs.items() if i != j), 3)


def some(items: Iterable[Any], most: int = 5) -> str:
    """List the first few, separated by commas, and the number of others."""
    return listed([*map(str, items)], most)


def synset_words(names: Names) -> Names:
    """Add the words to names that are WordNet's numbers, as ImageNet's folders are; empty if they are others.

    Without timm, which has the words, only the thousand classes of ImageNet-1k in their order have them.

    Example:
        >>> synset_words({0: 'n01440764', 1: 'n02012849'})
        {0: 'n01440764, tench, Tinca tinca', 1: 'n02012849, crane, crane bird'}
        >>> synset_words({0: 'apple'})
        {}
    """
    if not names or not all(SYNSET.fullmatch(name) for name in names.values()):
        return {}
    try:
        from timm.data import ImageNetInfo

        info = ImageNetInfo()
        words = {label: info.label_name_to_description(name, detailed=False) for label, name in names.items()}
    except KeyError:
        return {}
    except ImportError:
        ordered = [names.get(label, '') for label in range(1000)]
        if len(names) != 1000 or ordered != sorted(ordered) or (ordered[0], ordered[-1]) != ('n01440764', 'n15075141'):
            return {}
        words = dict(enumerate(IMAGENET_CATEGORIES))
    aliases = {label: f', {TORCHVISION_WORDS[name]}' for label, name in names.items() if name in TORCHVISION_WORDS}
    return {label: f'{name}, {words[label]}{aliases.get(label, "")}' for label, name in names.items()}


def identified(names: Names, others: Names) -> Names:
    """Return the WordNet numbers of other classes, if those are ImageNet-1k's in their order and ``names`` are such numbers.

    Words alone do not tell the two cranes and the two maillots apart.

    Args:
        names: Names of some classes.
        others: Names of the others, which are returned as they are if they are not ImageNet-1k's.
    """
    if len(others) != 1000 or not names or not all(SYNSET.fullmatch(name) for name in names.values()):
        return others
    try:
        from timm.data import ImageNetInfo
    except ImportError:
        return others
    numbers = dict(enumerate(ImageNetInfo('imagenet-1k').label_names()))
    return numbers if match(synset_words(numbers), others) == {i: i for i in range(1000)} else others


def are_numbers(names: Names) -> bool:
    """Check whether the names only count the classes, as ``LABEL_0``, ``LABEL_1``, ..."""
    found = {label: PLACEHOLDER.fullmatch(name) for label, name in names.items()}
    return all(number is not None and int(number[1]) == label for label, number in found.items())


def miscounted(names: Names) -> str:
    """Describe a class whose label is not the rank of its number, if the names are or contain numbers.

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


def otherwise_by_timm(names: Names) -> str:
    """Describe a class to which timm gives another label, if the classes are in the order of their text.

    timm sorts class folders without case, and digits by the number that they make.

    Example:
        >>> otherwise_by_timm(dict(enumerate(['Bengal', 'Ragdoll', 'beagle']))), otherwise_by_timm({0: 'ant', 1: 'bee'})
        ("'Bengal' is class 0, and would be class 1 by timm", '')
    """
    ordered = [names[label] for label in sorted(names)]
    if ordered != sorted(ordered):
        return ''
    found = sorted(ordered, key=_parts_by_timm)
    moves = ((name, i, found.index(name)) for i, name in enumerate(ordered))
    return next((f'{name!r} is class {i}, and would be class {j} by timm' for name, i, j in moves if i != j), '')


def _parts_by_timm(name: str) -> list[str | int]:
    """Split a name into its text, in lower case, and its numbers, which take turns."""
    return [int(part) if place % 2 else part for place, part in enumerate(re.split(r'(\d+)', name.lower()))]


def names_in(meta: Mapping[str, Any] | None) -> list[str] | None:
    """Return the class names in the metadata of a checkpoint of mmengine's (or of the older mmcls)."""
    meta = meta or {}
    names = (meta.get('dataset_meta') or {}).get('classes') or meta.get('CLASSES')
    return [str(name) for name in names] if isinstance(names, Sequence) and not isinstance(names, str) else None


def class_names(network: nn.Module, count: int) -> list[str] | None:
    """Return the class names of a network of so many classes, if its library knows them."""
    names: Sequence[str] | None = None
    if isinstance(network, HuggingFaceClassifier):
        labels = network.model.config.id2label or {}  # some kinds have none unless they are given
        names = [labels[i] for i in sorted(labels)]
        if names and all(name == f'LABEL_{i}' for i, name in enumerate(names)):
            return None
    elif isinstance(inner := getattr(network, 'model', None), ZeroShot):
        names = inner.classes
    elif isinstance(network, TorchvisionClassifier) and network.weights:
        names = network.weights.meta['categories']
    elif isinstance(network, TimmClassifier):
        from timm.data import ImageNetInfo, infer_imagenet_subset

        if subset := infer_imagenet_subset(network.model):
            info = ImageNetInfo(subset)  # WordNet's numbers, which are ImageNet's folders, and its words
            names = [f'{name}, {info.label_name_to_description(name, detailed=False)}' for name in info.label_names()]
    return list(names) if names and len(names) == count else None


def class_index(classes: Sequence[int | str], names: Sequence[str] | None, count: int, wanted: int) -> list[int]:
    """Return the class map, all by index or all by name, as the index of the teacher's class for each class of the student.

    The teacher has ``count`` classes, with names if they are known, the student as many as wanted.
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
    """Return the index of one class of the teacher, given by index or name."""
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


def best_match(names: Sequence[Names], others: Names) -> tuple[Names, dict[int, int]]:
    """Return the form of some classes' names that matches others most often, and its pairs, see :func:`match`."""
    return max(((form, match(form, identified(form, others))) for form in names), key=lambda found: len(found[1]))


def index_by_name(names: Sequence[Names] | None, known: Sequence[str] | None, count: int, wanted: int) -> list[int] | None:
    """Find the class map by names where they differ in order, and log it; the data's names are in one or more forms.

    The teacher has ``count`` classes, with names if they are known, the student as many as wanted. None if the classes have
    the same labels, as far as names are known. For the names of no data see :func:`data_names`.
    """
    theirs = dict(enumerate(known or ()))
    if names is not None and not names and len(theirs) == count == wanted and not are_numbers(theirs):
        _warn(
            f'the data number their classes and do not name them: they are taken in the order of the teacher’s '
            f'({some(map(repr, theirs.values()), 10)}); if they are in another one, give the data set its names by '
            'classes=[...], or set model.teacher_classes'
        )
    if not names or any(len(of) > wanted for of in names):  # more than the student's are refused by their labels
        return None
    ours, pairs = best_match(names, theirs)
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
        lacks = f'has none with the name of {some(f"{i} {name!r}" for i, name in missing.items())}'
        if count < wanted:
            raise ValueError(
                f'the teacher lacks classes of the data: it has {count} and the student {wanted}, and it {lacks}: take a '
                'teacher of all the classes, or train on data without those that it lacks'
            )
        what = f'has the data’s classes at other places ({others}), and' if others else f'has {count} classes, and'
        raise ValueError(
            f'the teacher {what} {lacks}: say by model.teacher_classes, a list of its classes by '
            'index or name, which of them is which of the student’s'
        )
    _warn(f'the teacher’s classes are taken in the order of the data’s, by name: {others or f"of {count} the first ones"}')
    return [pairs[label] for label in range(wanted)]


def compare_order(known: Sequence[str] | None, names: Sequence[Names] | None, source: str, refuse: bool) -> None:
    """Compare the classes of weights in the file ``source`` with those of the data by name; refuse or log another order."""
    theirs = dict(enumerate(known or ()))
    if not theirs or not names:
        return
    ours, pairs = best_match(names, theirs)
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
    """Warn where names do not tell which class of a teacher is which of the data."""
    if theirs:
        _warn(
            f'no class of the teacher ({some(map(repr, theirs.values()), 3)}) has a name of the data’s '
            f'({some(map(repr, names[0].values()), 3)}): both are taken to be in the same order; if they are not, set '
            'model.teacher_classes'
        )
    elif counted := next(filter(None, map(miscounted, names)), ''):
        _warn(
            f'the class folders are in the order of their text ({counted}), and the teacher does not say what it calls its '
            'classes: if it counts them by number, as timm does, set model.teacher_classes, or give the numbers leading '
            'zeros'
        )
    elif other := next(filter(None, map(otherwise_by_timm, names)), ''):
        _warn(
            f'the class folders are in the order of their text ({other}), and the teacher does not say what it calls its '
            'classes: if timm has trained it on such folders, set model.teacher_classes'
        )


def _warn(text: str) -> None:
    print_log(text, 'current', logging.WARNING)
