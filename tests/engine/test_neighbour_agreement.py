"""Validation without labels: the agreement of nearest neighbours with the teacher, chosen and logged by itself."""

import argparse
import sys

import numpy as np
import pytest
import timm
import torch
from mmengine.runner import Runner
from PIL import Image

from mmcls_kd.command import train
from mmcls_kd.command.training import parser
from mmcls_kd.engine import KNNAgreementHook
from mmcls_kd.engine.config import training_config

CONFIG = """
default_scope = 'mmpretrain'
custom_imports = dict(imports=['mmcls_kd'], allow_failed_imports=False)
steps = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
data_preprocessor = dict(type='ClsDataPreprocessor', mean=[0] * 3, std=[255] * 3, to_rgb=True)
model = dict(
    type='ClassificationDistiller',
    student_cfg=dict(type='TimmClassifier', model_name='test_resnet', num_classes={student}),
    teacher_cfg=dict(type='TimmClassifier', model_name='test_resnet', num_classes={teacher}),
    teacher_pretrained={weights!r},
    teacher_pixels=dict(mean=[0] * 3, std=[255] * 3),
    distill_cfg=[dict(methods=[dict(type={loss!r}, name='loss_it')])],
)
train_dataloader = dict(
    batch_size=4,
    dataset=dict(type='UnlabelledImages', data_root={root!r}, data_prefix='train', pipeline=steps),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=4,
    dataset=dict(type='UnlabelledImages', data_root={root!r}, data_prefix='val', pipeline=steps),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
train_cfg = dict(by_epoch=True, max_epochs=2, val_interval=1)
val_cfg = dict()
val_evaluator = dict(type='Accuracy')
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01))
custom_hooks = [dict(type='KNNAgreementHook', k=3)]
randomness = dict(seed=0)
"""


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """Images without class folders."""
    root = tmp_path_factory.mktemp('plain')
    random = np.random.RandomState(0)
    for part, count in dict(train=12, val=6).items():
        (root / part).mkdir()
        for i in range(count):
            Image.fromarray(random.randint(0, 256, (32, 32, 3)).astype(np.uint8)).save(root / part / f'{i:02}.png')
    return root


def write(folder, root, student=0, teacher=0, loss='EmbeddingLoss', more=''):
    network = timm.create_model('test_resnet', num_classes=teacher)
    torch.save(network.state_dict(), folder / 'teacher.pth')
    given = dict(student=student, teacher=teacher, loss=loss, weights=str(folder / 'teacher.pth'), root=str(root))
    text = CONFIG
    for key, value in given.items():
        text = text.replace(f'{{{key}}}', str(value)).replace(f'{{{key}!r}}', repr(value))
    (folder / 'config.py').write_text(text + more)
    return str(folder / 'config.py')


def completed(path):
    return training_config(parser().parse_args([path]))


def pixels(root, part):
    images = [np.asarray(Image.open(path)) for path in sorted((root / part).iterdir())]
    return torch.tensor(np.stack(images)).permute(0, 3, 1, 2) / 255


@torch.no_grad()
def directions(network, images):
    vectors = network.eval()(images).double().numpy()
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.own_process  # it trains
@pytest.mark.filterwarnings('ignore')
def test_a_training_without_any_label(root, tmp_path, monkeypatch, capsys):
    """The oracle: timm's networks alone, and NumPy."""
    monkeypatch.setattr(sys, 'argv', ['mmcls_kd train'])
    told = []
    monkeypatch.setattr('mmcls_kd.engine.config.print_log', lambda text, _: told.append(text))
    config = write(tmp_path, root)
    train.main([config, '--work-dir', str(tmp_path / 'run')])
    shown = capsys.readouterr().out
    assert ['val_dataloader has no labels: validation is the agreement of nearest neighbours' in text for text in told] == [
        True
    ]
    assert (tmp_path / 'run').glob('best_knn_agreement_*.pth').__next__()
    state = torch.load(tmp_path / 'run' / 'epoch_2.pth', weights_only=False)['state_dict']
    networks = [timm.create_model('test_resnet', num_classes=0) for _ in range(2)]
    networks[0].load_state_dict({k.removeprefix('student.'): v for k, v in state.items() if k.startswith('student.')})
    networks[1].load_state_dict(torch.load(tmp_path / 'teacher.pth'))
    near = []
    for network in networks:
        alike = directions(network, pixels(root, 'val')) @ directions(network, pixels(root, 'train')).T
        near.append([set(row) for row in np.argsort(-alike, axis=1)[:, :3].tolist()])
    expected = 100 * np.mean([len(a & b) / 3 for a, b in zip(*near, strict=True)])
    assert f'finished: knn/agreement {expected:.2f} (best of 2 validations' in shown


@pytest.mark.filterwarnings('ignore')
def test_votes_of_the_teachers_classes(root, tmp_path):
    """A student that is the teacher agrees in all; the hook draws nothing, and reads the teacher once."""
    cfg = completed(write(tmp_path, root, 5, 5, 'DISTLoss'))
    cfg.work_dir = str(tmp_path / 'run')
    runner = Runner.from_cfg(cfg)
    hook = next(hook for hook in runner.hooks if isinstance(hook, KNNAgreementHook))
    hook.check(runner)
    network, state = runner.model.student, torch.get_rng_state()
    first, last = {}, {}
    hook.after_val_epoch(runner, first)
    (_, labels), _ = hook._taught
    assert labels.shape == (12,)
    network.load_state_dict(torch.load(tmp_path / 'teacher.pth'))
    monitored = hook._taught
    hook.after_val_epoch(runner, last)
    assert (last, hook._taught is monitored) == ({'knn/agreement': 100.0}, True)
    assert 0 <= first['knn/agreement'] <= 100
    assert torch.equal(state, torch.get_rng_state())


def test_the_config_is_completed(root, tmp_path):
    cfg = completed(write(tmp_path, root, more='custom_hooks = []\n'))
    assert (cfg.val_evaluator, cfg.val_cfg) == ([], {})
    assert [hook.type for hook in cfg.custom_hooks].count('KNNAgreementHook') == 1
    assert (cfg.default_hooks.checkpoint.save_best, cfg.default_hooks.checkpoint.rule) == ('knn/agreement', 'greater')
    own = "default_hooks = dict(checkpoint=dict(type='CheckpointHook', save_best='mine'))\n"
    assert completed(write(tmp_path, root, more=own)).default_hooks.checkpoint.save_best == 'mine'
    wrapped = "val_dataloader['dataset'] = dict(type='WithoutLabels', dataset=dict(type='CustomDataset', data_root='x'))\n"
    assert completed(write(tmp_path, root, more=wrapped)).val_evaluator == []


def test_labels_leave_the_validation_as_it_is(root, tmp_path):
    cfg = completed(write(tmp_path, root, more="custom_hooks = []\nval_dataloader['dataset']['type'] = 'CustomDataset'\n"))
    assert cfg.val_evaluator.type == 'Accuracy'
    assert 'KNNAgreementHook' not in [hook.type for hook in cfg.custom_hooks]


def test_a_config_without_default_hooks_resumes_too(root, tmp_path):
    """Its checkpoints are written whole, as those of other configs."""
    cfg = completed(write(tmp_path, root, more="val_dataloader['dataset']['type'] = 'CustomDataset'\n"))
    assert cfg.default_hooks == dict(checkpoint=dict(type='ResumableCheckpointHook', interval=1))


def test_without_a_teacher_it_is_refused():
    runner = argparse.Namespace(model=argparse.Namespace(teacher_holder=None))
    with pytest.raises(ValueError, match='KNNAgreementHook: there is no teacher to agree with .* give val_dataloader'):
        KNNAgreementHook().check(runner)
    with pytest.raises(ValueError, match='KNNAgreementHook: k=0: give a whole number, 1 or more'):
        KNNAgreementHook(k=0)
