"""A run that is asked to end saves its state, in all processes, and says so by its exit code."""

import os
import pkgutil
import signal
import subprocess
import time

import pytest
from commands import DISTILLER, TOOLBOX, data_options, run
from interruption import Run, assert_same_run, fork, last, write_config
from processes import free_port
from toy_runs import ToyModel, toy_runner

from mmcls_kd.errors import EXIT_CODE, TerminationError

pytestmark = pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning')


@pytest.fixture(scope='module')
def undisturbed(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp('undisturbed')
    done = Run(write_config(folder / 'config.py', data), folder / 'run')
    assert done.wait() == [0], done.output()
    return folder / 'run'


@pytest.mark.parametrize(
    'moment', ['[2][2/4]', pytest.param('Epoch(val) [2][1/2]', marks=pytest.mark.slow)], ids=['iteration', 'validation']
)
def test_one_process(moment, data, undisturbed, tmp_path):
    config = write_config(tmp_path / 'config.py', data)
    first = Run(config, tmp_path / 'run')
    assert first.wait_for(moment), first.output()
    first.send(signal.SIGTERM)
    assert first.wait() == [EXIT_CODE], first.output()
    assert 'train.py: asked to end: the state is saved in ' in first.output().splitlines()[-1]
    second = Run(config, tmp_path / 'run', '--resume')
    assert second.wait() == [0], second.output()
    assert_same_run(tmp_path / 'run', undisturbed)
    assert not (tmp_path / 'run' / 'terminated.pth').exists()  # the next checkpoint took its place


def test_all_processes_end_when_one_is_asked(data, tmp_path):
    config = write_config(tmp_path / 'config.py', data, processes=2)
    both = Run(config, tmp_path / 'run', '--cfg-options', 'train_cfg.max_epochs=50', processes=2)
    assert both.wait_for('[1][2/4]'), both.output()
    both.send(signal.SIGTERM, rank=1)
    assert both.wait() == [EXIT_CODE, EXIT_CODE], both.output()
    assert last(tmp_path / 'run')['meta']['iter'] in (
        4,
        5,
    )  # they ask one another before validation, and every five iterations


@pytest.mark.parametrize('loop', [dict(max_epochs=1), dict(type='ResumableIterLoop', max_iters=3)])
@pytest.mark.parametrize('end', ['normal', 'error', 'request'])
def test_the_handler_from_before_a_training_is_there_after_it(end, loop, tmp_path, monkeypatch):
    calls = []

    def own(*_):
        calls.append(end)

    def train_step(*args, **keywords):
        os.kill(os.getpid(), signal.SIGTERM)
        if end == 'error':
            raise RuntimeError('broken')
        return original(*args, **keywords)

    original = ToyModel.train_step
    hooks = [dict(type='TerminationHook')]
    runner = toy_runner(tmp_path, train_cfg=dict(type='ResumableEpochLoop') | loop, custom_hooks=hooks)
    before = signal.signal(signal.SIGTERM, own)
    try:
        if end == 'normal':
            runner.train()
        else:
            monkeypatch.setattr(ToyModel, 'train_step', train_step)
            with pytest.raises(RuntimeError if end == 'error' else TerminationError):
                runner.train()
        assert signal.getsignal(signal.SIGTERM) is own
        assert not calls  # the training had the signal to itself
        os.kill(os.getpid(), signal.SIGTERM)
        assert calls == [end]
    finally:
        signal.signal(signal.SIGTERM, before)


def held_up(name):
    """Makes a child wait where a tool calls a function of mmcls_kd.runtime or a method; for ``before``."""

    def prepare():
        def wait(*_):
            print('here', flush=True)
            time.sleep(60)

        owner, _, attribute = name.rpartition('.')
        setattr(pkgutil.resolve_name(owner), attribute, wait)

    return prepare


@pytest.mark.parametrize(
    ('tool', 'arguments', 'place', 'said'),
    [
        ('train', [], 'mmcls_kd.engine.runtime.build_runner', 'nothing had begun; the same command starts'),
        (
            'store_teacher',
            ['--epochs', '1'],
            'mmcls_kd.teacher_store.writer.StoreWriter.write',
            'what is stored stays; the same command goes on',
        ),
    ],
)
def test_while_it_starts_and_stores(tool, arguments, place, said, data, tmp_path):
    words = [DISTILLER, '--work-dir', tmp_path, *arguments, '--methods', 'kd', '--cfg-options', *data_options(data)]
    log = tmp_path / 'log'
    child = fork(words, log, {'MMCLS_KD_STATUS': str(tmp_path)}, held_up(place), f'tools/{tool}.py')
    while not log.exists() or 'here' not in log.read_text():
        assert not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT), log.read_text()
        time.sleep(0.05)
    os.kill(child, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == EXIT_CODE
    assert log.read_text().splitlines()[-1] == f'{tool}.py: asked to end; {said}'
    assert (tmp_path / 'terminated').exists()


def launched(config, work_dir, *options, **environment):
    """Start dist_train.sh in two processes; returns it and its log."""
    log = work_dir.with_suffix('.log')
    env = {**os.environ, 'PORT': str(free_port()), 'CUDA_VISIBLE_DEVICES': '', **environment}
    command = ['bash', TOOLBOX / 'tools' / 'dist_train.sh', config, '2', '--work-dir', work_dir, *options]
    with log.open('a') as file:
        return subprocess.Popen([str(word) for word in command], stdout=file, stderr=file, env=env), log


def wait_for(log, text, process):
    while process.poll() is None and text not in log.read_text():
        time.sleep(0.05)
    assert text in log.read_text(), log.read_text()[-3000:]


@pytest.mark.slow
class TestDistTrain:
    def test_asked_to_end_it_has_an_exit_code_of_its_own(self, data, tmp_path):
        config = write_config(tmp_path / 'config.py', data, processes=2)
        process, log = launched(config, tmp_path / 'run', '--cfg-options', 'train_cfg.max_epochs=300')
        wait_for(log, '[1][2/4]', process)
        process.terminate()
        assert process.wait(60) == EXIT_CODE
        assert 'the same command with --resume goes on' in log.read_text().splitlines()[-1]
        assert (tmp_path / 'run' / 'last_checkpoint').exists()

    def test_asked_before_it_began(self, data, tmp_path):
        config = write_config(tmp_path / 'config.py', data, processes=2)
        process, log = launched(config, tmp_path / 'run')
        time.sleep(1)
        process.terminate()
        assert process.wait(60) == EXIT_CODE
        assert 'Traceback' not in log.read_text()
        assert 'the same command with --resume goes on' in log.read_text().splitlines()[-1]

    def test_a_rank_that_died_is_started_again_and_the_run_resumes(self, data, tmp_path):
        config = write_config(tmp_path / 'config.py', data, 'epochs, saved every 3 iterations', processes=2)
        calm = Run(config, tmp_path / 'calm', processes=2)
        assert calm.wait() == [0, 0], calm.output()
        process, log = launched(config, tmp_path / 'run', MAX_RESTARTS='1')
        wait_for(log, '[2][1/4]', process)
        workers = subprocess.run(['pgrep', '-f', f'train.py {config}'], capture_output=True, text=True).stdout.split()
        victim = max(int(w) for w in workers)  # started last: a worker of the launcher, not the launcher
        os.kill(victim, signal.SIGKILL)
        assert process.wait(120) == 0, log.read_text()[-3000:]
        assert_same_run(tmp_path / 'run', tmp_path / 'calm')

    def test_its_last_line_is_the_cause(self, data, tmp_path):
        env = {**os.environ, 'PORT': str(free_port()), 'CUDA_VISIBLE_DEVICES': ''}
        options = [*data_options(data), 'model.teacher_pretrained=nowhere.pth']
        command = ['tools/dist_train.sh', DISTILLER, 2, '--work-dir', tmp_path, '--cfg-options', *options]
        done = run(*command, env=env, check=False)
        assert done.returncode == 1
        assert done.output.splitlines()[-1].startswith('train.py: error: teacher weights nowhere.pth: no such file')

    def test_its_exit_code_tells_a_divergence_apart(self, data, tmp_path):
        env = {**os.environ, 'PORT': str(free_port()), 'CUDA_VISIBLE_DEVICES': ''}
        command = ['tools/dist_train.sh', DISTILLER, 2, '--work-dir', tmp_path]
        done = run(*command, '--cfg-options', *data_options(data), 'param_scheduler.eta_max=1e30', env=env, check=False)
        assert done.returncode == 3
        assert 'became NaN or infinite in epoch 1' in done.output.splitlines()[-1]
