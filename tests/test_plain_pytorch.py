"""The code of README's first screen, of docs/plain_pytorch.md and of docs/add_a_method.md runs as written."""

import re

import pytest
import torch
from torch import nn

from mmcls_kd import Distiller, dis_losses
from mmcls_kd.files.paths import TOOLBOX


def blocks(page):
    """The Python code of a page, block by block."""
    return re.findall(r'^```python\n(.*?)^```', (TOOLBOX / page).read_text(), re.MULTILINE | re.DOTALL)


def test_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks('docs/plain_pytorch.md'):
        exec(block, names)
    assert 'student.pth' in {path.name for path in tmp_path.iterdir()}
    assert names['distiller'].student is names['student']


def test_readmes_first_code_trains_the_student_that_was_given(tmp_path, monkeypatch):
    """On small images, without the download of weights."""
    timm = pytest.importorskip('timm')
    monkeypatch.chdir(tmp_path)
    created = timm.create_model
    monkeypatch.setattr(timm, 'create_model', lambda name, pretrained=False: created(name, pretrained=False))
    torch.manual_seed(0)
    names = dict(loader=[(torch.randn(2, 3, 64, 64), torch.tensor([1, 2]))])
    before = created('resnet18').state_dict().keys()
    exec(blocks('README.md')[0], names)
    saved = torch.load('student.pth')
    assert saved.keys() == before
    assert sorted(names['out']) == ['loss', 'mgd', 'nkd', 'task']
    assert torch.equal(saved['conv1.weight'], names['student'].conv1.weight)


def test_the_method_that_is_shown_in_full_passes_its_own_tests(monkeypatch):
    loss, _, _, tests = blocks('docs/add_a_method.md')
    names = dict(__name__='mmcls_kd.dis_losses.cosine', __package__='mmcls_kd.dis_losses')
    exec(loss, names)
    for name in ('CosineLoss', 'cosine_loss'):
        monkeypatch.setattr(dis_losses, name, names[name], raising=False)
    exec(tests, shown := {})
    cases = [value for name, value in shown.items() if name.startswith('test_')]
    assert len(cases) == 3
    for case in cases:
        case()


def small(width):
    layers = [nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5)]
    return nn.Sequential(*layers)


def test_a_teacher_that_no_loss_reads_does_not_run():
    teacher = small(8)
    distiller = Distiller(small(4), teacher, losses='tfnkd')
    teacher.forward = None
    assert sorted(distiller(torch.randn(4, 3, 16, 16), torch.arange(4))) == ['loss', 'task', 'tfnkd']


def test_a_loss_has_the_name_by_which_it_was_chosen():
    losses = ['wkd_logit', 'ofa_logit', 'RKDLoss', dis_losses.DISTLoss]
    assert list(Distiller(small(4), small(8), losses=losses).distill_losses) == ['wkd_logit', 'ofa_logit', 'rkd', 'dist']
