"""The input preprocessing of a network, found by its config, its library or the student."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torchvision
from mmengine.logging import print_log
from mmpretrain.models.classifiers import HuggingFaceClassifier, TimmClassifier
from PIL import Image
from torch import Tensor

from ..teachers.inputs import TWICE, VALUES, InputAdapter, InputSpec, _long, _round, changed, on_scale_of_one
from ..teachers.inputs import resized as resized
from ..teachers.resizing import INTERPOLATIONS, PILLOW_NUMBERS
from .classifiers import CifarClassifier, TorchvisionClassifier
from .trial import COLOUR, GREYS, KERNEL, UnclearError, kernel_of, preprocessing, solved
from .zero_shot import ZeroShotClassifier

#: Input preprocessing of a network without any information.
UNKNOWN = 'its images are normalised as the student’s; model.teacher_pixels can say otherwise'

#: Mean and standard deviation of the published networks of CIFAR-100 and Tiny-ImageNet, by number of classes.
CIFAR_VALUES = {
    100: ((129.3105, 124.1085, 112.404), (68.2125, 65.4075, 70.4055)),
    200: ((122.451, 114.2655, 101.3625), (58.701, 57.7575, 57.681)),
}

Pixels, PixelAdapter = InputSpec, InputAdapter  # their names in earlier versions


def output_spec(preprocessor: Any, rgb_images: bool = False, given: Mapping[str, Any] | None = None) -> InputSpec:
    """Return the input preprocessing of a data preprocessor: its declared one if it does that, else the one it does.

    Its images are RGB or else BGR, as files are read; ``given`` is their mean and std, if values are no longer 0 to 255.
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


def _said(preprocessor: Any) -> InputSpec:
    """Return the declared settings of a data preprocessor; ``to_rgb`` means that it reverses the channels."""
    turns = getattr(preprocessor, 'to_rgb', getattr(preprocessor, '_channel_conversion', False))  # the latter is mmengine's
    if not getattr(preprocessor, '_enable_normalize', False):
        return InputSpec(to_rgb=bool(turns))
    mean, std = (tuple(getattr(preprocessor, key).flatten().tolist()) for key in ('mean', 'std'))
    return InputSpec(mean, std, bool(turns))


def _done(preprocessor: Any, said: InputSpec) -> InputSpec:
    """Return the measured effect of a data preprocessor on a BGR image; the declared one if that is the same."""

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
    return said if same else InputSpec(**found)


def wanted_pixels(
    network: Any,
    student: InputSpec,
    preprocessor: Mapping | None,
    rgb_images: bool = False,
    keywords: Mapping[str, Any] | None = None,
) -> InputSpec:
    """Return the input preprocessing of a network: by its config's data preprocessor, else its library, else the student's.

    Its library knows it by the keywords of the network's constructor. For ``rgb_images`` see :func:`output_spec`.
    """
    pixels = next(
        (changed(student, read(network, keywords or {})) for kind, read in READERS.items() if isinstance(network, kind)),
        student,
    )
    if preprocessor:
        own = output_spec(network.data_preprocessor, rgb_images)
        return replace(pixels, **{key: getattr(own, key) for key in VALUES})
    return pixels


def size_is_said(network: Any, keywords: Mapping[str, Any]) -> bool:
    """Check whether the image size of a network's weights is known, if they came alone in a file.

    timm and torchvision publish it with their weights, and for networks that take one size alone.
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
    """Return the constructor keywords of a timm network, by its config and its folder."""
    return {**getattr(network.model, '_model_args', {}), **keywords}


def _timm_own_size(network: Any, keywords: Mapping[str, Any]) -> Any:
    """Return the image size that a timm network was built for; None for any."""
    traits = getattr(network.model, '_traits', {})
    embedding = getattr(network.model, 'patch_embed', None)
    return keywords.get('img_size') or traits.get('img_size') or getattr(embedding, 'img_size', None)


def _timm(network: Any, keywords: Mapping[str, Any]) -> dict[str, Any]:
    from timm.data import resolve_model_data_config

    found = _timm_pixels(resolve_model_data_config(network.model))
    return found | dict(size=_timm_own_size(network, _timm_keywords(network, keywords)) or found['size'])


def _timm_pixels(found: Mapping[str, Any]) -> dict[str, Any]:
    """Convert timm's data config."""
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


def _cifar(network: Any, _: Mapping[str, Any]) -> dict[str, Any]:
    found = CIFAR_VALUES.get(network.num_classes)
    return dict(zip(('mean', 'std'), found, strict=True), to_rgb=True) if found else {}


def _hugging_face(network: Any, _: Mapping[str, Any]) -> dict[str, Any]:
    config = network.model.config
    return _of_processor(config.name_or_path, getattr(config, 'image_size', None))


def _zero_shot(network: Any, _: Mapping[str, Any]) -> dict[str, Any]:
    return _of_processor(network.model_name) if network.library == 'hf' else network.model.inputs


def _of_processor(name: str, size: Any = None) -> dict[str, Any]:
    from transformers import AutoImageProcessor

    try:
        processor = AutoImageProcessor.from_pretrained(name)
    except (OSError, ValueError) as error:  # none was saved beside the network
        if Path(name, 'preprocessor_config.json').exists():
            raise ValueError(f'{name}: its preprocessor_config.json cannot be read: {error}') from error
        print_log(f'{name} has no image processor: {UNKNOWN}', 'current', logging.WARNING)
        return dict(size=size) if size else {}
    if hasattr(processor, 'data_config'):  # timm's, as transformers wraps its networks
        return _timm_pixels(processor.data_config)
    try:
        return _tried(processor)
    except Exception as error:
        why = error if isinstance(error, UnclearError) else f'cannot be tried: {type(error).__name__}: {error}'
        raise UnclearError(f'the image processor of {name}, {type(processor).__name__}, {why}') from error


def _tried(processor: Any) -> dict[str, Any]:
    """Measure the preprocessing of a Hugging Face image processor."""

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
    return found | dict(zip(KERNEL, kernel, strict=True))


READERS = {
    TimmClassifier: _timm,
    TorchvisionClassifier: _torchvision,
    CifarClassifier: _cifar,
    HuggingFaceClassifier: _hugging_face,
    ZeroShotClassifier: _zero_shot,
}
