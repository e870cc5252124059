"""Output of numbers: as tables on the screen, and as JSON."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .atomic import atomic_path


def screen() -> Console:
    """Return the console for tables: as wide as the terminal, or 120 columns without one."""
    return Console(width=None if sys.stdout.isatty() else 120)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    """Make a table whose columns but the first are aligned to the right; its content is text without markup."""
    found = Table(title=Text(title), title_justify='left')
    for i, column in enumerate(columns):
        found.add_column(Text(column), justify='right' if i else 'left')
    for row in rows:
        found.add_row(*(Text(str(cell)) for cell in row))
    return found


def show(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], notes: Iterable[str] = ()) -> None:
    """Print a table, and notes below it."""
    console = screen()
    console.print(table(title, columns, rows))
    for note in notes:
        console.print(Text(note))


def for_json(value: Any) -> Any:
    """Replace numbers that are not finite by None, as JSON has none, and dataclasses by dicts.

    Example:
        >>> for_json(dict(a=[1.0, float('nan')], b='x'))
        {'a': [1.0, None], 'b': 'x'}
    """
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict):
        return {key: for_json(of) for key, of in value.items()}
    if isinstance(value, (list, tuple)):
        return [for_json(of) for of in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(content: Any, path: Path) -> None:
    """Write a dict or dataclass as JSON, atomically; numbers that are not finite as null, other objects as text."""
    with atomic_path(path) as file:
        file.write_text(json.dumps(for_json(content), indent=1, allow_nan=False, default=str) + '\n')
