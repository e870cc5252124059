"""Random transforms of a batch of images at once, bit for bit as one image at a time.

Each is built of the pipeline's own transform and the shape of an image before it, and draws for many samples at once, from
the numbers that each sample's own seed gives (:mod:`.draws`). Where a pipeline has another transform, that one and those
behind it change one image after the other (:class:`OneByOne`), with the random state that they have in the pipeline.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Sequence
from functools import cache
from typing import Any

import mmcv
import numpy as np
import torch
from mmcv.transforms import Compose, RandomFlip, RandomGrayscale
from mmpretrain.datasets import transforms
from mmpretrain.datasets.transforms.auto_augment import BaseAugTransform
from mmpretrain.datasets.transforms.processing import TorchVisonTransformWrapper
from PIL import Image
from torchvision import transforms as vision

from .draws import Draws, Step, advance
from .policies import Policies, Strong
from .two_views import StrongAugment


class Crop(Step):
    """mmpretrain's ``RandomCrop`` of a batch.

    Attributes:
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
        super().__init__(transform, (min(height, transform.crop_size[0]), min(width, transform.crop_size[1]), *channels))
        self.room = height - self.shape[0], width - self.shape[1]

    @staticmethod
    def takes(transform: Any, shape: tuple[int, ...]) -> bool:  # noqa: ARG004
        """Check whether a transform of images of a shape can be computed for a batch at once."""
        return not transform.pad_if_needed

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


class ResizedCrop(Step):
    """mmpretrain's ``RandomResizedCrop`` of a batch."""

    def __init__(self, transform: Any, shape: tuple[int, ...]) -> None:
        self._before, self._transform, self._is_grey = shape[:2], transform, len(shape) == 2
        super().__init__(transform, self._resized(np.zeros(shape, np.uint8)).shape)  # OpenCV drops a single channel
        undrawn = copy.copy(transform)
        undrawn.max_attempts = 0
        self._central = undrawn.rand_crop_params(np.zeros(shape, np.uint8))

    def _resized(self, image: np.ndarray) -> np.ndarray:
        settings = dict(interpolation=self._transform.interpolation, backend=self._transform.backend)
        return mmcv.imresize(image, tuple(self._transform.scale[::-1]), **settings)

    def draw(self, draws: Draws) -> np.ndarray:
        """Draw the crop of each sample: top, left, height, width; (n, 4)."""
        height, width = self._before
        drawn = np.tile(np.array(self._central, np.int64), (len(draws.seeds), 1))
        logarithms = [math.log(ratio) for ratio in self._transform.aspect_ratio_range]
        left = np.arange(len(drawn))
        for _ in range(self._transform.max_attempts):
            areas = _between(self._transform.crop_ratio_range, draws.uniform(left)) * (height * width)
            powers = _between(logarithms, draws.uniform(left))
            ratios = np.array([math.exp(power) for power in powers.tolist()])  # NumPy's own of arrays may round otherwise
            sizes = np.rint(np.sqrt([areas / ratios, areas * ratios])).astype(np.int64)
            fits = ((sizes > 0) & (sizes <= [[height], [width]])).all(0)
            rows, (heights, widths) = left[fits], sizes[:, fits]
            tops, lefts = draws.integers(height - heights + 1, rows), draws.integers(width - widths + 1, rows)
            drawn[rows] = np.stack([tops, lefts, heights, widths], 1)
            left = left[~fits]
        return drawn

    def apply(self, images: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        """Crop and resize images (n, C, H, W)."""
        images = images[:, 0] if self._is_grey else np.ascontiguousarray(images.transpose(0, 2, 3, 1))
        made = np.empty((len(images), *self.shape), np.uint8)
        for number, (top, left, height, width) in enumerate(drawn.tolist()):
            made[number] = self._resized(images[number, top : top + height, left : left + width])
        return made[:, None] if made.ndim == 3 else made.transpose(0, 3, 1, 2)


class Flip(Step):
    """mmcv's ``RandomFlip`` of a batch.

    Attributes:
        directions: The directions, without that of no flip, which is the last position.
        facts: The facts that the transform notes of a sample, by position.
    """

    def __init__(self, transform: Any, shape: tuple[int, ...]) -> None:
        super().__init__(transform, shape)
        self._prob = transform.prob
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


class Erase(Step):
    """mmpretrain's ``RandomErasing`` of a batch of colour images."""

    def __init__(self, transform: Any, shape: tuple[int, ...]) -> None:
        super().__init__(transform, shape)
        self._prob = transform.erase_prob
        self._areas = transform.min_area_ratio, transform.max_area_ratio
        self._aspects = np.log(np.array(transform.aspect_range, np.float32)).tolist()  # with the transform's rounding
        self._fill = None if transform.mode == 'rand' else np.array(transform.fill_color, np.uint8).reshape(3, 1, 1)
        self._alone = np.random.RandomState()

    @staticmethod
    def takes(transform: Any, shape: tuple[int, ...]) -> bool:
        """Check whether a transform of images of a shape can be computed for a batch at once."""
        if transform.mode == 'rand':
            return shape[2:] == (3,) and transform.fill_std is None
        return shape[2:] == (3,) and all(0 <= value < 256 for value in transform.fill_color)

    def draw(self, draws: Draws) -> np.ndarray:
        """Draw for each sample: top, left, height and width of the patch, words drawn before its pixels, seed; (n, 6)."""
        height, width = self.shape[:2]
        drawn = np.zeros((len(draws.seeds), 6), np.uint64)
        rows = np.flatnonzero(draws.uniform() <= self._prob)
        aspects = np.exp(_between(self._aspects, draws.uniform(rows)))
        areas = height * width * _between(self._areas, draws.uniform(rows))
        heights = np.minimum(np.rint(np.sqrt(areas * aspects)).astype(np.int64), height)
        widths = np.minimum(np.rint(np.sqrt(areas / aspects)).astype(np.int64), width)
        tops = draws.integers(np.maximum(height - heights, 1), rows)
        lefts = draws.integers(np.maximum(width - widths, 1), rows)
        drawn[rows] = np.stack([tops, lefts, heights, widths, draws.used[rows], draws.seeds[rows].astype(np.int64)], 1)
        if self._fill is None:
            draws.used[rows] += 2 * 3 * heights * widths
        return drawn

    def apply(self, images: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        """Erase a part of images (n, 3, H, W), in place."""
        rows = np.flatnonzero(drawn[:, 2] * drawn[:, 3])
        for row, (top, left, height, width, used, seed) in zip(rows.tolist(), drawn[rows].tolist(), strict=True):
            part = images[row, :, top : top + height, left : left + width]
            if self._fill is None:
                advance(self._alone, seed, used)
                part[:] = (self._alone.random_sample((height, width, 3)) * 256).astype(np.uint8).transpose(2, 0, 1)
            else:
                part[:] = self._fill
        return images


class Jitter(Step):
    """mmpretrain's ``ColorJitter`` by Pillow of a batch of colour images (BGR)."""

    def __init__(self, transform: Any, shape: tuple[int, ...]) -> None:
        super().__init__(transform, shape)
        self._ranges = [transform.brightness, transform.contrast, transform.saturation, transform.hue]

    @staticmethod
    def takes(transform: Any, shape: tuple[int, ...]) -> bool:
        """Check whether a transform of images of a shape can be computed for a batch at once."""
        return shape[2:] == (3,) and transform.backend == 'pillow' and _is_pillows()

    def draw(self, draws: Draws) -> np.ndarray:
        """Draw the order of the four changes of each sample, and the amount of each; (n, 8)."""
        drawn = np.zeros((len(draws.seeds), 8))
        order, rows = drawn[:, :4], np.arange(len(drawn))
        order[:] = range(4)
        for last in (3, 2, 1):  # as np.random.permutation(4)
            other = draws.integers(last + 1)
            order[rows, other], order[rows, last] = order[rows, last], order[rows, other]
        for kind, limits in enumerate(self._ranges):
            if limits is not None:
                drawn[:, 4 + kind] = _between(limits, draws.uniform())
        return drawn

    def apply(self, images: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        """Change the colours of images (n, 3, H, W), in place."""
        changes = [_brighten, _contrast, _saturate, _turn_hue]
        for place in range(4):
            for kind, change in enumerate(changes):
                rows = np.flatnonzero(drawn[:, place] == kind)
                if self._ranges[kind] is not None and len(rows):
                    images[rows] = change(images[rows], drawn[rows, 4 + kind])
        return images


def _between(limits: Sequence[float], shares: np.ndarray) -> np.ndarray:
    """Return numbers between two limits, as ``np.random.uniform`` computes them."""
    low, high = limits
    return low + (high - low) * shares


def _blend(first: Any, second: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Blend images of bytes as Pillow's ``Image.blend``, each by its own share."""
    first = np.asarray(first, np.float32)
    found = second - first
    found *= shares.astype(np.float32).reshape(-1, 1, 1, 1)
    found += first
    return np.clip(found, 0, 255, out=found).astype(np.uint8)


def _grey(images: np.ndarray) -> np.ndarray:
    """Return the brightness of BGR images as Pillow's mode L, (n, 1, H, W): ITU-R 601's in fixed-point numbers."""
    blue, green, red = (images[:, channel, None].astype(np.uint32) for channel in range(3))
    return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16


def _brighten(images: np.ndarray, factors: np.ndarray) -> np.ndarray:
    return _blend(0, images, factors)


def _contrast(images: np.ndarray, factors: np.ndarray) -> np.ndarray:
    means = _grey(images).sum((1, 2, 3)) / (images.shape[2] * images.shape[3])
    return _blend(np.floor(means + 0.5).reshape(-1, 1, 1, 1), images, factors)


def _saturate(images: np.ndarray, factors: np.ndarray) -> np.ndarray:
    return _blend(_grey(images), images, factors)


def _turn_hue(images: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Turn the hue of BGR images in Pillow's HSV, all images below one another."""
    n, _, height, width = images.shape
    red, green, blue = (Image.fromarray(images[:, channel].reshape(-1, width)) for channel in (2, 1, 0))
    hue, saturation, value = Image.merge('RGB', (red, green, blue)).convert('HSV').split()
    turns = (np.trunc(shares * 255).astype(np.int64) % 256).astype(np.uint8)
    turned = np.asarray(hue).reshape(n, height, width) + turns.reshape(-1, 1, 1)
    found = Image.merge('HSV', (Image.fromarray(turned.reshape(-1, width)), saturation, value)).convert('RGB')
    return np.stack([np.asarray(band).reshape(n, height, width) for band in found.split()[::-1]], 1)


@cache
def _is_pillows() -> bool:
    """Check whether this processor's Pillow computes as :func:`_blend` and :func:`_grey`: it may fuse operations."""
    levels = np.arange(256, dtype=np.uint8)
    first, second = (part.copy() for part in np.broadcast_arrays(levels[:, None], levels))
    colours = np.stack([first, second, first ^ second], 2)
    blends = all(
        np.array_equal(
            np.asarray(Image.blend(Image.fromarray(first), Image.fromarray(second), share)),
            _blend(first, second[None, None], np.array([share]))[0, 0],
        )
        for share in (0.0, 0.1, 0.7, 1.3, 2.9)
    )
    grey = np.asarray(Image.fromarray(colours[..., ::-1].copy()).convert('L'))
    return blends and np.array_equal(grey, _grey(colours.transpose(2, 0, 1)[None])[0, 0])


class OneByOne:
    """Transforms that change one image of a batch after the other, without the facts of a sample.

    Args:
        chosen: The transforms.
        shape: Shape of an image before them.
    """

    def __init__(self, chosen: Sequence[Any], shape: tuple[int, ...]) -> None:
        self._transforms, self._is_grey = list(chosen), len(shape) == 2
        self._draw_by_python = any(isinstance(one, RandomGrayscale) for one in chosen)
        self._draw_by_torch = any(isinstance(one, TorchVisonTransformWrapper) for one in chosen)

    def draw(self, draws: Draws) -> np.ndarray:
        """Return the seed of each sample, and the number of words that are drawn before these transforms; (n, 2)."""
        return np.stack([draws.seeds, draws.used.astype(np.uint64)], 1)

    def apply(self, images: np.ndarray, drawn: np.ndarray) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """Change images (n, C, H, W); return them with the facts that the transforms note of each."""
        images = images[:, 0] if self._is_grey else np.ascontiguousarray(images.transpose(0, 2, 3, 1))
        made, facts = [], []
        for image, (seed, used) in zip(images, drawn.tolist(), strict=True):
            advance(np.random, seed, used)
            if self._draw_by_python:
                random.seed(seed)
            if self._draw_by_torch:
                torch.default_generator.manual_seed(seed)
            results: dict[str, Any] = dict(img=image)
            for transform in self._transforms:
                results = transform(results)
            made.append(np.asarray(results.pop('img')))  # it may be Pillow's
            facts.append(results)
        stacked = np.stack(made)
        return stacked[:, None] if stacked.ndim == 3 else stacked.transpose(0, 3, 1, 2), facts


#: Transforms that read and write an image alone, and leave it a size that does not depend on draws; and torchvision's.
ALONE = {
    RandomFlip,
    transforms.RandomCrop,
    transforms.RandomResizedCrop,
    transforms.EfficientNetRandomCrop,
    transforms.EfficientNetCenterCrop,
    transforms.RandomErasing,
    transforms.ColorJitter,
    transforms.Lighting,
}
ALONE_OF_TORCHVISION = {
    vision.RandomCrop,
    vision.RandomResizedCrop,
    vision.RandomHorizontalFlip,
    vision.RandomVerticalFlip,
    vision.RandomRotation,
    vision.RandomAffine,
    vision.RandomPerspective,
    vision.RandomGrayscale,
    vision.RandomInvert,
    vision.RandomPosterize,
    vision.RandomSolarize,
    vision.RandomAdjustSharpness,
    vision.RandomAutocontrast,
    vision.RandomEqualize,
    vision.ColorJitter,
    vision.GaussianBlur,
    vision.RandAugment,
    vision.TrivialAugmentWide,
    vision.AutoAugment,
    vision.AugMix,
}


def is_alone(transform: Any) -> bool:
    """Check whether a random transform reads and writes an image alone, and leaves it a size of its own."""
    kind = type(transform)
    if isinstance(transform, TorchVisonTransformWrapper):
        return type(transform.t) in ALONE_OF_TORCHVISION and not getattr(transform.t, 'expand', False)
    if kind in (transforms.RandAugment, transforms.AutoAugment, Compose):
        return all(map(is_alone, transform.transforms))
    if kind is RandomGrayscale:
        return transform.keep_channels
    return kind in ALONE or (issubclass(kind, BaseAugTransform) and kind.__module__ == BaseAugTransform.__module__)


#: How a batch passes through each of the random transforms that are computed at once.
BATCHED: dict[type, Any] = {
    transforms.RandomCrop: Crop,
    transforms.RandomResizedCrop: ResizedCrop,
    RandomFlip: Flip,
    transforms.RandomErasing: Erase,
    transforms.ColorJitter: Jitter,
    transforms.RandAugment: Policies,
    transforms.AutoAugment: Policies,
    StrongAugment: Strong,
}


def batched(chosen: Sequence[Any], shape: tuple[int, ...]) -> tuple[list[Any], list[Any]]:
    """Return the first of some transforms, as they are computed at once for images of a shape, and the others."""
    found: list[Any] = []
    for transform in chosen:
        kind = BATCHED.get(type(transform))
        if kind is None or not kind.takes(transform, shape):
            break
        found.append(kind(transform, shape))
        shape = found[-1].shape
    others = list(chosen[len(found) :])
    numbers = [number for number, step in enumerate(found) if isinstance(step, Policies | Strong) and others]
    if numbers:  # NumPy may keep a normal number for the others
        others = list(chosen[numbers[0] :])
        del found[numbers[0] :]
    return found, others
