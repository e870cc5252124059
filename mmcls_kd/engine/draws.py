"""Random draws of many samples at once: the numbers that NumPy draws after ``np.random.seed`` for each sample alone.

NumPy's global generator is the Mersenne Twister MT19937 (Matsumoto & Nishimura 1998, doi 10.1145/272991.272995). Its first
words after a seed need 397 steps of its recurrence, which a pass over arrays does for thousands of seeds in the time that
NumPy needs for some ten.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

#: Words of 32 bits that are made for each sample by themselves; those beyond are drawn one sample at a time.
WORDS = 24
#: MT19937: distance of the word that is mixed in, and its constants.
MIDDLE = 397
FACTOR, MATRIX, UPPER, LOWER = (np.uint32(n) for n in (1812433253, 0x9908B0DF, 0x80000000, 0x7FFFFFFF))


def first_words(seeds: np.ndarray, count: int = WORDS) -> np.ndarray:
    """Return the first words that MT19937 gives after each seed, (count, n); ``count`` is at most 226.

    Args:
        seeds: Seeds of 32 bits, (n,).
        count: Number of words of each.
    """
    state = np.empty((MIDDLE + count, len(seeds)), np.uint32)
    state[0] = seeds
    for i in range(1, len(state)):
        before = state[i - 1]
        np.multiply(before ^ (before >> np.uint32(30)), FACTOR, out=state[i])
        state[i] += np.uint32(i)
    mixed = (state[:count] & UPPER) | (state[1 : count + 1] & LOWER)
    words = state[MIDDLE:] ^ (mixed >> np.uint32(1)) ^ (mixed & np.uint32(1)) * MATRIX
    words ^= words >> np.uint32(11)
    words ^= (words << np.uint32(7)) & np.uint32(0x9D2C5680)
    words ^= (words << np.uint32(15)) & np.uint32(0xEFC60000)
    return words ^ (words >> np.uint32(18))


def advance(generator: Any, seed: int, used: int) -> None:
    """Seed a generator (``np.random``, or a ``RandomState``), and draw a number of words from it.

    Example:
        >>> advance(np.random, 5, 3)
        >>> np.random.randint(0, 2**32, dtype=np.uint32) == first_words(np.array([5], np.uint32))[3, 0]
        np.True_
    """
    generator.seed(seed % 2**32)
    if used:
        generator.randint(0, 2**32, used, np.uint32)


class Draws:
    """One sequence of draws a sample, each as from ``np.random`` after ``np.random.seed(seed)``.

    Args:
        seeds: Seeds of the samples, (n,), of 64 bits; of each the last 32 count.
        count: Number of words that are made for each sample, at most 226.

    Attributes:
        seeds: The seeds.
        used: Number of words that each sample has drawn, (n,).

    Example:
        >>> np.random.seed(5)
        >>> here = Draws(np.array([5], np.uint64))
        >>> np.random.randint(0, 9) == here.integers(9)[0], np.random.random() == here.uniform()[0]
        (np.True_, np.True_)
    """

    def __init__(self, seeds: np.ndarray, count: int = WORDS) -> None:
        self.seeds = seeds
        self.used = np.zeros(len(seeds), np.int64)
        self._all = np.arange(len(seeds))
        self._words = first_words((seeds & np.uint64(0xFFFFFFFF)).astype(np.uint32), count)
        self._spare = np.full(len(seeds), np.nan)
        self._alone = np.random.RandomState()

    def _next(self, rows: np.ndarray) -> np.ndarray:
        """Return the next word of some samples."""
        used, last = self.used[rows], len(self._words) - 1
        self.used[rows] += 1
        found = self._words[np.minimum(used, last), rows]
        for k in np.flatnonzero(used > last):
            advance(self._alone, int(self.seeds[rows[k]]), int(used[k]))
            found[k] = self._alone.randint(0, 2**32, dtype=np.uint32)
        return found

    def integers(self, bounds: int | np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Draw a number for each sample, or for those of some rows, as ``np.random.randint(0, bound)``.

        Args:
            bounds: One bound for all, or one each.
            rows: Positions of the samples.
        """
        rows = self._all if rows is None else rows
        largest = np.broadcast_to(np.asarray(bounds, np.int64) - 1, len(rows))
        masks = largest.astype(np.uint32)
        for shift in (1, 2, 4, 8, 16):
            masks |= masks >> np.uint32(shift)
        found = np.zeros(len(rows), np.int64)
        left = np.flatnonzero(largest)  # where only 0 is possible, nothing is drawn
        while len(left):
            found[left] = self._next(rows[left]) & masks[left]
            left = left[found[left] > largest[left]]
        return found

    def uniform(self, rows: np.ndarray | None = None) -> np.ndarray:
        """Draw a number in [0, 1) for each sample, or for those of some rows, as ``np.random.random()``."""
        rows = self._all if rows is None else rows
        high, low = self._next(rows) >> np.uint32(5), self._next(rows) >> np.uint32(6)
        return (high * 67108864.0 + low) / 9007199254740992.0

    def normal(self, rows: np.ndarray) -> np.ndarray:
        """Draw a number of the standard normal distribution for the samples of some rows, as ``np.random.normal()``.

        NumPy's legacy generator draws two at a time, by Marsaglia's polar method, and keeps the other.
        """
        found = self._spare[rows]
        self._spare[rows] = np.nan
        left = np.flatnonzero(np.isnan(found))
        while len(left):
            x, y = (2.0 * self.uniform(rows[left]) - 1.0 for _ in range(2))
            square = x * x + y * y
            inside = (square < 1.0) & (square != 0.0)
            x, y, square = x[inside], y[inside], square[inside]
            logarithms = np.array([math.log(one) for one in square.tolist()])  # NumPy's own of arrays may round otherwise
            factors = np.sqrt(-2.0 * logarithms / square)
            self._spare[rows[left[inside]]], found[left[inside]] = factors * x, factors * y
            left = left[~inside]
        return found

    def choices(self, shares: list[float]) -> np.ndarray:
        """Draw a position for each sample, as ``np.random.choice(len(shares), p=shares)``; (n,)."""
        steps = np.cumsum(shares)
        return (steps / steps[-1]).searchsorted(self.uniform(), side='right')


class Step:
    """A random transform of a batch: ``draw`` takes the :class:`Draws` of samples, ``apply`` images and what was drawn.

    Args:
        transform: The transform.
        shape: Shape of an image before it.

    Attributes:
        shape: Shape of an image after it.
    """

    def __init__(self, transform: Any, shape: tuple[int, ...]) -> None:  # noqa: ARG002
        self.shape = shape  # subclasses that change it pass on the one after them

    @staticmethod
    def takes(transform: Any, shape: tuple[int, ...]) -> bool:  # noqa: ARG004
        """Check whether a transform of images of a shape can be computed for a batch at once."""
        return True
