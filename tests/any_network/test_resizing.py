"""A teacher's images of another size, against the libraries that would have made them of the same files."""

import mmcv
import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmcls_kd.networks.sources import find_network
from mmcls_kd.teachers.inputs import InputAdapter, InputSpec, changed
from mmcls_kd.teachers.resizing import KERNELS


@pytest.fixture(scope='module')
def photos():
    """RGB images of whole numbers with sharp edges, where a bicubic kernel swings over, (N, H, W, 3)."""
    random = np.random.RandomState(0)
    images = np.kron(random.choice([0, 30, 140, 255], (40, 7, 7, 3)), np.ones((1, 4, 4, 1)))
    return (images + random.randint(-9, 9, images.shape)).clip(0, 255).astype(np.uint8)


def adapted(photos, **wanted):
    """What the adapter makes of them after a student's preprocessing, on the scale of 0 to 255, (N, H, W, 3)."""
    student = InputSpec((127.0,) * 3, (50.0,) * 3, to_rgb=False)
    inputs = (torch.from_numpy(photos[..., ::-1].copy()).permute(0, 3, 1, 2).float() - 127) / 50
    return InputAdapter(student, changed(InputSpec(), wanted), 3)(inputs).permute(0, 2, 3, 1).numpy()


#: Height and width, of the same shape as the images (28 × 28) and of others.
SIZES = [(14, 14), (20, 20), (40, 40), (56, 56), (20, 40), (40, 20), (14, 22), (28, 20), (40, 28)]


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize(
    ('backend', 'kernel'), [(backend, kernel) for backend in ('pillow', 'cv2') for kernel in KERNELS[backend]]
)
def test_as_the_library(photos, backend, kernel, size):
    made = adapted(photos, size=size, interpolation=kernel, backend=backend)
    theirs = [mmcv.imresize(photo, size[::-1], interpolation=kernel, backend=backend) for photo in photos]
    apart = np.abs(made - np.stack(theirs))
    assert apart.max() <= (0 if kernel == 'nearest' else 2)
    # halves fall to either side; OpenCV multiplies with 11 bits
    assert (apart > 0).mean() < (0.15 if backend == 'cv2' else 0.002 if kernel in ('bicubic', 'lanczos') else 0.05)


def test_whole_numbers_of_what_was_normalised_and_back(photos):
    made = adapted(photos, size=40)
    assert np.array_equal(made, made.round())


@pytest.mark.parametrize(
    ('transforms', 'pixels'),
    [
        ([dict(type='Resize', scale=40)], dict(size=(40, 40), interpolation='bilinear', backend='cv2')),
        (
            [
                dict(type='ResizeEdge', scale=46, edge='short', backend='pillow', interpolation='bicubic'),
                dict(type='CenterCrop', crop_size=40),
            ],
            dict(size=(40, 40), interpolation='bicubic', backend='pillow'),
        ),
        ([dict(type='CenterCrop', crop_size=40)], dict(size=(40, 40))),
        (
            [dict(type='mmpretrain.Resize', scale=40, interpolation='area')],
            dict(size=(40, 40), interpolation='area', backend='cv2'),
        ),
        ([], {}),
    ],
)
def test_said_by_a_test_pipeline(transforms, pixels):
    pipeline = [dict(type='LoadImageFromFile'), *transforms, dict(type='PackInputs')]
    model = dict(type='ImageClassifier', backbone=dict(type='ResNet_CIFAR', depth=18))
    cfg = Config(dict(model=model, test_dataloader=dict(dataset=dict(pipeline=pipeline))))
    assert find_network(cfg).pixels == pixels


def test_another_backend_is_refused():
    with pytest.raises(ValueError, match="backend='magick': choose one of pillow, cv2"):
        changed(InputSpec(), dict(backend='magick'))
