"""tools/preflight.py, run in this process on a few images."""

import json
import sys

import pytest
import torch
from commands import DISTILLER, STUDENT, data_options, tool
from mmpretrain.registry import MODELS
from stores import make

from mmcls_kd.analysis.advice import AT_THE_START, Advice
from mmcls_kd.analysis.gradients import TASK, Term
from mmcls_kd.analysis.measures import Summary
from mmcls_kd.analysis.preflight import Look, show
from mmcls_kd.configs.reading import read_config
from mmcls_kd.files.paths import TOOLBOX
from mmcls_kd.files.showing import screen
from mmcls_kd.networks.loading import load_strictly
from mmcls_kd.networks.sources import network_cfg
from mmcls_kd.recipe.methods import MethodList

pytestmark = pytest.mark.filterwarnings('ignore:.*instance named of')
SELF = 'configs/distillers/fashion_mnist/res18-w4_sd_fmnist.py'
TEACHER = ('configs/fashion_mnist/resnet18-w16_9e.py', 'configs/fashion_mnist/teacher.pth')


@pytest.fixture
def preflight(data, tmp_path, monkeypatch, capsys):
    """Calls the tool in an empty folder; returns its numbers and what it printed."""
    monkeypatch.chdir(tmp_path)

    def call(config, *arguments, options=()):
        words = [TOOLBOX / config, '--json', 'out/numbers.json', *arguments, '--cfg-options', *data_options(data), *options]
        monkeypatch.setattr(sys, 'argv', ['preflight.py', *map(str, words)])
        tool('preflight')()
        assert [path.name for path in tmp_path.rglob('*') if path.is_file()] == ['numbers.json']
        return json.loads((tmp_path / 'out/numbers.json').read_text()), capsys.readouterr().out

    return call


@pytest.fixture
def refusal(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(config, *arguments, options=()):
        words = [TOOLBOX / config, *arguments, '--cfg-options', *data_options(data), *options]
        monkeypatch.setattr(sys, 'argv', ['preflight.py', *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            tool('preflight')()
        assert not list(tmp_path.iterdir())
        return str(stopped.value.code)

    return call


def test_teacher_student_and_terms(preflight, data):
    numbers, said = preflight(DISTILLER, '--methods', 'kd', 'mgd', '--batches', '2')
    teacher = MODELS.build(network_cfg(TEACHER[0])).eval()
    load_strictly(teacher, TEACHER[1], 'teacher')
    images = torch.frombuffer(bytearray((data / 't10k-images-idx3-ubyte').read_bytes()[16:]), dtype=torch.uint8)
    with torch.no_grad():
        logit = teacher((images.view(-1, 1, 28, 28).float() - 72.94) / 90.02)
    label = torch.arange(100) % 10
    assert numbers['images'] == 100
    assert numbers['networks']['teacher']['accuracy'] == pytest.approx(float((logit.argmax(1) == label).double().mean()))
    p = logit.double().softmax(1)
    assert numbers['networks']['teacher']['entropy'] == pytest.approx(-float((p * p.log()).sum(1).mean()), rel=1e-4)
    assert [term['name'] for term in numbers['terms']] == ['task', 'loss_mgd', 'loss_kd']
    assert all(term['norm'] > 0 for term in numbers['terms'])
    assert numbers['batches'] == 2
    assert numbers['temps'] == dict(loss_kd=1.0)
    assert 'loss_mgd: its gradient is' in said
    assert 'multiply its loss_weight by' in said
    assert 'Same answer by both' in said


def test_accuracy_in_the_teachers_file_is_compared(preflight, tmp_path):
    teacher = MODELS.build(network_cfg(TEACHER[0]))
    load_strictly(teacher, TEACHER[1], 'teacher')
    weights = tmp_path.with_name(f'{tmp_path.name}_teacher.pth')
    torch.save(dict(epoch=240, model=teacher.state_dict(), accuracy=torch.tensor(79.42)), weights)
    options = [f'model.teacher_pretrained={weights}']
    numbers, said = preflight(DISTILLER, '--methods', 'kd', '--images', '10', '--batches', '1', options=options)
    measured = f'{100 * numbers["networks"]["teacher"]["accuracy"]:.2f}%'
    assert numbers['stated'] == pytest.approx(0.7942)
    assert f'The teacher’s file states an accuracy of 79.42%; measured: {measured}' in said


def test_the_student_starts_from_the_weights_that_it_is_given(preflight, tmp_path, data):
    torch.manual_seed(0)
    student = MODELS.build(network_cfg(STUDENT))
    student.init_weights()
    with torch.no_grad():
        student.head.fc.weight.zero_()
        student.head.fc.bias.copy_(50.0 * torch.eye(10)[3])
    weights = tmp_path.parent / f'{tmp_path.name}_student.pth'
    torch.save(dict(state_dict=student.state_dict()), weights)
    numbers, _ = preflight(DISTILLER, options=[f'model.student_pretrained={weights}'])
    assert numbers['networks']['student']['accuracy'] == pytest.approx(0.1)
    assert numbers['networks']['student']['entropy'] == pytest.approx(0, abs=1e-6)


def test_as_many_images_as_asked_for(preflight):
    numbers, _ = preflight(SELF, '--images', '10', '--batches', '1')
    assert numbers['images'] == 10


def looked(advice=(), soft=0.5, temp=4.0):
    """What a look may have seen of teacher and student."""
    networks = dict.fromkeys(('teacher', 'student'), Summary(0.9, 0.8, 0.1, 0.5))
    terms = [Term(TASK, 1.0, 1.0, 1.0, 1.0), Term('loss_[kd]', 1.0, 1.0, 1.0, 1.0, 1.0)]
    return Look(10, 10, networks, 0.9, 0.1, dict(loss_kd=temp), dict(loss_kd=soft), terms, 1, list(advice))


def test_what_holds_for_all_advice_of_a_kind_is_said_once(capsys):
    show(looked([Advice(name, 'is weak', 'raise it', AT_THE_START) for name in ('loss_kd', 'loss_mgd')]), screen())
    assert capsys.readouterr().out.count(AT_THE_START) == 1
    show(looked([Advice('teacher', 'guesses', 'take another')]), screen())
    assert AT_THE_START not in capsys.readouterr().out


def test_an_entropy_of_its_own_has_a_line_of_its_own(capsys):
    show(looked(soft=0.7, temp=1.0), screen())
    said = capsys.readouterr().out
    assert 'entropy as loss_kd softens it (temperature 1) │   0.700 │' in said
    assert 'loss_[kd]' in said  # no markup
    show(looked(soft=0.5, temp=1.0), screen())
    assert 'softens it' not in capsys.readouterr().out


def test_without_a_task_loss_it_says_that_weights_are_not_compared(preflight):
    entries = MethodList(read_config(DISTILLER).model.distill_cfg).entries
    place = [entry['name'] for entry in entries].index('loss_kd')
    options = [f'model.distill_cfg.{place}.methods.0.alpha=1.0']
    numbers, said = preflight(DISTILLER, '--methods', 'kd', '--batches', '1', '--images', '10', options=options)
    assert numbers['terms'][1]['ratio'] is None
    assert 'the weights of the methods are not compared' in ' '.join(said.split())
    assert 'Nothing looks off' not in said


def test_images_without_labels_have_no_accuracy(data, tmp_path, monkeypatch, capsys):
    config = tmp_path / 'unlabelled.py'
    config.write_text(
        f"_base_ = '{TOOLBOX / DISTILLER}'\n"
        f"images = dict(type='FashionMNIST', data_root='{data}', pipeline=[dict(type='PackInputs')], split='train')\n"
        "train_dataloader = dict(dataset=dict(_delete_=True, type='WithoutLabels', dataset=images))\n"
        "val_dataloader = dict(dataset=dict(_delete_=True, type='WithoutLabels', dataset=images))\n"
        'val_evaluator = []\n'
    )
    words = [config, '--json', tmp_path / 'numbers.json', '--methods', 'kd', '--batches', '1', '--images', '20']
    monkeypatch.setattr(sys, 'argv', ['preflight.py', *map(str, words)])
    tool('preflight')()
    numbers, said = json.loads((tmp_path / 'numbers.json').read_text()), capsys.readouterr().out
    assert [of['accuracy'] for of in numbers['networks'].values()] == [None, None]
    assert numbers['networks']['teacher']['calibration_error'] is None
    assert numbers['networks']['teacher']['confidence'] > 0.5
    assert 'The validation images have no labels' in said
    assert 'accuracy │' not in said
    assert 'guessing gives' not in said


def test_without_a_teacher_a_sentence_says_what_is_left_out(preflight):
    numbers, said = preflight(SELF, '--batches', '1')
    assert list(numbers['networks']) == ['student']
    assert numbers['agreement'] is None
    assert 'No method needs a teacher' in said


@pytest.mark.slow
def test_of_a_stored_teacher_the_terms_are_measured_and_the_rest_left_out(preflight, data, tmp_path):
    outside = tmp_path.with_name(f'{tmp_path.name}_stored')
    make(TOOLBOX / DISTILLER, outside / 'store', 1, options=data_options(data))
    without = [f'model.teacher_store={outside / "store"}', 'model.teacher_cfg=None', 'model.teacher_pretrained=nowhere.pth']
    stored, said = preflight(DISTILLER, '--batches', '2', options=without)
    live, _ = preflight(DISTILLER, '--batches', '2')
    assert list(stored['networks']) == ['student']
    assert 'The teacher is a store' in said
    for ours, theirs in zip(stored['terms'], live['terms'], strict=True):
        assert ours['norm'] == pytest.approx(theirs['norm'], rel=1e-2)  # a store rounds to half precision


@pytest.mark.slow
@pytest.mark.parametrize('methods', [['simkd'], ['ctkd', 'rkd'], ['ofa', 'reviewkd'], ['srrl', 'wkd_logit', 'vid']])
def test_methods_of_every_kind_can_be_looked_at(preflight, methods):
    numbers, _ = preflight(DISTILLER, '--batches', '1', '--images', '50', '--methods', *methods)
    assert {term['name'] for term in numbers['terms']} == {'task', *(f'loss_{name}' for name in methods)}
    assert all(term['norm'] > 0 for term in numbers['terms'] if term['name'] != 'task')


def test_a_random_teacher_looks_off(preflight):
    options = ['model.teacher_pretrained=False']
    _, said = preflight(DISTILLER, '--batches', '1', options=options)
    assert 'guessing gives 10.00%' in said.replace('\n', ' ')


class TestRefusals:
    def test_without_validation(self, refusal):
        assert 'but no val_dataloader: give all three' in refusal(DISTILLER, options=['val_dataloader=None'])
        options = [f'{key}=None' for key in ('val_dataloader', 'val_cfg', 'val_evaluator')]
        assert 'has no `val_dataloader`' in refusal(DISTILLER, options=options)

    def test_missing_data(self, refusal):
        message = refusal(DISTILLER, options=['val_dataloader.dataset.data_root=nowhere'])
        assert message.startswith('preflight.py: error: val_dataloader: the data set folder nowhere does not exist')

    def test_a_json_that_is_a_folder(self, refusal, tmp_path):
        assert 'is a folder' in refusal(DISTILLER, '--json', tmp_path)

    def test_several_processes(self, refusal, monkeypatch):
        for name, value in dict(MASTER_ADDR='127.0.0.1', MASTER_PORT='29511', RANK='0', WORLD_SIZE='2').items():
            monkeypatch.setenv(name, value)
        assert 'takes one process' in refusal(DISTILLER, '--launcher', 'pytorch')

    @pytest.mark.parametrize('option', ['--images', '--batches'])
    def test_nothing_to_look_at(self, refusal, option, capsys):
        assert refusal(DISTILLER, option, '0') == '2'
        assert 'at least 1' in capsys.readouterr().err
