"""A small study through the real tools, from the command line to the report."""

import json
import shlex

import pytest
import torch
from commands import run
from studies_kit import write_study

from mmcls_kd.files.paths import TOOLBOX
from mmcls_kd.study.records import read_records

pytestmark = pytest.mark.slow

FILE = """
title = 'Small'
report = '../results.md'
seeds = [0, 1]
options = [
    'train_dataloader.batch_size=8', 'train_cfg.max_epochs=3', 'param_scheduler.total_steps=96',
    'val_dataloader.batch_size=50', 'test_dataloader.batch_size=50',
]
pairs = dict(
    cnn=dict(
        title='Small teaches smaller',
        student='configs/fashion_mnist/resnet18-w4_3e.py',
        distillers=['configs/distillers/fashion_mnist/res18-w16_distill_res18-w4_fmnist.py'],
    ),
)
ablations = dict(
    store=dict(title='Store', pair='cnn', against='kd', rows={'kd-stored': dict(methods=['kd'], stored=True)}),
)
"""
PARTS = ('summary', 'cnn', 'store')
ONLY = ('--only', 'cnn/baseline/*', 'cnn/kd/*', 'cnn/simkd/seed0', 'cnn/kd-stored/seed0')


@pytest.fixture(scope='module')
def folder(data, tmp_path_factory):
    """Where the study ran; its data are named by a relative path."""
    folder = tmp_path_factory.mktemp('study')
    (folder / 'images').symlink_to(data)
    write_study(folder, FILE)
    (folder / 'results.md').write_text('\n'.join(f'<!-- study small: {part} -->\n<!-- end -->' for part in PARTS))
    study(folder, *ONLY)
    return folder


def study(folder, *arguments):
    words = ['studies/small.py', '--jobs', '2', '--data-root', 'images', *arguments]
    return run(TOOLBOX / 'tools/study.py', *words, cwd=folder).output


def results(folder):
    return {record['key']: record for record in read_records(folder / 'studies/results/small.jsonl')}


def test_the_transferred_students_have_the_accuracy_of_their_trainings(folder):
    found = results(folder)
    assert len(found) == 6
    for record in found.values():
        assert len(record['curve']) == 3
        assert record['last'] == record['curve'][-1]
        assert record['best'] == max(record['curve'])
        assert record['seconds'] > 0
    assert found['cnn/kd/seed0']['curve'] != found['cnn/kd/seed1']['curve']


def test_what_is_kept_of_a_run(folder):
    kept = folder / 'work_dirs/studies/small/cnn/kd/seed0'
    names = {path.name for path in kept.iterdir() if path.is_file()}
    assert {'train.log', 'pth_transfer.log', 'test.log', 'student.pth', 'result.json', 'run.json'} < names
    assert not list(kept.glob('epoch_*.pth'))
    assert json.loads((kept / 'result.json').read_text()) == results(folder)['cnn/kd/seed0']
    for path in folder.rglob('*'):
        if path.suffix in ('.log', '.json', '.jsonl', '.py') and path.is_file():
            assert str(folder) not in path.read_text(), path


def test_a_stored_teacher_is_stored_first_and_then_takes_the_teachers_place(folder):
    kept = folder / 'work_dirs/studies/small/cnn/kd-stored/seed0'
    steps = [json.loads(line)['step'] for line in (kept / 'times.jsonl').read_text().splitlines()]
    assert steps == ['store_teacher', 'train', 'pth_transfer', 'test']
    assert 'model.teacher_store=' in (kept / 'train.log').read_text().splitlines()[0]
    assert not (kept / 'store').exists()


def test_a_shared_store_gives_what_a_store_of_its_own_gives(folder, tmp_path):
    (tmp_path / 'images').symlink_to(folder / 'images')
    write_study(tmp_path, FILE.replace('seeds = [0, 1]', 'seeds = [0]\nshared_teacher = True'))
    output = study(tmp_path, '--only', 'cnn/kd/seed0', 'cnn/nkd/seed0', 'cnn/kd-stored/seed0')
    assert output.count('has stored its teacher for all runs of its views') == 1
    found, before = results(tmp_path), results(folder)
    own, shared = found['cnn/kd-stored/seed0'], found['cnn/kd/seed0']
    assert shared['curve'] == own['curve'] == before['cnn/kd-stored/seed0']['curve']
    assert shared['shared_store'] == found['cnn/nkd/seed0']['shared_store']
    assert shared['shared_store']
    assert not own['shared_store']


def test_a_run_gives_the_student_of_separate_programs(folder):
    """Its steps are forks of one process, whose state must not change a number."""
    kept, alone = folder / 'work_dirs/studies/small/cnn/kd/seed0', folder / 'alone'
    words = {name: shlex.split((kept / f'{name}.log').read_text().splitlines()[0])[3:] for name in ('train', 'test')}
    moved = [word.replace('work_dirs/studies/small/cnn/kd/seed0', 'alone') for word in words['train']]
    run(TOOLBOX / 'tools/train.py', *moved, cwd=folder)
    run(TOOLBOX / 'pth_transfer.py', '--dis_path', alone / 'epoch_3.pth', '--output_path', alone / 'student.pth', cwd=folder)
    moved = [word.replace('work_dirs/studies/small/cnn/kd/seed0', 'alone') for word in words['test']]
    run(TOOLBOX / 'tools/test.py', *moved, cwd=folder)
    ours, theirs = [torch.load(path / 'student.pth')['state_dict'] for path in (kept, alone)]
    assert len(ours) == len(theirs) > 100
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name
    assert (kept / 'test.json').read_text() == (alone / 'test.json').read_text()


def test_a_fresh_run_has_the_same_result(folder):
    assert 'the same in every epoch' in study(folder, '--check', 'cnn/kd/seed1')


def test_nothing_is_done_twice_and_the_report_is_of_these_runs(folder):
    before = results(folder)
    study(folder, *ONLY)
    assert results(folder) == before
    study(folder, '--report')
    first = (folder / 'results.md').read_text()
    assert '`simkd` (1 of 2 seeds)' in first
    assert f'{before["cnn/kd-stored/seed0"]["last"]:.2f}' in first
    assert (folder / 'assets/study_small_cnn.svg').is_file()
    study(folder, '--report')
    assert (folder / 'results.md').read_text() == first
