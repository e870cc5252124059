"""Checks of image files before their use: unreadable ones, and those that do not fit into one batch."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations, islice
from pathlib import Path
from typing import Any

from mmcv.transforms import LoadImageFromFile
from mmengine.fileio import get
from PIL import Image

from ..engine.data import plain_datasets, sample_infos
from ..engine.image_ends import ENDS, SIZED, decoding_fault, ends_early, image_fault, loader_of
from ..files.held_images import is_held

#: Number of images of a data set that are opened, evenly spread: about a second.
LOOKED_AT = 20_000
#: Number of images that a thread opens in a row; threads that take one by one wait for each other.
OPENED_AT_ONCE = 64
#: The tag by which EXIF rotates an image, and its values for a quarter turn.
ORIENTATION, LYING = 0x0112, (5, 6, 7, 8)


#: Formats, as Pillow calls them, that every build of OpenCV decodes, and whose end tells whether they are whole.
JUDGED = ('JPEG', 'MPO', 'PNG', 'WEBP')


@dataclass(frozen=True)
class Opened:
    """The facts in an image file: data set, index there, path, and width and height, which are None if it cannot be read."""

    part: Any
    index: int
    path: str
    size: tuple[int, int] | None


def opened(part: Any, index: int, path: str, decode: bool = False) -> Opened:
    """Open an image's file, without decoding it.

    Args:
        part: The data set.
        index: Index in it.
        path: The file.
        decode: Whether to decode a file whose end does not tell whether it can be read.
    """
    try:
        with Image.open(io.BytesIO(get(path)) if is_held(path) else path) as image:
            width, height = image.size
            lies = image.format != 'AVIF' and image.getexif().get(ORIENTATION) in LYING  # OpenCV 5.0 does not turn those
            judged = image.format in JUDGED and (is_held(path) or Path(path).suffix.lower() in (*ENDS, SIZED))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return Opened(part, index, path, None)
    whole = not ends_early(path) or file_fault(path) is None
    if decode and whole and not judged:
        whole = decoding_fault(path, loader_of(getattr(part, 'pipeline', None))) is None
    return Opened(part, index, path, ((height, width) if lies else (width, height)) if whole else None)


def image_files(dataset: Any) -> Iterator[tuple[Any, int, str]]:
    """Iterate over the image files of a data set on this machine: data set, index in it, path."""
    for part in plain_datasets(dataset):
        if not (hasattr(part, 'get_data_info') and hasattr(part, 'prepare_data')):
            continue
        step = 1 + len(dataset) // LOOKED_AT
        for i, info in enumerate(sample_infos(part, step)):
            if (path := info.get('img_path')) and ('://' not in str(path) or is_held(path)):
                yield part, i * step, str(path)


def check_images(loader: Any, name: str, readable: bool = True) -> None:
    """Refuse unreadable images, if they are to be ``readable``, and images of sizes that the pipeline makes no batch of.

    Files other than JPEG, PNG and WebP are decoded by the pipeline's own transform for that.
    """
    files = image_files(loader.dataset)
    parts = iter(lambda: list(islice(files, OPENED_AT_ONCE)), [])
    with ThreadPoolExecutor(8) as pool:
        opened_parts = pool.map(lambda part: [opened(one, i, path, readable) for one, i, path in part], parts)
        found = [one for part in opened_parts for one in part]
    bad = [one for one in found if one.size is None and _cannot_load(one)] if readable else []
    if bad:
        load = loader_of(getattr(bad[0].part, 'pipeline', None))
        fault = file_fault(bad[0].path, load) or 'it does not go through dataset.pipeline'
        more = f', and {len(bad) - 1} more' if len(bad) > 1 else ''
        raise ValueError(
            f'{name}: the image {bad[0].path} cannot be read ({fault}){more}: mend or remove what '
            '`python -m mmcls_kd check-data` names'
        )
    if loader.batch_size != 1 and (text := stacking_fault(found, loader.collate_fn)):
        raise ValueError(f'{name}: {text}')


def file_fault(path: str, load: LoadImageFromFile | None = None) -> str | None:
    """Describe why an image file cannot be read to its end, or not by a pipeline's transform; None if it can."""
    try:
        return image_fault(path) or decoding_fault(path, load)
    except Exception as error:  # the decoders of rare formats let errors of their own arithmetic through
        return f'{type(error).__name__}: {error}'


def _cannot_load(image: Opened) -> bool:
    """Check whether the data set's own pipeline fails to load an image that looks damaged."""
    try:
        return image.part.prepare_data(image.index) is None or ends_early(image.path)
    except Exception:  # whatever its transforms raise
        return True


def stacking_fault(images: list[Opened], collate: Any) -> str | None:
    """Describe why images do not fit into one batch, with two of them and the remedy; None if they fit.

    The narrowest, the widest, the lowest and the highest are tried.
    """
    of_size = {image.size: image for image in reversed(images) if image.size}
    if len(of_size) < 2:
        return None
    keys = (lambda size: size[0]), (lambda size: size[1])
    extremes = [of_size[size] for size in dict.fromkeys(best(of_size, key=key) for key in keys for best in (min, max))]
    tried = []
    for image in extremes:
        try:
            tried.append(image.part.prepare_data(image.index))
        except Exception as error:  # whatever its transforms raise
            return f'{_sized(image)} does not go through dataset.pipeline ({type(error).__name__}: {error})'
    for (one, sample), (other, beside) in combinations(zip(extremes, tried, strict=True), 2):
        try:
            collate([sample, beside])
        except RuntimeError as error:
            if 'size' not in str(error):
                raise
            return (
                f'images of {len(of_size)} sizes do not go into one batch, such as {_sized(one)} and {_sized(other)}: let '
                'dataset.pipeline make them alike (Resize; or ResizeEdge and CenterCrop), or set batch_size=1'
            )
    return None


def _sized(image: Opened) -> str:
    return f'{image.path} ({" × ".join(map(str, image.size or ()))})'
