"""The committed studies: documents show what the raw results say, and those are of the studies as they are planned."""

import pytest

from mmcls_kd.files.paths import TOOLBOX
from mmcls_kd.study.plan import Planner, sweep_results
from mmcls_kd.study.records import read_records
from mmcls_kd.study.report import put
from mmcls_kd.study.study_file import read_study


@pytest.fixture(
    scope='module', params=['fashion_mnist', 'fashion_mnist_trained', 'fashion_mnist_32', 'glyphs', 'cifar100', 'imagenet']
)
def study(request):
    return read_study(TOOLBOX / 'studies' / f'{request.param}.py')


@pytest.fixture(scope='module')
def records(study):
    return read_records(study.results)


def test_the_document_says_what_the_results_say(study, records):
    text = study.report.read_text(encoding='utf-8')
    command = f'python tools/study.py studies/{study.name}.py --report'
    assert put(text, study, records) == text, f'{command} brings them together'


def test_the_results_are_of_the_runs_that_are_planned(study, records):
    if not records:
        pytest.skip('no results yet')
    planned = {run.key: run.digest for run in Planner(study).runs(sweep_results(records))}
    assert {r['key']: r['digest'] for r in records}.items() <= planned.items()


@pytest.mark.slow
@pytest.mark.parametrize('name', ['cifar100', 'imagenet'])
def test_what_is_published_is_of_rows_that_are_planned(name):
    study = read_study(TOOLBOX / 'studies' / f'{name}.py')
    planned = {(run.pair, run.row) for run in Planner(study).runs()}
    assert {(title, row) for title, pair in study.pairs.items() for row in pair.published} <= planned


def test_every_picture_is_there(study):
    for line in study.report.read_text().splitlines():
        if line.startswith('!['):
            assert (study.report.parent / line.rpartition('(')[2].rstrip(')')).is_file()


def test_no_training_image_validates():
    """The sweep's images are apart from those that are trained on."""
    study = read_study(TOOLBOX / 'studies' / 'fashion_mnist.py')
    trained = int(next(o for o in study.options if o.startswith('train_dataloader.dataset.indices=')).partition('=')[2])
    (held_out,) = [int(o.partition('=')[2]) for o in study.sweep.options if '.indices=' in o]
    assert trained - 60_000 <= held_out < 0
