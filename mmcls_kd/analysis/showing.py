"""How both tools give their numbers: as tables on the screen, and as JSON."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..files.atomic import atomic_path


def screen() -> Console:
    """Where tables go: as wide as the terminal, or 120 columns where there is none."""
    return Console(width=None if sys.stdout.isatty() else 120)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table whose columns but the first are aligned to the right; what is in it is text and no markup.

    Args:
        title: What stands above it.
        columns: The heads of its columns.
        rows: The cells of each row.
    """
    found = Table(title=Text(title), title_justify='left')
    for i, column in enumerate(columns):
        found.add_column(Text(column), justify='right' if i else 'left')
    for row in rows:
        found.add_row(*map(Text, row))
    return found


def plain(value: Any) -> Any:
    """A value of dicts and lists whose numbers that are not finite are None, as JSON has none.

    Args:
        value: The value.

    Example:
        >>> plain(dict(a=[1.0, float('nan')], b='x'))
        {'a': [1.0, None], 'b': 'x'}
    """
    if isinstance(value, dict):
        return {key: plain(of) for key, of in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(of) for of in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(content: Mapping[str, Any], path: Path) -> None:
    """Write numbers as JSON, atomically; those that are not finite as null.

    Args:
        content: The numbers.
        path: The file.
    """
    with atomic_path(path) as file:
        file.write_text(json.dumps(plain(content), indent=1, allow_nan=False) + '\n')
