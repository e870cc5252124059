"""Rows of studies against one another, by the numbers that scipy finds."""

import json
import re
import sys

import pytest
from commands import tool
from scipy import stats

from mmcls_kd.files.paths import TOOLBOX
from mmcls_kd.study.curves import compare_rows, draw_curves, read_rows

RESULTS = TOOLBOX / 'studies/results/fashion_mnist.jsonl'


def test_differences_are_those_of_a_paired_test():
    rows = read_rows([RESULTS], ['cnn/kd', 'cnn/dist'])
    cells, _ = compare_rows(rows)
    kd, dist = ([record['last'] for _, record in sorted(row.items())] for row in rows.values())
    found = stats.ttest_rel(dist, kd)
    low, high = found.confidence_interval()
    mean = sum(dist) / 5 - sum(kd) / 5
    assert cells[1][4:] == [f'{mean:+.2f} [{low:+.2f}, {high:+.2f}]', f'{found.pvalue:.3f}']


def test_own_rows_are_compared_with_any_row_and_what_they_do_not_share_is_said(tmp_path):
    records = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    mine = [
        {**r, 'row': 'mine', 'last': r['last'] + 1, 'cpu': 'another'} for r in records if r['key'].startswith('cnn/nkd/')
    ]
    for record in mine:
        record['key'] = record['key'].replace('/nkd/', '/mine/')
    own = tmp_path / 'own.jsonl'
    own.write_text(''.join(f'{json.dumps(record)}\n' for record in mine))
    cells, notes = compare_rows(read_rows([RESULTS, own], ['cnn/nkd', 'cnn/mine']))
    assert cells[1][0] == 'cnn/mine'
    assert cells[1][4] == '+1.00'
    assert any("'cpu'" in note for note in notes)


def test_a_row_that_diverged_is_compared_with_nothing():
    rows = read_rows([RESULTS], ['cnn/kd', 'cnn/nkd'])
    rows['cnn/nkd'][0] = {**rows['cnn/nkd'][0], 'diverged': 'loss_nkd became NaN'}
    cells, notes = compare_rows(rows)
    assert cells[1][4:] == ['', '']
    assert notes[0].startswith('cnn/nkd: a training diverged')


def test_curves_have_a_line_for_each_seed_and_their_mean():
    rows = read_rows([RESULTS], ['cnn/kd'])
    axes = draw_curves(rows).axes[0]
    assert len(axes.lines) == len(rows['cnn/kd']) + 1
    assert axes.lines[-1].get_ydata()[-1] == pytest.approx(sum(r['curve'][-1] for r in rows['cnn/kd'].values()) / 5)


def test_the_tool_reads_the_folder_of_a_studys_runs(tmp_path, monkeypatch, capsys):
    for line in RESULTS.read_text().splitlines():
        record = json.loads(line)
        if record['row'] not in ('baseline', 'kd'):
            continue
        run = tmp_path / record['folder']
        run.mkdir(parents=True)
        (run / 'result.json').write_text(line)
    monkeypatch.setattr(sys, 'argv', ['analyze.py', str(tmp_path), '--rows', 'cnn/*'])
    tool('analyze')()
    assert re.findall(r'(cnn/\w+) .*?(\d+) ', capsys.readouterr().out) == [('cnn/baseline', '5'), ('cnn/kd', '5')]
    assert (tmp_path / 'analysis' / 'curves.png').is_file()


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        ([str(RESULTS), '--rows', 'cnn/nkdd'], "no row 'cnn/nkdd'; did you mean 'cnn/nkd'"),
        ([str(RESULTS), 'work_dirs'], 'work_dirs is no study'),
        (['work_dirs', '--rows', 'cnn/kd'], '--rows is for studies'),
        (['none.jsonl'], 'none.jsonl: no such file'),
    ],
)
def test_what_cannot_be_is_refused(words, message, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['analyze.py', *words])
    with pytest.raises(SystemExit, match=message):
        tool('analyze')()
