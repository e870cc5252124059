"""One program at a time in a folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TextIO

from mmengine.logging import print_log


@contextmanager
def locked(folder: Path, running: str, shared: bool = False) -> Iterator[None]:
    """Exclude other processes from a folder in the ``with`` block; a process that ends releases it.

    Shared ones exclude only others. ``running`` describes the other process for the message. In the block, the folder may
    be removed.

    Raises:
        ValueError: If another process excludes this one, or the folder cannot be written.
    """
    try:
        lock = _lock(folder, running, shared)
    except OSError as error:
        raise ValueError(f'{folder} cannot be written ({error.strerror}): name another folder') from error
    with lock as file:
        os.register_at_fork(after_in_child=file.close)  # a data worker that outlives this process would keep the lock
        yield


def _lock(folder: Path, running: str, shared: bool) -> TextIO:
    """Return the open file that holds a folder's lock."""
    path = folder / '.lock'
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as opened, suppress(FileNotFoundError):  # removed since by the process that held it: begin again
            file = opened.enter_context(path.open('a+'))  # NFS wants a readable file for a shared lock, a writable one else
            try:
                fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ValueError(f'{folder}: {running}') from error
            except OSError as error:
                print_log(
                    f'{folder} is on a file system without locks ({error}): let no other program write there', 'current'
                )
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                opened.pop_all()
                return file
