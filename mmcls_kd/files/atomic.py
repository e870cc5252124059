"""Files written whole or not at all: written aside, then moved to their place; and their checksums."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def sha256(path: Path) -> str:
    """Return the checksum of a file."""
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a file to write in the ``with`` block; it replaces ``path`` once all of it is on the disk.

    Whatever happens, ``path`` is either the whole new file or the previous one. An error of the disk names it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f'.{path.name}.{os.getpid()}.unfinished')
    try:
        yield unfinished
        with unfinished.open('rb') as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        if error.errno and error.filename in (None, str(unfinished)):
            error.filename = str(path)
        raise
    finally:
        unfinished.unlink(missing_ok=True)


def save_atomically(content: Any, path: Path) -> None:
    """Save by ``torch.save``; the path holds either the whole new file or the previous one."""
    import torch  # the rest of this module does without

    whole = io.BytesIO()  # torch hides a full disk behind an error of its own
    torch.save(content, whole)
    with atomic_path(path) as unfinished:
        unfinished.write_bytes(whole.getbuffer())
