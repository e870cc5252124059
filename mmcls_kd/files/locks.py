"""One program at a time in a folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.logging import print_log


@contextmanager
def locked(folder: Path, running: str, shared: bool = False) -> Iterator[None]:
    """Exclude other processes from a folder in the ``with`` block; a process that ends releases it.

    Shared ones exclude only others. ``running`` describes the other process for the message.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / '.lock').open('a+') as file:  # NFS wants a readable file for a shared lock, a writable one for the other
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f'{folder}: {running}') from error
        except OSError as error:
            print_log(f'{folder} is on a file system without locks ({error}): let no other program write there', 'current')
        os.register_at_fork(after_in_child=file.close)  # a data worker that outlives this process would keep the lock
        yield
