"""Weights of a training: the images that its config, in the checkpoint's metadata, says are those that the network gets."""

import pytest
import timm
import torch
from mmengine.config import Config

from mmcls_kd.distillers.teacher import StudentSpec, TeacherSettings, load_network
from mmcls_kd.engine.views import teacher_of
from mmcls_kd.teachers.inputs import InputSpec

IMAGENET = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
OWN = dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], to_rgb=False)
STUDENT = StudentSpec(InputSpec((9.0,) * 3, (8.0,) * 3, False, (32, 32)), 5, rgb_images=False)
NETWORK = dict(type='TimmClassifier', model_name='test_resnet', num_classes=5)  # timm: mean and std 127.5, 160 x 160
LIBRARYS = InputSpec((127.5,) * 3, (127.5,) * 3, True)


def dataset(size):
    steps = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(size, size)), dict(type='PackInputs')]
    return dict(dataset=dict(type='CustomDataset', data_root='', pipeline=steps))


def weights(folder, text):
    network = {
        f'model.{name}': value for name, value in timm.create_model('test_resnet', num_classes=5).state_dict().items()
    }
    torch.save(dict(state_dict=network, meta=dict(cfg=text)), folder / 'trained.pth')
    return str(folder / 'trained.pth')


def pixels(file, cfg=NETWORK, **given):
    return load_network(TeacherSettings(cfg=cfg, pretrained=file, pixels=given), STUDENT)[1]


def same(found, mean, std, to_rgb, size):
    assert (found.to_rgb, found.size) == (to_rgb, size)
    assert found.mean == pytest.approx(mean)
    assert found.std == pytest.approx(std)


STUDENTS = dict(type='ClassificationDistiller', student_cfg=dict(NETWORK, data_preprocessor=OWN), distill_cfg=[])
DISTILLER = dict(type='ClassificationDistiller', student_cfg=NETWORK, data_preprocessor=OWN, distill_cfg=[])


@pytest.mark.parametrize('part', ['test_dataloader', 'val_dataloader'])
@pytest.mark.parametrize(
    ('settings', 'expected'),
    [
        (dict(model=NETWORK, data_preprocessor=IMAGENET), IMAGENET),
        (dict(model=dict(NETWORK, data_preprocessor=OWN)), OWN),
        (dict(model=dict(NETWORK, data_preprocessor=OWN), data_preprocessor=IMAGENET), OWN),
        (dict(model=DISTILLER, data_preprocessor=IMAGENET), OWN),
        (dict(model=dict(STUDENTS, data_preprocessor=None), data_preprocessor=IMAGENET), IMAGENET),
        (dict(model=STUDENTS), OWN),
        (dict(model=NETWORK), dict(mean=[0.0] * 3, std=[1.0] * 3, to_rgb=False)),
    ],
)
def test_they_are_those_of_its_preprocessor_and_test_pipeline(settings, expected, part, tmp_path):
    found = pixels(weights(tmp_path, Config({**settings, part: dataset(48)}).pretty_text))
    length = len(found.mean)
    same(found, expected['mean'][:length], expected['std'][:length], expected['to_rgb'], (48, 48))


def test_a_normalising_pipeline(tmp_path):
    loader = dataset(48)
    loader['dataset']['pipeline'].insert(2, dict(type='Normalize', **IMAGENET))
    found = pixels(weights(tmp_path, Config(dict(model=NETWORK, test_dataloader=loader)).pretty_text))
    same(found, IMAGENET['mean'], IMAGENET['std'], True, (48, 48))


def test_what_the_config_of_the_run_says_comes_first(tmp_path):
    file = weights(
        tmp_path, Config(dict(model=NETWORK, data_preprocessor=IMAGENET, test_dataloader=dataset(48))).pretty_text
    )
    same(pixels(file, mean=[7.0] * 3, size=64), [7.0] * 3, IMAGENET['std'], True, (64, 64))
    own = pixels(file, dict(NETWORK, data_preprocessor=OWN))
    assert own.mean == pytest.approx(OWN['mean'])
    whole = dict(model=NETWORK, data_preprocessor=OWN, test_dataloader=dataset(40))
    same(pixels(file, Config(whole)), OWN['mean'], OWN['std'], False, (40, 40))


UNKNOWN = Config(
    dict(model=NETWORK, test_dataloader=dict(dataset=dict(type='CustomDataset', pipeline=[dict(type='NotHere')])))
)


ARRAYS = Config(dict(model=NETWORK, test_dataloader=dict(dataset=dict(type='NotHere', pipeline=[dict(type='PackInputs')]))))
STRANGE = Config(dict(model=NETWORK, data_preprocessor=dict(IMAGENET, strange=1), test_dataloader=dataset(48)))
LISTED = Config(dict(model=NETWORK, test_dataloader=[dataset(48)]))


@pytest.mark.parametrize(
    'text', ['import os', 'model = [', *(cfg.pretty_text for cfg in (UNKNOWN, ARRAYS, STRANGE, LISTED))]
)
def test_a_config_that_does_not_tell_is_left_with_a_warning(text, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr('mmcls_kd.networks.sources.print_log', lambda message, *_: told.append(message))
    found = pixels(weights(tmp_path, text))
    same(found, LIBRARYS.mean, LIBRARYS.std, LIBRARYS.to_rgb, None)
    assert [message.partition('trained.pth')[2].partition(' with (')[0] for message in told] == [
        ': its config does not tell which images it was trained'
    ]
    assert '--trust' not in told[0]
    assert 'model.teacher_pixels=dict(mean=..., std=..., to_rgb=..., size=...)' in told[0]


def test_without_a_config_they_are_the_librarys(tmp_path):
    same(pixels(weights(tmp_path, None)), LIBRARYS.mean, LIBRARYS.std, LIBRARYS.to_rgb, None)


def test_a_store_is_of_these_images(tmp_path):
    plain = dict(type='ClassificationDistiller', student_cfg=NETWORK, teacher_cfg=NETWORK, distill_cfg=[])
    file = weights(tmp_path, Config(dict(model=NETWORK, data_preprocessor=OWN, test_dataloader=dataset(48))).pretty_text)
    found = teacher_of(Config(dict(model=dict(plain, teacher_pretrained=file))))
    assert found['images'][0]['mean'] == pytest.approx(OWN['mean'])
    assert found['images'][0]['size'] == [48, 48]
    bare = teacher_of(Config(dict(model=dict(plain, teacher_cfg=None, teacher_pretrained=file))))  # a store knows the rest
    assert bare['weights'] == found['weights']
    assert 'images' not in bare
    assert 'images' not in teacher_of(Config(dict(model=dict(plain, teacher_pretrained=weights(tmp_path, None)))))
