"""Files below a folder, through links to other folders, too."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def files_below(folder: Path) -> Iterator[Path]:
    """Iterate over the files in a folder and the folders inside, without hidden ones, following links to folders.

    Each folder is listed once, by its own path rather than by a link; a link to one that the folder is in is not followed.

    Args:
        folder: The folder.
    """
    seen = {_identity(parent) for parent in folder.resolve().parents}
    starts = [folder]
    while starts:
        links: list[Path] = []
        for start in starts:
            for here, folders, files in os.walk(start):  # which lists links, and does not follow them
                if (identity := _identity(here)) in seen:
                    folders.clear()
                    continue
                seen.add(identity)
                folders[:] = sorted(name for name in folders if not name.startswith('.'))
                place = Path(here)
                links += [path for name in folders if (path := place / name).is_symlink()]
                yield from (path for name in sorted(files) if not name.startswith('.') and (path := place / name).is_file())
        starts = sorted(links)


def _identity(folder: str | Path) -> tuple[int, int]:
    found = os.stat(folder)  # noqa: PTH116
    return found.st_dev, found.st_ino
