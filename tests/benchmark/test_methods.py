"""What each method costs: all are measured, built as the distiller builds them; allocations are counted to the byte."""

import json
import re

import pytest
import torch
from torch import nn

from benchmark import methods
from benchmark.methods import (
    Cost,
    beside_kd,
    measure_methods,
    own_bytes,
    peak_bytes,
    show_methods,
    stand_ins,
    wanted_methods,
)
from benchmark.timing import Timing
from mmcls_kd.dis_losses import LOSSES
from mmcls_kd.files.paths import TOOLBOX


@pytest.fixture
def small(monkeypatch):
    """Maps and tokens of small sizes."""
    monkeypatch.setattr(methods, 'STAGES', ((4, 16), (4, 8), (6, 4), (8, 2)))
    monkeypatch.setattr(methods, 'PATCHES', 9)
    monkeypatch.setattr(methods, 'TOKEN_WIDTHS', dict(s=4, t=6))


@pytest.mark.usefixtures('small')
def test_every_registered_loss_is_measured_beside_kd():
    costs = measure_methods(batch=3, classes=5, num_samples=16_400, rounds=2)
    assert next(iter(costs)) == 'kd'
    losses = set(LOSSES)
    assert {method.kind.__name__ for method in wanted_methods()} == losses
    assert list(costs) == [method.name for method in wanted_methods()]
    for cost in costs.values():
        assert len(cost.timing.seconds) == 2
        assert cost.peak >= 3 * 5 * 4  # at least a gradient of a tensor
        assert cost.memory == cost.own + cost.peak
    assert costs['kd'].own == 0
    assert costs['crd'].own == 4 * (2 * 16_400 * 128 + 2 + 2 * (8 + 1) * 128)


@pytest.mark.usefixtures('small')
def test_chosen_methods_have_the_configs_hyper_parameters_and_each_stage_that_they_read():
    assert [method.name for method in wanted_methods(['nkd', 'wsld'])] == ['kd', 'nkd', 'wsld']
    _, wsld = wanted_methods(['wsld'])
    assert wsld.keywords == dict(temp=2.0, alpha=2.5)
    tensors = stand_ins(2, 7, 10)
    assert [tuple(stage.shape) for stage in tensors['stages_s']] == [
        (2, 4, 16, 16),
        (2, 4, 8, 8),
        (2, 6, 4, 4),
        (2, 8, 2, 2),
    ]
    assert all(stage.requires_grad for stage in tensors['stages_s'])
    assert not any(stage.requires_grad for stage in tensors['stages_t'])
    assert tensors['teacher_head'](tensors['feat_t']).shape == (2, 7)


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="unknown method 'srll'; did you mean 'srrl'?"):
        measure_methods(['srll'])


def test_the_threads_from_before_are_back_after_an_error():
    before = torch.get_num_threads()
    with pytest.raises(ValueError, match='rounds=0'):
        measure_methods(['nkd'], batch=2, rounds=0, threads=before + 1)
    assert torch.get_num_threads() == before


def test_the_peak_is_what_stood_there_at_once():
    numbers = torch.ones(10_000)

    def work():
        first = numbers + 1
        second = first * 2  # two
        del first
        third = second + 1  # two again
        return third + second  # three

    assert peak_bytes(work) == 3 * 40_000
    assert peak_bytes(lambda: None) == 0


def test_parameters_and_buffers_count_with_the_size_of_their_type():
    loss = nn.BatchNorm1d(10)
    assert own_bytes(loss) == 4 * 10 * 4 + 8
    assert own_bytes(loss.double()) == 8 * 10 * 4 + 8


def test_the_table_compares_with_kd(capsys):
    mebibytes = 2**20
    kd, other = (
        Cost(Timing((0.002, 0.002)), 0, 3 * mebibytes),
        Cost(Timing((0.005, 0.005)), 10 * mebibytes, 4 * mebibytes),
    )
    show_methods(dict(kd=kd, crd=other))
    (line,) = (line for line in capsys.readouterr().out.splitlines() if '│ crd ' in line)
    cells = [cell.strip() for cell in line.strip('│').split('│')]
    assert cells == ['crd', '5.00', '0.00', '2.5', '10.0', '4.0', '11.0']


def test_the_document_shows_what_was_measured():
    measured = json.loads((TOOLBOX / 'docs' / 'measurements' / 'methods.json').read_text())['results']
    costs = {name: Cost(Timing(tuple(c['timing']['seconds'])), c['own'], c['peak']) for name, c in measured.items()}
    text = (TOOLBOX / 'docs' / 'performance.md').read_text()
    table, _, others = text.partition('The following were measured on a third one')
    rows = re.findall(r'^\| `(\w+)` \| ([\d.]+) \| ([-\d.]+) \|$', table, re.MULTILINE)
    assert {name: (time, memory) for name, time, memory in rows} == beside_kd(costs)
    later = {'embedding', 'queue', 'sigmoid_kd', *re.findall(r'^\| `(\w+)`', others.partition('\n## ')[0], re.MULTILINE)}
    assert set(costs) | later == {method.name for method in wanted_methods()}
