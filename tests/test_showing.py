"""Numbers as tables and as JSON."""

import json

from mmcls_kd.files.showing import screen, table, write_json


def test_cells_are_text_and_no_markup(capsys):
    screen().print(table('Title', ('run', 'number'), [('kd[1]', '2.5'), ('[red]', '11.25'), (':cat:', '1')]))
    said = capsys.readouterr().out
    assert '│ :cat: │      1 │' in said
    assert '│ kd[1] │    2.5 │' in said
    assert '│ [red] │  11.25 │' in said


def test_json_has_no_numbers_that_are_not_finite(tmp_path):
    def refused(name):
        raise AssertionError(name)

    write_json(dict(a=float('nan'), b=[float('inf'), 1.5], c=dict(d=(float('-inf'), 2))), tmp_path / 'numbers.json')
    found = json.loads((tmp_path / 'numbers.json').read_text(), parse_constant=refused)
    assert found == dict(a=None, b=[None, 1.5], c=dict(d=[None, 2]))
