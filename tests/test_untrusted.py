"""No file that the toolbox opens runs code, unless the user says so."""

import os
import pickle
import subprocess
import sys

import pytest
import torch
from commands import DISTILLER, STUDENT, data_options
from interruption import Run
from mmpretrain.registry import MODELS

from mmcls_kd.configs import TOOLBOX, network_cfg

pytestmark = pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning')
SELF = 'configs/distillers/fashion_mnist/res18-w4_sd_fmnist.py'


class Payload:
    """Makes a folder when it is unpickled the unsafe way."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.makedirs, (self.folder, 0o777, True)


@pytest.fixture
def malicious(tmp_path):
    """Writes a file of weights that fit, with a payload beside them; returns the file and the folder it would make."""

    def write(weights, name='malicious.pth', **more):
        torch.save(dict(state_dict=weights, extra=Payload(tmp_path / 'pwned'), **more), tmp_path / name)
        return tmp_path / name, tmp_path / 'pwned'

    return write


def student_state():
    return MODELS.build(network_cfg(STUDENT)).state_dict()


def refused(run, pwned):
    assert run.wait() == [1], run.output()
    assert not pwned.exists(), 'the file ran its code'
    message = run.output().splitlines()[-1]
    assert 'which could run code when it is read' in message
    assert 'makedirs' in message


def pretrained(part, file):
    return [f'{part}.init_cfg.checkpoint={file}', f'{part}.init_cfg.type=Pretrained']


def places(file):
    """How each place that opens a file is given one: config, and the options."""
    return {
        'teacher_pretrained': (DISTILLER, [f'model.teacher_pretrained={file}']),
        'student_pretrained': (SELF, [f'model.student_pretrained={file}']),
        'load_from': (SELF, [f'load_from={file}']),
        'Pretrained, student': (
            SELF,
            [f'model.student_cfg.init_cfg.checkpoint={file}', 'model.student_cfg.init_cfg.type=Pretrained'],
        ),
        'Pretrained, backbone': (
            STUDENT,
            [f'model.backbone.init_cfg.checkpoint={file}', 'model.backbone.init_cfg.type=Pretrained'],
        ),
    }


@pytest.mark.parametrize('place', [p if p == 'load_from' else pytest.param(p, marks=pytest.mark.slow) for p in places('')])
def test_in_training(place, malicious, data, tmp_path):
    state = student_state()
    weights = {f'student.{k}': v for k, v in state.items()} if place == 'load_from' else state
    if place == 'teacher_pretrained':
        weights = torch.load(TOOLBOX / 'configs/fashion_mnist/teacher.pth')['state_dict']
    file, pwned = malicious(weights)
    config, options = places(file)[place]
    arguments = ['--cfg-options', *data_options(data), *options]
    refused(Run(TOOLBOX / config, tmp_path / 'run', *arguments), pwned)
    trusting = Run(TOOLBOX / config, tmp_path / 'trusting', '--trust', *arguments)
    assert trusting.wait() == [0], trusting.output()
    assert pwned.exists()  # so the file is one that would have run its code


@pytest.mark.slow
@pytest.mark.parametrize('named', [True, False], ids=['--resume FILE', '--resume'])
def test_on_resume(named, malicious, data, tmp_path):
    weights = {f'student.{k}': v for k, v in student_state().items()}
    (tmp_path / 'run').mkdir()
    file, pwned = malicious(weights, 'run/epoch_1.pth', optimizer={}, meta=dict(epoch=1, iter=8))
    run = Run(TOOLBOX / SELF, tmp_path / 'run', '--resume', *([file] if named else []), '--cfg-options', *data_options(data))
    if named:
        refused(run, pwned)
    else:  # passed over, as any file that cannot be read
        assert run.wait() == [0], run.output()
        assert not pwned.exists()
        assert 'epoch_1.pth is passed over: ' in run.output()


@pytest.mark.parametrize('tool', [pytest.param('tools/test.py', marks=pytest.mark.slow), 'pth_transfer.py'])
def test_in_testing_and_transfer(tool, malicious, data, tmp_path):
    file, pwned = malicious({f'student.{k}': v for k, v in student_state().items()})
    arguments = [STUDENT, file, '--work-dir', tmp_path, '--cfg-options', *data_options(data)]
    if tool == 'pth_transfer.py':
        arguments = ['--dis_path', file, '--output_path', tmp_path / 'out.pth']
    words = [sys.executable, '-W', 'ignore', tool, *map(str, arguments)]
    done = subprocess.run(words, cwd=TOOLBOX, capture_output=True, text=True)
    assert done.returncode == 1
    assert not pwned.exists()
    assert 'which could run code when it is read' in done.stderr.splitlines()[-1]
    assert not (tmp_path / 'out.pth').exists()


def test_a_plain_pickle_is_no_checkpoint(data, tmp_path):
    (tmp_path / 'a.pth').write_bytes(pickle.dumps(Payload(tmp_path / 'pwned')))
    run = Run(TOOLBOX / SELF, tmp_path / 'run', '--cfg-options', *data_options(data), f'load_from={tmp_path / "a.pth"}')
    assert run.wait() == [1], run.output()
    assert not (tmp_path / 'pwned').exists()
    assert 'a.pth' in run.output().splitlines()[-1]
