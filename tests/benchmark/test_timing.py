"""Timing side by side: the statistics, the order of the work, the warm-up, and the record of it."""

import json

import numpy as np
import pytest

from benchmark import timing
from benchmark.timing import Timing, clock, interleave, machine
from mmcls_kd.files.showing import show, write_json


@pytest.mark.parametrize('rounds', [1, 2, 3, 4, 5, 20])
def test_median_and_spread_are_numpys(rounds):
    seconds = np.random.default_rng(rounds).exponential(size=rounds)
    low, median, high = np.quantile(seconds, [0.25, 0.5, 0.75])
    found = Timing(tuple(seconds))
    assert found.median == pytest.approx(median)
    assert found.spread == pytest.approx((high - low) / 2)


def test_the_clock_lets_the_work_run_once():
    calls = []
    assert clock(lambda: calls.append(1)) > 0
    assert len(calls) == 1


def test_the_work_takes_turns_warm_up_included():
    calls = []
    timings = interleave({name: lambda name=name: calls.append(name) for name in 'abc'}, rounds=3, warmup=2)
    assert calls == list('abc') * 5
    assert list(timings) == list('abc')
    assert all(len(found.seconds) == 3 and min(found.seconds) > 0 for found in timings.values())


def test_the_warm_up_does_not_count(monkeypatch):
    monkeypatch.setattr(timing, 'clock', lambda work, device: work())
    times = iter([100.0, 100.0, 1.0, 2.0, 3.0])
    assert interleave({'work': lambda: next(times)}, rounds=3, warmup=2) == {'work': Timing((1.0, 2.0, 3.0))}


@pytest.mark.parametrize('rounds', [0, -1])
def test_no_round_is_refused_before_any_work(rounds):
    calls = []
    with pytest.raises(ValueError, match=f'rounds={rounds}: at least 1'):
        interleave({'work': lambda: calls.append(1)}, rounds=rounds)
    assert calls == []


def test_an_error_of_the_work_comes_through():
    with pytest.raises(ZeroDivisionError):
        interleave({'work': lambda: 1 / 0}, rounds=1)


def test_progress_does_not_get_into_the_output(capsys):
    interleave({'work': int}, rounds=1)
    assert capsys.readouterr().out == ''


def test_the_record_is_read_again_with_every_round(tmp_path):
    path = tmp_path / 'new' / 'folder' / 'record.json'
    timings = {'a': Timing((0.1, 0.2)), 'b': Timing((0.3,))}
    write_json(dict(machine=machine(), timings=timings, config=tmp_path), path)
    content = json.loads(path.read_text())
    assert {name: Timing(tuple(found['seconds'])) for name, found in content['timings'].items()} == timings
    assert content['machine'] == machine()
    assert content['config'] == str(tmp_path)


def test_the_machine_is_named_with_its_threads_and_versions():
    about = machine()
    assert about['processor']
    assert about['threads'] >= 1
    assert {'python', 'torch', 'bfloat16_instructions'} <= about.keys()
    assert 'gpu' not in about


def test_a_table_has_its_title_columns_and_rows(capsys):
    show('Some title', ['name', 'number'], [('first', 1), ('second', 2.5)])
    out = capsys.readouterr().out
    for text in ('Some title', 'name', 'number', 'first', '1', 'second', '2.5'):
        assert text in out
