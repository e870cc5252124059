"""Students and teachers of other libraries through the tools: trained, resumed, transferred, tested, stored."""

import re

import libraries
import pytest
import stores
import timm
import torch
from commands import STUDENT, accuracy
from mmpretrain.registry import MODELS

from mmcls_kd.files.checkpoint import read_checkpoint
from mmcls_kd.files.paths import TOOLBOX
from mmcls_kd.networks.loading import load_strictly
from mmcls_kd.networks.sources import network_cfg
from mmcls_kd.networks.transfer import transfer

PIPELINE = [dict(type='RandomCrop', crop_size=28, padding=2), dict(type='RandomFlip', prob=0.5), dict(type='PackInputs')]
CONFIG = """
_base_ = '{base}'
custom_imports = dict(imports=['mmcls_kd'], allow_failed_imports=False)
custom_hooks = [dict(type='EMAHook', momentum=0.1)]
model = {model}
train_dataloader = dict(batch_size=16, dataset=dict(data_root='{data}', indices=48, pipeline={pipeline}))
val_dataloader = dict(batch_size=25, dataset=dict(data_root='{data}', indices=50))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=2)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2), logger=dict(interval=1))
randomness = dict(_delete_=True, seed=7)
data_preprocessor = dict(_delete_=True, num_classes=10, mean=[72.94] * 3, std=[90.02] * 3)  # three channels of one
"""


def write_config(path, data, **model):
    """A distiller's config for a few images of Fashion-MNIST, 28 x 28."""
    whole = dict(
        _delete_=True,
        type='ClassificationDistiller',
        teacher_cfg=dict(type='libraries.Plain', width=16),
        teacher_pretrained=False,
        distill_cfg=[dict(methods=[dict(type='NKDLoss', name='loss_nkd')])],
    )
    text = CONFIG.format(base=TOOLBOX / STUDENT, data=data, model=whole | model, pipeline=PIPELINE)
    path.write_text(text)
    return path


def assert_same(first, second):
    """Compare parts of two checkpoints, to the bit."""
    assert type(first) is type(second)
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_same(first[key], second[key])
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    else:
        assert first == second


def student_of(library, folder):
    """A tiny student of a library, for images of 28 x 28."""
    if library == 'hugging face':
        libraries.hugging_face(folder, size=28, patch_size=7)
        return f'hf:{folder}'
    return {
        'timm': {**libraries.timm_vit(), 'img_size': 28, 'patch_size': 7},
        'torchvision': libraries.torchvision_cnn(),
        'import path': {**libraries.torchvision_vit(), 'image_size': 28, 'patch_size': 7},
    }[library]


def trained_and_resumed(config, whole, parts):
    """Trains two epochs at once, and the second again from the first; both are the same. The log and the checkpoint."""
    log = stores.run('train', config, whole)
    stores.run('train', config, parts, '--resume', whole / 'epoch_1.pth')
    first, second = (read_checkpoint(folder / 'epoch_2.pth') for folder in (whole, parts))
    for part in ('state_dict', 'ema_state_dict', 'optimizer'):
        assert_same(first[part], second[part])
    return log, first


@pytest.mark.parametrize(
    'library',
    ['timm', *(pytest.param(name, marks=pytest.mark.slow) for name in ('hugging face', 'torchvision', 'import path'))],
)
def test_train_resume_transfer_and_test(library, data, tmp_path):
    student = student_of(library, tmp_path / 'hf')
    config = write_config(tmp_path / 'distil.py', data, student_cfg=student)
    whole = tmp_path / 'whole'
    log, first = trained_and_resumed(config, whole, tmp_path / 'parts')

    fresh = MODELS.build(network_cfg(student))
    for part, prefix in (('state_dict', 'student.'), ('ema_state_dict', 'module.student.')):
        names = {name.removeprefix(prefix) for name in first[part] if name.startswith(prefix)}
        assert names == fresh.state_dict().keys()
    raw = {name.removeprefix('module.'): value for name, value in first['ema_state_dict'].items()}
    assert any(not torch.equal(value, raw[name]) for name, value in first['state_dict'].items())

    done = transfer(whole / 'epoch_2.pth', tmp_path / 'student.pth')
    assert done.ema
    assert set(done.kept) == fresh.state_dict().keys()
    for checkpoint in (whole / 'epoch_2.pth', tmp_path / 'student.pth'):
        assert accuracy(stores.run('test', config, tmp_path / 'test', checkpoint)) == accuracy(log)
    load_strictly(fresh, str(tmp_path / 'student.pth'), 'student')
    if library == 'timm':
        sizes = {key: value for key, value in student.items() if key != 'type'}
        alone = timm.create_model(**sizes).eval()
        alone.load_state_dict(torch.load(tmp_path / 'student.pth', weights_only=True)['state_dict'], strict=True)
        images = torch.randn(2, 3, 28, 28)
        torch.testing.assert_close(alone(images), fresh.eval()(images), rtol=0, atol=0)


@pytest.mark.parametrize('buffers', [False, True])
def test_an_average_of_a_classifier_alone_has_its_names(data, tmp_path, buffers):
    network = libraries.timm_resnet()
    config = write_config(tmp_path / 'alone.py', data)
    changes = f'model = dict(_delete_=True, **{network})\ncustom_hooks[0]["update_buffers"] = {buffers}\n'
    config.write_text(re.sub(r'^model = .*$', changes, config.read_text(), flags=re.MULTILINE))
    whole = tmp_path / 'whole'
    log, first = trained_and_resumed(config, whole, tmp_path / 'parts')
    names = MODELS.build(network_cfg(network)).state_dict().keys()
    assert first['state_dict'].keys() == names
    assert {name.removeprefix('module.') for name in first['ema_state_dict']} - {'steps'} == set(names)
    assert accuracy(stores.run('test', config, tmp_path / 'test', whole / 'epoch_2.pth')) == accuracy(log)


def test_a_pretrained_student_starts_training_from_its_weights(data, tmp_path):
    student = student_of('timm', None)
    alone = timm.create_model(**{key: value for key, value in student.items() if key != 'type'})
    torch.save(alone.state_dict(), tmp_path / 'a.pth')
    frozen = 'optim_wrapper = dict(optimizer=dict(lr=0.0, weight_decay=0.0))\nparam_scheduler = []\n'
    config = write_config(tmp_path / 'distil.py', data, student_cfg=student, student_pretrained=str(tmp_path / 'a.pth'))
    config.write_text(config.read_text() + frozen)
    stores.run('train', config, tmp_path / 'run', '--no-validate', options=['train_cfg.max_epochs=1'])
    state = read_checkpoint(tmp_path / 'run' / 'epoch_1.pth')['state_dict']
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(state[f'student.{name}'], value, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_a_stored_teacher_with_other_classes_and_images_trains_as_the_live_one(data, tmp_path, monkeypatch):
    teacher = dict(libraries.timm_resnet(), num_classes=20, data_preprocessor=dict(mean=[10.0] * 3, std=[50.0] * 3))
    torch.manual_seed(0)
    torch.save(MODELS.build(network_cfg(teacher)).state_dict(), tmp_path / 'teacher.pth')
    mapping = [19, 3, 5, 7, 0, 11, 13, 2, 17, 4]
    config = write_config(
        tmp_path / 'distil.py',
        data,
        student_cfg=dict(type='libraries.Plain'),
        teacher_cfg=teacher,
        teacher_pretrained=str(tmp_path / 'teacher.pth'),
        teacher_classes=mapping,
        teacher_pixels=dict(size=40),
    )
    stores.make(config, tmp_path / 'store')
    watched = stores.Watched().install(monkeypatch)
    watched.k = 'float16'
    runs = {}
    for name, store in (('live', None), ('stored', tmp_path / 'store')):
        watched.seen = []
        stores.train(config, tmp_path / name, store, '--no-validate')
        runs[name] = watched.logits()
    assert runs['live'].keys() == runs['stored'].keys()
    assert all(torch.equal(logit, runs['stored'][view]) for view, logit in runs['live'].items())
    assert {len(logit) for logit in runs['live'].values()} == {10}
    weights = [read_checkpoint(tmp_path / name / 'epoch_2.pth')['state_dict'] for name in runs]
    assert_same(*weights)

    for change, named in (
        ('model.teacher_classes=[18,3,5,7,0,11,13,2,17,4]', 'teacher_classes'),
        ('model.teacher_pixels.size=48', 'teacher_pixels'),
    ):
        options = [f'model.teacher_store={tmp_path / "store"}', change]
        assert named in stores.refused('train', config, tmp_path / 'refused', options=options)
