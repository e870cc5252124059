"""Two hosts, each in a network namespace of its own: they train together, notice a cut link in time, go on after it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import DISTILLER, accuracy, data_options

from mmcls_kd.files.paths import TOOLBOX

pytestmark = pytest.mark.slow

MASTER, PORT = '10.77.0.1', 29500  # the first host's address, see two_hosts.sh; no other program listens there
TIMEOUT, MARGIN = 20, 10  # s: what the processes wait for one another, and what may go by until the last one has ended
EPOCHS = 6  # of the run that is cut, in its second
LONG = 240  # s: more than any run here takes on a busy machine


class Side:
    """What runs on one of the hosts: dist_train.sh, its output in a file."""

    def __init__(self, command, env, log):
        self.log, self.ended = log, None
        with log.open('w') as file:
            self.process = subprocess.Popen(command, cwd=TOOLBOX, env=env, stdout=file, stderr=subprocess.STDOUT)

    def running(self):
        """Whether it is; notes the time at which it is seen to have ended."""
        if self.ended is None and self.process.poll() is not None:
            self.ended = time.monotonic()
        return self.ended is None

    @property
    def output(self):
        return self.log.read_text(errors='replace')


class TwoHosts:
    """The hosts and the link between them."""

    def __init__(self, name, logs):
        self.name, self.logs, self.sides = name, logs, []

    def link(self, action):
        """What tests/two_hosts.sh does: up, cut, join, down."""
        script = [shutil.which('bash'), TOOLBOX / 'tests' / 'two_hosts.sh', action, self.name]
        return subprocess.run(script, capture_output=True, text=True)

    def train(self, work_dir, *options):
        """Start dist_train.sh on both; the environment does not say which interface to use."""
        env = {k: v for k, v in os.environ.items() if k != 'GLOO_SOCKET_IFNAME'}
        env['PATH'] = f'{Path(sys.executable).parent}{os.pathsep}{env["PATH"]}'
        env.update(NNODES='2', MASTER_ADDR=MASTER, PORT=str(PORT + len(self.sides)), CUDA_VISIBLE_DEVICES='')
        train = ['bash', 'tools/dist_train.sh', DISTILLER, '1', '--work-dir', work_dir, *options]
        pair = []
        for rank in range(2):
            command = ['ip', 'netns', 'exec', f'{self.name}-{rank}', *map(str, train)]
            log = self.logs / f'{len(self.sides)}.log'
            pair.append(Side(command, {**env, 'NODE_RANK': str(rank)}, log))
            self.sides.append(pair[-1])
        return pair

    def down(self):
        """Remove the hosts and end what still runs on them."""
        done = self.link('down')
        for side in self.sides:
            if side.running():
                side.process.send_signal(signal.SIGKILL)
            side.process.wait()
        return done


def wait_for(condition, seconds, sides):
    """Wait until the condition holds; show both outputs if it does not in that time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            shown = [f'--- host {rank}\n{side.output[-3000:]}' for rank, side in enumerate(sides)]
            raise AssertionError('\n'.join([f'not within {seconds} s', *shown]))
        time.sleep(0.05)


def ended(sides):
    return sum(side.running() for side in sides) == 0  # looks at each


@pytest.fixture(scope='module')
def hosts(tmp_path_factory):
    """Two hosts that see each other; skips where this machine allows no network namespaces."""
    if not shutil.which('bash'):
        pytest.skip('there is no bash')
    hosts = TwoHosts(f'mmcls-kd-{os.getpid()}', tmp_path_factory.mktemp('two_hosts'))
    try:
        up = hosts.link('up')
        if up.returncode == 77:
            pytest.skip(up.stderr.splitlines()[-1])
        assert up.returncode == 0, up.stderr
        yield hosts
    finally:
        down = hosts.down()
    assert down.returncode == 0, down.stderr


def options(data, epochs):
    changed = [f'train_cfg.max_epochs={epochs}', f'env_cfg.dist_cfg.timeout={TIMEOUT}']
    return ['--cfg-options', *data_options(data), *changed]


@pytest.fixture(scope='module')
def cut(hosts, data, tmp_path_factory):
    """A run whose link is cut in its second epoch, and how long each side took to end after that."""
    work_dir = tmp_path_factory.mktemp('cut')
    sides = hosts.train(work_dir, *options(data, EPOCHS))
    wait_for(lambda: ' [2][2/4]' in sides[0].output or ended(sides), LONG, sides)
    assert not ended(sides), [side.output[-3000:] for side in sides]
    assert 'Epoch(train) [1][4/4]' in sides[0].output  # 256 images in batches of 32 on each of two
    start = time.monotonic()
    done = hosts.link('cut')
    assert done.returncode == 0, done.stderr
    wait_for(lambda: ended(sides), 3 * TIMEOUT, sides)
    seconds = [side.ended - start for side in sides]
    print(f'after the cut the sides ended within {seconds[0]:.1f} s and {seconds[1]:.1f} s')
    return SimpleNamespace(work_dir=work_dir, sides=sides, seconds=seconds)


def test_both_sides_end_in_time_and_say_so_when_the_link_is_cut(cut):
    for side, seconds in zip(cut.sides, cut.seconds, strict=True):
        assert side.process.returncode == 1, side.output[-3000:]
        last = side.output.splitlines()[-1]
        assert last.startswith('train.py: error: contact with another process is lost (')
        assert last.endswith('; start all again with --resume')
        assert seconds < TIMEOUT + MARGIN
    assert f'[{EPOCHS}]' not in cut.sides[0].output


def test_started_again_they_go_on(cut, hosts, data):
    assert hosts.link('join').returncode == 0
    epoch = int(Path((cut.work_dir / 'last_checkpoint').read_text()).stem.removeprefix('epoch_'))
    assert 1 <= epoch < EPOCHS
    sides = hosts.train(cut.work_dir, '--resume', *options(data, EPOCHS))
    wait_for(lambda: ended(sides), LONG, sides)
    assert [side.process.returncode for side in sides] == [0, 0], [side.output[-3000:] for side in sides]
    assert accuracy(sides[0].output) > 0
    assert f'resumed epoch: {epoch}, iter: {4 * epoch}' in sides[0].output
    trained = [line.split('Epoch(train)')[1].split()[0] for line in sides[0].output.splitlines() if 'Epoch(train)' in line]
    assert [trained[0], trained[-1]] == [f'[{epoch + 1}][2/4]', f'[{EPOCHS}][4/4]']
