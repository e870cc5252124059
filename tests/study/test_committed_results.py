"""The committed study: docs/results.md shows what the raw results say, and they are of the study as it is planned."""

import pytest

from mmcls_kd.configs import TOOLBOX
from mmcls_kd.study.plan import Planner, sweep_results
from mmcls_kd.study.records import read_records
from mmcls_kd.study.report import put
from mmcls_kd.study.study_file import read_study


@pytest.fixture(scope='module')
def study():
    return read_study(TOOLBOX / 'studies' / 'fashion_mnist.py')


@pytest.fixture(scope='module')
def records(study):
    return read_records(study.results)


def test_the_document_says_what_the_results_say(study, records):
    text = study.report.read_text(encoding='utf-8')
    assert put(text, study, records) == text, 'python tools/study.py studies/fashion_mnist.py --report brings them together'


def test_the_results_are_of_the_runs_that_are_planned(study, records):
    planned = {run.key: run.digest for run in Planner(study).runs(sweep_results(records))}
    assert {r['key']: r['digest'] for r in records}.items() <= planned.items()


def test_every_picture_is_there(study):
    for line in study.report.read_text().splitlines():
        if line.startswith('!['):
            assert (study.report.parent / line.rpartition('(')[2].rstrip(')')).is_file()


def test_no_training_image_validates(study):
    """The sweep's images are apart from those that are trained on."""
    trained = int(next(o for o in study.options if o.startswith('train_dataloader.dataset.indices=')).partition('=')[2])
    held_out = [int(o.partition('=')[2]) for o in study.sweep.options if '.indices=' in o]
    assert len(held_out) == 2
    assert all(trained - 60_000 <= count < 0 for count in held_out)
