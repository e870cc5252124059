"""SimKD through the tools: what predicts in training predicts the same when tested, transferred and exported."""

import sys

import pytest
import stores
import torch
from commands import accuracy, tool
from kit import assert_close
from mmengine.config import Config
from mmpretrain.registry import MODELS

from mmcls_kd.distillers.recipe import Recipe
from mmcls_kd.files.checkpoint import read_checkpoint
from mmcls_kd.networks.loading import load_strictly
from mmcls_kd.networks.sources import network_cfg
from mmcls_kd.networks.transfer import transfer

pytestmark = pytest.mark.filterwarnings('ignore:`torch.jit:FutureWarning')  # torch's word on TorchScript
MORE = """
methods = ['simkd']
val_cfg, val_evaluator = dict(_delete_=True), dict(_delete_=True, type='Accuracy', topk=(1,))
val_dataloader = dict(
    _delete_=True,
    batch_size=50,
    dataset=dict(type='FashionMNIST', data_root='{data}', split='test', test_mode=True, pipeline=[dict(type='PackInputs')]),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_cfg, test_evaluator, test_dataloader = val_cfg, val_evaluator, val_dataloader
"""


@pytest.fixture(scope='module')
def trained(data, tmp_path_factory):
    """The config of a training, its folder and its log."""
    folder = tmp_path_factory.mktemp('simkd')
    config = stores.write_config(folder / 'simkd.py', data, MORE.format(data=data))
    return config, folder / 'work', stores.run('train', config, folder / 'work')


@pytest.fixture(scope='module')
def transferred(trained):
    path = trained[1] / 'student.pth'
    assert transfer(trained[1] / 'epoch_2.pth', path).simkd
    return path


def weights(path):
    return read_checkpoint(path)['state_dict']


def model_of(config):
    """The distiller's config, with the method that the file chooses."""
    cfg = Config.fromfile(config)
    Recipe(cfg.model).methods.follow(cfg.methods)
    return cfg.model


def distiller(config):
    return MODELS.build(model_of(config)).eval()


def test_the_task_loss_has_no_part(trained):
    before, after = (
        read_checkpoint(trained[1] / f'epoch_{epoch}.pth')['ema_state_dict']['module.student.head.fc.weight']
        for epoch in (1, 2)
    )
    ratio = after / before
    assert_close(ratio, torch.full_like(ratio, ratio.flatten()[0].item()))  # weight decay alone
    assert ratio.max() < 1


def test_the_teachers_head_is_in_the_checkpoint_unchanged(trained):
    config, folder, _ = trained
    teacher = distiller(config).teacher
    saved = weights(folder / 'epoch_2.pth')
    start = 'distill_losses.loss_simkd.predictor.head.'
    inside = [value for key, value in saved.items() if key.startswith(start)]
    assert [tuple(value.shape) for value in inside] == [(10, 128), (10,)]
    for value, own in zip(inside, teacher.head.fc.state_dict().values(), strict=True):
        assert torch.equal(value, own)


def test_the_transferred_file_holds_what_predicts(trained, transferred):
    saved, kept = weights(trained[1] / 'epoch_2.pth'), weights(transferred)
    students = {key for key in saved if key.startswith('student.')}
    predictors = {key.partition('.predictor.')[2] for key in saved if '.predictor.' in key}
    assert kept.keys() == students | {f'predictor.{key}' for key in predictors}
    assert any(key.startswith('predictor.projector.') for key in kept)


def test_testing_gives_the_accuracy_of_validation(trained, transferred, tmp_path):
    config, folder, log = trained
    for checkpoint in (folder / 'epoch_2.pth', transferred):
        assert accuracy(stores.run('test', config, tmp_path / 'test', checkpoint)) == accuracy(log)


def test_a_config_of_the_classifier_takes_the_transferred_file(trained, transferred):
    config, folder, _ = trained
    whole = distiller(config)
    whole.load_state_dict(weights(folder / 'epoch_2.pth'))
    given = model_of(config)
    alone = MODELS.build(dict(type='SimKDClassifier', student=given.student_cfg, teacher=given.teacher_cfg))
    load_strictly(alone, str(transferred), 'student')
    images = torch.randn(4, 1, 28, 28)
    with torch.no_grad():
        wanted = whole(images, mode='tensor')
        assert_close(alone.eval()(images, mode='tensor'), wanted)
        pooled = whole.distill_losses.loss_simkd.predictor.projector(
            whole.student.extract_feat(images, stage='backbone')[-1]
        )
        assert_close(whole.teacher.head.fc(pooled.mean(dim=(2, 3))), wanted)
        assert not torch.allclose(whole.student(images, mode='tensor'), wanted, atol=1e-2)
        predicted = alone(images, [None] * 4, mode='predict')
    assert [int(sample.pred_label) for sample in predicted] == wanted.argmax(dim=1).tolist()


@pytest.mark.parametrize(
    ('role', 'remedy'), [('teacher', r"teacher_cfg=dict\(type='SimKDClassifier'"), ('student', "begin with 'student.'")]
)
def test_a_plain_network_does_not_take_its_weights(trained, transferred, role, remedy):
    student = MODELS.build(network_cfg(model_of(trained[0]).student_cfg))
    for path in (transferred, trained[1] / 'epoch_2.pth'):
        with pytest.raises(ValueError, match=f'are those of a student of SimKD, which predicts by .*{remedy}'):
            load_strictly(student, str(path), role, 10)


def test_only_the_distiller_tells_of_the_teachers_images(trained, monkeypatch):
    said = []
    for module in ('recipe', 'teacher'):
        monkeypatch.setattr(f'mmcls_kd.distillers.{module}.print_log', lambda text, *_: said.append(text), raising=False)
    model = dict(model_of(trained[0]), teacher_pixels=dict(mean=[1.0]))
    MODELS.build(model)
    assert [text.split(' images')[0] for text in said] == ['the teacher gets']
    said.clear()
    MODELS.build(Recipe(model).deployed())
    assert not said


def test_it_refuses_to_train_alone():
    model = dict(type='SimKDClassifier', student='resnet18_8xb16_cifar10', teacher='resnet34_8xb16_cifar10')
    with pytest.raises(ValueError, match='a ClassificationDistiller trains'):
        MODELS.build(model)(torch.randn(2, 3, 32, 32), [], mode='loss')


def test_an_exported_file_has_the_logits_of_testing(trained, transferred, monkeypatch, capsys):
    config = trained[0]
    output = transferred.with_suffix('.pt')
    words = ['export_student.py', config, transferred, '--format', 'torchscript', '--output', output]
    monkeypatch.setattr(sys, 'argv', [str(word) for word in words])
    tool('export_student')()
    assert 'logits' in capsys.readouterr().out
    raw = torch.randint(256, (3, 1, 28, 28)).float()
    cfg = Config.fromfile(config)
    model = Recipe(model_of(config)).deployed()
    alone = MODELS.build(model | dict(data_preprocessor=cfg.model.get('data_preprocessor') or cfg.data_preprocessor))
    load_strictly(alone, str(transferred), 'student')
    batch = alone.data_preprocessor(dict(inputs=raw.to(torch.uint8)), training=False)
    with torch.no_grad():
        assert_close(torch.jit.load(output)(raw), alone.eval()(batch['inputs'], mode='tensor'))


def test_a_teacher_that_reads_a_class_token_is_refused(trained):
    model = model_of(trained[0])
    vit = dict(type='VisionTransformer', arch='deit-t', img_size=28, patch_size=7, in_channels=1)
    head = dict(type='VisionTransformerClsHead', num_classes=10, in_channels=192)
    model.update(teacher_cfg=dict(type='ImageClassifier', backbone=vit, head=head), teacher_pretrained=False)
    with pytest.raises(ValueError, match='SimKD needs a teacher whose class scores'):
        MODELS.build(model)
