"""Random transforms of a batch of images at once, bit for bit as one image at a time.

Each is built of the pipeline's own transform and the shape of an image before it, and draws for many samples at once, from
the numbers that each sample's own seed gives (:mod:`.draws`).
"""

from __future__ import annotations

from typing import Any

import mmcv
import numpy as np
from mmcv.transforms import RandomFlip
from mmpretrain.datasets import transforms

from .draws import Draws


class Crop:
    """mmpretrain's ``RandomCrop`` of a batch.

    Args:
        transform: The transform.
        shape: Shape of an image before it.

    Attributes:
        shape: Shape of an image after it.
        padding: Padding on the left, at the top, on the right, at the bottom.
        room: Largest offset, down and to the right.
    """

    def __init__(self, transform: Any, shape: tuple[int, ...]) -> None:
        given = transform.padding
        self.padding = (*given, *given)[:4] if isinstance(given, tuple) else (given or 0,) * 4
        if given is not None:  # OpenCV rounds the value, and may fill the first channel alone
            blank = np.zeros(shape, np.uint8)
            shape = mmcv.impad(blank, padding=given, pad_val=transform.pad_val).shape
            self.value = mmcv.impad(blank[:1, :1], padding=1, pad_val=transform.pad_val)[0, 0].reshape(-1, 1, 1)
        height, width, *channels = shape
        self.shape = (min(height, transform.crop_size[0]), min(width, transform.crop_size[1]), *channels)
        self.room = height - self.shape[0], width - self.shape[1]

    def draw(self, draws: Draws) -> np.ndarray:
        """Draw the offsets of samples, (n, 2)."""
        return np.stack([draws.integers(room + 1) for room in self.room], 1)

    def apply(self, images: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        """Crop images (n, C, H, W)."""
        left, top, right, bottom = self.padding
        if any(self.padding):
            n, channels, height, width = images.shape
            padded = np.empty((n, channels, height + top + bottom, width + left + right), images.dtype)
            padded[:] = self.value
            padded[:, :, top : top + height, left : left + width] = images
            images = padded
        windows = np.lib.stride_tricks.sliding_window_view(images, self.shape[:2], axis=(2, 3))
        return windows[np.arange(len(images)), :, drawn[:, 0], drawn[:, 1]]


class Flip:
    """mmcv's ``RandomFlip`` of a batch.

    Args:
        transform: The transform.
        shape: Shape of an image.

    Attributes:
        shape: The same.
        directions: The directions, without that of no flip, which is the last position.
        facts: The facts that the transform notes of a sample, by position.
    """

    def __init__(self, transform: Any, shape: tuple[int, ...]) -> None:
        self.shape, self._prob = shape, transform.prob
        given = transform.direction
        self.directions = [given] if isinstance(given, str) else list(given)
        self.facts = [dict(flip=direction is not None, flip_direction=direction) for direction in (*self.directions, None)]

    def draw(self, draws: Draws) -> np.ndarray:
        """Draw the position of each sample's direction, (n,)."""
        given, n = self._prob, len(self.directions)
        if isinstance(given, list):
            return draws.choices([*given, 1 - sum(given)])
        return draws.choices([given / n] * n + [1.0 - given])

    def apply(self, images: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        """Flip images (n, C, H, W), in place."""
        axes = dict(horizontal=(3,), vertical=(2,), diagonal=(2, 3))
        for number, direction in enumerate(self.directions):
            rows = np.flatnonzero(drawn == number)
            images[rows] = np.flip(images[rows], axes[direction])
        return images


#: How a batch passes through each of the random transforms that are computed at once.
BATCHED: dict[type, Any] = {transforms.RandomCrop: Crop, RandomFlip: Flip}


def is_batched(transform: Any) -> bool:
    """Check whether a transform is computed for a batch at once."""
    return type(transform) in BATCHED and not getattr(transform, 'pad_if_needed', False)
