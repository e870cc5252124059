"""The values of ``--cfg-options``; nothing here imports torch or mmengine."""

from __future__ import annotations

from contextlib import suppress
from typing import Any


def option_parts(text: str) -> list[str]:
    """Split a text at the commas outside of brackets, which have to match.

    Example:
        >>> option_parts('a b, [c, d]')
        ['a b', ' [c, d]']
    """
    parts, depth = [''], 0
    for letter in text:
        depth += (letter in '([') - (letter in ')]')
        if letter == ',' and depth == 0:
            parts.append('')
        else:
            parts[-1] += letter
    if depth and ',' in text:
        raise ValueError(f'brackets do not match in {text!r}')
    return parts


def single_value(text: str) -> int | float | bool | str | None:
    """Return the value of a word without commas and brackets, as mmengine's ``DictAction`` reads it.

    Example:
        >>> [single_value(text) for text in ('3', '1e-3', 'true', 'None', 'kd')]
        [3, 0.001, True, None, 'kd']
    """
    for number in (int, float):
        with suppress(ValueError):
            return number(text)
    if text.lower() in ('true', 'false'):
        return text.lower() == 'true'
    return None if text == 'None' else text


def option_value(word: str) -> Any:
    """Return the value of a word: a number, True, False, None, a text, or a list or tuple of such.

    It differs from mmengine's in that spaces inside of text stay.

    Example:
        >>> option_value('[(a b, 1), none]')
        [('a b', 1), 'none']
    """
    text = word.strip().strip('\'"').strip()
    brackets = text[:1] + text[-1:]
    inner = text[1:-1] if brackets in ('()', '[]') else text
    parts = option_parts(inner)
    if inner is text and len(parts) == 1:
        return single_value(text)
    if not parts[-1].strip():  # a comma at the end
        parts.pop()
    values = [option_value(part) for part in parts]
    return tuple(values) if brackets == '()' else values
