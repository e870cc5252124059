"""The images for an int8 export: those of calibration, and the labelled ones that accuracy is measured on."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose
from mmpretrain.registry import DATASETS, TRANSFORMS
from PIL import Image

from ..configs.reading import in_scope
from ..engine.config import datasets_of
from ..engine.image_ends import SUFFIXES, cut_short, decoding_fault, image_fault, images_below, loader_of
from ..errors import refusals_named
from .network import ImageFormat, tested_dataset


@dataclass(frozen=True)
class Images:
    """Images as the exported file takes them.

    Attributes:
        source: Their origin, in words.
        count: Their number.
        labelled: Whether each has a label.
        read: Returns an iterator of (image, label): an array (C, H, W), RGB or grey, from 0 to 255; an index, or −1.
    """

    source: str
    count: int
    labelled: bool
    read: Callable[[], Iterator[tuple[np.ndarray, int]]]

    def batches(self, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Iterate over batches, (N, C, H, W) in float32, and their labels, (N,); the last one may be smaller."""
        samples = self.read()
        while part := list(islice(samples, size)):
            images, labels = zip(*part, strict=True)
            yield np.stack(images).astype(np.float32), np.array(labels)

    def held(self) -> Images:
        """Read all images now, for errors to come early, and keep them."""
        samples = list(self.read())
        return replace(self, read=lambda: iter(samples))


def spread(count: int, most: int | None) -> list[int]:
    """Return indices of at most so many samples, evenly spread.

    Example:
        >>> spread(10, 4), spread(3, 4)
        ([0, 3, 6, 9], [0, 1, 2])
    """
    if most is None or count <= most:
        return list(range(count))
    return np.linspace(0, count - 1, most).round().astype(int).tolist()


def _fitting(inputs: Any, form: ImageFormat, what: str, bgr: bool) -> np.ndarray:
    """Return a pipeline's image in the order of channels of an export.

    Raises:
        ValueError: If it has another shape than the export takes.
    """
    image, wanted = np.asarray(inputs), (form.channels, form.height, form.width)
    if image.shape != wanted:
        raise ValueError(
            f'{what} comes out of the test pipeline in the shape {image.shape}, and the export takes {wanted}: let '
            'test_dataloader.dataset.pipeline resize its images, or give images of that size'
        )
    return image[::-1] if bgr else image


@contextmanager
def _readable(what: str, path: str | None, pipeline: Any = None) -> Iterator[None]:
    """Refuse an image file that cannot be read to its end, or not by a pipeline, with the remedy."""
    try:
        if path is not None and cut_short(path):
            raise ValueError(f'{what} is cut short')
        with refusals_named(what):
            yield
    except Exception as error:
        if path is None or (fault := image_fault(path) or decoding_fault(path, loader_of(pipeline))) is None:
            raise
        raise ValueError(f'{what} cannot be read ({fault}): mend or remove it') from error


def of_folder(cfg: Config, folder: str, form: ImageFormat, classes: Sequence[str] | None, most: int | None) -> Images:
    """Read the images in and below a folder by the test pipeline.

    Args:
        cfg: The plain config.
        folder: The folder; if each of its sub-folders has the name of a class, the images are labelled.
        form: Images of the export.
        classes: Class names in the order of the logits.
        most: Largest number of images; None for all.

    Raises:
        ValueError: If there is no such folder, no image in it, or one that the pipeline does not read or resize.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise ValueError(f'--calibrate {folder}: {"a file, not a folder" if root.exists() else "there is no such folder"}')
    every = sorted(images_below(root))
    if not every:
        raise ValueError(f'--calibrate {folder}: there is no image in it or below it ({", ".join(SUFFIXES)})')
    paths = [every[i] for i in spread(len(every), most)]
    known = {name: i for i, name in enumerate(classes or [])}
    labels = [known.get(path.relative_to(root).parts[0], -1) for path in paths]
    pipeline = [*tested_dataset(cfg)['pipeline']]
    reads = str(pipeline[0].get('type', '')).startswith('LoadImage')
    if not reads:  # of a data set in memory
        pipeline.insert(0, dict(type='LoadImageFromFile', color_type='color' if form.channels == 3 else 'grayscale'))
    with in_scope(cfg):
        through = Compose([TRANSFORMS.build(transform) for transform in pipeline])
    bgr = form.channels == 3 and (form.order == 'BGR' or not reads)

    def read() -> Iterator[tuple[np.ndarray, int]]:
        for place, (path, label) in enumerate(zip(paths, labels, strict=True)):
            with _readable(f'calibration image {path}', str(path), through):
                inputs = through(dict(img_path=str(path), gt_label=label, sample_idx=place))['inputs']
                yield _fitting(inputs, form, f'calibration image {path}', bgr), label

    return Images(f'{folder}, {_sizes(paths, form)}', len(paths), min(labels) >= 0, read)


def _sizes(paths: Sequence[Path], form: ImageFormat) -> str:
    """Describe the sizes of image files, and the size that the test pipeline makes of them."""
    sizes = set()
    for path in paths:
        with _readable(f'calibration image {path}', str(path)), Image.open(path) as image:
            sizes.add(image.size[::-1])
    wanted = f'{form.height} × {form.width}'
    if sizes == {(form.height, form.width)}:
        return wanted
    least, largest = (pick(sizes, key=lambda size: size[0] * size[1]) for pick in (min, max))
    found = ' to '.join(dict.fromkeys(f'{height} × {width}' for height, width in (least, largest)))
    return f'{found}, brought to {wanted} by the test pipeline'


def of_dataset(cfg: Config, loader: str, form: ImageFormat, most: int | None) -> Images:
    """Read the images of a config's data set by the test pipeline.

    Args:
        cfg: The plain config.
        loader: ``'train_dataloader'`` or ``'test_dataloader'``.
        form: Images of the export.
        most: Largest number of images; None for all.

    Raises:
        FileNotFoundError: If its data are missing.
        ValueError: If it cannot be built, or its images do not fit.
    """
    tested = tested_dataset(cfg)
    inner = next((d for name, d in datasets_of(cfg) if name == loader and d.get('pipeline') is not None), None)
    if inner is None:
        raise ValueError(f'the config has no data set in {loader}')
    given: dict = copy.deepcopy(inner)
    given['pipeline'] = copy.deepcopy(tested['pipeline'])
    with refusals_named(f'{loader}.dataset'), in_scope(cfg):
        dataset = DATASETS.build(given)
        dataset.full_init()
    indices = spread(len(dataset), most)
    if not indices:
        raise ValueError(f'{loader}.dataset has no image')
    label = dataset.get_data_info(indices[0]).get('gt_label')
    labelled = label is not None and np.ndim(label) == 0

    def read() -> Iterator[tuple[np.ndarray, int]]:
        for index in indices:
            path = dataset.get_data_info(index).get('img_path')
            with _readable(f'image {path} of {loader}', path, dataset.pipeline):
                sample = dataset[index]
            label = int(sample['data_samples'].gt_label) if labelled else -1
            yield _fitting(sample['inputs'], form, f'image {index} of {loader}', form.order == 'BGR'), label

    return Images(f'{loader} ({given["type"]})', len(indices), labelled, read)


def calibration_images(
    cfg: Config, folder: str | None, form: ImageFormat, classes: Sequence[str] | None, most: int
) -> Images:
    """Return the calibration images: of a folder, else of the training data.

    Raises:
        ValueError: If there are none; names the option.
    """
    if folder is not None:
        return of_folder(cfg, folder, form, classes, most)
    try:
        return of_dataset(cfg, 'train_dataloader', form, most)
    except (OSError, ValueError) as error:
        raise ValueError(f'--int8 needs images to calibrate with: name a folder by --calibrate FOLDER ({error})') from error


def measured_images(
    cfg: Config, folder: str | None, form: ImageFormat, classes: Sequence[str] | None, most: int | None
) -> tuple[Images | None, str]:
    """Return the labelled images to measure accuracy on: the test data, else those of a labelled folder.

    Returns:
        The images, or None; the reason why the test data are not used.
    """
    try:
        images = of_dataset(cfg, 'test_dataloader', form, most)
        if images.labelled:
            return images, ''
        reason = 'its samples have no single label'
    except (OSError, ValueError) as error:
        reason = ' '.join(str(error).split())
    images = of_folder(cfg, folder, form, classes, most) if folder is not None else None  # type: ignore[assignment]
    return (images if images is not None and images.labelled else None), reason
