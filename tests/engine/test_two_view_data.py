"""Two views of one image: a function of seed, epoch and place, of the same image, preprocessed alike."""

import folders
import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpretrain.datasets import FashionMNIST
from mmpretrain.registry import MODELS, TRANSFORMS
from mmpretrain.structures import DataSample

from mmcls_kd.distillers.views import take_pairs
from mmcls_kd.engine.data import SampleIndex, batches_from, reproducible
from mmcls_kd.engine.two_views import StrongAugment
from mmcls_kd.networks.trial import pipeline_images

CROP = [dict(type='RandomCrop', crop_size=20), dict(type='RandomFlip', prob=0.5)]
PACK = dict(type='PackInputs')


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    return folders.fashion_mnist(tmp_path_factory.mktemp('two_views'), train=12, test=10)


def loader(root, *pipeline, batch_size=4, workers=0, collate='default_collate', seed=5):
    cfg = dict(
        batch_size=batch_size,
        num_workers=workers,
        persistent_workers=workers > 0,
        dataset=dict(type='FashionMNIST', data_root=str(root), split='train', pipeline=[*pipeline, PACK]),
        sampler=dict(type='DefaultSampler', shuffle=True),
        collate_fn=dict(type=collate),
    )
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return Runner.build_dataloader(reproducible(cfg, seed), seed=seed)


def views(batches):
    """The number, both views and the label of each image, in order."""
    return [
        (s.sample_idx, *(view[i] for view in batch['inputs']), s.gt_label)
        for batch in batches
        for i, s in enumerate(batch['data_samples'])
    ]


def assert_same(a, b):
    assert [row[0] for row in a] == [row[0] for row in b]
    for row, other in zip(a, b, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(row[1:], other[1:], strict=True))


TWO = dict(type='TwoViews', weak=CROP)


def test_both_views_depend_on_seed_epoch_and_place_alone(images):
    data = loader(images, TWO)
    plain = views(data)
    assert len(plain) == 12
    assert_same(plain, views(loader(images, TWO, batch_size=3)))
    assert_same(plain, views(loader(images, TWO, workers=2)))
    assert_same(plain, views(loader(images, TWO, collate='pseudo_collate')))
    assert_same(plain[4:], views(batches_from(loader(images, TWO), 1)))  # as a resumed run begins
    data.batch_sampler.sampler.set_epoch(1)
    later, other = ({row[0]: row for row in views(found)} for found in (data, loader(images, TWO, seed=6)))
    for number, weak, strong, label in plain:
        for again in (later[number], other[number]):
            assert not torch.equal(strong, again[2])
            assert torch.equal(label, again[3])
        assert not torch.equal(weak, strong)
    assert data.dataset.draws_again()


def place_of(crop, image):
    """Where a crop lies in an image, flipped or not: (top, left, flipped); it has to be found once."""
    side = crop.shape[-1]
    found = [
        (top, left, flipped)
        for flipped, part in ((False, crop), (True, crop[:, ::-1]))
        for top in range(len(image) - side + 1)
        for left in range(len(image) - side + 1)
        if np.array_equal(image[top : top + side, left : left + side], part)
    ]
    assert len(found) == 1
    return found[0]


def test_both_views_come_from_the_same_image(images):
    originals = FashionMNIST(data_root=str(images), split='train', pipeline=[])
    found = []
    for number, weak, strong, label in views(loader(images, dict(TWO, strong=[]))):
        info = originals.get_data_info(number)
        assert label.item() == info['gt_label']
        found.append([place_of(view[0].numpy(), info['img']) for view in (weak, strong)])
    assert sum(weak != strong for weak, strong in found) > 8  # drawn anew


def test_the_weak_view_is_that_of_the_pipeline_without_a_strong_one(images):
    one = [
        (s.sample_idx, x)
        for batch in loader(images, *CROP)
        for s, x in zip(batch['data_samples'], batch['inputs'], strict=True)
    ]
    for (number, weak), row in zip(one, views(loader(images, TWO)), strict=True):
        assert number == row[0]
        assert torch.equal(weak, row[1])


def test_what_comes_before_is_the_same_for_both_views_and_what_comes_after_is_done_to_each(images):
    halved = dict(type='Resize', scale=10)
    for _, weak, strong, _ in views(loader(images, *CROP, dict(type='TwoViews', strong=[], both=[halved]))):
        assert weak.shape == (1, 10, 10)
        assert torch.equal(weak, strong)


def test_views_of_different_sizes_are_refused(images):
    data = loader(images, dict(type='TwoViews', strong=[dict(type='Resize', scale=10)]))
    with pytest.raises(ValueError, match=r'the weak view has the shape \(28, 28\) and the strong one \(10, 10\)'):
        data.dataset[SampleIndex(0)]


def test_the_strong_view_changes_images_of_each_form_and_keeps_it():
    image = np.random.RandomState(0).randint(0, 256, (24, 30, 3)).astype(np.uint8)
    augment = StrongAugment()
    for form in (image, image[..., :1], image[..., 0]):
        made = []
        for seed in range(40):
            np.random.seed(seed)
            made.append(augment(dict(img=form.copy()))['img'])
            np.random.seed(seed)
            assert np.array_equal(augment(dict(img=form.copy()))['img'], made[-1])
        assert {(one.shape, one.dtype) for one in made} == {(form.shape, np.dtype(np.uint8))}
        assert len({one.tobytes() for one in made}) == len(made)
    grey = np.repeat(image[..., :1], 3, axis=2)
    for seed in range(40):  # a grey image is treated as its three equal channels
        results = []
        for form in (grey, grey[..., 0]):
            np.random.seed(seed)
            results.append(augment(dict(img=form.copy()))['img'])
        assert np.array_equal(results[0][..., 0], results[1])


def test_the_square_has_at_most_half_of_the_width():
    image = np.full((20, 20), 255, np.uint8)
    augment = StrongAugment()
    augment.augment = lambda results: results
    shares = []
    for seed in range(200):
        np.random.seed(seed)
        shares.append((augment(dict(img=image.copy()))['img'] == 128).mean())
    assert max(shares) <= 0.25
    assert 0.06 < np.mean(shares) < 0.09  # the mean of a square of a side from 0 to 1/2 is 1/12; some lie over the edge


@pytest.mark.parametrize('keywords', [dict(num_policies=0), dict(cutout=1.5)])
def test_wrong_settings_of_the_strong_view_are_refused(keywords):
    with pytest.raises(ValueError, match='num_policies is at least 1, and cutout a share of the width'):
        TRANSFORMS.build(dict(type='StrongAugment', **keywords))


def test_a_teacher_gets_the_images_that_the_weak_view_shows(images):
    normal = dict(type='NumpyToPIL', to_rgb=False)
    for more in ([], [normal]):
        one, two = (
            pipeline_images(dict(type='FashionMNIST', data_root=str(images), split='train', pipeline=[*pipeline, PACK]))
            for pipeline in ([*CROP, *more], [dict(TWO, both=more)])
        )
        assert one == two
        assert two.pixels['size'] == (20, 20)


# ---- the data preprocessor


def preprocessor(**keywords):
    made = MODELS.build(dict(type='ClsDataPreprocessor', mean=[10, 20, 30], std=[1, 2, 3], to_rgb=True, **keywords))
    take_pairs(made)
    return made


def raw(count=4):
    generator = torch.Generator().manual_seed(0)
    weak = torch.randint(0, 200, (count, 3, 8, 8), dtype=torch.uint8, generator=generator)
    samples = [DataSample().set_gt_label(i % 3) for i in range(count)]
    return weak, weak + 30, samples


def test_both_views_are_preprocessed_alike_and_validation_has_one():
    weak, strong, samples = raw()
    one = MODELS.build(dict(type='ClsDataPreprocessor', mean=[10, 20, 30], std=[1, 2, 3], to_rgb=True))
    expected = [one(dict(inputs=view, data_samples=samples))['inputs'] for view in (weak, strong)]
    for inputs in ([weak, strong], [list(weak), list(strong)]):
        data = preprocessor()(dict(inputs=inputs, data_samples=samples), training=True)
        assert all(torch.equal(view, other) for view, other in zip(data['inputs'], expected, strict=True))
        assert [sample.gt_label.item() for sample in data['data_samples']] == [0, 1, 2, 0]
        assert torch.equal(preprocessor()(dict(inputs=inputs, data_samples=samples))['inputs'], expected[0])
    two = preprocessor()(dict(inputs=list(weak[:2]), data_samples=samples[:2]), training=True)['inputs']
    assert torch.equal(two, expected[0][:2])  # two images are no two views


@pytest.mark.parametrize('kind', ['Mixup', 'CutMix', 'ResizeMix'])
def test_mixup_and_cutmix_mix_both_views_alike(kind):
    weak, strong, samples = raw()
    augments = dict(augments=dict(type=kind, alpha=1.0))
    made, one = (preprocessor(num_classes=3, batch_augments=augments) for _ in range(2))
    np.random.seed(0)
    torch.manual_seed(0)
    mixed_weak, mixed_strong = made(dict(inputs=[weak, strong], data_samples=samples), training=True)['inputs']
    scores = torch.stack([sample.gt_score for sample in samples])
    np.random.seed(0)
    torch.manual_seed(0)
    expected = one(dict(inputs=weak, data_samples=raw()[2]), training=True)
    assert torch.equal(mixed_weak, expected['inputs'])
    assert torch.equal(scores, torch.stack([sample.gt_score for sample in expected['data_samples']]))
    apart = torch.tensor([30.0, 15.0, 10.0]).view(1, 3, 1, 1)  # a level of 30, in the units of each channel
    torch.testing.assert_close(mixed_strong - mixed_weak, apart.expand_as(weak), rtol=0, atol=1e-4)
    assert (scores.max(dim=1).values < 1).any()
