"""Teachers of every library, trained on Fashion-MNIST, teach students of others; and say the same as without a distiller."""

import json
from collections import defaultdict
from functools import cache
from statistics import fmean

import numpy as np
import pytest
import real_teachers
import stores
import torch
from mmpretrain.registry import MODELS, TRANSFORMS
from networks import method, resnet
from PIL import Image

from mmcls_kd.files.paths import TOOLBOX

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings('ignore')]

CHANCE = 10.0
RIGHT = 700  # of 1,000 predictions of a teacher, at least: it has learnt something


@pytest.fixture(scope='module')
def teacher(fashion, tmp_path_factory):
    """Makes and trains a teacher by its name, once."""
    images, labels = real_teachers.read_split(fashion, 'train', real_teachers.TRAINING_IMAGES)
    folder = tmp_path_factory.mktemp('teachers')

    @cache
    def make(name):
        torch.manual_seed(0)
        return getattr(real_teachers, name)(folder, images, labels)

    return make


GREY = dict(num_classes=10, mean=[72.94], std=[90.02], to_rgb=False)
COLOUR = dict(num_classes=10, mean=[72.94] * 3, std=[90.02] * 3, to_rgb=False)
AS_COLOUR = [
    dict(type='NumpyToPIL'),
    dict(type='torchvision/Grayscale', num_output_channels=3),
    dict(type='PILToNumpy'),
    dict(type='Resize', scale=32),
    dict(type='PackInputs'),
]
HEAD = dict(num_classes=10, loss=dict(type='CrossEntropyLoss'), topk=(1,))
CNN = 'configs/fashion_mnist/resnet18-w4_3e.py'
VIT = dict(
    type='ImageClassifier',
    backbone=dict(
        type='VisionTransformer',
        arch=dict(embed_dims=32, num_layers=3, num_heads=2, feedforward_channels=64),
        img_size=28,
        patch_size=4,
        in_channels=1,
    ),
    head=dict(type='VisionTransformerClsHead', in_channels=32, **HEAD),
)
TIMM_CNN = dict(type='TimmClassifier', model_name='test_efficientnet', in_chans=1, num_classes=10)
MOBILENET = dict(
    type='ImageClassifier',
    backbone=dict(type='MobileNetV2', widen_factor=0.25),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', in_channels=1280, **HEAD),
)


def train(folder, fashion, model, preprocessor=GREY, pipeline=None, epochs=3, lr=3e-3):
    """Train by tools/train.py and a config of which everything is written here; returns the records of its JSON log."""
    settings = dict(
        custom_imports=dict(imports=['mmcls_kd'], allow_failed_imports=False),
        data_preprocessor=preprocessor,
        train_dataloader=dict(batch_size=64, dataset=dict(data_root=str(fashion), indices=2000)),
        val_dataloader=dict(dataset=dict(data_root=str(fashion), indices=500)),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=lr)),
        train_cfg=dict(by_epoch=True, max_epochs=epochs, val_interval=epochs),
        val_cfg=dict(),
        test_dataloader=None,
        test_evaluator=None,
        randomness=dict(seed=0),
        log_processor=dict(window_size=1),
        default_hooks=dict(logger=dict(interval=1)),
        model=dict(type='ClassificationDistiller', **model),
    )
    if pipeline:
        for loader in ('train_dataloader', 'val_dataloader'):
            settings[loader]['dataset']['pipeline'] = pipeline
    bases = ['mmpretrain::_base_/default_runtime.py', str(TOOLBOX / 'configs/_base_/datasets/fashion_mnist.py')]
    lines = [f'_base_ = {bases!r}', *(f'{key} = {value!r}' for key, value in settings.items())]
    (folder / 'pair.py').write_text('\n'.join(lines) + '\n')
    stores.run('train', folder / 'pair.py', folder / 'run')
    return [json.loads(line) for line in next(folder.glob('run/*/vis_data/scalars.json')).read_text().splitlines()]


def check(records, *methods):
    """Every loss is lower in the last epoch than in the first, and the student 30 points above chance."""
    means = defaultdict(lambda: defaultdict(list))
    for record in records:
        for key, value in record.items():
            if 'loss' in key:
                means[key][record['epoch']].append(value)
    assert set(means) == {'loss', 'ori_loss', *(f'loss_{name}' for name in methods)}
    for key, epochs in means.items():
        first, *_, last = (fmean(epochs[epoch]) for epoch in sorted(epochs))
        print(f'{key}: {first:.4g} -> {last:.4g}')
        assert last < first, key
    accuracy = [record['accuracy/top1'] for record in records if 'accuracy/top1' in record][-1]
    print(f'top-1: {accuracy}')
    assert accuracy >= CHANCE + 30


def pair(teacher, student, *methods, **model):
    """A distiller's config for a trained teacher."""
    given = dict(teacher_cfg=teacher.cfg, teacher_pretrained=teacher.weights, **teacher.options)
    return {**given, 'student_cfg': student, 'distill_cfg': list(methods), **model}


def of_two(*teachers):
    """The keys of a distiller's config for two trained teachers, the first one with twice the weight."""
    return dict(
        teacher_cfg=[one.cfg for one in teachers],
        teacher_pretrained=[one.weights for one in teachers],
        teacher_weights=[2, 1],
    )


MGD, SRRL, KD, NKD, DKD, VITKD = (method(f'{name}Loss') for name in ('MGD', 'SRRL', 'KD', 'NKD', 'DKD', 'ViTKD'))


class TestPairs:
    def test_timm_cnn_to_mmpretrain_cnn(self, teacher, fashion, tmp_path):
        model = pair(teacher('timm_cnn'), CNN, MGD, SRRL, KD)
        check(train(tmp_path, fashion, model), 'mgd', 'srrl', 'kd')

    def test_timm_vit_to_mmpretrain_cnn(self, teacher, fashion, tmp_path):
        model = pair(teacher('timm_vit'), CNN, MGD, NKD)
        check(train(tmp_path, fashion, model), 'mgd', 'nkd')

    def test_hugging_face_vit_to_mmpretrain_vit(self, teacher, fashion, tmp_path):
        model = pair(teacher('hugging_face_vit'), VIT, VITKD, NKD)
        check(train(tmp_path, fashion, model, epochs=5), 'vitkd', 'nkd')

    def test_torchvision_cnn_to_timm_cnn(self, teacher, fashion, tmp_path):
        model = pair(teacher('torchvision_cnn'), TIMM_CNN, MGD, DKD, taps=dict(feat_t='model.stage4'))
        check(train(tmp_path, fashion, model), 'mgd', 'dkd')

    def test_mmpretrain_swin_to_mobilenet(self, teacher, fashion, tmp_path):
        model = pair(teacher('mmpretrain_swin'), MOBILENET, MGD, KD)
        check(train(tmp_path, fashion, model, COLOUR, AS_COLOUR), 'mgd', 'kd')

    def test_two_teachers(self, teacher, fashion, tmp_path):
        model = dict(of_two(teacher('timm_cnn'), teacher('mmpretrain_swin')), student_cfg=CNN, distill_cfg=[NKD, DKD])
        check(train(tmp_path, fashion, model, epochs=4), 'nkd', 'dkd')

    @pytest.mark.parametrize('by', ['index', 'name'])
    def test_twenty_classes_to_ten(self, teacher, fashion, tmp_path, by):
        twenty = teacher('twenty_classes')
        classes = twenty.places if by == 'index' else list(real_teachers.CLASSES)
        model = pair(twenty, CNN, NKD, SRRL, teacher_classes=classes)
        check(train(tmp_path, fashion, model), 'nkd', 'srrl')


@pytest.fixture(scope='module')
def validation(fashion, tmp_path_factory):
    """1,000 validation images as PNG files, and their labels."""
    images, labels = real_teachers.read_split(fashion, 't10k', 1000)
    return as_files(images, tmp_path_factory.mktemp('validation')), labels


def as_files(images, folder):
    """PNG files of images (N, 28, 28) or, RGB, (N, 28, 28, 3)."""
    paths = [folder / f'{i}.png' for i in range(len(images))]
    for image, path in zip(images, paths, strict=True):
        Image.fromarray(image).save(path)
    return paths


#: It takes images of 28 × 28, blue, green, red, normalised otherwise than the teachers'.
STUDENT = resnet(4, data_preprocessor=dict(mean=[127.0] * 3, std=[50.0] * 3, to_rgb=False))


def distiller_of(teacher, **keywords):
    """A distiller with a trained teacher."""
    return MODELS.build(dict(type='ClassificationDistiller', **pair(teacher, STUDENT, KD, **keywords))).eval()


def students_batch(distiller, paths):
    """The files as the student's pipeline and data preprocessor make a batch of them."""
    load, pack = (TRANSFORMS.build(dict(type=kind)) for kind in ('LoadImageFromFile', 'PackInputs'))
    inputs = [pack(load(dict(img_path=str(path))))['inputs'] for path in paths]
    return distiller.data_preprocessor(dict(inputs=inputs), training=False)['inputs']


def opened(paths):
    return [Image.open(path).convert('RGB') for path in paths]


def compare(alone, through, right):
    """Both predict the same but for rounding; returns how many predictions are right, of the one that has fewer."""
    counts = [int((scores.argmax(dim=1) == right).sum()) for scores in (alone, through)]
    others = int((alone.argmax(dim=1) != through.argmax(dim=1)).sum())
    print(f'right alone {counts[0]}, through the distiller {counts[1]}, other predictions {others}, ', end='')
    print(f'logits apart {float((alone - through).abs().max()):.2g}')
    assert others <= 2
    return min(counts)


@pytest.mark.parametrize('name', ['timm_cnn', 'timm_vit', 'hugging_face_vit', 'torchvision_cnn', 'mmpretrain_swin'])
class TestAccuracy:
    def test_as_alone(self, teacher, validation, name):
        (paths, labels), trained = validation, teacher(name)
        distiller = distiller_of(trained)
        through = distiller.teacher_holder(students_batch(distiller, paths), [], ['logit'])['logit']
        assert compare(trained.alone(opened(paths)), through, labels) >= RIGHT

    def test_pixels_in_colour(self, teacher, fashion, tmp_path, name):
        """What tells the channels apart: red, green and blue hold other images."""
        grey, _ = real_teachers.read_split(fashion, 't10k', 100)
        trained, distiller = teacher(name), distiller_of(teacher(name))
        paths = as_files(np.stack([grey, grey // 2, grey[:, ::-1]], axis=-1), tmp_path)
        made = distiller.teacher_holder.adapt(students_batch(distiller, paths))
        apart = (made - trained.preprocess(opened(paths))).abs() * 255 * min(real_teachers.IMAGENET['std'])
        print(f'pixels apart: {float(apart.max()):.2g} of 255 at most, {float((apart > 0.1).float().mean()):.2%} of them')
        assert apart.max() < 2.1
        assert (apart > 0.1).float().mean() < 0.02


@pytest.mark.parametrize('by', ['index', 'name'])
def test_accuracy_of_the_students_classes(teacher, validation, by):
    (paths, labels), twenty = validation, teacher('twenty_classes')
    classes = twenty.places if by == 'index' else list(real_teachers.CLASSES)
    distiller = distiller_of(twenty, teacher_classes=classes)
    through = distiller.teacher_holder(students_batch(distiller, paths), [], ['logit'])['logit']
    assert compare(twenty.alone(opened(paths))[:, twenty.places], through, labels) >= RIGHT


def test_accuracy_of_two(teacher, validation):
    """As the weighted mean of their probabilities."""
    (paths, labels), both = validation, (teacher('timm_cnn'), teacher('mmpretrain_swin'))
    model = dict(type='ClassificationDistiller', student_cfg=STUDENT, distill_cfg=[KD], **of_two(*both))
    distiller = MODELS.build(model).eval()
    through = distiller.teacher_holder(students_batch(distiller, paths), [], ['logit'])['logit']
    first, second = (one.alone(opened(paths)).softmax(dim=1) for one in both)
    assert compare((2 * first + second).div(3).log(), through, labels) >= RIGHT
