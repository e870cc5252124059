"""The images that a network wants, and how one network's are made of another's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from mmpretrain.models.classifiers import HuggingFaceClassifier, TimmClassifier
from torch import Tensor

from .classifiers import TorchvisionClassifier

INTERPOLATIONS = ('nearest', 'bilinear', 'bicubic')
#: What resizes images in a network's own pipeline, by mmcv's names; timm, torchvision and Hugging Face do as Pillow does.
BACKENDS = ('pillow', 'cv2')
#: The settings of an image's values; the others are of its size.
VALUES = ('mean', 'std', 'to_rgb')
#: The weight of red, green and blue in a grey image (ITU-R BT.601), as image libraries have it.
LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Pixels:
    """The images that a network wants.

    Attributes:
        mean: What is subtracted of the values, which go from 0 to 255: a number for each channel, or one for all.
        std: By what they are divided then.
        to_rgb: Whether three channels are red, green, blue; else blue, green, red.
        size: Height and width; None for any.
        interpolation: How images of another size are made into this one.
        backend: As which library does it: Pillow looks at all pixels when it makes an image smaller, OpenCV at the nearest.
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


def changed(pixels: Pixels, given: Mapping[str, Any]) -> Pixels:
    """Pixels with some settings as a config gives them.

    Args:
        pixels: What they are else.
        given: ``mean``, ``std``, ``to_rgb``, ``size`` (a number or (height, width)), ``interpolation``,
            ``backend``.

    Raises:
        ValueError: If a setting is unknown or does not fit.
    """
    known = [f.name for f in fields(Pixels)]
    if unknown := sorted(set(given) - set(known)):
        raise ValueError(f'teacher_pixels has no {unknown[0]!r}; it takes {", ".join(known)}')
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
            f'teacher_pixels: {", ".join(f"{key}={value!r}" for key, value in given.items())} does not fit ({error}): mean '
            'and std are numbers, size is one or (height, width)'
        ) from error
    made = replace(pixels, **settings)
    if len(made.mean) != len(made.std) or len(made.mean) not in (1, 3) or min(made.std) <= 0:
        raise ValueError(
            f'teacher_pixels: mean={list(made.mean)} and std={list(made.std)} do not fit: give 1 or 3 numbers each, on the '
            'scale of 0 to 255, and no std of 0'
        )
    if made.size is not None and min(made.size) < 1:
        raise ValueError(f'teacher_pixels: size={given["size"]!r}: has to be at least 1')
    if made.interpolation not in INTERPOLATIONS:
        raise ValueError(f'teacher_pixels: interpolation={made.interpolation!r}: choose one of {", ".join(INTERPOLATIONS)}')
    if made.backend not in BACKENDS:
        raise ValueError(f'teacher_pixels: backend={made.backend!r}: choose one of {", ".join(BACKENDS)}')
    return made


def preprocessed(preprocessor: Any, rgb_images: bool = False) -> Pixels:
    """The images that a data preprocessor of mmengine's or mmpretrain's kind makes, of any size.

    Args:
        preprocessor: It.
        rgb_images: Whether it gets red, green, blue; else blue, green, red, as files are read.
    """
    turns = getattr(preprocessor, 'to_rgb', getattr(preprocessor, '_channel_conversion', not rgb_images))  # mmengine's name
    pixels = Pixels(to_rgb=bool(turns) != rgb_images)
    if not getattr(preprocessor, '_enable_normalize', False):
        return pixels
    mean, std = (tuple(getattr(preprocessor, key).flatten().tolist()) for key in ('mean', 'std'))
    return replace(pixels, mean=mean, std=std)


def wanted_pixels(network: Any, student: Pixels, preprocessor: Mapping | None, rgb_images: bool = False) -> Pixels:
    """The images that a network was made for: by its config, else its library's word, else the student's.

    Args:
        network: A classifier.
        student: The student's images.
        preprocessor: The data preprocessor of the network's config, if that has one.
        rgb_images: Whether the images came red, green, blue to that, see :func:`preprocessed`.
    """
    pixels = next((changed(student, read(network)) for kind, read in READERS.items() if isinstance(network, kind)), student)
    if preprocessor:
        own = preprocessed(network.data_preprocessor, rgb_images)
        return replace(pixels, **{key: getattr(own, key) for key in VALUES})
    return pixels


def _timm(network: Any) -> dict[str, Any]:
    from timm.data import resolve_model_data_config

    found = resolve_model_data_config(network.model)
    embedding = getattr(network.model, 'patch_embed', None)
    return dict(
        mean=[255 * v for v in found['mean']],
        std=[255 * v for v in found['std']],
        to_rgb=True,
        size=getattr(embedding, 'img_size', None) or found['input_size'][1:],
        interpolation=found['interpolation'] if found['interpolation'] in INTERPOLATIONS else 'bilinear',
    )


def _torchvision(network: Any) -> dict[str, Any]:
    preset = (network.weights or torchvision.models.get_model_weights(network.model_name).DEFAULT).transforms()
    size = getattr(network.model, 'image_size', None) or preset.crop_size[0]
    return dict(
        mean=[255 * v for v in preset.mean],
        std=[255 * v for v in preset.std],
        to_rgb=True,
        size=size,
        interpolation=preset.interpolation.value,
    )


def _hugging_face(network: Any) -> dict[str, Any]:
    from transformers import AutoImageProcessor

    config = network.model.config
    try:
        processor = AutoImageProcessor.from_pretrained(config.name_or_path)
    except (OSError, ValueError) as error:  # none was saved beside the network
        if Path(config.name_or_path, 'preprocessor_config.json').exists():
            raise ValueError(f'{config.name_or_path}: its preprocessor_config.json cannot be read: {error}') from error
        size = getattr(config, 'image_size', None)
        return dict(size=size) if size else {}
    found: dict[str, Any] = dict(to_rgb=not getattr(processor, 'do_flip_channel_order', False))
    found |= _hugging_face_values(processor)
    cropped = getattr(processor, 'do_center_crop', False)
    size = processor.crop_size if cropped else processor.size if processor.do_resize else None
    if size and (edges := [size.get(k) or size.get('shortest_edge') for k in ('height', 'width')])[0]:
        found['size'] = edges
    found['interpolation'] = {0: 'nearest', 3: 'bicubic'}.get(int(processor.resample), 'bilinear')
    return found


def _hugging_face_values(processor: Any) -> dict[str, list[float]]:
    """Mean and std of what a processor makes of the values: scaled, shifted, normalised, by EfficientNet's std twice."""
    scale = 1 / processor.rescale_factor if processor.do_rescale else 1
    shift = bool(processor.do_rescale and getattr(processor, 'rescale_offset', False))
    given = (processor.image_mean, processor.image_std) if processor.do_normalize else (0.0, 1.0)
    mean, std = ([v] * 3 if isinstance(v, (int, float)) else list(v) for v in given)
    if getattr(processor, 'include_top', False):
        std = [a * b for a, b in zip(std, processor.image_std, strict=True)]
    return dict(mean=[scale * (v + shift) for v in mean], std=[scale * v for v in std])


READERS = {TimmClassifier: _timm, TorchvisionClassifier: _torchvision, HuggingFaceClassifier: _hugging_face}


def whole(values: Tensor) -> Tensor:
    """Values as an image file holds them: whole numbers from 0 to 255, the half ones rounded up."""
    return (values + 0.5).floor().clamp(0, 255)


def resized(values: Tensor, wanted: Pixels) -> Tensor:
    """Images of another size, as a network's own pipeline would make them.

    Libraries resize images of whole numbers into such. Pillow makes the rows first and rounds, then the columns; what a
    bicubic kernel swings over the range is cut off each time, 20 levels at a sharp edge.

    Args:
        values: Images with values from 0 to 255, (N, C, H, W).
        wanted: What they shall be.
    """
    height, width = wanted.size or values.shape[2:]
    by_pillow = wanted.backend == 'pillow' and wanted.interpolation != 'nearest'
    values = whole(values)  # whole numbers are fractions after they were normalised and back
    for size in [(values.shape[2], width), (height, width)] if by_pillow else [(height, width)]:
        values = whole(F.interpolate(values, size, mode=wanted.interpolation, antialias=by_pillow))
    return values


class PixelAdapter:
    """Makes one network's images of another's, on their device.

    Args:
        given: What the images are.
        wanted: What they shall be.
        channels: How many channels they shall have, 1 or 3. Grey ones take the mean of three numbers for red, green, blue.
    """

    def __init__(self, given: Pixels, wanted: Pixels, channels: int) -> None:
        if channels == 1:
            wanted = replace(wanted, mean=(fmean(wanted.mean),), std=(fmean(wanted.std),))
        self.given, self.wanted, self.channels = given, wanted, channels
        self.same_values = all(getattr(given, key) == getattr(wanted, key) for key in VALUES)
        self._constants: dict[Any, list[Tensor]] = {}

    def __call__(self, inputs: Tensor) -> Tensor:
        """Images of the wanted kind.

        Args:
            inputs: Images of the given kind, (N, C, H, W).
        """
        resize = self.wanted.size is not None and tuple(inputs.shape[2:]) != self.wanted.size
        if self.same_values and not resize and inputs.shape[1] == self.channels:
            return inputs
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
        """The constants where the images are."""
        key = inputs.device, inputs.dtype
        if key not in self._constants:
            rows = (self.given.mean, self.given.std, self.wanted.mean, self.wanted.std, LUMA)
            self._constants[key] = [inputs.new_tensor(row)[:, None, None] for row in rows]
        return self._constants[key]
