"""Comparison of a data set's image files with those of a store: by size and time, else by content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..files.atomic import sha256
from .data import plain_datasets
from .setup import decided_by_first


def local_files(dataset: Any) -> Iterator[Path]:
    """Iterate over the files on this machine that hold a data set's images, in its order."""
    for plain in plain_datasets(dataset):
        yield from getattr(plain, 'container_files', ())
        for i in range(len(plain) if hasattr(plain, 'get_data_info') else 0):
            path = Path(str(plain.get_data_info(i).get('img_path') or ''))
            if path.is_file():
                yield path


def seen_from_outside(dataset: Any) -> dict[str, Any]:
    """Return a checksum of sizes and times of a data set's files, and the latest of them; empty if it has none."""
    digest, latest = hashlib.sha256(), (0, '')
    for path in local_files(dataset):
        state = path.stat()
        digest.update(f'{state.st_size} {state.st_mtime_ns}\n'.encode())
        latest = max(latest, (state.st_mtime_ns, str(path)))
    return dict(sizes_and_times=digest.hexdigest(), latest=latest[1]) if latest[1] else {}


def content(dataset: Any) -> str:
    """Return a checksum of a data set's files, each read to its end."""
    with ThreadPoolExecutor(8) as pool:
        return hashlib.sha256('\n'.join(pool.map(sha256, local_files(dataset))).encode()).hexdigest()


def describe(dataset: Any) -> dict[str, str]:
    """Return a store's facts about the image files; empty without files. All processes call it; the first one reads."""
    return decided_by_first(lambda: {**found, 'content': content(dataset)} if (found := seen_from_outside(dataset)) else {})


def changed(noted: Mapping[str, str], dataset: Any) -> str | None:
    """Describe the image files that changed since :func:`describe` of a store; None if none did. All processes call it.

    If sizes and times differ, as in a copy, the content decides.
    """

    def look() -> str | None:
        here = seen_from_outside(dataset)
        if not noted or not here or here['sizes_and_times'] == noted['sizes_and_times']:
            return None
        same = content(dataset) == noted['content']
        return None if same else f'its images were changed since it was made, last {here["latest"]}'

    return decided_by_first(look)
