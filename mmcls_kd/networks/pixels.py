"""The images that a network wants, and how one network's are made of another's."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import torchvision
from mmengine.logging import print_log
from mmpretrain.models.classifiers import HuggingFaceClassifier, TimmClassifier
from PIL import Image
from torch import Tensor

from .classifiers import TorchvisionClassifier
from .resizing import BACKENDS, INTERPOLATIONS, KERNELS, PILLOW_NUMBERS, resize
from .trial import COLOUR, GREYS, LUMA, VALUES, UnclearError, kernel_of, preprocessing, solved

#: What a network is taken for that says nothing of its images.
UNKNOWN = 'its images are normalised as the student’s; model.teacher_pixels can say otherwise'
#: Beyond such a mean or std, on the scale of 0 to 255, images are nearly of one colour.
TWICE = 4 * 255


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
            torchvision does as Pillow does, but for details.
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
            ``backend``. Mean and std may be on the scale of 0 to 1.

    Raises:
        ValueError: If a setting is unknown or does not fit.
    """
    if not isinstance(given, Mapping):
        raise ValueError(f'teacher_pixels={given!r}: give a dict, e.g. dict(mean=127, std=50, size=224)')
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
    if on_scale_of_one(*(settings.get(key, ()) for key in ('mean', 'std'))):
        print_log(
            f'teacher_pixels: mean={given["mean"]} and std={given["std"]} are taken to be on the scale of 0 to 1', 'current'
        )
        settings |= {key: tuple(255 * v for v in settings[key]) for key in ('mean', 'std')}
    made = replace(pixels, **settings)
    _check(made, given)
    return made


def _check(made: Pixels, given: Mapping[str, Any]) -> None:
    """Refuse pixels that cannot be."""
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
    if made.interpolation not in (kernels := KERNELS[made.backend]):
        raise ValueError(
            f'teacher_pixels: backend={made.backend!r} has no interpolation={made.interpolation!r}, but {", ".join(kernels)}'
        )


def on_scale_of_one(mean: Sequence[float], std: Sequence[float]) -> bool:
    """Whether mean and std are of values from 0 to 1, since for values from 0 to 255 they would do next to nothing."""
    small = bool(mean) and bool(std) and max(map(abs, mean)) <= 1 and max(std) <= 1
    return small and (any(mean) or min(std) < 1)


def preprocessed(preprocessor: Any, rgb_images: bool = False, given: Mapping[str, Any] | None = None) -> Pixels:
    """The images that a data preprocessor makes, of any size: what it says, if that is what it does, else what it does.

    Args:
        preprocessor: Of mmengine's or mmpretrain's kind.
        rgb_images: Whether it gets red, green, blue; else blue, green, red, as files are read.
        given: ``mean`` and ``std`` of the images that it gets, where these are no levels from 0 to 255 any more.

    Raises:
        UnclearError: If it changes images otherwise than by mean, std and order of channels.
        ValueError: If it normalises by numbers that do not belong to such images.
    """
    own = _done(preprocessor, _said(preprocessor))
    mean, std = ((given or {}).get(key) or (default,) for key, default in (('mean', 0.0), ('std', 1.0)))
    if set(mean) == {0.0} and set(std) == {1.0}:
        if on_scale_of_one(own.mean, own.std):
            raise ValueError(
                f'data_preprocessor: mean={_round(own.mean)} and std={_round(own.std)} are on the scale of 0 to 1, and its '
                'images have values from 0 to 255: give 255 times these numbers'
            )
        made = own
    else:
        length = max(len(mean), len(own.mean))
        columns = [_long(v, length) for v in (mean, std, own.mean, own.std)]
        if own.to_rgb:  # it turns the channels first
            columns[:2] = [column[::-1] for column in columns[:2]]
        rows = [*zip(*columns, strict=True)]
        made = replace(own, mean=tuple(m + m_2 * s for m, s, m_2, _ in rows), std=tuple(s * s_2 for _, s, _, s_2 in rows))
    if max(map(abs, made.mean)) > TWICE or max(made.std) > TWICE:
        raise ValueError(
            f'the pipeline makes values of mean {_round(mean)} and std {_round(std)} of images, and data_preprocessor those '
            f'of mean {_round(own.mean)} and std {_round(own.std)}: images are normalised twice; leave one of both out'
        )
    return replace(made, to_rgb=own.to_rgb != rgb_images)


def _long(values: Sequence[float], length: int) -> tuple[float, ...]:
    return tuple(values) * length if len(values) == 1 else tuple(values)


def _said(preprocessor: Any) -> Pixels:
    """What a data preprocessor says; ``to_rgb`` is whether it turns the channels."""
    turns = getattr(preprocessor, 'to_rgb', getattr(preprocessor, '_channel_conversion', False))  # the latter is mmengine's
    if not getattr(preprocessor, '_enable_normalize', False):
        return Pixels(to_rgb=bool(turns))
    mean, std = (tuple(getattr(preprocessor, key).flatten().tolist()) for key in ('mean', 'std'))
    return Pixels(mean, std, bool(turns))


def _done(preprocessor: Any, said: Pixels) -> Pixels:
    """What a data preprocessor does to a blue, green, red image; what it says, if that is the same."""

    def shown(colour: Sequence[int]) -> Any:
        image = torch.tensor(colour[::-1], dtype=torch.uint8)[:, None, None].expand(3, 32, 32).contiguous()
        made = preprocessor(dict(inputs=[image], data_samples=None), False)['inputs'][0]
        return made[:, :16, :16].flatten(1).double().median(dim=1).values.cpu().numpy()  # it pads on the right and below

    try:
        found = solved(*map(shown, (*GREYS, COLOUR)))
    except Exception as error:
        if type(preprocessor).__module__.startswith(('mmpretrain.', 'mmengine.')):
            return said  # it takes other images, grey ones
        why = error if isinstance(error, UnclearError) else f'cannot be tried: {type(error).__name__}: {error}'
        raise UnclearError(f'data_preprocessor: {type(preprocessor).__name__} {why}') from error
    same = found['to_rgb'] == said.to_rgb and all(
        abs(a - b) < 1e-3 * max(abs(b), 1)
        for key in ('mean', 'std')
        for a, b in zip(found[key], _long(getattr(said, key), len(found[key])), strict=True)
    )
    return said if same else Pixels(**found)


def wanted_pixels(
    network: Any,
    student: Pixels,
    preprocessor: Mapping | None,
    rgb_images: bool = False,
    keywords: Mapping[str, Any] | None = None,
) -> Pixels:
    """The images that a network was made for: by its config, else its library's word, else the student's.

    Args:
        network: A classifier.
        student: The student's images.
        preprocessor: The data preprocessor of the network's config, if that has one.
        rgb_images: Whether the images came red, green, blue to that, see :func:`preprocessed`.
        keywords: What the network was built with.
    """
    pixels = next(
        (changed(student, read(network, keywords or {})) for kind, read in READERS.items() if isinstance(network, kind)),
        student,
    )
    if preprocessor:
        own = preprocessed(network.data_preprocessor, rgb_images)
        return replace(pixels, **{key: getattr(own, key) for key in VALUES})
    return pixels


def size_is_said(network: Any, keywords: Mapping[str, Any]) -> bool:
    """Whether it is known for which size of images a network's weights were trained, if they came alone in a file.

    timm and torchvision say it of the weights that they publish, and of networks that take one size alone.

    Args:
        network: A classifier.
        keywords: What it was built with.
    """
    if isinstance(network, TorchvisionClassifier):
        return network.weights is not None or hasattr(network.model, 'image_size')
    if not isinstance(network, TimmClassifier):
        return True
    name, given = str(keywords.get('model_name')), _timm_keywords(network, keywords)
    return (
        _timm_own_size(network, given) is not None
        or bool(given.keys() & {'pretrained_cfg', 'pretrained_cfg_overlay'})
        or bool((getattr(network.model, 'pretrained_cfg', None) or {}).get('fixed_input_size'))
        or any(mark in name for mark in ':/.')  # a folder's, a hub's or published weights'
    )


def _timm_keywords(network: Any, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """What a network of timm was built with, by its config and its folder."""
    return {**getattr(network.model, '_model_args', {}), **keywords}


def _timm_own_size(network: Any, keywords: Mapping[str, Any]) -> Any:
    """The size that a network of timm was built for; None for any."""
    traits = getattr(network.model, '_traits', {})
    embedding = getattr(network.model, 'patch_embed', None)
    return keywords.get('img_size') or traits.get('img_size') or getattr(embedding, 'img_size', None)


def _timm(network: Any, keywords: Mapping[str, Any]) -> dict[str, Any]:
    from timm.data import resolve_model_data_config

    found = _timm_pixels(resolve_model_data_config(network.model))
    return found | dict(size=_timm_own_size(network, _timm_keywords(network, keywords)) or found['size'])


def _timm_pixels(found: Mapping[str, Any]) -> dict[str, Any]:
    """What timm's data config says."""
    return dict(
        mean=[255 * v for v in found['mean']],
        std=[255 * v for v in found['std']],
        to_rgb=True,
        size=tuple(found['input_size'][1:]),
        interpolation=found['interpolation'] if found['interpolation'] in INTERPOLATIONS else 'bilinear',
        backend='pillow',
    )


def _torchvision(network: Any, _: Mapping[str, Any]) -> dict[str, Any]:
    preset = (network.weights or torchvision.models.get_model_weights(network.model_name).DEFAULT).transforms()
    size = getattr(network.model, 'image_size', None) or preset.crop_size[0]
    mean, std = preset.mean, preset.std
    if hasattr(network.model, 'transform_input'):  # it would make these of the ones above itself; here that is left to us
        mean = std = [0.5] * 3
    return dict(
        mean=[255 * v for v in mean],
        std=[255 * v for v in std],
        to_rgb=True,
        size=size,
        interpolation=preset.interpolation.value.removesuffix('-exact'),
        backend='pillow',
    )


def _hugging_face(network: Any, _: Mapping[str, Any]) -> dict[str, Any]:
    from transformers import AutoImageProcessor

    config = network.model.config
    try:
        processor = AutoImageProcessor.from_pretrained(config.name_or_path)
    except (OSError, ValueError) as error:  # none was saved beside the network
        if Path(config.name_or_path, 'preprocessor_config.json').exists():
            raise ValueError(f'{config.name_or_path}: its preprocessor_config.json cannot be read: {error}') from error
        print_log(f'{config.name_or_path} has no image processor: {UNKNOWN}', 'current', logging.WARNING)
        size = getattr(config, 'image_size', None)
        return dict(size=size) if size else {}
    if hasattr(processor, 'data_config'):  # timm's, as transformers wraps its networks
        return _timm_pixels(processor.data_config)
    try:
        return _tried(processor)
    except Exception as error:
        why = error if isinstance(error, UnclearError) else f'cannot be tried: {type(error).__name__}: {error}'
        raise UnclearError(f'the image processor of {config.name_or_path}, {type(processor).__name__}, {why}') from error


def _tried(processor: Any) -> dict[str, Any]:
    """What an image processor of Hugging Face's makes of images."""

    def making(**keywords: Any) -> Callable[[Any], Tensor]:
        return lambda image: processor(images=image, return_tensors='pt', **keywords)['pixel_values'][0]

    found = preprocessing(making())
    resample = getattr(processor, 'resample', None)
    by_torchvision = getattr(processor, 'backend', None) == 'torchvision' or getattr(processor, 'is_fast', False)
    kernel = (
        ('bilinear' if resample is None else PILLOW_NUMBERS[int(resample)]),
        ('torchvision' if by_torchvision else 'pillow'),
    )
    if found['size'] is not None:
        height, width = found['size']
        whole: tuple[dict[str, Any], ...] = (  # the ways to leave its crop out
            {},
            dict(do_center_crop=False, size=dict(height=height, width=width)),
            dict(do_center_crop=False, size=dict(shortest_edge=height)),
            dict(crop_pct=1.0),
        )
        for keywords in whole:
            try:
                made = making(**keywords)(Image.new('RGB', (8, 8)))
            except (TypeError, ValueError, AttributeError, KeyError, RuntimeError):
                continue
            if made.shape[1:] == found['size'] and (seen := kernel_of(making(**keywords), found, kernel)):
                kernel = seen
                break
    return found | dict(zip(('interpolation', 'backend'), kernel, strict=True))


READERS = {TimmClassifier: _timm, TorchvisionClassifier: _torchvision, HuggingFaceClassifier: _hugging_face}


def resized(values: Tensor, wanted: Pixels) -> Tensor:
    """Images of another size, as a network's own pipeline would make them, see :func:`.resizing.resize`.

    Args:
        values: Images with values from 0 to 255, (N, C, H, W).
        wanted: What they shall be.
    """
    return values if wanted.size is None else resize(values, wanted.size, wanted.interpolation, wanted.backend)


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
