"""Transforms of a batch at once, against the same transforms of one image after another."""

import random

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from mmpretrain.registry import TRANSFORMS

from mmcls_kd.engine.batched import OneByOne, batched, is_alone
from mmcls_kd.engine.draws import Draws

pytestmark = [
    pytest.mark.filterwarnings("ignore:Only use 'alpha' for pillow backend"),
    pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated"),
]

CROP = dict(type='RandomCrop', crop_size=(14, 12), padding=3)
FLIP = dict(type='RandomFlip', prob=[0.3, 0.3], direction=['horizontal', 'vertical'])
TIMM = dict(type='RandAugment', policies='timm_increasing', num_policies=2, magnitude_level=9, magnitude_std=0.5)
#: Every change, always made.
CHANGES = [
    *(dict(type=name, prob=1.0) for name in ('AutoContrast', 'Equalize', 'Invert')),
    dict(type='Rotate', magnitude_range=(-90, 90), prob=1.0, scale=0.7, center=(3.0, 4.0), interpolation='bilinear'),
    dict(type='Posterize', magnitude_range=(8, 0), prob=1.0),
    dict(type='Solarize', magnitude_range=(256, 0), prob=1.0),
    dict(type='SolarizeAdd', magnitude_range=(0, 256), thr=77.5, prob=1.0),
    *(
        dict(type=name, magnitude_range=(-1, 2.5), prob=1.0, random_negative_prob=0.3)
        for name in ('ColorTransform', 'Contrast', 'Brightness', 'Sharpness')
    ),
    dict(type='Shear', magnitude_range=(0, 1.5), direction='vertical', prob=1.0, random_negative_prob=1.0),
    dict(type='Translate', magnitude_range=(0, 1.2), prob=1.0, random_negative_prob=0.0),
]
FIXED = [
    dict(type='Rotate', angle=30),
    dict(type='Posterize', bits=3.2, prob=0.9),
    dict(type='Solarize', thr=100),
    dict(type='SolarizeAdd', magnitude=200),  # an integer: bytes overflow
    dict(type='ColorTransform', magnitude=0),
    dict(type='Contrast', magnitude=-1.0),
    dict(type='Brightness', magnitude=3),
    dict(type='Sharpness', magnitude=0.7, prob=0.0),
    dict(type='Shear', magnitude=0.3),
    dict(type='Translate', magnitude=0.5, direction='vertical'),
]


def rand_augment(policies, **settings):
    return dict(type='RandAugment', policies=policies, **dict(num_policies=2, magnitude_level=10) | settings)


def erasing(**settings):
    return dict(type='RandomErasing', **settings)


def jitter(**settings):
    return dict(type='ColorJitter', **settings)


def built(pipeline):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return [TRANSFORMS.build(cfg) for cfg in pipeline]


def one_by_one(transforms, images, seeds):
    """The pipeline's own result of each image, and what it notes."""
    for image, seed in zip(images, seeds.tolist(), strict=True):
        np.random.seed(seed % 2**32)
        random.seed(seed)
        torch.manual_seed(seed)
        results = dict(img=image.copy())
        for transform in transforms:
            results = transform(results)
        yield np.asarray(results.pop('img')), results


def at_once(transforms, images, seeds):
    """The images of a batch, and what the transforms note that change one image after the other."""
    planes = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    steps, others = batched(transforms, images.shape[1:])
    if others:
        assert all(map(is_alone, others))
        steps.append(OneByOne(others, steps[-1].shape if steps else images.shape[1:]))
    draws, facts = Draws(seeds), None
    drawn = [step.draw(draws) for step in steps]
    made = planes.copy()
    for step, one in zip(steps, drawn, strict=True):
        made = step.apply(made, one)
        if isinstance(step, OneByOne):
            made, facts = made
    return made, facts


def assert_same(pipeline, shape, count=50, numbers=0):
    """Check a pipeline on random images, half of them of few grey levels."""
    generator = np.random.RandomState(numbers)
    images = generator.randint(0, 256, (count, *shape)).astype(np.uint8)
    images[::2] = images[::2] // 64 * 85
    images[0] = 17
    seeds = generator.randint(0, 2**63 - 1, count).astype(np.uint64)
    transforms = built(pipeline)
    expected = list(one_by_one(transforms, images, seeds))
    made, facts = at_once(transforms, images, seeds)
    for number, (image, noted) in enumerate(expected):
        assert np.array_equal(made[number], image[None] if image.ndim == 2 else image.transpose(2, 0, 1)), number
        if facts is not None:
            assert facts[number].items() <= noted.items()
    return made


COLOURS = {
    'erasing': [erasing()],
    'never_erased': [erasing(erase_prob=0.0), erasing(mode='rand', erase_prob=0.0), CROP],
    'always_erased': [erasing(erase_prob=1.0, fill_color=(1.7, 255, 0)), erasing(erase_prob=1.0, fill_color=200)],
    'all_or_nothing': [
        erasing(erase_prob=1.0, min_area_ratio=0.0, max_area_ratio=1.0, aspect_range=0.01),
        FLIP,
        erasing(erase_prob=0.5, min_area_ratio=1.0, max_area_ratio=1.0, mode='rand'),
    ],
    'one_aspect': [CROP, erasing(erase_prob=1.0, aspect_range=(2.0, 2.0), max_area_ratio=0.02)],
    'random_pixels_and_draws_behind': [erasing(mode='rand', erase_prob=0.7), CROP, FLIP, erasing(mode='rand')],
    'brightness': [jitter(brightness=0.4)],
    'contrast': [FLIP, jitter(contrast=(0.2, 3.0))],
    'saturation': [jitter(saturation=0.7), CROP],
    'hue': [jitter(hue=0.5)],
    'fixed_hue': [jitter(hue=(-0.3, -0.3))],
    'all_colours': [CROP, jitter(brightness=(0.0, 4.0), contrast=1.0, saturation=(0.0, 4.0), hue=0.1), FLIP],
    'no_change': [jitter(), FLIP],
    'RandAugment': [CROP, FLIP, TIMM, erasing(mode='rand', erase_prob=0.25)],
    'every_change': [rand_augment(CHANGES, magnitude_std='inf', num_policies=1), TIMM],
    'strongest_changes': [rand_augment(CHANGES), CROP],
    'fixed_changes': [FLIP, rand_augment(FIXED, num_policies=3), FLIP],
    'normal_draws': [rand_augment(CHANGES, magnitude_std=4, magnitude_level=6, num_policies=3), TIMM],
    'AutoAugment': [CROP, dict(type='AutoAugment', policies='imagenet'), FLIP],
    'sequences': [dict(type='AutoAugment', policies=[FIXED[:3], FIXED[8:], FIXED[4:5]])],
    'resized': [FLIP, dict(type='RandomResizedCrop', scale=(9, 13)), FLIP],
    'resized_by_pillow': [dict(type='RandomResizedCrop', scale=9, backend='pillow', interpolation='bicubic'), CROP],
    'seldom_resized': [dict(type='RandomResizedCrop', scale=8, crop_ratio_range=(0.8, 1.2), max_attempts=3), FLIP],
    'never_resized': [dict(type='RandomResizedCrop', scale=8, aspect_ratio_range=(3.0, 4.0), crop_ratio_range=(0.9, 1.0))],
    'twice': [jitter(brightness=0.4, hue=0.2), jitter(contrast=0.4, saturation=0.3), erasing(mode='rand')],
}
OTHERS = {
    'jitter_by_opencv': [CROP, jitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, backend='cv2'), FLIP],
    'normal_pixels': [FLIP, erasing(mode='rand', fill_std=(20, 5, 0)), CROP],
    'RandAugment': [CROP, TIMM, rand_augment([*FIXED, dict(type='Cutout', shape=4, prob=0.7)], num_policies=1)],
    'normal_draws': [TIMM, erasing(mode='rand', fill_std=20)],
    'AutoAugment': [CROP, dict(type='AutoAugment', policies=[[dict(type='GaussianBlur', radius=1)], FIXED[:2]])],
    'one_policy': [dict(type='Equalize', prob=0.8), dict(type='Cutout', shape=4, prob=0.7), FLIP],
    'efficientnet': [dict(type='EfficientNetRandomCrop', scale=11)],
    'python_generator': [FLIP, dict(type='RandomGrayscale', prob=0.5, keep_channels=True), CROP],
    'lighting': [dict(type='Lighting', eigval=[55.0, 4.0, 1.0], eigvec=[[0.5, 0.1, 0.2]] * 3), CROP],
}


@pytest.mark.parametrize('shape', [(16, 16, 3), (13, 19, 3)])
@pytest.mark.parametrize('name', COLOURS)
def test_a_batch_is_computed_at_once(name, shape):
    assert batched(built(COLOURS[name]), shape)[1] == []
    assert_same(COLOURS[name], shape, numbers=shape[0])


@pytest.mark.parametrize('name', OTHERS)
def test_others_change_one_image_after_the_other(name):
    assert batched(built(OTHERS[name]), (15, 18, 3))[1] != []
    assert_same(OTHERS[name], (15, 18, 3))


@pytest.mark.parametrize('shape', [(15, 18), (15, 18, 1)])
def test_grey_images(shape):
    resized = dict(type='RandomResizedCrop', scale=9)
    assert batched(built([FLIP, resized, CROP]), shape)[1] == []
    assert_same([FLIP, resized, CROP], shape)
    assert len(batched(built([CROP, dict(CROP, pad_if_needed=True)]), shape)[1]) == 1
    assert_same([CROP, dict(CROP, pad_if_needed=True)], shape)


def test_torchvisions_generator():
    random_ones = ['RandomHorizontalFlip', 'RandomInvert', 'RandAugment']
    pipeline = [dict(type=f'torchvision/{name}') for name in random_ones] + [dict(type='torchvision/RandomCrop', size=12)]
    transforms = built(pipeline)
    assert all(map(is_alone, transforms))
    seeds = np.arange(40, dtype=np.uint64)
    images = np.random.RandomState(0).randint(0, 256, (40, 15, 18, 3)).astype(np.uint8)
    to_pillow = built([dict(type='NumpyToPIL')])
    expected = list(one_by_one([*to_pillow, *transforms], images, seeds))
    step = OneByOne([*to_pillow, *transforms], images.shape[1:])
    made, _ = step.apply(images.transpose(0, 3, 1, 2), step.draw(Draws(seeds)))
    assert all(np.array_equal(one, image.transpose(2, 0, 1)) for one, (image, _) in zip(made, expected, strict=True))


@pytest.mark.parametrize(
    'cfg',
    [
        dict(type='RandomGrayscale', keep_channels=False),
        dict(type='Albu', transforms=[]),
        dict(type='torchvision/RandomRotation', degrees=9, expand=True),
        dict(type='TwoViews', weak=[]),
        dict(type='RandomChoice', transforms=[[FLIP]]),
        dict(type='RandAugment', policies=[dict(type='RandomChoiceResize', scales=[9])], num_policies=1, magnitude_level=1),
    ],
    ids=lambda cfg: cfg['type'],
)
def test_what_is_not_known_is_left_to_the_pipeline(cfg):
    if cfg['type'] == 'Albu':
        pytest.importorskip('albumentations')
    assert not is_alone(built([cfg])[0])


@pytest.mark.parametrize('cfg', [erasing(), erasing(mode='rand'), jitter(hue=0.1), TIMM], ids=str)
def test_grey_images_are_left_to_a_transform_of_colours(cfg):
    assert len(batched(built([cfg]), (9, 9))[1]) == 1


def test_a_fill_that_bytes_do_not_hold_is_left_to_the_pipeline():
    assert len(batched(built([erasing(fill_color=300)]), (9, 9, 3))[1]) == 1


def test_numbers_of_the_normal_distribution():
    seeds = np.random.RandomState(2).randint(0, 2**63 - 1, 300).astype(np.uint64)
    draws, rows = Draws(seeds), np.arange(0, 300, 3)
    drawn = [draws.normal(rows), draws.uniform(rows), *(draws.normal(rows) for _ in range(4)), draws.integers(9, rows)]
    for k, row in enumerate(rows):
        alone = np.random.RandomState(int(seeds[row]) % 2**32)
        expected = [alone.normal(), alone.random_sample(), *alone.normal(size=4), alone.randint(0, 9)]
        assert [one[k] for one in drawn] == expected


def test_draws_of_some_samples_with_bounds_of_their_own():
    generator = np.random.RandomState(3)
    seeds, bounds = generator.randint(0, 2**63 - 1, 80).astype(np.uint64), generator.randint(1, 9, 40)
    draws, rows = Draws(seeds, count=5), np.arange(1, 80, 2)
    drawn = [draws.integers(bounds, rows), draws.uniform(rows), draws.integers(bounds, rows), draws.uniform(rows)]
    last = draws.uniform()
    for k, seed in enumerate(seeds.tolist()):
        alone = np.random.RandomState(seed % 2**32)
        if k % 2:
            bound = bounds[k // 2]
            expected = [alone.randint(0, bound), alone.random_sample(), alone.randint(0, bound), alone.random_sample()]
            assert [one[k // 2] for one in drawn] == expected
        assert last[k] == alone.random_sample()
