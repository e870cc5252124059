"""Resizing of images, as each image library does it on whole numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

#: The interpolations of each library, by mmcv's names. timm is like Pillow; 'torchvision' is for tensors, as in most of
#: Hugging Face's processors.
KERNELS = {
    'pillow': ('nearest', 'box', 'bilinear', 'hamming', 'bicubic', 'lanczos'),
    'cv2': ('nearest', 'bilinear', 'bicubic', 'area', 'lanczos'),
    'torchvision': ('nearest', 'bilinear', 'bicubic', 'lanczos'),
}
BACKENDS = tuple(KERNELS)
INTERPOLATIONS = tuple(dict.fromkeys(kernel for kernels in KERNELS.values() for kernel in kernels))
#: Pillow's numbers of the interpolations, which Hugging Face's ``resample`` takes.
PILLOW_NUMBERS = {0: 'nearest', 1: 'lanczos', 2: 'bilinear', 3: 'bicubic', 4: 'box', 5: 'hamming'}
#: Interpolations of torch itself, with the same numbers.
IN_TORCH = ('bilinear', 'bicubic')
#: Half widths of Pillow's other kernels, in pixels, and their values.
SHAPES: dict[str, tuple[float, Callable[[np.ndarray], np.ndarray]]] = {
    'box': (0.5, lambda x: ((x > -0.5) & (x <= 0.5)).astype(float)),
    'hamming': (1.0, lambda x: np.sinc(x) * (0.54 + 0.46 * np.cos(np.pi * x)) * (np.abs(x) < 1)),
    'lanczos': (3.0, lambda x: np.sinc(x) * np.sinc(x / 3) * (np.abs(x) < 3)),
}


def whole(values: Tensor) -> Tensor:
    """Round values as in an image file: whole numbers from 0 to 255, halves upwards."""
    return (values + 0.5).floor().clamp(0, 255)


def resize(values: Tensor, size: tuple[int, int], interpolation: str, backend: str) -> Tensor:
    """Resize images with values from 0 to 255, (N, C, H, W), to (height, width), in whole numbers.

    Pillow resizes along one axis and rounds, then along the other. Each time, values that a kernel overshoots are clipped to
    the range: up to 20 levels at a sharp edge.
    """
    values = whole(values)  # whole numbers are fractions after they were normalised and back
    (height, width), (old_height, old_width) = size, values.shape[2:]
    if interpolation == 'nearest':
        rows, columns = (
            nearest(old, new, backend).to(values.device) for old, new in zip(values.shape[2:], size, strict=True)
        )
        return values[:, :, rows][:, :, :, columns]
    if backend == 'cv2':
        return whole(_resize(values, size, interpolation))
    if backend == 'torchvision' and interpolation in IN_TORCH:
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms.v2 import functional as tvF

        return tvF.resize(values.byte(), [height, width], InterpolationMode(interpolation), antialias=True).to(values.dtype)
    down_first = backend == 'pillow' and pillow_goes_down_first((old_height, old_width), size, interpolation)
    between = (height, old_width) if down_first else (old_height, width)
    return whole(_resize(whole(_resize(values, between, interpolation, True)), size, interpolation, True))


def _resize(values: Tensor, size: tuple[int, int], kernel: str, pillow: bool = False) -> Tensor:
    """Resize in one step, without rounding."""
    if kernel in IN_TORCH:
        return F.interpolate(values, size, mode=kernel, antialias=pillow)
    lengths = [*zip(values.shape[2:], size, strict=True)]
    if kernel == 'area' and any(old < new for old, new in lengths):
        kernel = 'area, larger'
    down, across = (weights(kernel, old, new, pillow).to(values) for old, new in lengths)
    with torch.autocast(values.device.type, enabled=False):
        return down @ values @ across.T


@lru_cache(maxsize=64)
def pillow_goes_down_first(old: tuple[int, int], new: tuple[int, int], interpolation: str) -> bool:
    """Check whether Pillow resizes the columns first. Some versions do for some shapes (height, width), so it is tried."""
    if old[0] * new[1] == old[1] * new[0]:  # the same shape: no version does
        return False
    from PIL import Image

    kernel = getattr(Image.Resampling, interpolation.upper())
    image = Image.fromarray(np.random.RandomState(0).choice([0, 255], old).astype(np.uint8))
    across_first = image.resize((new[1], old[0]), kernel).resize(new[::-1], kernel)
    return across_first.tobytes() != image.resize(new[::-1], kernel).tobytes()


@lru_cache(maxsize=64)
def nearest(old: int, new: int, backend: str) -> Tensor:
    """Return the source of each new pixel: the pixel under its centre, for OpenCV the one under its edge.

    Between two, the library's rounding decides.
    """
    if backend == 'torchvision':
        return F.interpolate(torch.arange(old).double()[None, None], new, mode='nearest-exact')[0, 0].long()
    if backend == 'pillow':  # it adds up in double precision
        places = np.cumsum([old / new * 0.5, *[old / new] * (new - 1)])
    else:
        places = np.arange(new) * (1 / (new / old))
    return torch.from_numpy(places.astype(int).clip(0, old - 1))


@lru_cache(maxsize=64)
def weights(kernel: str, old: int, new: int, pillow: bool) -> Tensor:
    """Return the share of each pixel of a row in each of its new pixels, (new, old)."""
    if old == new:
        made = np.eye(old)
    elif pillow:
        made = _pillow(kernel, old, new)
    else:
        made = {'area': _area, 'area, larger': _between, 'lanczos': _lanczos4}[kernel](old, new)
    return torch.from_numpy(made / made.sum(axis=1, keepdims=True))


def _pillow(kernel: str, old: int, new: int) -> np.ndarray:
    """Stretch a kernel over all pixels of a new one."""
    support, shape = SHAPES[kernel]
    stretch = max(old / new, 1.0)
    made = np.zeros((new, old))
    for row in range(new):
        centre = (row + 0.5) * old / new
        first = max(int(centre - support * stretch + 0.5), 0)
        last = min(int(centre + support * stretch + 0.5), old)
        made[row, first:last] = shape((np.arange(first, last) + 0.5 - centre) / stretch)
    return made


def _area(old: int, new: int) -> np.ndarray:
    """Average the pixels that each new one covers."""
    edges = np.arange(new + 1)[:, None] * old / new
    starts = np.arange(old)[None]
    return (np.minimum(edges[1:], starts + 1) - np.maximum(edges[:-1], starts)).clip(0)


def _between(old: int, new: int) -> np.ndarray:
    """Interpolate as OpenCV's 'area' for a longer edge: sharp but for the new pixels that lie over two old ones."""
    made = np.zeros((new, old))
    for row in range(new):
        left = math.floor(row * (1 / (new / old)))
        part = (row + 1) - (left + 1) * new / old
        part = 0.0 if part <= 0 else part - math.floor(part)
        made[row, min(left, old - 1)] += 1 - part
        made[row, min(left + 1, old - 1)] += part
    return made


def _lanczos4(old: int, new: int) -> np.ndarray:
    """Interpolate as OpenCV from eight pixels at any scale; beyond the border, its pixel is repeated."""
    made = np.zeros((new, old))
    for row in range(new):
        centre = (row + 0.5) * old / new - 0.5
        left = math.floor(centre)
        for place in range(left - 3, left + 5):
            made[row, min(max(place, 0), old - 1)] += np.sinc(centre - place) * np.sinc((centre - place) / 4)
    return made
