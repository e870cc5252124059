"""The style of figures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def drawing() -> Iterator[None]:
    """Apply the style of all figures in the ``with`` block."""
    from matplotlib import rc_context

    style: Any = {
        'font.size': 10,
        'axes.titlesize': 10.5,
        'axes.spines.top': False,
        'axes.spines.right': False,
        'axes.grid': True,
        'axes.axisbelow': True,
        'grid.color': '0.9',
        'legend.frameon': False,
        'text.parse_math': False,  # names are text, whatever is in them
    }
    with rc_context(style):
        yield


def entry(name: str) -> str:
    """Return a name for a legend, which leaves out those that begin with an underscore."""
    return f' {name}' if name.startswith('_') else name
