"""The benchmark of the start of runs."""

import pytest

from benchmark import start
from benchmark.start import Start, measure_start, show_start


@pytest.mark.slow
def test_each_way_reaches_its_first_step(monkeypatch):
    monkeypatch.setattr(start, 'CLASSES', 20)
    measured = measure_start([40, 60], ['crd', 'store'], rounds=1)
    assert [[*of_way] for of_way in measured.values()] == [[40, 60], [40, 60]]
    assert all(found.seconds > 0 and found.peak_bytes > 2**26 for of_way in measured.values() for found in of_way.values())


def test_the_table_tells_what_more_entries_cost(capsys):
    show_start(dict(kd={10: Start(1.0, 100 * 2**20), 2000: Start(3.5, 164 * 2**20)}))
    cells = [line.replace('│', ' ').split() for line in capsys.readouterr().out.splitlines() if 'kd, ' in line]
    assert cells == [['kd,', '10', '1.00', '100', '0.0', '0.0'], ['kd,', '2,000', '3.50', '164', '2.5', '64.0']]
