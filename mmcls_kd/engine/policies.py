"""RandAugment, AutoAugment and StrongAugment of a batch: drawn for all at once, bit for bit as one image at a time.

The changes that were drawn are made to one image after the other, by those functions of mmcv that mmpretrain's transforms
call. Functions that count levels are replaced by faster ones.
"""

from __future__ import annotations

from math import ceil
from typing import Any

import cv2
import mmcv
import numpy as np
from mmpretrain.datasets.transforms import auto_augment

from .draws import Draws, Step
from .two_views import GREY

LEVELS = np.arange(256)


def _counts(image: np.ndarray) -> np.ndarray:
    """Count the levels of each channel of an image (H, W, 3) of bytes; (3, 256)."""
    return np.bincount((image + np.arange(0, 768, 256)).ravel(), minlength=768).reshape(3, 256)


def _replaced(image: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Replace the levels of each channel; ``levels`` is (3, 256)."""
    return cv2.LUT(image, levels.astype(np.uint8).T[None])


def _auto_contrast(image: np.ndarray) -> np.ndarray:
    """Return the same as ``mmcv.auto_contrast``."""
    found = _counts(image) > 0
    low, high = found.argmax(1)[:, None], 255 - found[:, ::-1].argmax(1)[:, None]
    scale = 255.0 / np.maximum(high - low, 1)
    return _replaced(image, np.where(low < high, np.clip(LEVELS * scale + -low * scale, 0, 255), LEVELS))


def _equalize(image: np.ndarray) -> np.ndarray:
    """Return the same as ``mmcv.imequalize``."""
    counts = _counts(image)
    brightest = 255 - (counts[:, ::-1] > 0).argmax(1)
    step = (image[..., 0].size - counts[range(3), brightest])[:, None] // 255
    levels = np.zeros((3, 256), np.int64)
    levels[:, 1:] = ((counts.cumsum(1) + step // 2) // np.maximum(step, 1))[:, :-1]
    return _replaced(image, np.where(step > 0, np.minimum(levels, 255), LEVELS))


def _contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Return the same as ``mmcv.adjust_contrast``."""
    grey = mmcv.bgr2gray(image)
    mean = np.full(image.shape, round(np.sum(grey) / grey.size), np.float32)
    return np.clip(cv2.addWeighted(image.astype(np.float32), factor, mean, 1 - factor, 0), 0, 255)


def _moved(change: Any, image: np.ndarray, share: float) -> np.ndarray:
    along = image.shape[change.direction == 'horizontal']
    return mmcv.imtranslate(
        image, share * along, direction=change.direction, border_value=change.pad_val, interpolation=change.interpolation
    )


def _sheared(change: Any, image: np.ndarray, amount: float) -> np.ndarray:
    return mmcv.imshear(
        image, amount, direction=change.direction, border_value=change.pad_val, interpolation=change.interpolation
    )


def _rotated(change: Any, image: np.ndarray, angle: float) -> np.ndarray:
    return mmcv.imrotate(
        image,
        angle,
        center=change.center,
        scale=change.scale,
        border_value=change.pad_val,
        interpolation=change.interpolation,
    )


#: Changes by their transform: the name of the amount's setting; whether its sign is drawn; the change of an image.
CHANGES: dict[type, tuple[str | None, bool, Any]] = {
    auto_augment.AutoContrast: (None, False, lambda _, image, __: _auto_contrast(image)),
    auto_augment.Equalize: (None, False, lambda _, image, __: _equalize(image)),
    auto_augment.Invert: (None, False, lambda _, image, __: mmcv.iminvert(image)),
    auto_augment.Solarize: ('thr', False, lambda _, image, level: mmcv.solarize(image, thr=level)),
    auto_augment.SolarizeAdd: (
        'magnitude',
        False,
        lambda change, image, amount: np.where(image < change.thr, np.minimum(image + amount, 255), image),
    ),
    auto_augment.Posterize: ('bits', False, lambda _, image, bits: mmcv.posterize(image, bits=ceil(bits))),
    auto_augment.Contrast: ('magnitude', True, lambda _, image, amount: _contrast(image, 1 + amount)),
    auto_augment.ColorTransform: ('magnitude', True, lambda _, image, amount: mmcv.adjust_color(image, alpha=1 + amount)),
    auto_augment.Brightness: ('magnitude', True, lambda _, image, amount: mmcv.adjust_brightness(image, factor=1 + amount)),
    auto_augment.Sharpness: ('magnitude', True, lambda _, image, amount: mmcv.adjust_sharpness(image, factor=1 + amount)),
    auto_augment.Translate: ('magnitude', True, _moved),
    auto_augment.Shear: ('magnitude', True, _sheared),
    auto_augment.Rotate: ('angle', True, _rotated),
}


def _draw_amounts(change: Any, draws: Draws, rows: np.ndarray) -> np.ndarray:
    """Draw the amounts of a change for the samples of some rows; NaN where it is set and has no sign."""
    setting, signed, _ = CHANGES[type(change)]
    fixed = None if setting is None else getattr(change, setting)
    if setting is None or (fixed is not None and not signed):
        return np.full(len(rows), np.nan)
    amounts = np.full(len(rows), fixed, float) if fixed is not None else _draw_magnitudes(change, draws, rows)
    if not signed:
        return amounts
    return np.where(draws.uniform(rows) < change.random_negative_prob, -amounts, amounts)


def _draw_magnitudes(change: Any, draws: Draws, rows: np.ndarray) -> np.ndarray:
    """Draw as ``BaseAugTransform.random_magnitude``."""
    level, deviation, total = change.magnitude_level, change.magnitude_std, change.total_level
    levels = np.full(len(rows), level, float)
    if deviation == 'inf':
        levels = level * draws.uniform(rows)
    elif deviation > 0:
        levels = np.clip(level + deviation * draws.normal(rows), 0, total)
    first, last = change.magnitude_range
    return (levels / total) * (last - first) + first


class Policies(Step):
    """mmpretrain's ``RandAugment`` or ``AutoAugment`` of a batch of colour images."""

    def __init__(self, transform: Any, shape: tuple[int, ...]) -> None:
        super().__init__(transform, shape)
        self._choices, self._picks = _choices_of(transform)
        self._longest = max(map(len, self._choices))
        self._changes = [change for choice in self._choices for change in choice]
        self._firsts = np.cumsum([0, *map(len, self._choices)])

    @staticmethod
    def takes(transform: Any, shape: tuple[int, ...]) -> bool:
        """Check whether a transform of images of a shape can be computed for a batch at once."""
        choices, _ = _choices_of(transform)
        return shape[2:] == (3,) and all(type(change) in CHANGES for choice in choices for change in choice)

    def draw(self, draws: Draws) -> np.ndarray:
        """Draw the changes of each sample, in their order: number (-1 for none) and amount; (n, changes, 2)."""
        drawn = np.full((len(draws.seeds), self._picks * self._longest, 2), -1.0)
        picks = [draws.integers(len(self._choices)) for _ in range(self._picks)]
        for place in range(drawn.shape[1]):
            pick, position = picks[place // self._longest], place % self._longest
            for number, choice in enumerate(self._choices):
                if position < len(choice):
                    rows, change = np.flatnonzero(pick == number), choice[position]
                    rows = rows[draws.uniform(rows) <= change.prob]
                    drawn[rows, place, 0] = self._firsts[number] + position
                    drawn[rows, place, 1] = _draw_amounts(change, draws, rows)
        return drawn

    def apply(self, images: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        """Change images (n, 3, H, W)."""
        found = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
        for image, changes in zip(found, drawn.tolist(), strict=True):
            made = image
            for number, amount in changes:
                if number >= 0:
                    made = self._changed(made, self._changes[int(number)], amount)
            if made is not image:
                image[:] = made
        return found.transpose(0, 3, 1, 2)

    @staticmethod
    def _changed(image: np.ndarray, change: Any, amount: float) -> np.ndarray:
        """Return an image after a change."""
        setting, signed, function = CHANGES[type(change)]
        fixed = None if setting is None or signed else getattr(change, setting)
        return function(change, image, amount if fixed is None else fixed).astype(np.uint8, copy=False)


class Strong(Step):
    """:class:`~mmcls_kd.engine.two_views.StrongAugment` of a batch."""

    def __init__(self, transform: Any, shape: tuple[int, ...]) -> None:
        super().__init__(transform, shape)
        self._cutout = transform.cutout
        self._policies = Policies(transform.augment, (*shape[:2], 3))

    @staticmethod
    def takes(transform: Any, shape: tuple[int, ...]) -> bool:
        """Check whether a transform of images of a shape can be computed for a batch at once."""
        return shape[2:] in ((), (1,), (3,)) and Policies.takes(transform.augment, (*shape[:2], 3))

    def draw(self, draws: Draws) -> np.ndarray:
        """Draw for each sample: top, bottom, left and right of the grey square, then the changes; (n, 4 + 2·changes)."""
        changes = self._policies.draw(draws).reshape(len(draws.seeds), -1)
        half = self._cutout * draws.uniform() * self.shape[1] / 2
        middles = [(length, length * draws.uniform()) for length in self.shape[:2]]
        sides = [side for n, middle in middles for side in (np.maximum(0, middle - half), np.minimum(n, middle + half))]
        return np.concatenate([np.trunc(sides).T, changes], 1)

    def apply(self, images: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        """Change images (n, C, H, W)."""
        channels = images.shape[1]
        colours = images if channels == 3 else np.repeat(images, 3, 1)
        made = self._policies.apply(colours, drawn[:, 4:].reshape(len(drawn), -1, 2))[:, :channels]
        for image, (top, bottom, left, right) in zip(made, drawn[:, :4].astype(int).tolist(), strict=True):
            image[:, top:bottom, left:right] = GREY
        return made


def _choices_of(transform: Any) -> tuple[list[list[Any]], int]:
    """Return the sequences of changes from which a transform picks, and how often it does."""
    if isinstance(transform, auto_augment.RandAugment):
        return [[change] for change in transform.transforms], transform.num_policies
    return [list(choice.transforms) for choice in transform.transforms], 1
