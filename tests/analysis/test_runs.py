"""Work directories: what is read of them, over resumed parts, and what is refused."""

import json

import pytest
from analysis_kit import records, write_lines, write_run

from mmcls_kd.analysis.runs import find_checkpoints, joined, last_logged, names_of, read_lines, read_run


def steps(lines):
    return [line['step'] for line in lines]


@pytest.fixture(scope='module')
def folder(data, tmp_path_factory):
    return write_run(tmp_path_factory.mktemp('runs') / 'kd', data, ['kd'], epochs=(1, 2, 3))


def test_what_a_run_left(folder):
    run = read_run(folder, 'kd')
    assert run.is_distiller
    assert run.cfg.methods == ['kd']
    assert (run.unit, run.last, run.steps_per_unit) == ('epoch', 3, 4.0)
    assert list(run.checkpoints) == [1, 2, 3]
    assert run.accuracies() == [(1, 20.0), (2, 40.0), (3, 60.0)]
    assert list(run.terms()) == ['task loss', 'loss_kd']
    assert run.terms()['task loss'][:2] == [(0.5, 1.0), (1.0, 0.5)]


def test_a_student_alone_has_the_task_loss(data, tmp_path):
    run = read_run(write_run(tmp_path / 'alone', data), 'alone')
    assert not run.is_distiller
    assert list(run.terms()) == ['task loss']


def test_checkpoints_are_spread_with_first_and_last(folder):
    run = read_run(folder, 'kd')
    run.checkpoints.update(dict.fromkeys(range(4, 12), folder))
    assert list(run.some_checkpoints(3)) == [1, 6, 11]
    assert list(run.some_checkpoints(1)) == [11]
    assert list(run.some_checkpoints(99)) == list(range(1, 12))


def test_what_a_resumed_part_did_anew_counts():
    first, second = records((1, 2)), records((2, 3), loss=9.0)
    training, validation = joined([first, second])
    assert steps(training) == [2, 4, 6, 8, 10, 12]
    assert [line['loss'] * line['step'] for line in training] == pytest.approx([3, 3, 9, 9, 9, 9])
    assert steps(validation) == [1, 2, 3]


def test_a_run_started_afresh_takes_the_place_of_all():
    training, validation = joined([records((1, 2, 3)), records((1,))])
    assert steps(training) == [2, 4]
    assert steps(validation) == [1]


@pytest.mark.parametrize(('resume', 'steps_kept', 'epochs_kept'), [(False, [6], [2]), (True, [2, 4, 6], [1, 2])])
def test_a_fresh_start_that_logs_less_often_takes_the_place_of_all(data, tmp_path, resume, steps_kept, epochs_kept):
    folder = write_run(tmp_path / 'kd', data, ['kd'])
    later = [line for line in records((2,)) if line['step'] in (2, 6)]
    write_lines(folder / '20300102_000000' / 'vis_data', later)
    (folder / '20300102_000000' / 'vis_data' / 'config.py').write_text(f'model = dict()\nresume = {resume}\n')
    run = read_run(folder, 'kd')
    assert steps(run.training) == steps_kept
    assert steps(run.validation) == epochs_kept


def test_checkpoints_of_epochs_are_not_those_of_a_later_training_by_iterations(data, tmp_path):
    folder = write_run(tmp_path / 'kd', data, ['kd'])
    lines = [{'loss': 1.0, 'iter': step, 'step': step} for step in (2, 4)] + [{'accuracy/top1': 30.0, 'step': 4}]
    write_lines(folder / '20300102_000000' / 'vis_data', lines)
    (folder / '20300102_000000' / 'vis_data' / 'config.py').write_text('model = dict()\n')
    (folder / 'epoch_1.pth').rename(folder / 'iter_4.pth')
    run = read_run(folder, 'kd')
    assert (run.unit, [*run.checkpoints], run.accuracies()) == ('iter', [4], [(4, 30.0)])


def test_the_config_is_that_of_the_last_training_not_of_a_test(folder, data, tmp_path):
    again = write_run(tmp_path / 'kd', data, ['kd'])
    write_lines(again / '20300102_000000' / 'vis_data', [{'accuracy/top1': 99.0, 'step': 0}])
    (again / '20300102_000000' / 'vis_data' / 'config.py').write_text('model = dict()\n')
    run = read_run(again, 'kd')
    assert run.is_distiller
    assert run.accuracies() == [(1, 20.0), (2, 40.0)]


def test_an_unfinished_last_line_does_not_count(tmp_path):
    path = tmp_path / 'scalars.json'
    path.write_text('{"step": 1}\n{"step": 2}\n{"ste')
    assert steps(read_lines(path)) == [1, 2]
    path.write_text('{"step": 1}\n{"ste\n{"step": 3}\n')
    with pytest.raises(ValueError, match='line 2 is no JSON'):
        read_lines(path)


def test_only_whole_checkpoints_of_epochs_or_iterations_count(tmp_path):
    for name in ('epoch_2.pth', 'epoch_10.pth', 'epoch_1-abcdef12.pth', 'best_accuracy_epoch_3.pth', 'student.pth'):
        (tmp_path / name).touch()
    assert find_checkpoints(tmp_path, {}) == ('epoch', {2: tmp_path / 'epoch_2.pth', 10: tmp_path / 'epoch_10.pth'})


def test_iterations(tmp_path):
    for name in ('iter_200.pth', 'iter_1000.pth'):
        (tmp_path / name).touch()
    unit, found = find_checkpoints(tmp_path, {'epoch': 3})
    assert (unit, list(found)) == ('iter', [200, 1000])
    assert list(find_checkpoints(tmp_path, {'iter': 999})[1]) == [200]


def test_later_checkpoints_of_an_earlier_run_do_not_count(data, tmp_path):
    folder = write_run(tmp_path / 'kd', data, ['kd'])
    (folder / 'epoch_9.pth').write_bytes(b'left by another run')
    run = read_run(folder, 'kd')
    assert (run.last, list(run.checkpoints), run.steps_per_unit) == (2, [1, 2], 4.0)
    for number in (1, 2):
        (folder / f'epoch_{number}.pth').unlink()
    with pytest.raises(FileNotFoundError, match='no checkpoint epoch_'):
        read_run(folder, 'kd')


def test_iterations_after_the_last_record_count():
    assert last_logged([dict(step=100), dict(step=200)], 100) == {'epoch': 0, 'iter': 299}


def test_a_method_without_loss_in_its_name_is_a_term(folder):
    run = read_run(folder, 'kd')
    entry = next(group.methods[0] for group in run.cfg.model.distill_cfg if group.methods[0].name == 'loss_kd')
    entry.name = 'imitation'
    for record in run.training:
        record['imitation'] = record.pop('loss_kd')
        record['temp_imitation'] = 4.0
    assert list(run.terms()) == ['task loss', 'imitation']


class TestRefusals:
    def said(self, folder):
        with pytest.raises(FileNotFoundError) as refused:
            read_run(folder, 'run')
        assert str(folder) in str(refused.value)
        assert 'name the --work-dir of a training' in str(refused.value)
        return str(refused.value)

    def test_no_folder(self, tmp_path):
        assert 'no such folder' in self.said(tmp_path / 'nowhere')

    def test_nothing_logged(self, tmp_path):
        assert 'no */vis_data/scalars.json of a training' in self.said(tmp_path)

    def test_a_test_alone(self, tmp_path):
        write_lines(tmp_path / 'x' / 'vis_data', [{'accuracy/top1': 99.0, 'step': 0}])
        assert 'of a training is in it' in self.said(tmp_path)

    def test_no_config(self, tmp_path):
        write_lines(tmp_path / 'x' / 'vis_data', records())
        assert 'config.py: no such file' in self.said(tmp_path)

    def test_no_checkpoint(self, tmp_path):
        write_lines(tmp_path / 'x' / 'vis_data', records())
        (tmp_path / 'x' / 'vis_data' / 'config.py').write_text('model = dict()\n')
        assert 'no checkpoint epoch_*.pth' in self.said(tmp_path)


class TestNames:
    def test_those_of_the_folders(self, tmp_path):
        assert names_of([tmp_path / 'a', tmp_path / 'b'], None) == ['a', 'b']

    def test_longer_where_they_would_be_the_same(self, tmp_path):
        assert names_of([tmp_path / 'a' / 'seed0', tmp_path / 'b' / 'seed0'], None) == ['a/seed0', 'b/seed0']

    def test_as_given(self, tmp_path):
        assert names_of([tmp_path, tmp_path], ['x', 'y']) == ['x', 'y']

    @pytest.mark.parametrize(
        ('given', 'said'),
        [(['x'], '1 names for 2'), (['x', 'x'], "two runs are called 'x'"), (None, 'once, or give --names')],
    )
    def test_refused(self, given, said, tmp_path):
        with pytest.raises(ValueError, match=said):
            names_of([tmp_path, tmp_path], given)


def test_what_is_logged_stays_json(folder):
    (path,) = folder.glob('*/vis_data/scalars.json')
    assert all(json.loads(line) for line in path.read_text().splitlines())
