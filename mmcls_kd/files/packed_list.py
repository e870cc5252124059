"""Lists of image files and labels without a Python object for each: small, quick to read, shared by data workers."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from functools import lru_cache
from operator import index as as_index
from pathlib import Path
from typing import Any, overload

import numpy as np
from mmengine.fileio import get

SPACE, NEWLINE, SLASH, ZERO, NINE = b' \n/09'
#: Largest number of digits of a label in a file.
DIGITS = 9


class PackedList(Sequence):
    """The samples of a data set, each a new dict ``img_path`` and, with labels, ``gt_label``.

    A forked process shares the arrays: reading an item writes nothing to them, where a list would count references.

    Args:
        head: The beginning of all paths.
        text: The rest of them, somewhere in it, in UTF-8.
        starts: Where each begins, (n,).
        ends: Where each ends, (n,).
        labels: Label of each, (n,); None without labels.
    """

    def __init__(self, head: str, text: bytes, starts: np.ndarray, ends: np.ndarray, labels: np.ndarray | None) -> None:
        self.head, self.text = head, text
        self.starts, self.ends, self.labels = starts, ends, labels

    def __len__(self) -> int:
        return len(self.starts)

    def __deepcopy__(self, _memo: dict) -> PackedList:
        return self  # nothing changes it

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int]) -> PackedList: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice | Sequence):
            chosen = index if isinstance(index, slice) else np.asarray(index, dtype=np.int64)
            labels = None if self.labels is None else self.labels[chosen]
            return PackedList(self.head, self.text, self.starts[chosen], self.ends[chosen], labels)
        index = as_index(index)
        name = self.text[self.starts[index] : self.ends[index]]
        info: dict[str, Any] = {'img_path': self.head + name.decode(errors='surrogateescape')}
        if self.labels is not None:
            info['gt_label'] = int(self.labels[index])
        return info

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for first in range(0, len(self), 1024):  # Python's numbers of all at once would take more room than the arrays
            part = slice(first, first + 1024)
            places = zip(self.starts[part].tolist(), self.ends[part].tolist(), strict=True)
            paths = [self.head + self.text[start:end].decode(errors='surrogateescape') for start, end in places]
            if self.labels is None:
                yield from [{'img_path': path} for path in paths]
            else:
                labels = self.labels[part].tolist()
                yield from [{'img_path': path, 'gt_label': label} for path, label in zip(paths, labels, strict=True)]


def packed_file(path: str, head: str, with_label: bool) -> PackedList | None:
    """Read an annotation file by :func:`packed_lines`; one that was read and not changed since is not read again."""
    state = Path(path).stat()
    return _packed_file(path, head, with_label, state.st_mtime_ns, state.st_size, state.st_ino)


@lru_cache(maxsize=4)
def _packed_file(path: str, head: str, with_label: bool, *_state: int) -> PackedList | None:
    return packed_lines(Path(path).read_bytes(), head, with_label)


def packed_lines(text: bytes, head: str, with_label: bool) -> PackedList | None:
    """Pack the lines of an annotation file, each a path and, with labels, a space and a label.

    Returns:
        The samples; None for a file that is not plain: characters outside of ASCII, line ends other than a newline, spaces
        around a line, labels that are no number, absolute paths after a head.
    """
    if not text or not text.isascii() or b'\r' in text:
        return None
    found = np.frombuffer(text, np.uint8)
    ends = np.flatnonzero(found == NEWLINE)
    if found[-1] != NEWLINE:
        ends = np.append(ends, len(found))
    starts = np.concatenate([[0], ends[:-1] + 1])
    if (head and (found[starts] == SLASH).any()) or (ends == starts).any():
        return None
    labels = None
    if with_label:
        if (found[starts] <= SPACE).any() or (parsed := _labels(found, starts, ends)) is None:
            return None
        labels, ends = parsed
    return PackedList(head, text, *_smaller(starts, ends), labels)


def _labels(text: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the number at the end of each line, and the place of the space before it; None if a line has none."""
    labels, place, factor = np.zeros(len(ends), np.int32), ends - 1, 1
    pending = np.arange(len(ends))
    while len(pending) and factor < 10**DIGITS:
        digit = text[place[pending]]
        pending = pending[(digit >= ZERO) & (digit <= NINE) & (place[pending] > starts[pending])]
        labels[pending] += (text[place[pending]] - ZERO).astype(np.int32) * factor
        place[pending] -= 1
        factor *= 10
    right = (place > starts) & (place < ends - 1) & (text[place] == SPACE)
    return (labels, place) if right.all() else None


def parsed_line(line: bytes) -> tuple[str, int]:
    """Return path and label of a line of an annotation file, as mmpretrain reads it.

    Raises:
        ValueError: Describes the fault of the line.

    Example:
        >>> parsed_line(b'cat/black cat.jpg 3')
        ('cat/black cat.jpg', 3)
    """
    try:
        fields = line.decode('utf-8').strip().rsplit(' ', 1)
    except UnicodeDecodeError as error:
        raise ValueError('not UTF-8') from error
    if len(fields) != 2:
        raise ValueError('not two fields, a path and a label with a blank between them')
    name, digits = fields
    try:
        return name, int(digits)
    except ValueError as error:
        raise ValueError(f'the label {digits!r} is no integer') from error


def shown_line(line: bytes) -> str:
    """Return a line of an annotation file for a message."""
    return repr(line.decode('utf-8', 'backslashreplace').rstrip('\r\n'))


def refuse_faulty_line(path: str, error: ValueError) -> None:
    """Name the first line of an annotation file that is no path and label, if there is one; ``error`` is mmpretrain's."""
    for number, line in enumerate(io.BytesIO(get(path)), 1):
        try:
            parsed_line(line)
        except ValueError as fault:
            raise ValueError(
                f'{path}: line {number} {shown_line(line)}: {fault}; each line has the form `path label`, such as '
                f'`cat/1.jpg 0` ({error})'
            ) from error


def packed_samples(samples: Sequence[Any], head: str, with_label: bool) -> PackedList:
    """Pack samples that are listed already: relative paths or, with labels, pairs of path and label."""
    names = [(sample[0] if with_label else sample).encode(errors='surrogateescape') for sample in samples]
    ends = np.cumsum([len(name) for name in names])
    starts = np.concatenate([[0], ends[:-1]])
    labels = np.array([label for _, label in samples], np.int32) if with_label else None
    return PackedList(head, b''.join(names), *_smaller(starts, ends), labels)


def _smaller(starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Convert places in a text to the smallest type that has room for them."""
    kind = np.min_scalar_type(ends[-1])
    return starts.astype(kind), ends.astype(kind)
