"""Input preprocessing: that of a network, and the conversion of images from one network's to another's."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from .resizing import BACKENDS, INTERPOLATIONS, KERNELS, resize

logger = logging.getLogger(__name__)
#: Weights of red, green and blue in a grey image (ITU-R BT.601), as in image libraries.
LUMA = (0.299, 0.587, 0.114)
#: The settings that determine an image's values.
VALUES = ('mean', 'std', 'to_rgb')
#: With a mean or std beyond these, on the scale of 0 to 255, images are nearly of one colour.
TWICE = 4 * 255


@dataclass(frozen=True)
class InputSpec:
    """Input preprocessing of a network.

    Attributes:
        mean: Mean that is subtracted from values of 0 to 255: a number for each channel, or one for all.
        std: Standard deviation by which they are then divided.
        to_rgb: Whether three channels are red, green, blue; else blue, green, red.
        size: Height and width; None for any.
        interpolation: Interpolation of the resizing.
        backend: Library of the resizing: Pillow reads all pixels when it makes an image smaller, OpenCV the nearest ones.
            torchvision is like Pillow, but for details.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    to_rgb: bool = True
    size: tuple[int, int] | None = None
    interpolation: str = 'bilinear'
    backend: str = 'pillow'

    def __str__(self) -> str:
        size = 'images as they come' if self.size is None else f'images of {self.size[0]} × {self.size[1]}'
        return f'{size}, {"RGB" if self.to_rgb else "BGR"}, mean {_round(self.mean)}, std {_round(self.std)}'


def _round(values: Sequence[float]) -> list[float]:
    return [round(value, 2) for value in values]


def changed(pixels: InputSpec, given: Mapping[str, Any], name: str = 'teacher_pixels') -> InputSpec:
    """Replace settings of an input preprocessing, which messages call ``name``.

    Size may be a number or (height, width). Mean and std may be on the scale of 0 to 1.
    """
    if not isinstance(given, Mapping):
        raise ValueError(f'{name}={given!r}: give a dict, e.g. dict(mean=127, std=50, size=224)')
    known = [f.name for f in fields(InputSpec)]
    if unknown := sorted(set(given) - set(known)):
        raise ValueError(f'{name} has no {unknown[0]!r}; it takes {", ".join(known)}')
    settings = dict(given)
    try:
        for key in ('mean', 'std'):
            if key in settings:
                values = settings[key]
                settings[key] = tuple(float(v) for v in (values if isinstance(values, Sequence) else [values]))
        if (size := settings.get('size')) is not None:
            height, width = (size, size) if isinstance(size, int) else size
            settings['size'] = (int(height), int(width))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f'{name}: {", ".join(f"{key}={value!r}" for key, value in given.items())} does not fit ({error}): mean '
            'and std are numbers, size is one or (height, width)'
        ) from error
    if on_scale_of_one(*(settings.get(key, ()) for key in ('mean', 'std'))):
        logger.info(f'{name}: mean={given["mean"]} and std={given["std"]} are taken to be on the scale of 0 to 1')
        settings |= {key: tuple(255 * v for v in settings[key]) for key in ('mean', 'std')}
    made = replace(pixels, **settings)
    _check(made, given, name)
    return made


def _check(made: InputSpec, given: Mapping[str, Any], name: str) -> None:
    """Refuse settings that are impossible."""
    if len(made.mean) != len(made.std) or len(made.mean) not in (1, 3) or min(made.std) <= 0:
        raise ValueError(
            f'{name}: mean={list(made.mean)} and std={list(made.std)} do not fit: give 1 or 3 numbers each, on the '
            'scale of 0 to 255, and no std of 0'
        )
    if made.size is not None and min(made.size) < 1:
        raise ValueError(f'{name}: size={given["size"]!r}: has to be at least 1')
    if made.interpolation not in INTERPOLATIONS:
        raise ValueError(f'{name}: interpolation={made.interpolation!r}: choose one of {", ".join(INTERPOLATIONS)}')
    if made.backend not in BACKENDS:
        raise ValueError(f'{name}: backend={made.backend!r}: choose one of {", ".join(BACKENDS)}')
    if made.interpolation not in (kernels := KERNELS[made.backend]):
        raise ValueError(
            f'{name}: backend={made.backend!r} has no interpolation={made.interpolation!r}, but {", ".join(kernels)}'
        )


def on_scale_of_one(mean: Sequence[float], std: Sequence[float]) -> bool:
    """Check whether mean and std are for values from 0 to 1: for values from 0 to 255 they would have almost no effect."""
    small = bool(mean) and bool(std) and max(map(abs, mean)) <= 1 and max(std) <= 1
    return small and (any(mean) or min(std) < 1)


def _long(values: Sequence[float], length: int) -> tuple[float, ...]:
    return tuple(values) * length if len(values) == 1 else tuple(values)


def resized(values: Tensor, wanted: InputSpec) -> Tensor:
    """Resize images with values from 0 to 255 as a network's own pipeline would, see :func:`.resizing.resize`."""
    return values if wanted.size is None else resize(values, wanted.size, wanted.interpolation, wanted.backend)


def _same(one: Any, other: Any) -> bool:
    """Compare two settings; numbers of a preprocessor are known in float32."""
    if isinstance(one, bool):
        return one == other
    return len(one) == len(other) and all(math.isclose(a, b, rel_tol=1e-6) for a, b in zip(one, other, strict=True))


class InputAdapter:
    """Conversion of images from one network's input preprocessing to another's, on their device.

    The result has 1 or 3 channels. A grey one takes the mean of three numbers for red, green, blue.

    Raises:
        ValueError: In a call, if the images are to be changed, and have, or are to have, other than 1 or 3 channels.
    """

    def __init__(self, given: InputSpec, wanted: InputSpec, channels: int) -> None:
        if channels == 1:
            wanted = replace(wanted, mean=(fmean(wanted.mean),), std=(fmean(wanted.std),))
        self.given, self.wanted, self.channels = given, wanted, channels
        self.same_values = all(_same(getattr(given, key), getattr(wanted, key)) for key in VALUES)
        self._constants: dict[Any, list[Tensor]] = {}

    def __call__(self, inputs: Tensor) -> Tensor:
        """Convert images with the given input preprocessing, (N, C, H, W)."""
        resize = self.wanted.size is not None and tuple(inputs.shape[2:]) != self.wanted.size
        if self.same_values and not resize and inputs.shape[1] == self.channels:
            return inputs
        if not {inputs.shape[1], self.channels} <= {1, 3}:
            raise ValueError(
                f'the teacher takes images of {self.channels} channels, and the student’s have {inputs.shape[1]}: only '
                'grey and RGB images are changed into each other; correct mean and std, or give a teacher of as many'
            )
        values = inputs.to(torch.promote_types(inputs.dtype, torch.float32))  # 0 to 255 are too many for bfloat16
        mean_given, std_given, mean, std, luma = self._on(values)
        values = values * std_given + mean_given
        if resize:
            values = resized(values, self.wanted)
        if values.shape[1] == 3:
            to_rgb = self.wanted.to_rgb or self.channels == 1
            values = values if self.given.to_rgb == to_rgb else values.flip(1)
        if values.shape[1] == 3 and self.channels == 1:
            values = (values * luma).sum(dim=1, keepdim=True)
        elif values.shape[1] == 1:
            values = values.expand(-1, self.channels, -1, -1)
        return ((values - mean) / std).to(inputs.dtype)

    def _on(self, inputs: Tensor) -> list[Tensor]:
        """Return the constants on the images' device."""
        key = inputs.device, inputs.dtype
        if key not in self._constants:
            rows = (self.given.mean, self.given.std, self.wanted.mean, self.wanted.std, LUMA)
            self._constants[key] = [inputs.new_tensor(row)[:, None, None] for row in rows]
        return self._constants[key]
