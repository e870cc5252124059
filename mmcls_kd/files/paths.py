"""Paths of the toolbox's own files: its configs and tools."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1]
CONFIGS = PACKAGE / '.mim' / 'configs'
#: The folder of ``configs/``: inside the installed package, or the checkout around it, which links to it there.
TOOLBOX = CONFIGS.resolve().parent if CONFIGS.is_dir() else PACKAGE.parent


def _found(path: str | Path) -> Path | None:
    candidates = [root / Path(path).expanduser() for root in (Path(), TOOLBOX)]
    return next((c.resolve() for c in candidates if c.is_file()), None)


def find_file(path: str | Path) -> Path:
    """Find a file by its path: in the working directory, else in the toolbox."""
    if (found := _found(path)) is None:
        raise FileNotFoundError(f'{path}: no such file, neither in the working directory nor in the toolbox ({TOOLBOX})')
    return found


def absolute(path: Any) -> Any:
    """Return the absolute path of a file or folder; a missing one is returned as it is, for its reader to refuse."""
    if not isinstance(path, str) or '://' in path:
        return path
    if Path(path).expanduser().is_dir():
        return str(Path(path).expanduser().resolve())
    with suppress(FileNotFoundError):
        return str(find_file(path))
    return path
