"""Checkpoints: whole or not there, found again, small, and passed over where they are damaged."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from interruption import Run, assert_equal, assert_same_run, last, write_config
from mmengine.runner import Runner

from mmcls_kd.configs.reading import read_config
from mmcls_kd.engine import last_whole_checkpoint
from mmcls_kd.engine.checkpoint_hook import launch_id
from mmcls_kd.files.atomic import atomic_path
from mmcls_kd.files.checkpoint import read_checkpoint

pytestmark = pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning')


@pytest.fixture(scope='module')
def finished(data, tmp_path_factory):
    """A finished run of three epochs with its config."""
    folder = tmp_path_factory.mktemp('finished')
    run = Run(write_config(folder / 'config.py', data), folder / 'run')
    assert run.wait() == [0], run.output()
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished run's folder: moved, and free to be damaged."""
    shutil.copytree(finished, tmp_path / 'moved')
    return tmp_path / 'moved'


def tell_reads():
    """Let a child print each file that torch reads."""
    load = torch.load

    def told(path, **keywords):
        print(f'{Path(path).name} is read')
        return load(path, **keywords)

    torch.load = told


def test_the_last_ones_are_kept_and_nothing_else(finished):
    assert sorted(p.name for p in (finished / 'run').glob('*.pth')) == ['epoch_2.pth', 'epoch_3.pth']
    assert [p.name for p in (finished / 'run').glob('.*')] == ['.lock']


class TestWhatIsResumed:
    def damage(self, work_dir, name):
        path = work_dir / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    @pytest.mark.slow
    def test_a_moved_directory_is_resumed_from_itself(self, copied, data):
        self.damage(copied / 'run', 'epoch_3.pth')  # as if the run had been killed in its last epoch
        run = Run(copied / 'config.py', copied / 'run', '--resume')
        assert run.wait() == [0], run.output()
        assert 'epoch_3.pth is passed over: ' in run.output()
        assert f'Load checkpoint from {copied / "run" / "epoch_2.pth"}' in run.output()

    def test_a_truncated_one_is_passed_over_with_a_warning_and_the_one_before_is_read_once(self, copied, finished):
        self.damage(copied / 'run', 'epoch_3.pth')
        run = Run(copied / 'config.py', copied / 'run', '--resume', before=tell_reads)
        assert run.wait() == [0], run.output()
        assert run.output().count('epoch_2.pth is read') == 1
        assert 'epoch_3.pth is passed over: ' in run.output()
        assert_same_run(copied / 'run', finished / 'run')

    @pytest.mark.parametrize('content', ['', '/nowhere/at_all.pth', '\0\0\0'])
    def test_a_damaged_pointer(self, copied, content):
        (copied / 'run' / 'last_checkpoint').write_text(content)
        path, checkpoint = last_whole_checkpoint(copied / 'run')
        assert path.name == 'epoch_3.pth'
        assert checkpoint['meta']['epoch'] == 3

    def test_an_empty_file_and_weights_alone_are_passed_over(self, copied):
        (copied / 'run' / 'epoch_3.pth').write_bytes(b'')
        torch.save(dict(state_dict={}), copied / 'run' / 'epoch_4.pth')
        assert last_whole_checkpoint(copied / 'run')[0].name == 'epoch_2.pth'

    @pytest.mark.slow
    def test_nothing_to_resume_starts_anew(self, data, tmp_path):
        run = Run(write_config(tmp_path / 'config.py', data), tmp_path / 'run', '--resume')
        assert run.wait_for('[1][1/4]'), run.output()
        run.send(signal.SIGKILL)
        run.wait()
        assert 'nothing to resume in' in run.output()

    @pytest.fixture
    def numbered(self, tmp_path):
        """Writes checkpoints of these numbers, each file with a later time than the one before."""

        def write(*numbers, launch=None, pointer=None):
            for time, number in enumerate(numbers):
                path = tmp_path / f'epoch_{number}.pth'
                torch.save(dict(optimizer={}, meta=dict(epoch=number, iter=number, launch=launch)), path)
                os.utime(path, (time, time))
            (tmp_path / 'last_checkpoint').write_text(f'epoch_{pointer}.pth')
            return tmp_path

        return write

    def test_a_restart_takes_what_its_own_launch_has_saved_whatever_the_time(self, numbered):
        work_dir = numbered(9, 8, launch='before', pointer=8)
        assert last_whole_checkpoint(work_dir, 'now') is None
        numbered(1, launch='now', pointer=8)  # its time is older than the others'
        assert last_whole_checkpoint(work_dir, 'now')[0].name == 'epoch_1.pth'
        assert last_whole_checkpoint(work_dir)[0].name == 'epoch_8.pth'

    def test_before_the_damaged_last_one_counts_the_number_and_not_the_time(self, numbered):
        work_dir = numbered(90, 3, 2, 1, pointer=4)  # 90 is of an earlier run
        assert last_whole_checkpoint(work_dir)[0].name == 'epoch_3.pth'

    def test_checkpoints_hold_the_launch(self, monkeypatch):
        monkeypatch.delenv('MMCLS_KD_LAUNCH', raising=False)
        monkeypatch.delenv('TORCHELASTIC_RUN_ID', raising=False)
        assert launch_id() is None
        monkeypatch.setenv('TORCHELASTIC_RUN_ID', 'none')  # torchrun by itself: named by its process
        assert launch_id().startswith(f'{os.getppid()}-')
        monkeypatch.setenv('MMCLS_KD_LAUNCH', 'abc')
        assert launch_id() == 'abc'

    @pytest.mark.slow
    def test_the_seed_is_the_checkpoint_s(self, copied, finished):
        self.damage(copied / 'run', 'epoch_3.pth')
        run = Run(copied / 'config.py', copied / 'run', '--resume', '--cfg-options', 'randomness.seed=8')
        assert run.wait() == [0], run.output()
        assert 'the seed is 7, as in epoch_2.pth, not 8, as in the config' in run.output()
        assert_same_run(copied / 'run', finished / 'run')

    @pytest.mark.slow
    def test_a_run_without_a_seed_resumes_too(self, data, tmp_path):
        config = write_config(tmp_path / 'config.py', data)
        config.write_text(config.read_text().replace('seed=7', 'seed=None'))
        whole = Run(config, tmp_path / 'whole')
        assert whole.wait() == [0], whole.output()
        shutil.copytree(tmp_path / 'whole', tmp_path / 'again')
        self.damage(tmp_path / 'again', 'epoch_3.pth')
        run = Run(config, tmp_path / 'again', '--resume')
        assert run.wait() == [0], run.output()
        assert_equal(last(tmp_path / 'again')['state_dict'], last(tmp_path / 'whole')['state_dict'])

    @pytest.mark.slow
    def test_another_batch_size_goes_on_at_the_start_of_an_epoch(self, copied):
        self.damage(copied / 'run', 'epoch_3.pth')
        run = Run(copied / 'config.py', copied / 'run', '--resume', '--cfg-options', 'train_dataloader.batch_size=64')
        assert run.wait() == [0], run.output()
        assert 'has 2 now: the run resumes at the start of epoch 3' in run.output()


class TestWriting:
    def test_an_interrupted_writer_leaves_what_was_there(self, tmp_path):
        (tmp_path / 'a.pth').write_text('before')

        def write():
            with atomic_path(tmp_path / 'a.pth') as unfinished:
                unfinished.write_text('half')
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write()
        assert (tmp_path / 'a.pth').read_text() == 'before'
        assert [p.name for p in tmp_path.iterdir()] == ['a.pth']

    def test_an_error_names_the_file_and_not_the_one_aside(self):
        with pytest.raises(OSError, match="'/proc/a.pth'"), atomic_path(Path('/proc/a.pth')) as unfinished:
            unfinished.write_text('half')

    @pytest.fixture
    def small_disk(self, finished, tmp_path):
        """A file system with room for one checkpoint and not for two."""
        disk = tmp_path / 'disk'
        disk.mkdir()
        size = f'size={int(1.5 * (finished / "run" / "epoch_3.pth").stat().st_size)}'
        mounted = subprocess.run(['mount', '-t', 'tmpfs', '-o', size, 'tmpfs', disk], capture_output=True, text=True)
        if mounted.returncode:
            pytest.skip(f'a file system cannot be mounted here: {mounted.stderr.strip()}')
        yield disk
        subprocess.run(['umount', '-l', disk], check=True)

    def test_a_full_disk(self, data, small_disk, tmp_path):
        config = write_config(tmp_path / 'config.py', data)
        options = ['default_hooks.checkpoint.out_dir=' + str(small_disk), 'default_hooks.checkpoint.max_keep_ckpts=5']
        run = Run(config, tmp_path / 'run', '--cfg-options', *options)
        assert run.wait() == [1], run.output()
        message = run.output().splitlines()[-1]
        assert message.startswith('train.py: error: the checkpoint ')
        assert 'cannot be written (No space left on device); the last whole one: ' in message
        files = [p.name for p in (small_disk / 'run').iterdir()]
        assert files == ['epoch_1.pth']
        assert read_checkpoint(small_disk / 'run' / 'epoch_1.pth')['meta']['epoch'] == 1
        assert last_whole_checkpoint(tmp_path / 'run')[0] == small_disk / 'run' / 'epoch_1.pth'


@pytest.mark.slow
def test_a_checkpoint_is_as_small_as_the_student_s_own(finished, data, tmp_path):
    """Beside the losses' trainable parts there is nothing that plain mmpretrain would not save."""
    plain = read_config(str(finished / 'config.py'))
    plain.model = read_config('configs/fashion_mnist/resnet18-w4_3e.py').model
    plain.work_dir, plain.custom_hooks, plain.default_scope = str(tmp_path / 'plain'), [dict(type='EMAHook')], 'mmpretrain'
    plain.train_dataloader.collate_fn = plain.val_dataloader.collate_fn = dict(type='default_collate')
    plain.train_cfg.max_epochs, plain.experiment_name = 3, 'plain'
    child = os.fork()
    if child == 0:  # mmengine's runner leaves global state
        code = 1
        try:
            Runner.from_cfg(plain).train()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    checkpoint = last(finished / 'run')
    trained = [i for i, name in enumerate(checkpoint['optimizer_names']) if name.startswith('distill_losses.')]
    assert trained
    for i in trained:
        del checkpoint['optimizer']['state'][i]
    for part in ('state_dict', 'ema_state_dict'):
        checkpoint[part] = {k: v for k, v in checkpoint[part].items() if 'distill_losses.' not in k}
    torch.save(checkpoint, tmp_path / 'without.pth')
    ours = (tmp_path / 'without.pth').stat().st_size
    assert ours <= 1.05 * (tmp_path / 'plain' / 'epoch_3.pth').stat().st_size
