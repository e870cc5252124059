"""Comparison of a data set's image files with those of a store: by size and time, else by content."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from ..files.atomic import sha256
from .data import plain_datasets, sample_infos
from .setup import decided_by_first

#: Number of samples that are looked at in a row, and of files whose facts are kept for samples of the same file.
IN_A_ROW, KEPT = 4096, 100_000
#: Number of files that a thread looks at in a row; threads that take one by one wait for each other.
SHARE = 64


class ImageFile(NamedTuple):
    """The facts of an image file: time of its last change, in ns, path, size in bytes, and checksum, if it was read."""

    time: int
    path: str
    size: int
    content: str = ''


def paths_of(dataset: Any) -> Iterator[str]:
    """Iterate over the paths of the files that hold a data set's images, in its order; not all need exist here."""
    for plain in plain_datasets(dataset):
        yield from map(str, getattr(plain, 'container_files', ()))
        if hasattr(plain, 'get_data_info'):
            yield from (str(info.get('img_path') or '') for info in sample_infos(plain))


def from_outside(path: str) -> ImageFile | None:
    """Return the facts of a file on this machine, unread; None if there is none."""
    try:
        state = os.stat(path)  # noqa: PTH116  (of all files)
    except (OSError, ValueError):
        return None
    return ImageFile(state.st_mtime_ns, path, state.st_size) if stat.S_ISREG(state.st_mode) else None


def _read(path: str) -> ImageFile | None:
    """Return the facts of a file on this machine, read to its end; None if there is none."""
    found = from_outside(path)
    return found and found._replace(content=sha256(Path(path)))


def looked_at(dataset: Any, look: Callable[[str], ImageFile | None]) -> Iterator[list[ImageFile]]:
    """Iterate over the facts of a data set's files, many at once, in its order; those of one file may come several times."""
    paths, known = paths_of(dataset), dict[str, ImageFile | None]()
    with ThreadPoolExecutor(8) as pool:
        while part := list(islice(paths, IN_A_ROW)):
            if len(known) > KEPT:
                known.clear()
            new = [path for path in dict.fromkeys(part) if path not in known]
            shares = [new[first : first + SHARE] for first in range(0, len(new), SHARE)]
            for share, seen in zip(shares, pool.map(lambda share: list(map(look, share)), shares), strict=True):
                known.update(zip(share, seen, strict=True))
            if found := [file for path in part if (file := known[path])]:
                yield found


def facts(dataset: Any, look: Callable[[str], ImageFile | None]) -> dict[str, str]:
    """Return a checksum of sizes and times of a data set's files, the latest of them, and a checksum of their contents.

    Empty if it has none.
    """
    outside, inside, latest, between = hashlib.sha256(), hashlib.sha256(), ImageFile(0, '', 0), ''
    for files in looked_at(dataset, look):
        outside.update(''.join([f'{file.size} {file.time}\n' for file in files]).encode())
        inside.update((between + '\n'.join([file.content for file in files])).encode())
        latest, between = max(latest, max(files)), '\n'
    found = dict(sizes_and_times=outside.hexdigest(), latest=latest.path, content=inside.hexdigest())
    return found if latest.path else {}


def describe(dataset: Any) -> dict[str, str]:
    """Return a store's facts about the image files; empty without files. All processes call it; the first one reads."""
    return decided_by_first(lambda: facts(dataset, _read))


def changed(noted: Mapping[str, str], dataset: Any) -> str | None:
    """Describe the image files that changed since :func:`describe` of a store; None if none did. All processes call it.

    If sizes and times differ, as in a copy, the content decides.
    """

    def compare() -> str | None:
        here = facts(dataset, from_outside) if noted else {}
        if not here or here['sizes_and_times'] == noted['sizes_and_times']:
            return None
        same = facts(dataset, _read)['content'] == noted['content']
        return None if same else f'its images were changed since it was made, last {here["latest"]}'

    return decided_by_first(compare)
