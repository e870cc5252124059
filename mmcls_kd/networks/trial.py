"""The effect of a preprocessing on images, measured with images of one colour."""

from __future__ import annotations

import random
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from mmengine.registry import DefaultScope
from mmpretrain.datasets import CIFAR10, MNIST
from mmpretrain.registry import DATASETS, TRANSFORMS
from PIL import Image
from torch import Tensor

from ..teachers.inputs import LUMA, VALUES
from ..teachers.resizing import KERNELS, resize

#: Black, a grey, white, and a colour (red, green, blue) of which neither order is the other's negative.
GREYS = ((0, 0, 0), (128, 128, 128), (255, 255, 255))
COLOUR = (210, 90, 60)
#: Height and width of an image that is as large as any pipeline crops.
SIDE = 320
#: The data sets whose images are arrays (red, green, blue; grey), and their sides; the others' are files.
IN_MEMORY = {CIFAR10: 32, MNIST: 28}
#: Number of trials of a transform that may draw numbers; of one that has reversed the channels, as a shuffle may.
TRIALS, MORE_TRIALS = 12, 120
#: Rounding error of values, in levels of 255.
ROUNDED = 2.0
#: Results for pipelines in this process, which are needed several times.
TRIED: dict[str, Found] = {}
KERNEL = ('interpolation', 'backend')
#: All interpolations, each with its library.
WAYS = [(kernel, backend) for backend in KERNELS for kernel in KERNELS[backend]]


class UnclearError(ValueError):
    """A result that trials did not show; states the reason."""


def solved(low: np.ndarray, middle: np.ndarray, high: np.ndarray, colour: np.ndarray) -> dict[str, Any]:
    """Solve for mean, std and order of channels, by each channel's values of black, grey, white and :data:`COLOUR`.

    Values that are not only scaled and shifted, and mixed channels, are unclear.
    """
    with np.errstate(divide='ignore', invalid='ignore'):
        std = 255 / (high - low)
        mean = -low * std
    if not np.isfinite([mean, std]).all() or (std <= 0).any() or abs(middle * std + mean - GREYS[1][0]).max() > 1:
        raise UnclearError('changes values otherwise than by subtracting a mean and dividing by a std')
    numbers = {key: tuple(round(float(v), 4) + 0.0 for v in value) for key, value in (('mean', mean), ('std', std))}
    return dict(**numbers, to_rgb=order(colour * std + mean))


def order(values: np.ndarray) -> bool:
    """Check whether the values of :data:`COLOUR` are RGB; else BGR. Grey counts as either."""
    if len(values) == 1 or abs(values - COLOUR).max() <= ROUNDED:
        return True
    if abs(values - COLOUR[::-1]).max() <= ROUNDED:
        return False
    raise UnclearError(f'makes {[round(float(v)) for v in values]} of the colour {list(COLOUR)}')


def middles(image: Any) -> np.ndarray:
    """Return the median of each channel of a tensor or array (C, H, W) or (H, W, C), or an image of PIL's: (C,)."""
    values = channels_last(image)
    return np.median(values[::3, ::3].reshape(-1, values.shape[-1]), axis=0)


def channels_last(image: Any) -> np.ndarray:
    """Return the values of an image of any kind, (H, W, C)."""
    values = np.asarray(image, dtype=np.float64)
    if values.ndim == 2:
        return values[..., None]
    if values.ndim != 3:
        raise UnclearError(f'gives no image, but values of the shape {values.shape}')
    return values.transpose(1, 2, 0) if channels_first(image) else values


def channels_first(image: Any) -> bool:
    """Check whether an image's channels are its first dimension, or it has none."""
    shape = np.shape(image)
    return len(shape) == 2 or (not isinstance(image, Image.Image) and shape[-1] not in (1, 3, 4))


def preprocessing(make: Callable[[Image.Image], Tensor]) -> dict[str, Any]:
    """Measure mean, std, order of channels and size (None if images keep theirs) of a library's own preprocessing.

    It is a function from an RGB image of PIL's to a tensor (C, H, W), and draws no numbers.
    """
    shapes = [tuple(make(Image.new('RGB', (side, side))).shape) for side in (SIDE, 3 * SIDE // 4)]
    if len(shapes[0]) != 3:
        raise UnclearError(f'gives no image (C, H, W), but values of the shape {shapes[0]}')
    made = [middles(make(Image.new('RGB', (SIDE, SIDE), colour))) for colour in (*GREYS, COLOUR)]
    found = dict(**solved(*made), size=shapes[0][1:] if shapes[0] == shapes[1] else None)
    edges(make, found)
    return found


def _levels(made: Tensor, found: Mapping[str, Any]) -> np.ndarray:
    """Return the RGB levels of a preprocessing's output, (H, W, C)."""
    levels = Values(np.array(found['mean']), np.array(found['std'])).levels(channels_last(made))
    return levels if found['to_rgb'] else levels[..., ::-1]


def edges(make: Callable[[Image.Image], Tensor], found: Mapping[str, Any]) -> list[float]:
    """Measure the crop of a preprocessing at the left and at the top, in levels of a ramp from 0 to 255.

    Unless it takes the middle of an image, as large as possible, it is unclear.
    """
    ramp = np.broadcast_to(np.linspace(0, 255, SIDE)[:, None, None], (SIDE, SIDE, 3)).round().astype(np.uint8)
    starts = []
    for image in (ramp.transpose(1, 0, 2), ramp):
        levels = _levels(make(Image.fromarray(image)), found)
        if image is not ramp:
            levels = levels.transpose(1, 0, 2)
        line = np.median(levels, axis=(1, 2))
        places = np.arange(len(line)) - (len(line) - 1) / 2
        slope, middle = np.polyfit(places, line, 1)
        if slope <= 0 or abs(middle - 127.5) > 4 or abs(slope * places + middle - line).max() > 6:
            raise UnclearError('does not take the middle of an image, but pads, turns or distorts it')
        starts.append(float(line[0]))
    return starts


def kernel_of(
    make: Callable[[Image.Image], Tensor], found: Mapping[str, Any], said: tuple[str, str]
) -> tuple[str, str] | None:
    """Find the interpolation of a preprocessing measured by :func:`preprocessing`; None if its crop hides it.

    The declared one is tried first, then all of :data:`~mmcls_kd.teachers.resizing.KERNELS`.
    """
    if max(edges(make, found)) > 4:
        return None
    given = np.random.RandomState(0).randint(0, 256, (96, 96, 3)).astype(np.uint8)
    made = _levels(make(Image.fromarray(given)), found)
    fitting = next((kernel for kernel in (said, *WAYS) if _apart(given.astype(float), made, kernel) <= 0.5), None)
    if fitting is None:
        raise UnclearError('resizes in a way of its own')
    return fitting


@contextmanager
def own_randomness() -> Iterator[Callable[[int], None]]:
    """Isolate random draws in the ``with`` block from those outside; yields a function that seeds the generators."""
    states = random.getstate(), np.random.get_state()

    def seed(number: int) -> None:
        random.seed(number)
        np.random.seed(number)
        torch.default_generator.manual_seed(number)

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            yield seed
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


@dataclass(frozen=True)
class Values:
    """Meaning of an image's values in levels from 0 to 255: (level - mean) / std."""

    mean: np.ndarray = field(default_factory=lambda: np.zeros(1))
    std: np.ndarray = field(default_factory=lambda: np.ones(1))
    to_rgb: bool = True

    def of(self, levels: np.ndarray) -> np.ndarray:
        """Convert RGB levels (..., 3), or grey ones (..., 1), to values."""
        ordered = levels if self.to_rgb else levels[..., ::-1]
        return (ordered - self._fit(self.mean, levels)) / self._fit(self.std, levels)

    def levels(self, values: np.ndarray) -> np.ndarray:
        """Convert values (..., C) to levels, in their own order."""
        return values * self._fit(self.std, values) + self._fit(self.mean, values)

    @staticmethod
    def _fit(numbers: np.ndarray, values: np.ndarray) -> np.ndarray:
        return numbers if len(numbers) in (1, values.shape[-1]) else numbers.mean(keepdims=True)


@dataclass
class Found:
    """The known settings of :class:`.pixels.InputSpec` of a data set's images, and the others, each with the reason.

    ``size`` is known if it is constant, ``interpolation`` and ``backend`` if the pipeline resizes. ``channels`` is their
    number, 0 if unclear.
    """

    pixels: dict[str, Any] = field(default_factory=dict)
    unclear: dict[str, str] = field(default_factory=dict)
    channels: int = 0


def pipeline_images(dataset: Mapping, resizing: bool = False) -> Found:
    """Find the images of a data set's pipeline, through any wrappers, and if asked, its interpolation."""
    with DefaultScope.overwrite_default_scope('mmpretrain'), own_randomness() as seed, TemporaryDirectory() as folder:
        found = [_leaf(leaf, resizing, seed, Path(folder)) for leaf in leaves(dataset) or [dataset]]
    first, *others = found
    values = [[one.pixels.get(key) for key in VALUES] for one in found]
    if any(other != values[0] for other in values[1:]):
        reason = 'the data sets that are put together give images of different orders or values'
        return Found({}, dict.fromkeys(VALUES, reason))
    for key in ('size', *KERNEL):
        if any(other.pixels.get(key) != first.pixels.get(key) for other in others):
            first.pixels.pop(key, None)
    return first


def leaves(dataset: Any) -> list[Mapping]:
    """List the data sets in a config that have a pipeline, inside of any wrappers."""
    if isinstance(dataset, Mapping):
        if 'pipeline' in dataset:
            return [dataset]
        dataset = [*dataset.values()]
    return [leaf for part in dataset for leaf in leaves(part)] if isinstance(dataset, (list, tuple)) else []


def _class(kind: Any) -> Any:
    """Return the class of a data set by its config's ``type``; the name itself if it is unknown."""
    if not isinstance(kind, str):
        return kind
    try:
        return DATASETS.get(kind) or kind
    except (ImportError, KeyError):
        return kind


def _leaf(dataset: Mapping, resizing: bool, seed: Callable[[int], None], folder: Path) -> Found:
    """Find the images of one data set."""
    try:
        transforms = [TRANSFORMS.build(transform) for transform in map(_local, dataset.get('pipeline') or [])]
    except Exception as error:
        reason = str(error).splitlines()[0]
        return Found({}, dict.fromkeys(VALUES, f'a transform of the pipeline cannot be built: {reason}'))
    kinds = [id(type(transform)) for transform in transforms]
    known = repr((_class(dataset.get('type')), dataset.get('pipeline'), resizing, kinds))
    if known not in TRIED:
        TRIED[known] = _walked(dataset, transforms, resizing, seed, folder)
    return deepcopy(TRIED[known])


def _walked(dataset: Mapping, transforms: Sequence[Any], resizing: bool, seed: Callable[[int], None], folder: Path) -> Found:
    """Find the images after built transforms."""
    walk = Walk(_class(dataset.get('type')), seed, folder, resizing)
    if not walk.is_loaded_by(transforms):
        walk.take_array()
    for transform in transforms:
        try:
            walk.step(transform)
        except Exception as error:
            why = str(error) if isinstance(error, UnclearError) else f'cannot be tried: {type(error).__name__}: {error}'
            return Found(walk.sized(), dict.fromkeys(VALUES, f'the transform {_name(transform)} {why}'))
    return walk.found(transforms)


def _local(transform: Any) -> Any:
    """Return a transform's config that reads from the disk instead of a file backend."""
    return {k: v for k, v in transform.items() if k != 'backend_args'} if isinstance(transform, Mapping) else transform


def _name(transform: Any) -> str:
    return type(getattr(transform, 't', transform)).__name__


class Walk:
    """Walk through a pipeline, with the meaning of the image's values after each transform."""

    def __init__(self, kind: Any, seed: Callable[[int], None], folder: Path, resizing: bool) -> None:
        self.kind, self.seed, self.folder, self.resizing = kind, seed, folder, resizing
        self.image: Any = None  # of the kind that the next transform gets
        self.values = Values()
        self.order_known = True
        self.kernels: list[tuple[str, str]] = []
        self.unclear: dict[str, str] = {}
        self.side = next((side for base, side in IN_MEMORY.items() if _is(kind, base)), SIDE)

    def is_loaded_by(self, transforms: Sequence[Any]) -> bool:
        """Check whether a transform reads the image from a file; else the data set has to give it."""
        sample: Any = self.sample(COLOUR)
        for transform in transforms if self.side == SIDE else ():
            try:
                sample = transform(sample)
                if sample is None or _image_in(sample) is not None:
                    return sample is not None
            except Exception:  # whatever it may raise without an image
                return False
        return False

    def take_array(self) -> None:
        """Begin with the data set's array."""
        grey = _is(self.kind, MNIST)
        self.image = np.zeros((self.side, self.side) if grey else (self.side, self.side, 3), np.uint8)
        if self.side == SIDE:  # mmpretrain's others give files, which are read blue, green, red
            self.values = Values(to_rgb=False)
            self.order_known = self.kind is None or str(getattr(self.kind, '__module__', '')).startswith('mmpretrain.')

    def step(self, transform: Any) -> None:
        """Pass through a transform, unless its effect on the values is unclear."""
        outcomes: dict[tuple[int, ...], list[np.ndarray]] = {colour: [] for colour in (*GREYS, COLOUR)}
        after = None
        for trial in range(MORE_TRIALS):
            for colour, seen in outcomes.items():
                self.seed(trial)
                if (image := self.through(transform, colour)) is not None:
                    after = image
                    seen.append(middles(image))
            if after is None and self.image is None:
                return  # it has nothing to do with the image
            if after is not None and self.settled(outcomes, after):
                break
            if trial + 1 == TRIALS and not (after is not None and _as_given(outcomes, self.reversed, after)):
                break
        if after is None:
            raise UnclearError('gives no image')
        before, values = self.image, self.values
        self.values = self.made_of(outcomes, before, after)
        if self.resizing and before is not None and np.shape(after) != np.shape(before):
            self.see_resizing(transform, values)
        self.image = after

    def through(self, transform: Any, colour: Sequence[int]) -> Any:
        """Apply a transform to an image of one colour, or to a file before there is one; None if the result is none."""
        sample = self.sample(colour)
        if self.image is not None:
            sample['img'] = self.filled(np.asarray(colour), self.values)
        return _image_in(transform(sample))

    def sample(self, colour: Sequence[int]) -> dict[str, Any]:
        """Return the keys of a data set's sample without the image."""
        path = self.folder / f'{"-".join(map(str, colour))}.png'
        if not path.exists():
            Image.new('RGB', (SIDE, SIDE), tuple(colour)).save(path)
        shape = (SIDE, SIDE) if self.image is None else self.size
        return dict(img_path=str(path), img_shape=shape, ori_shape=shape, gt_label=0, sample_idx=0)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image."""
        height, width, _ = channels_last(self.image).shape
        return height, width

    def filled(self, levels: np.ndarray, meaning: Values) -> Any:
        """Make an image of the present kind, of an RGB colour or an RGB array (H, W, 3)."""
        levels = np.broadcast_to(levels.astype(np.float64), (*self.size, 3))
        channels = channels_last(self.image).shape[-1]
        values = meaning.of((levels @ LUMA)[..., None] if channels == 1 else levels)
        if not _has_fractions(self.image):
            values = values.round().clip(0, 255)
        if np.ndim(self.image) == 2:
            values = values[..., 0]
        elif channels_first(self.image):
            values = values.transpose(2, 0, 1)
        if isinstance(self.image, Image.Image):
            return Image.fromarray(values.astype(np.uint8))
        if isinstance(self.image, Tensor):
            return torch.from_numpy(np.ascontiguousarray(values)).to(self.image.dtype)
        return np.ascontiguousarray(values, dtype=self.image.dtype)

    def settled(self, outcomes: Mapping[tuple[int, ...], list[np.ndarray]], image: Any) -> bool:
        """Check whether further trials show nothing new: it leaves images alone, or draws no numbers."""
        return _as_given(outcomes, self.values, image) or all(
            len(seen) >= 3 and all(np.array_equal(values, seen[0]) for values in seen) for seen in outcomes.values()
        )

    @property
    def reversed(self) -> Values:
        """Meaning of the image's values in the other order of channels."""
        return replace(self.values, to_rgb=not self.values.to_rgb)

    def made_of(self, outcomes: Mapping[tuple[int, ...], list[np.ndarray]], before: Any, after: Any) -> Values:
        """Find the meaning of the values after a transform: unchanged, reversed, or another one.

        Random changes are augmentation, and ignored.
        """
        for values in (self.values, self.reversed):
            if _as_given(outcomes, values, after):
                return values
        fractions = before is not None and _has_fractions(before)
        if before is not None and not fractions and not _has_fractions(after):
            return self.values  # whole numbers from 0 to 255 stay such
        common = [_most_common(seen) for seen in outcomes.values()]
        if any(values is None for values in common):
            if fractions and _has_fractions(after):
                return self.values
            raise UnclearError('draws how it scales the values')
        found = solved(*common)  # type: ignore[arg-type]
        return Values(np.array(found['mean']), np.array(found['std']), found['to_rgb'])

    def see_resizing(self, transform: Any, values: Values) -> None:
        """Record the interpolation of a transform that changed the image size, given the meaning of the image's values."""
        image = np.random.RandomState(0).randint(0, 256, (*self.size, 3))
        self.seed(0)
        made_of = self.filled(image, values)
        given = values.levels(channels_last(made_of))
        made = self.values.levels(channels_last(_image_in(transform({**self.sample(COLOUR), 'img': made_of}))))
        if given.shape[:2] == made.shape[:2] or _is_cut_of(made, given):
            return
        said = declared(transform, made_of)
        fitting = {kernel: off for kernel in WAYS if (off := _apart(given, made, kernel)) <= 0.5}
        if said in fitting or (not fitting and said in WAYS):  # it crops too
            self.kernels.append(said)
        elif fitting:
            self.kernels.append(min(fitting, key=fitting.__getitem__))
        else:
            self.unclear |= dict.fromkeys(KERNEL, f'the transform {_name(transform)} resizes in a way of its own')

    def sized(self) -> dict[str, Any]:
        """Return its interpolation."""
        if len(set(self.kernels)) > 1:
            ways = ' and '.join(f'{kernel} by {backend}' for kernel, backend in dict.fromkeys(self.kernels))
            self.unclear |= dict.fromkeys(KERNEL, f'the pipeline resizes in several ways ({ways})')
        elif self.kernels:
            return dict(zip(KERNEL, self.kernels[0], strict=True))
        return {}

    def found(self, transforms: Sequence[Any]) -> Found:
        """Collect the results."""
        numbers = {key: tuple(getattr(self.values, key).tolist()) for key in ('mean', 'std')}
        grey = (channels := channels_last(self.image).shape[-1]) == 1
        pixels = dict(**numbers, to_rgb=self.values.to_rgb and not grey, **self.sized())
        if not self.order_known and not grey:
            del pixels['to_rgb']
            name = getattr(self.kind, '__name__', self.kind)
            self.unclear['to_rgb'] = f'the data set {name} gives its images itself, in an order of colours that is not known'
        if transforms and (size := self.fixed_size(transforms)):
            pixels['size'] = size
        else:
            self.unclear = {key: reason for key, reason in self.unclear.items() if key not in KERNEL}
        return Found(pixels, self.unclear, channels)

    def fixed_size(self, transforms: Sequence[Any]) -> tuple[int, int] | None:
        """Return height and width of the images, if they are the same for images of another size."""
        size = self.size
        if self.side != SIDE:  # all images of the data set are of one
            return size
        image = Image.new('RGB', (SIDE * 5 // 4, SIDE * 3 // 4))
        path = self.folder / 'other.png'
        image.save(path)
        shape = image.size[::-1]
        sample = dict(img_path=str(path), img=np.asarray(image), img_shape=shape, ori_shape=shape, gt_label=0, sample_idx=0)
        for transform in transforms:
            self.seed(0)
            sample = transform(sample)
        self.image = _image_in(sample)
        return size if self.size == size else None


def _as_given(outcomes: Mapping[tuple[int, ...], list[np.ndarray]], meaning: Values, image: Any) -> bool:
    """Check whether some trial left every colour unchanged, for a meaning of its values."""
    within = 0.02 if _has_fractions(image) else ROUNDED

    def same(colour: tuple[int, ...], values: np.ndarray) -> bool:
        expected = np.asarray(colour)[:: 1 if meaning.to_rgb else -1] if len(values) == 3 else np.asarray(colour) @ LUMA
        return len(values) in (1, 3) and bool(abs(meaning.levels(values) - expected).max() <= within)

    return all(any(same(colour, values) for values in seen) for colour, seen in outcomes.items())


def _is(kind: Any, base: type) -> bool:
    return isinstance(kind, type) and issubclass(kind, base)


def _has_fractions(image: Any) -> bool:
    """Check whether an image's values are floating-point numbers."""
    if isinstance(image, Tensor):
        return image.is_floating_point()
    return np.asarray(image).dtype.kind == 'f'


def _image_in(sample: Any) -> Any:
    """Return the image in a transform's output; None if there is none."""
    if not isinstance(sample, Mapping):
        return None
    image = sample.get('inputs', sample.get('img'))
    return image[0] if isinstance(image, (list, tuple)) else image  # several views: the first one


def _most_common(seen: Sequence[np.ndarray]) -> np.ndarray | None:
    """Return the result of at least a quarter of all trials."""
    counts = Counter(tuple(np.round(values, 5)) for values in seen)
    values, count = counts.most_common(1)[0]
    return seen[[tuple(np.round(v, 5)) for v in seen].index(values)] if 4 * count >= len(seen) and count > 1 else None


def declared(transform: Any, image: Any) -> tuple[str, str] | None:
    """Return the interpolation and library that a transform declares for an image."""
    inner = getattr(transform, 't', None)  # mmpretrain's wrapper of torchvision's
    kernel = getattr(inner or transform, 'interpolation', None)
    kernel = getattr(kernel, 'value', kernel)
    if not isinstance(kernel, str):
        return None
    if inner is None:
        return kernel, getattr(transform, 'backend', 'cv2')
    return kernel.removesuffix('-exact'), 'torchvision' if isinstance(image, Tensor) else 'pillow'


def _is_cut_of(part: np.ndarray, whole: np.ndarray) -> bool:
    """Check whether an image (H, W, C) is an unchanged part of another."""
    height, width = part.shape[:2]
    rows, columns = whole.shape[0] - height + 1, whole.shape[1] - width + 1
    if rows < 1 or columns < 1:
        return False
    places = np.argwhere(abs(whole[:rows, :columns] - part[:1, :1]).max(axis=-1) < 0.5)
    return any(abs(whole[y : y + height, x : x + width] - part).max() < 0.5 for y, x in places)


def _apart(given: np.ndarray, made: np.ndarray, kernel: tuple[str, str]) -> float:
    """Return the mean distance of an image (H, W, C), resized, from another; infinite if one pixel is too far off."""
    values = torch.from_numpy(given.transpose(2, 0, 1)[None]).float()
    ours = resize(values, (made.shape[0], made.shape[1]), *kernel)[0].permute(1, 2, 0).numpy()
    off = abs(ours - made)
    return float(off.mean()) if off.max() <= ROUNDED + 0.5 else float('inf')
