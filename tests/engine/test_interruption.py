"""A run that is killed and resumed ends with the bits of one that was not."""

import random
import signal
import time

import pytest
from interruption import LOOPS, Run, assert_same_run, die_while_writing, last, write_config

pytestmark = pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning')


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.fixture(scope='session')
def undisturbed(data, tmp_path_factory):
    """The work directory of an undisturbed run, by what is passed to ``write_config``."""
    folder, done = tmp_path_factory.mktemp('undisturbed'), {}

    def get(loop, processes):
        if (loop, processes) not in done:
            work_dir = folder / f'{len(done)}'
            config = write_config(folder / f'{len(done)}.py', data, loop, 0, processes)
            run = Run(config, work_dir, processes=processes)
            assert run.wait() == [0] * processes, run.output()
            done[loop, processes] = work_dir
        return done[loop, processes]

    return get


@pytest.mark.parametrize(
    ('loop', 'processes', 'workers', 'moments'),
    [
        slow('epochs', 1, 0, ['[2][2/4]']),
        slow('epochs', 1, 2, ['Epoch(val) [2]']),
        ('epochs, saved every 3 iterations', 1, 2, ['[3][1/4]']),
        slow('epochs, saved every 3 iterations', 1, 2, ['[1][4/4]', '[3][1/4]']),
        slow('epochs, saved every 3 iterations', 2, 0, ['[2][3/4]']),
        slow('iterations', 1, 2, ['[ 7/12]']),
        slow('iterations', 2, 0, ['[10/12]']),
    ],
    ids=str,
)
def test_killed_at_a_moment(loop, processes, workers, moments, data, undisturbed, tmp_path):
    config = write_config(tmp_path / 'config.py', data, loop, workers, processes)
    for moment in moments:
        run = Run(config, tmp_path / 'run', '--resume', processes=processes)
        assert run.wait_for(moment), run.output()
        run.send(signal.SIGKILL)
        assert run.wait() == [-signal.SIGKILL] * processes
    run = Run(config, tmp_path / 'run', '--resume', processes=processes)
    assert run.wait() == [0] * processes, run.output()
    assert_same_run(tmp_path / 'run', undisturbed(loop, processes))


@pytest.mark.slow
def test_killed_while_a_checkpoint_is_written(data, undisturbed, tmp_path):
    config = write_config(tmp_path / 'config.py', data)
    for name in ('epoch_1.pth', 'epoch_2.pth'):
        run = Run(config, tmp_path / 'run', '--resume', before=die_while_writing(name))
        assert run.wait() == [-signal.SIGKILL], run.output()
        assert not (tmp_path / 'run' / name).exists()
    run = Run(config, tmp_path / 'run', '--resume')
    assert run.wait() == [0], run.output()
    assert_same_run(tmp_path / 'run', undisturbed('epochs', 1))
    assert [path.name for path in (tmp_path / 'run').glob('.*')] == ['.lock']
    assert last(tmp_path / 'run')['meta']['epoch'] == 3


@pytest.mark.parametrize(
    ('alone', 'in_two', 'at_least'),
    [pytest.param(1, 1, 7, marks=pytest.mark.slow), pytest.param(3, 2, 20, marks=pytest.mark.acceptance)],
    ids=['seven times', 'twenty times'],
)
def test_killed_at_random(alone, in_two, at_least, data, undisturbed, tmp_path):
    """Each loop so often in one process and in two: in mid-epoch, and three times while a checkpoint is written."""
    draw = random.Random(0)
    plan = [(loop, 1, draw.choice([0, 2])) for loop in list(LOOPS) * alone] + [(loop, 2, 0) for loop in list(LOOPS) * in_two]
    kills = 0
    for number, (loop, processes, workers) in enumerate(plan):
        config = write_config(tmp_path / f'{number}.py', data, loop, workers, processes)
        work_dir = tmp_path / f'run{number}'
        if number < 3:
            name = 'epoch_2.pth' if loop == 'epochs' else 'iter_6.pth'
            run = Run(config, work_dir, processes=processes, before=die_while_writing(name, draw.random()))
        else:
            run = Run(config, work_dir, processes=processes)
            kill_after(run, draw.randint(1, 10), draw)
        kills += run.wait()[0] == -signal.SIGKILL
        if number % 2 == 0:
            run = Run(config, work_dir, '--resume', processes=processes)
            kill_after(run, 1, draw)
            kills += run.wait()[0] == -signal.SIGKILL
        run = Run(config, work_dir, '--resume', processes=processes)
        assert run.wait() == [0] * processes, run.output()
        assert_same_run(work_dir, undisturbed(loop, processes))
    assert kills >= at_least


def kill_after(run, iterations, draw):
    """Kill a run at a random moment of the iteration after its first so many, of which twelve make a run."""
    assert run.wait_for('(train)', count=iterations), run.output()
    time.sleep(draw.uniform(0, 0.1))
    run.send(signal.SIGKILL)
