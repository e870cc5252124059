"""Data sets of images without labels: the ratio of a mixture, and settings that are refused."""

import math

import pytest
from folders import class_folders
from mmpretrain.registry import DATASETS

from mmcls_kd.engine.unlabelled import all_unlabelled, has_unlabelled


@pytest.fixture(scope='module')
def parts(tmp_path_factory):
    """Configs of 4 images with labels and of 8 without."""
    root = tmp_path_factory.mktemp('unlabelled')
    class_folders(root / 'mine', size=8, ant=2, bee=2)
    class_folders(root / 'more', size=8, a=8)
    steps = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
    return [
        dict(type='CustomDataset', data_root=str(root / 'mine'), pipeline=steps),
        dict(type='UnlabelledImages', data_root=str(root / 'more'), pipeline=steps),
    ]


def build(kind, **settings):
    return DATASETS.build(dict(type=kind, **settings))


def marked(dataset):
    """Number of samples that are marked as without a label."""
    return sum(dataset[i]['data_samples'].get('unlabelled', False) for i in range(len(dataset)))


@pytest.mark.parametrize(
    ('ratio', 'labelled', 'unlabelled'), [(2, 4, 8), (1, 8, 8), (0.25, 32, 8), (6.0, 4, 24), (5, 4, 16)]
)
def test_an_epoch_has_the_nearest_ratio_of_whole_repetitions(parts, ratio, labelled, unlabelled):
    mixed = build('MixedDataset', datasets=parts, ratio=ratio)
    assert (len(mixed) - marked(mixed), marked(mixed)) == (labelled, unlabelled)
    assert has_unlabelled(mixed)
    assert not all_unlabelled(mixed)


def test_labels_are_left_aside(parts):
    dataset = build('WithoutLabels', dataset=parts[0])
    assert marked(dataset) == len(dataset) == 4
    assert all_unlabelled(dataset)


@pytest.mark.parametrize('ratio', [0, -1, math.nan, math.inf, 1e9, 1e-9, '2', True, None, [1]])
def test_absurd_ratios_are_refused(parts, ratio):
    with pytest.raises(ValueError, match=r'MixedDataset .*: ratio=.*: give a number from 0.001 to 1000'):
        build('MixedDataset', datasets=parts, ratio=ratio)


@pytest.mark.parametrize('number', range(6))
def test_other_data_sets_are_refused_in_a_mixture(parts, number):
    labelled, unlabelled = parts
    given = [5, [labelled], 'ab', dict(a=labelled, b=unlabelled), [labelled, 'x'], [unlabelled, labelled]][number]
    message = r'datasets=\[labelled, unlabelled\]|is no config of a data set'
    with pytest.raises(ValueError, match=message):
        build('MixedDataset', datasets=given)


@pytest.mark.parametrize('dataset', [5, 'x', {}, []])
def test_no_data_set_without_labels(dataset):
    with pytest.raises(ValueError, match='WithoutLabels: dataset: .* is no config of a data set'):
        build('WithoutLabels', dataset=dataset)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(with_label=True), 'UnlabelledImages: with_label=True: it has no labels'),
        (dict(data_root=5), 'UnlabelledImages: data_root=5: give a text'),
        (dict(ann_file=5), 'UnlabelledImages: ann_file=5: give a text'),
    ],
)
def test_settings_of_another_kind(parts, settings, message):
    with pytest.raises(ValueError, match=message):
        DATASETS.build(parts[1] | settings)
