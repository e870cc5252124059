"""Two views of one image in a pipeline: a weak one, and a strong one by RandAugment and Cutout."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy

import numpy as np
from mmcv.transforms import BaseTransform, Compose
from mmpretrain.registry import TRANSFORMS

#: RandAugment's transforms with the ranges of FixMatch (arXiv 2001.07685); a factor of 1 + m changes contrast and the like.
POLICIES = [
    dict(type='AutoContrast', prob=1.0),
    dict(type='Brightness', magnitude_range=(-0.95, -0.05), random_negative_prob=0.0, prob=1.0),
    dict(type='ColorTransform', magnitude_range=(-0.95, -0.05), random_negative_prob=0.0, prob=1.0),
    dict(type='Contrast', magnitude_range=(-0.95, -0.05), random_negative_prob=0.0, prob=1.0),
    dict(type='Equalize', prob=1.0),
    dict(type='Equalize', prob=0.0),  # the image as it is
    dict(type='Posterize', magnitude_range=(4, 8), prob=1.0),
    dict(type='Rotate', magnitude_range=(0, 30), prob=1.0),
    dict(type='Sharpness', magnitude_range=(-0.95, -0.05), random_negative_prob=0.0, prob=1.0),
    dict(type='Shear', magnitude_range=(0, 0.3), direction='horizontal', prob=1.0),
    dict(type='Shear', magnitude_range=(0, 0.3), direction='vertical', prob=1.0),
    dict(type='Solarize', magnitude_range=(0, 256), prob=1.0),
    dict(type='Translate', magnitude_range=(0, 0.3), direction='horizontal', prob=1.0),
    dict(type='Translate', magnitude_range=(0, 0.3), direction='vertical', prob=1.0),
]
GREY = 128


@TRANSFORMS.register_module()
class StrongAugment(BaseTransform):
    """RandAugment and Cutout as FixMatch has them: transforms at random, each of a random strength, then a grey square.

    This is what the code of MLKD and CRLD calls RandAugment(2, 10): two transforms; the ten is not used there. Grey images
    stay grey.

    Args:
        num_policies: Number of transforms.
        cutout: Largest side of the square, as a share of the image's width; 0 for none.

    Raises:
        ValueError: If a number is outside of its range.
    """

    def __init__(self, num_policies: int = 2, cutout: float = 0.5) -> None:
        if num_policies < 1 or not 0 <= cutout <= 1:
            raise ValueError(
                f'StrongAugment(num_policies={num_policies}, cutout={cutout}): num_policies is at least 1, and cutout a '
                'share of the width, from 0 to 1'
            )
        self.cutout = cutout
        self.augment = TRANSFORMS.build(
            dict(
                type='mmpretrain.RandAugment',
                policies=POLICIES,
                num_policies=num_policies,
                magnitude_level=10,
                magnitude_std='inf',  # uniform from 0 to 10
                total_level=10,
                hparams=dict(pad_val=0),
            )
        )

    def transform(self, results: dict) -> dict:
        """Augment ``results['img']``, an array (H, W), (H, W, 1) or (H, W, 3)."""
        image = np.asarray(results['img'])
        colour = image if image.shape[2:] == (3,) else np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
        made = self.augment({**results, 'img': colour})['img'].copy()
        side = np.random.uniform(0, self.cutout) * made.shape[1]
        (top, bottom), (left, right) = (
            (int(max(0, middle - side / 2)), int(min(length, middle + side / 2)))
            for length, middle in ((n, np.random.uniform(0, n)) for n in made.shape[:2])
        )
        made[top:bottom, left:right] = GREY
        results['img'] = made if colour is image else np.ascontiguousarray(made[..., :1].reshape(image.shape))
        return results


@TRANSFORMS.register_module()
class TwoViews(BaseTransform):
    """A weak and a strong view of one image: ``img`` becomes the list of both.

    The strong view passes through the weak one's transforms, drawn anew as in the code of MLKD and CRLD, and then through
    its own. Random transforms before ``TwoViews`` are the same for both views. The weak view is that of the same pipeline
    with ``weak`` in the place of ``TwoViews``.

    Args:
        weak: Transforms of the weak view.
        strong: Further transforms of the strong view; a :class:`StrongAugment` if None.
        both: Transforms of each view afterwards, such as a normalisation.

    Raises:
        ValueError: If a view gives another form of image than the other.
    """

    def __init__(self, weak: Sequence[dict] = (), strong: Sequence[dict] | None = None, both: Sequence[dict] = ()) -> None:
        further = [dict(type='StrongAugment')] if strong is None else strong
        self.views = [_pipeline([*weak, *both]), _pipeline([*weak, *further, *both])]

    def transform(self, results: dict) -> dict:
        """Make both views of ``results['img']``; other results are those of the weak view."""
        again = deepcopy(results)
        weak = self.views[0](results)  # drawn first: as without a strong view
        strong = self.views[1](again)
        if np.shape(weak['img']) != np.shape(strong['img']):
            raise ValueError(
                f'TwoViews: the weak view has the shape {np.shape(weak["img"])} and the strong one '
                f'{np.shape(strong["img"])}: give both the same size, by `both` or before TwoViews'
            )
        return {**weak, 'img': [weak['img'], strong['img']]}

    def __repr__(self) -> str:
        return f'{type(self).__name__}(weak={self.views[0]}, strong={self.views[1]})'


def _pipeline(transforms: Sequence[Mapping | Callable[[dict], dict]]) -> Compose:
    """Build a pipeline."""
    return Compose([TRANSFORMS.build(one) if isinstance(one, Mapping) else one for one in transforms])
