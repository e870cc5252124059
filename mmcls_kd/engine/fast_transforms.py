"""Transforms of a training that take less time and give the same pixels as mmpretrain's.

Most of a JPEG's decoding is reading its Huffman code, from the top on; a crop needs no row below it. A decoder stops early
if the height in the file's header is smaller. simplejpeg does so without a word; OpenCV would report the bytes that are
left over, so it decodes the whole image.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import cv2
import mmcv
import numpy as np
import torch
from mmcv.transforms import BaseTransform, LoadImageFromFile, RandomFlip
from mmengine import fileio
from mmpretrain.datasets.transforms import EfficientNetRandomCrop, PackInputs, RandomResizedCrop
from mmpretrain.registry import TRANSFORMS

from ..errors import ChoiceError, check_number, need_library
from .image_ends import image_fault, lacks_end

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

DECODERS = ('simplejpeg', 'cv2')
#: OpenCV's flags, by the factor that an image becomes smaller by.
FLAGS = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
END = b'\xff\xd9'
#: Number of pixels from which on OpenCV refuses an image.
LARGEST = 1 << 30
#: Rows below a crop that are decoded too: its last ones are interpolated from the colours of the next.
MARGIN = 16
#: Markers of a JPEG: headers with the size of an image, EXIF data, the image itself.
FRAMES, EXIF, SCAN = (0xC0, 0xC1, 0xC2), 0xE1, 0xDA
#: An orientation in EXIF data, in either order of bytes, other than upright.
TURNED = re.compile(
    rb'\x12\x01[\x03\x04]\x00(?!\x01\x00\x00\x00\x01\x00)|\x01\x12\x00[\x03\x04](?!\x00\x00\x00\x01\x00\x01)', re.DOTALL
)


class Header(NamedTuple):
    """The size of a JPEG.

    Attributes:
        place: Place of the height in the file, two bytes.
    """

    height: int
    width: int
    place: int


def header_of(content: bytes) -> Header | None:
    """Return the size of a JPEG; None for another format, and for an image that its EXIF data turn.

    Example:
        >>> header_of(cv2.imencode('.jpg', np.zeros((3, 5, 3), np.uint8))[1].tobytes())[:2]
        (3, 5)
        >>> header_of(b'GIF89a')
    """
    if not content.startswith(b'\xff\xd8'):
        return None
    found, start, end = None, 2, len(content) - 9
    while start < end and content[start] == 0xFF:
        marker, length = content[start + 1], content[start + 2] << 8 | content[start + 3]
        if marker == SCAN:
            return found if found and 0 < found.height * found.width <= LARGEST else None
        if marker in FRAMES and content[start + 4] == 8:  # bits a value
            height, width = (content[k] << 8 | content[k + 1] for k in (start + 5, start + 7))
            found = Header(height, width, start + 5)
        if marker == EXIF and TURNED.search(content, start, start + length):
            return None
        start += 2 + length
    return None


def decode(content: bytes, header: Header, rows: int, shrink: int, decoder: str) -> np.ndarray | None:
    """Decode a JPEG, in BGR: at least its first rows; None if it cannot be read.

    Args:
        content: The file.
        header: See :func:`header_of`.
        rows: Number of rows, before the image shrinks.
        shrink: 1, or the factor that the image becomes smaller by: 2, 4 or 8.
        decoder: One of :data:`DECODERS`.
    """
    if decoder == 'simplejpeg':
        rows = min(rows + MARGIN, header.height)
        stated = bytearray(content)
        stated[header.place : header.place + 2] = rows.to_bytes(2, 'big')
        least = dict(min_height=-(-rows // shrink), min_width=-(-header.width // shrink)) if shrink > 1 else {}
        try:
            return simplejpeg.decode_jpeg(stated, 'BGR', strict=False, **least)
        except ValueError:  # a rare kind, which OpenCV may know
            pass
    return cv2.imdecode(np.frombuffer(content, np.uint8), FLAGS[shrink])


@TRANSFORMS.register_module()
class LoadAndCrop(BaseTransform):
    """``LoadImageFromFile`` and ``RandomResizedCrop`` in one: JPEGs are decoded no further than to the end of the crop.

    Draws and pixels are those of the two, unless ``reduce_to`` is given. In a training, a pipeline that begins with the two
    is read in this way by itself.

    Args:
        crop: Config of the ``RandomResizedCrop``.
        load: Config of the ``LoadImageFromFile``; colours of 8 bits only.
        reduce_to: Decode a JPEG at a half, a quarter or an eighth of its size where the crop then still has this many times
            the output's height and width: 1 enlarges no crop, a smaller number gives blurred ones. None for the full size.
        decoder: ``'simplejpeg'`` or ``'cv2'``; by default the first if it is installed. Other formats, and images that their
            EXIF data turn, are left to OpenCV.

    Raises:
        ValueError: If a setting is of another kind.
    """

    def __init__(
        self,
        crop: Mapping[str, Any] | RandomResizedCrop,
        load: Mapping[str, Any] | LoadImageFromFile | None = None,
        reduce_to: float | None = None,
        decoder: str | None = None,
    ) -> None:
        self.load: Any = _built(load or dict(type='LoadImageFromFile'))
        self.crop: Any = _built(crop)
        if not _loads_colours(self.load) or not _crops_by_draw(self.crop):
            raise ValueError(
                'LoadAndCrop: load is a LoadImageFromFile with the default color_type, imdecode_backend, to_float32 and '
                'ignore_empty, and crop a RandomResizedCrop or an EfficientNetRandomCrop; else leave the two as they are'
            )
        if reduce_to is not None:
            check_number('LoadAndCrop: reduce_to', reduce_to, 0, above=True)
        if decoder not in (None, *DECODERS):
            raise ChoiceError(f'LoadAndCrop: decoder={decoder!r}: choose one of {", ".join(map(repr, DECODERS))}, or None')
        if decoder == 'simplejpeg':
            need_library('simplejpeg', "LoadAndCrop(decoder='simplejpeg')", 'jpeg')
        self.reduce_to = reduce_to
        self.decoder = decoder or ('simplejpeg' if simplejpeg else 'cv2')

    def transform(self, results: dict) -> dict:
        """Load the image at ``results['img_path']`` and crop it.

        Raises:
            OSError: If the file lacks its end.
        """
        path = results['img_path']
        content = self._read(path)
        if not content.endswith(END) and lacks_end(content) and (fault := image_fault(path, content)):
            raise OSError(f'{path}: {fault}')
        header = header_of(content)
        if header is None:
            image = _whole(mmcv.imfrombytes(content, flag='color', backend='cv2'), path)
            results.update(img=image, ori_shape=image.shape[:2])
            return self.crop(results)
        region = _whole(self._region(content, header), path)
        image = mmcv.imresize(
            region, self.crop.scale[::-1], interpolation=self.crop.interpolation, backend=self.crop.backend
        )
        results.update(img=image, img_shape=image.shape, ori_shape=header[:2])
        return results

    def _read(self, path: str) -> bytes:
        if self.load.file_client_args is not None:
            return fileio.FileClient.infer_client(self.load.file_client_args, path).get(path)
        if self.load.backend_args is not None or '://' in path:
            return fileio.get(path, backend_args=self.load.backend_args)
        with open(path, 'rb', buffering=0) as file:  # noqa: PTH123  (faster)
            return file.read()

    def _region(self, content: bytes, header: Header) -> np.ndarray | None:
        """Draw a crop and decode it; None if that fails."""
        # EfficientNetRandomCrop may give fractions, which mmcv rounds down
        top, left, height, width = map(int, self._draw(self.crop, SimpleNamespace(shape=header[:2])))
        shrink = self._shrink(height, width)
        image = decode(content, header, top + height, shrink, self.decoder)
        rows, columns = _span(top, height, shrink), _span(left, width, shrink)
        return None if image is None else image[rows, columns]

    @property
    def _draw(self) -> Any:
        """The function that draws a crop, without the copies that mmcv makes for its cache."""
        return vars(type(self.crop))['rand_crop_params'].func

    def _shrink(self, height: int, width: int) -> int:
        """Return the factor by which the image of a crop may become smaller."""
        if self.reduce_to is None:
            return 1
        least_height, least_width = (self.reduce_to * length for length in self.crop.scale)
        return max(k for k in FLAGS if k == 1 or (height >= k * least_height and width >= k * least_width))

    def __repr__(self) -> str:
        settings = f'crop={self.crop}, load={self.load}, reduce_to={self.reduce_to}, decoder={self.decoder!r}'
        return f'{type(self).__name__}({settings})'


class QuickRandomFlip(RandomFlip):
    """mmcv's ``RandomFlip`` in one direction, which draws faster."""

    def _choose_direction(self) -> str | None:
        """Draw as ``numpy.random.choice`` does."""
        share = self.prob / (self.prob + (1.0 - self.prob))
        return self.direction if np.random.random_sample() < share else None


class QuickPackInputs(PackInputs):
    """mmpretrain's ``PackInputs``, which is faster with colour images and single labels."""

    def transform(self, results: dict) -> dict:
        """Pack an image and its annotations."""
        if type(results.get('gt_label')) is int:
            results['gt_label'] = torch.from_numpy(np.array([results['gt_label']]))
        return super().transform(results)

    @staticmethod
    def format_input(input_: Any) -> Any:
        """Convert an image (H, W, 3) of bytes to a tensor (3, H, W), and other inputs as ``PackInputs`` does."""
        if not isinstance(input_, np.ndarray) or input_.dtype != np.uint8 or input_.shape[2:] != (3,):
            return PackInputs.format_input(input_)
        if input_.strides[1] < 0:  # mirrored by a view of the image
            input_ = cv2.flip(input_[:, ::-1], 1)
        planes = np.empty((3, *input_.shape[:2]), np.uint8)
        cv2.split(input_, list(planes))
        return torch.from_numpy(planes)


def hasten(pipeline: Any) -> bool:
    """Replace transforms of a pipeline, in place, by faster ones with the same draws and pixels.

    Return whether all of its transforms are of this module: then it refuses images that lack their end, and draws from
    ``numpy.random`` alone.
    """
    steps = getattr(pipeline, 'transforms', None) or []
    if len(steps) > 1 and _loads_colours(steps[0]) and _crops_by_draw(steps[1]):
        steps[:2] = [LoadAndCrop(crop=steps[1], load=steps[0])]
    for k, step in enumerate(steps):
        if type(step) is RandomFlip and isinstance(step.prob, float) and isinstance(step.direction, str):
            steps[k] = QuickRandomFlip(**vars(step))
        elif type(step) is PackInputs:
            steps[k] = QuickPackInputs(**vars(step))
    ours = {LoadAndCrop, QuickRandomFlip, QuickPackInputs}
    return bool(steps) and type(steps[0]) is LoadAndCrop and {*map(type, steps)} <= ours


def _built(transform: Any) -> Any:
    return TRANSFORMS.build(dict(transform)) if isinstance(transform, Mapping) else transform


def _loads_colours(transform: Any) -> bool:
    """Check whether a transform is a ``LoadImageFromFile`` that gives BGR of 8 bits by OpenCV, or an error."""
    plain = dict(to_float32=False, ignore_empty=False, color_type='color', imdecode_backend='cv2')
    return type(transform) is LoadImageFromFile and plain.items() <= vars(transform).items()


def _crops_by_draw(transform: Any) -> bool:
    """Check whether a transform draws a crop from the image's size, and resizes it, as ``RandomResizedCrop`` does."""
    return type(transform) in (RandomResizedCrop, EfficientNetRandomCrop)


def _span(start: int, length: int, shrink: int) -> slice:
    """Return the place of a crop's rows or columns in an image that has become smaller."""
    first = round(start / shrink)
    return slice(first, max(first + 1, round((start + length) / shrink)))


def _whole(image: np.ndarray | None, path: str) -> np.ndarray:
    """Return a decoded image; raise an error if there is none."""
    if image is None:
        raise OSError(f'{path}: failed to load the image')
    return image
