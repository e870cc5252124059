"""Labels of any notation (numbers, class names, one-hot vectors) as class numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import close_names
from ..networks.classes import Names, match

#: Function from a sample's number to its place, for messages.
Place = Callable[[int], str]


def numbered(values: Sequence[Any], classes: Sequence[str] | None, place: Place) -> tuple[list[int], Names]:
    """Convert labels to class numbers.

    Class names are numbered in the order of ``classes``, else in alphabetical order, as class folders are.

    Args:
        values: A label for each sample: numbers, class names or one-hot vectors.
        classes: The class names, if they are known.
        place: Describes a sample's place.

    Returns:
        The numbers, and the class names that stand in the data, by number; none if the labels are no names.

    Raises:
        ValueError: If a label is missing, or none of the classes; names the sample.

    Example:
        >>> numbered(['sky', 'apple', 'sky'], None, str)
        ([1, 0, 1], {0: 'apple', 1: 'sky'})
        >>> numbered([[0, 0, 1], [1, 0, 0]], None, str)
        ([2, 0], {})
    """
    for i, value in enumerate(values):
        if value is None or value == '' or (isinstance(value, float) and value != value):
            raise ValueError(f'{place(i)}: no label')
    if any(isinstance(value, str) for value in values):
        return _by_name([str(value) for value in values], classes, place)
    if any(isinstance(value, (list, tuple, np.ndarray)) for value in values):
        values = _one_hot(values, len(classes or ()), place)
    return [_number(value, i, classes, place) for i, value in enumerate(values)], {}


def _by_name(values: Sequence[str], classes: Sequence[str] | None, place: Place) -> tuple[list[int], Names]:
    """Return the numbers of class names."""
    found = sorted(set(values))
    known = list(map(str, classes)) if classes is not None else found
    pairs = match(dict(enumerate(found)), dict(enumerate(known)))
    for name in (name for i, name in enumerate(found) if i not in pairs):
        raise ValueError(
            f'{place(values.index(name))}: the label {name!r} is none of the {len(known)} classes, or of several'
            f'{close_names(name, known)}'
        )
    numbers = {name: pairs[i] for i, name in enumerate(found)}
    return [numbers[name] for name in values], {number: name for name, number in sorted(numbers.items(), key=lambda p: p[1])}


def _one_hot(values: Sequence[Any], classes: int, place: Place) -> list[int]:
    """Return the place of the one in each vector."""
    size = classes or np.size(values[0])
    for i, value in enumerate(values):
        vector = np.asarray(value)
        if vector.shape != (size,) or not np.isin(vector, (0, 1)).all() or vector.sum() != 1:
            shown = np.array2string(vector, threshold=20) if vector.ndim else repr(value)
            raise ValueError(f'{place(i)}: the label {shown} is no one-hot vector of {size} classes')
    return [int(np.argmax(value)) for value in values]


def _number(value: Any, i: int, classes: Sequence[str] | None, place: Place) -> int:
    """Return a label that is a number, checked."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not float(value).is_integer():
        raise ValueError(f'{place(i)}: the label {value!r} is no class number, class name or one-hot vector')
    number = int(value)
    if number < 0 or (classes is not None and number >= len(classes)):
        inside = f'outside of the {len(classes)} classes (0 to {len(classes) - 1})' if classes is not None else 'negative'
        raise ValueError(f'{place(i)}: the label {number} is {inside}')
    return number
