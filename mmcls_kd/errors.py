"""Errors that end a training in good order: one line says what happened and how to go on."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TrainingError(RuntimeError):
    """A training cannot go on; the message names the cause and what to do. The last checkpoint stays as it is."""

    #: Exit code of a program that ends so.
    exit_code = 1


class ChoiceError(ValueError):
    """A setting is none of those that there are; the message names it and them."""


class MissingLibraryError(ValueError):
    """An optional library is not installed; the message names the extra that brings it."""


class UnreadableImageError(TrainingError):
    """An image of the training data cannot be read; the message names the file."""


class DivergenceError(TrainingError):
    """A training cannot go on because a loss became NaN or infinite; the message names the loss, and where it did."""

    exit_code = 3


class NonFiniteLossError(TrainingError):
    """A loss, or its gradient, became NaN or infinite; the message names the term.

    Args:
        terms: Names of the terms that are not finite in this process; empty if they are so in another process alone.
        gradient: Whether it is a gradient, and so the backward pass is done.
    """

    def __init__(self, terms: list[str], gradient: bool = False) -> None:
        super().__init__(', '.join(terms) or 'a loss in another process')
        self.terms = terms
        self.gradient = gradient


def close_names(name: str, known: Iterable[str]) -> str:
    """A hint for a misspelt name, or nothing.

    Example:
        >>> close_names('NKDLos', ['NKDLoss', 'MGDLoss', 'SRRLLoss'])
        "; did you mean 'NKDLoss'?"
    """
    by_lower = {k.lower(): k for k in known}
    close = [by_lower[k] for k in difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.65)]
    return f'; did you mean {" or ".join(map(repr, close))}?' if close else ''
