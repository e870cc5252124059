"""What tools/inspect_model.py shows of a network."""

import re
import sys

import pytest
from commands import DISTILLER, tool

from mmcls_kd.files.paths import TOOLBOX


@pytest.fixture
def show(monkeypatch, capsys):
    def run(*words):
        monkeypatch.setattr(sys, 'argv', ['inspect_model.py', *map(str, words)])
        tool('inspect_model')()
        return capsys.readouterr().out

    return run


def row(text, name):
    """The shape and the place of a tensor."""
    (found,) = re.findall(rf'^{name}  +(\(N.*?)  +(\S.*)$', text, re.MULTILINE)
    return found


def test_the_stages_and_what_goes_into_the_classifier(show):
    text = show(TOOLBOX / DISTILLER)
    student, teacher = text.split('teacher: ')
    layers = [f'backbone.layer{i}' for i in range(1, 5)]
    shape, place = row(student, 'stages_s')
    assert re.findall(r'\(N, (\d+), \d+, \d+\)', shape) == ['4', '8', '16', '32']
    assert place == ' and '.join(layers)
    assert row(student, 'vector_s') == ('(N, 32)', 'neck.gap')
    shape, place = row(teacher, 'stages_t')
    assert re.findall(r'\(N, (\d+), \d+, \d+\)', shape) == ['16', '32', '64', '128']
    for layer in layers[:-1]:  # beside the module's row, too
        assert re.search(rf'^{layer} .*stages_s', student, re.MULTILINE)


def test_what_goes_in_is_told_from_what_comes_out(show):
    text = show('torchvision:mobilenet_v2')
    assert row(text, 'vector') == ('(N, 1280)', 'model.classifier (what goes in)')
    assert re.search(r'^model\.classifier  .*vector \(what goes in\)$', text, re.MULTILINE)


def test_stages_that_the_config_gives(show, tmp_path):
    (tmp_path / 'mine.py').write_text(
        f"_base_ = '{TOOLBOX / DISTILLER}'\nmodel = dict(taps=dict(stages_t=['backbone.layer2', 'backbone.layer4']))\n"
    )
    _, teacher = show(tmp_path / 'mine.py').split('teacher: ')
    shape, place = row(teacher, 'stages_t')
    assert len(re.findall(r'\(N', shape)) == 2
    assert place == 'backbone.layer2 and backbone.layer4'
