"""Errors that end a training in an orderly way: one line states the cause and the remedy."""

from __future__ import annotations

import difflib
import math
import numbers
import os
import re
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from types import TracebackType
from typing import Any

#: Exit code of a run that saved its state after a request to end: sysexits' EX_TEMPFAIL, "try again".
EXIT_CODE = 75


class TrainingError(RuntimeError):
    """A training cannot go on; the message names cause and remedy. The last checkpoint stays as it is."""

    #: Exit code of the program.
    exit_code = 1


class TerminationError(Exception):
    """A run has ended on request, and its state is saved; the message names the file."""


class ChoiceError(ValueError):
    """A setting has an unknown value; the message names it and the choices."""


class MissingLibraryError(ValueError):
    """An optional library is not installed; the message names the extra that brings it."""


class UnreadableImageError(TrainingError):
    """An image of the training data cannot be read; the message names the file."""


class DivergenceError(TrainingError):
    """A training cannot go on because a loss became NaN or infinite; the message names the loss and the place."""

    exit_code = 3


class NonFiniteLossError(TrainingError):
    """A loss, or its gradient after the backward pass, became NaN or infinite; the message names the term.

    ``terms`` is empty if the terms are in another process.
    """

    def __init__(self, terms: list[str], gradient: bool = False) -> None:
        super().__init__(', '.join(terms) or 'a loss in another process')
        self.terms = terms
        self.gradient = gradient


def close_names(name: str, known: Iterable[str]) -> str:
    """Hint at close names for a misspelt one; empty if there are none.

    Example:
        >>> close_names('NKDLos', ['NKDLoss', 'MGDLoss', 'SRRLLoss'])
        "; did you mean 'NKDLoss'?"
    """
    by_lower = {k.lower(): k for k in known}
    close = [by_lower[k] for k in difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.65)]
    return f'; did you mean {" or ".join(map(repr, close))}?' if close else ''


#: Patterns of the messages of communication libraries when a process does not answer.
LOST_CONTACT = re.compile(r'gloo|NCCL|ncclRemoteError|Connection (reset|closed|refused)|[Tt]imed out|Broken pipe')
#: Patterns of torch's messages when memory is short: on CUDA, on a CPU.
OUT_OF_MEMORY = re.compile(r'out of memory|not enough memory|allocate memory')
#: Pattern of mmengine's message for an unknown type.
UNREGISTERED = re.compile(r'(\S+) is not in the \S+::(.+?) registry')


def in_one_line(error: BaseException) -> str:
    """Format an error in one line; with its kind for a library's, with its place and the known keys for a missing key."""
    text = ' '.join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split())
    if found := UNREGISTERED.match(text):
        name, kind = found.groups()
        return f'there is no {kind} {name!r}{close_names(name, registered(kind))}'
    if isinstance(error, KeyError) and ' ' not in text:
        return f'the key {text!r} is missing{_beside(text, error.__traceback__)}'
    known = isinstance(error, ValueError | OSError | TypeError | KeyError | TrainingError) and ' ' in text
    return text if known else f'{type(error).__name__}: {text or _last_line(error.__traceback__)}'


def registered(kind: str) -> list[str]:
    """List the names in mmpretrain's registry of a kind, and in mmengine's behind it."""
    from mmengine.registry import Registry
    from mmpretrain import registry

    ours = [r for r in vars(registry).values() if isinstance(r, Registry) and r.name == kind]
    return [name for r in ours for one in (r, r.parent) if one for name in one.module_dict]


def _last_line(trace: TracebackType | None) -> str:
    """Return the line of a program that raised an error without a message."""
    last = traceback.extract_tb(trace)[-1]
    return f'{last.line} ({last.name}, {last.filename}:{last.lineno})'


def _beside(key: str, trace: TracebackType | None) -> str:
    """Describe where a key was looked up: the innermost place with a dict without it, and the dict's keys."""
    where = ''
    while trace is not None:
        frame, code = trace.tb_frame, trace.tb_frame.f_code
        place = f' ({code.co_name}, {"/".join(code.co_filename.split("/")[-3:])}:{trace.tb_lineno})'
        dicts = {n: d for n, d in frame.f_locals.items() if isinstance(d, Mapping) and d and key not in d}
        with_keys = [f'{name} has {", ".join(map(str, list(d)[:20]))}' for name, d in dicts.items()]
        where = f'; {with_keys[-1]}{place}' if with_keys else where or place
        trace = trace.tb_next
    return where


def is_outside(error: Exception) -> bool:
    """Check whether an error comes from another process or from lack of memory, not from the user's settings."""
    return isinstance(error, RuntimeError) and bool(LOST_CONTACT.search(str(error)) or OUT_OF_MEMORY.search(str(error)))


@contextmanager
def refusals_named(key: str, kind: type[Exception] = ValueError) -> Iterator[None]:
    """Turn a library's errors while it builds an object into an error of one line that names the config's key.

    Errors of this toolbox's own kinds, and missing files, pass unchanged.
    """
    try:
        yield
    except (FileNotFoundError, MissingLibraryError, ChoiceError, TrainingError):
        raise
    except Exception as error:
        if is_outside(error):
            raise
        text = in_one_line(error)
        raise kind(text if key in text else f'{key}: {text}') from error


def check_number(
    name: str, value: Any, least: float = -math.inf, most: float = math.inf, whole: bool = False, above: bool = False
) -> None:
    """Refuse a setting that is no finite number in a range.

    Args:
        name: Name of the setting, with its owner.
        value: Its value.
        least: The least number.
        most: The largest number.
        whole: Whether it has to be a whole number.
        above: Whether ``least`` itself is too small.

    Raises:
        ValueError: Names the setting, its value and the range.

    Example:
        >>> check_number('KNNHook: k', 20, 1, whole=True)
    """
    number = isinstance(value, numbers.Integral if whole else numbers.Real) and not isinstance(value, bool)
    if number and math.isfinite(value) and least <= value <= most and not (above and value == least):
        return
    low = f' above {least:g}' if above else f', {least:g} or more'
    span = f' from {least:g} to {most:g}' if most < math.inf else low if least > -math.inf else ''
    raise ValueError(f'{name}={value!r}: give a {"whole " * whole}number{span}')


def check_flag(name: str, value: Any) -> None:
    """Refuse a setting that is neither True nor False; any word, ``'no'`` too, would count as True."""
    if not isinstance(value, bool):
        raise ValueError(f'{name}={value!r}: give True or False')


def check_text(name: str, value: Any, optional: bool = False) -> None:
    """Refuse a setting that is no text or path, or an empty one; None counts where it is optional."""
    if not (isinstance(value, (str, os.PathLike)) and str(value)) and not (optional and value is None):
        raise ValueError(f'{name}={value!r}: give a text{", or None" * optional}')


def texts(name: str, value: Any) -> list[str]:
    """Return the texts of a setting that is one, or a list of them; refuse anything else, and none at all."""
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, (list, tuple)) or not found or not all(isinstance(one, str) and one for one in found):
        raise ValueError(f'{name}={value!r}: give a text, or a list of texts')
    return list(found)


def need_library(library: str, what: str, extra: str | None = None) -> None:
    """Refuse a feature whose library is not installed, and name the extra that brings it, by default of the same name."""
    if find_spec(library) is None:
        raise MissingLibraryError(
            f"{what} needs {library}, which is not installed: pip install 'mmcls_kd[{extra or library}]'"
        )


def on_sigterm(do: Callable[[], None]) -> Any:
    """Let SIGTERM call a function in this process, not in its forks; return the previous handler."""
    owner = os.getpid()

    def note(number: int, _frame: Any) -> None:
        if os.getpid() == owner:
            do()
        else:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    return signal.signal(signal.SIGTERM, note)


def listed(names: list[str], most: int = 6) -> str:
    """List names for a message, the first of many."""
    more = f' and {len(names) - most} more' if len(names) > most else ''
    return ', '.join(names[:most]) + more
