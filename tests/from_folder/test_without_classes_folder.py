"""A teacher without classes on a folder of images: the made configs, their training, and the student with a head."""

import json
import re
import sys

import numpy as np
import pytest
import timm
import torch
from mmengine.config import Config
from PIL import Image
from towers import made as tower

import mmcls_kd
from mmcls_kd.command import export, predict, test, train
from mmcls_kd.command.from_folder.making import Order, make
from mmcls_kd.networks.towers import lacks_classes

NET = 'timm:test_resnet'
BARE = dict(type='TimmClassifier', model_name='test_resnet', num_classes=0)


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """Class folders whose images differ in colour."""
    root = tmp_path_factory.mktemp('images') / 'insects'
    random = np.random.RandomState(0)
    for number, name in enumerate(('ant', 'bee', 'cat')):
        (root / name).mkdir(parents=True)
        for i in range(10):
            pixels = random.randint(0, 120, (32, 32, 3)) + 120 * (np.arange(3) == number)
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f'{i}.png')
    return root


@pytest.fixture(scope='module')
def dinov2(tmp_path_factory):
    """The name of a small DINOv2 of transformers' own class, in a folder."""
    folder = tmp_path_factory.mktemp('towers') / 'dinov2'
    tower('dinov2').save_pretrained(folder)
    return f'hf:{folder}'


def order(images, tmp_path, **changes):
    common = dict(data=str(images), student=NET, size=32, epochs=2, work_dir=str(tmp_path / 'out'))
    return Order(**{**common, 'teachers': [BARE], **changes})


def enabled(cfg):
    return [entry.methods[0].name for entry in cfg.model.distill_cfg if entry.methods[0].use_this]


class TestMade:
    def test_the_student_has_no_classes_and_learns_embeddings(self, images, tmp_path, dinov2):
        made = make(order(images, tmp_path, teachers=[dinov2]))
        cfg = Config.fromfile(made.configs['distilled'])
        assert list(made.configs) == ['distilled']
        assert made.lacks_classes
        assert (cfg.model.student_cfg.num_classes, cfg.model.teacher_cfg.type) == (0, 'HuggingFaceTower')
        assert enabled(cfg) == ['loss_embedding']
        assert cfg.val_evaluator == cfg.test_evaluator == []
        assert 'KNNHook' in [hook.type for hook in cfg.custom_hooks]

    @pytest.mark.parametrize('then', ['linear', 'finetune'])
    def test_a_head_and_the_baseline_are_configs_of_their_own(self, images, tmp_path, then):
        made = make(order(images, tmp_path, methods=['rkd', 'queue'], then=then, then_epochs=3, baseline=True))
        assert list(made.configs) == ['distilled', then, 'alone']
        assert (made.final, made.lacks_classes) == (then, False)
        first, head, alone = (Config.fromfile(path) for path in made.configs.values())
        assert sorted(enabled(first)) == ['loss_queue', 'loss_rkd']
        assert made.configs[then].name == f'out_{then}.py'
        assert head.model.frozen == (then == 'linear')
        assert head.model.pretrained == str(tmp_path / 'out' / 'backbone.pth')
        assert (head.model.num_classes, head.model.network) == (3, first.model.student_cfg)
        assert [cfg.train_cfg.max_epochs for cfg in (first, head, alone)] == [2, 3, 5]
        assert alone.model == {**head.model, 'frozen': False, 'pretrained': None}
        assert head.val_evaluator.type == alone.val_evaluator.type == 'Accuracy'

    @pytest.mark.parametrize(
        ('student', 'kind'),
        [('resnet18_8xb16_cifar10', 'BackboneNetwork'), ('timm:test_vit', 'TimmClassifier')],
        ids=['mmpretrain', 'timm'],
    )
    def test_students_of_other_libraries(self, images, tmp_path, student, kind):
        cfg = Config.fromfile(make(order(images, tmp_path, student=student, size=None)).configs['distilled'])
        assert cfg.model.student_cfg.type == kind

    def test_a_tower_as_the_student(self, images, tmp_path, dinov2):
        cfg = Config.fromfile(make(order(images, tmp_path, student=dinov2)).configs['distilled'])
        assert cfg.model.student_cfg.type == 'HuggingFaceTower'

    def test_weights_of_a_teacher_without_classes(self, images, tmp_path):
        file = tmp_path / 'teacher.pth'
        torch.save(timm.create_model('test_resnet', num_classes=0).state_dict(), file)
        model = Config.fromfile(make(order(images, tmp_path, teacher_weights=[str(file)])).configs['distilled']).model
        assert (model.teacher_cfg.num_classes, model.teacher_pretrained) == (0, str(file))

    @pytest.mark.parametrize(
        ('changes', 'message'),
        [
            (dict(then='linear', teachers=[NET]), '--then linear puts a classifier on a student without classes'),
            (dict(then='linear', teachers=[]), 'give a --teacher without classes'),
            (dict(then='probe'), "--then 'probe': choose one of linear, finetune"),
            (dict(then_epochs=3), '--then-epochs needs --then'),
            (dict(student='torchvision:resnet18'), '--student: .*a TorchvisionClassifier has no form without'),
        ],
    )
    def test_refusals(self, images, tmp_path, changes, message):
        with pytest.raises(ValueError, match=message) as caught:
            make(order(images, tmp_path, **changes))
        assert '\n' not in str(caught.value)
        assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    ('name', 'expected'),
    [('vit_small_patch14_dinov2.lvd142m', True), ('vit_small_patch14_dinov2', True), ('resnet18', False)],
)
def test_models_that_timm_publishes_without_classes(name, expected):
    assert lacks_classes(dict(type='TimmClassifier', model_name=name)) == expected


def test_then_goes_with_a_folder(capsys):
    with pytest.raises(SystemExit):
        train.parse_args(['config.py', '--then', 'linear'])
    assert '--then goes with --data FOLDER' in capsys.readouterr().err


def table(shown):
    """The table of a training: top-1 by network."""
    return {line.split('│')[1].strip(): line.split('│')[2].strip() for line in shown.splitlines() if line.startswith('│')}


@pytest.mark.slow
@pytest.mark.own_process  # it trains
@pytest.mark.filterwarnings('ignore')
def test_from_a_tower_to_a_classifier(images, dinov2, tmp_path, monkeypatch, capsys):
    """First without a head, then with one; the student with it predicts without the files beside it."""
    monkeypatch.setattr(sys, 'argv', ['mmcls_kd train'])
    folder = tmp_path / 'out'
    words = ['--data', str(images), '--student', NET, '--teacher', dinov2, '--size', '32', '--epochs', '2']
    words += ['--work-dir', str(folder)]
    train.main(words)
    shown = capsys.readouterr().out
    assert all(re.fullmatch(r'[\d.]+ \(kNN\)', cell) for cell in table(shown).values())
    assert list(table(shown)) == ['teacher', 'student, distilled']
    assert '--then linear --resume' in shown
    image = str(images / 'ant' / '0.png')
    monkeypatch.setattr(sys, 'argv', ['mmcls_kd predict'])
    with pytest.raises(SystemExit, match='the student has no classes to predict'):
        predict.main([str(folder / 'student.pth'), image])

    monkeypatch.setattr(sys, 'argv', ['mmcls_kd train'])
    train.main([*words, '--then', 'linear', '--then-epochs', '3', '--resume'])
    shown = capsys.readouterr().out
    found = table(shown)
    assert list(found) == ['teacher', 'student, distilled', 'student, linear head']
    (folder / 'student.pth').rename(tmp_path / 'moved.pth')
    first, last = (
        torch.load(path, weights_only=True)['state_dict'] for path in (folder / 'backbone.pth', tmp_path / 'moved.pth')
    )
    body = {key.removeprefix('model.backbone.'): value for key, value in last.items() if 'backbone' in key}
    assert body.keys() == first.keys()
    assert all(torch.equal(body[key], value) for key, value in first.items())  # it is frozen

    (folder / 'backbone.pth').unlink()
    predictor = mmcls_kd.Predictor(tmp_path / 'moved.pth')
    lines = (folder / 'val.txt').read_text().splitlines()
    right = [predictor(images / line.rsplit(' ', 1)[0])[0][0] == line.split('/')[0] for line in lines]
    assert 100 * sum(right) / len(right) == pytest.approx(float(found['student, linear head']), abs=0.01)
    accuracy = tmp_path / 'metrics.json'
    words = [str(folder / 'out_linear.py'), str(tmp_path / 'moved.pth'), '--work-dir', str(tmp_path / 'tested')]
    test.main([*words, '--out', str(accuracy), '--out-item', 'metrics'])
    top1 = json.loads(accuracy.read_text())['accuracy/top1']
    assert top1 == pytest.approx(float(found['student, linear head']), abs=0.01)
    pytest.importorskip('onnx')
    export.main([str(folder / 'out_linear.py'), str(tmp_path / 'moved.pth')])
    assert (tmp_path / 'moved.onnx').stat().st_size > 0


@pytest.mark.slow
@pytest.mark.own_process  # it trains
@pytest.mark.filterwarnings('ignore')
def test_from_python_with_the_baseline(images, tmp_path):
    student, result = mmcls_kd.distill(
        NET, BARE, images, epochs=1, then='finetune', baseline=True, size=32, work_dir=tmp_path / 'out',
        teacher_weights=saved(tmp_path / 'teacher.pth'),
    )  # fmt: skip
    assert student(torch.zeros(1, 3, 32, 32)).shape == (1, 3)
    assert set(result.rows) == {'teacher', 'distilled', 'finetune', 'alone'}
    assert [len(result.curves[name]) for name in ('distilled', 'finetune', 'alone')] == [1, 1, 2]
    assert result.top1 == result.rows['finetune'].top1
    assert result.config.name == 'out_finetune.py'
    assert (tmp_path / 'out' / 'backbone.pth').is_file()


def saved(path):
    torch.save(timm.create_model('test_resnet', num_classes=0).state_dict(), path)
    return str(path)
