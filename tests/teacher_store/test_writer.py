"""Making a store: resumed where it stopped, in one process or more, and refused before it starts where it cannot be."""

import json
import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from commands import STUDENT
from commands import run as run_program
from mmpretrain.registry import MODELS
from PIL import Image
from processes import free_port
from stores import IMAGES, MIXUP, Watched, make, refused, run_both, train, write_config

from mmcls_kd.engine.console import Progress
from mmcls_kd.files.paths import TOOLBOX
from mmcls_kd.networks.sources import network_cfg
from mmcls_kd.teacher_store import TeacherStore, writer
from mmcls_kd.teachers.records import decode
from mmcls_kd.teachers.store import Shard

pytestmark = [
    pytest.mark.filterwarnings('ignore:.*instance named of'),
    pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning'),
]

BATCH = 32
FILES = 4  # an epoch has so many where each holds the records of one batch


@pytest.fixture(autouse=True)
def _small_files(monkeypatch):
    monkeypatch.setattr('mmcls_kd.teacher_store.writer.SHARD_BYTES', BATCH * 20)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('writer')


@pytest.fixture(scope='module')
def config(data, folder):
    return write_config(folder / 'config.py', data)


@pytest.fixture(scope='module')
def undisturbed(config, folder):
    """A store of two epochs of four files each, and what the tool logged."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('mmcls_kd.teacher_store.writer.SHARD_BYTES', BATCH * 20)
        patch.setattr('mmcls_kd.engine.console.TELL_EVERY', 0)
        log = make(config, folder / 'store')
    return SimpleNamespace(folder=folder / 'store', log=log)


@pytest.fixture
def copy(undisturbed, tmp_path):
    """A copy of that store to do harm to."""
    return shutil.copytree(undisturbed.folder, tmp_path / 'store')


def contents(folder):
    """The bytes of all files in a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def versions(folder):
    """What changes when a file of records is written again, by its path."""
    return {str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.rglob('*.npy')}


def rewritten(before, after):
    """The files that are there anew."""
    return sorted(path for path, version in after.items() if before.get(path) != version)


def interrupt_after(count, config, folder):
    """Make a store, and be interrupted in the middle of the file that comes after so many."""
    save, done = writer.save, []

    def save_or_stop(folder, shard, records):
        if len(done) == count:
            path = (folder / shard.path).with_suffix('.part')
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b'half of a file')
            raise KeyboardInterrupt
        done.append(shard)
        save(folder, shard, records)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, 'save', save_or_stop)
        with pytest.raises(SystemExit, match='130'):
            make(config, folder)


class TestResuming:
    @pytest.mark.parametrize('moments', [pytest.param((0,), marks=pytest.mark.slow), (2, 3)], ids=str)
    def test_an_interrupted_one_goes_on(self, moments, config, undisturbed, tmp_path):
        done = 0
        for count in moments:
            interrupt_after(count, config, tmp_path / 'store')
            done += count
            before = versions(tmp_path / 'store')
            assert len(before) == done + 2  # weight and bias of the classifier too
        manifest = json.loads((tmp_path / 'store' / 'manifest.json').read_text())
        assert manifest['epochs'] == done // FILES
        log = make(config, tmp_path / 'store')
        assert contents(tmp_path / 'store') == contents(undisturbed.folder)
        assert len(rewritten(before, versions(tmp_path / 'store'))) == 2 * FILES - done
        rows = 2 * IMAGES - done * BATCH + (BATCH * FILES - IMAGES) * (done // FILES)
        assert f'teacher: {rows}/{rows} views' in log

    def test_a_whole_one_stays(self, config, undisturbed, copy):
        before = versions(copy)
        log = make(config, copy)
        assert rewritten(before, versions(copy)) == []
        assert contents(copy) == contents(undisturbed.folder)
        assert 'views, ' not in log.split('MiB in all')[1]

    def test_what_is_damaged_or_missing_is_written_again_and_nothing_else(self, config, undisturbed, copy):
        damaged, missing, unlisted = (copy / Shard(*where).path for where in ((0, 0, 1), (1, 0, 3), (1, 0, 0)))
        damaged.write_bytes(damaged.read_bytes()[:-4] + b'\0\1\2\3')
        missing.unlink()
        listing = unlisted.parent / 'SHA256SUMS'
        listing.write_text(listing.read_text().split('\n', 1)[1])
        before = versions(copy)
        make(config, copy)
        assert contents(copy) == contents(undisturbed.folder)
        names = sorted(str(path.relative_to(copy)) for path in (damaged, missing, unlisted))
        assert rewritten(before, versions(copy)) == names

    @pytest.mark.slow
    def test_an_epoch_more(self, config, undisturbed, tmp_path):
        make(config, tmp_path / 'store', 1)
        assert TeacherStore(tmp_path / 'store').manifest.epochs == 1
        before = versions(tmp_path / 'store')
        make(config, tmp_path / 'store', 2)
        assert contents(tmp_path / 'store') == contents(undisturbed.folder)
        names = [f'epoch_1/rank_0/{number:05d}.npy' for number in range(FILES)]
        assert rewritten(before, versions(tmp_path / 'store')) == names

    def test_fewer_epochs_take_none_away(self, config, undisturbed, copy):
        make(config, copy, 1)
        assert contents(copy) == contents(undisturbed.folder)

    def test_with_workers(self, config, undisturbed, copy):
        """Which look ahead, where the writing leaves an epoch in its middle."""
        for where in ((0, 0, 0), (0, 0, 2), (1, 0, 1)):
            (copy / Shard(*where).path).unlink()
        make(config, copy, options=['train_dataloader.num_workers=2', 'train_dataloader.persistent_workers=True'])
        assert contents(copy) == contents(undisturbed.folder)

    @pytest.mark.slow
    def test_workers_that_stay_do_not_keep_the_program_from_ending(self, config, copy, tmp_path):
        words = [sys.executable, TOOLBOX / 'tools/store_teacher.py', config, '--epochs', '2', '--store', copy]
        options = ['train_dataloader.num_workers=2', 'train_dataloader.persistent_workers=True']
        (copy / Shard(0, 0, 0).path).unlink()
        words = [*words, '--work-dir', tmp_path / 'run', '--cfg-options', *options]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0
        assert done.stdout.splitlines()[-1].endswith(f'2 epochs are stored: train with model.teacher_store={copy}')
        assert 'Traceback' not in done.stderr

    @pytest.mark.slow
    @pytest.mark.parametrize('batch_size', [24, 48, 101])
    def test_with_another_batch_size(self, batch_size, config, undisturbed, copy):
        for number in (1, 3):
            (copy / Shard(0, 0, number).path).unlink()
        make(config, copy, options=[f'train_dataloader.batch_size={batch_size}'])
        stored, expected = (TeacherStore(folder) for folder in (copy, undisturbed.folder))
        assert stored.manifest == expected.manifest
        stored.check()
        a, b = (decode(store.read(0, range(IMAGES)), 10) for store in (stored, expected))
        torch.testing.assert_close(a, b, rtol=2**-10, atol=1e-5)

    @pytest.mark.slow
    def test_with_mixup(self, data, tmp_path):
        """The draws of a batch are those of its iteration, wherever the writing starts."""
        config = write_config(tmp_path / 'config.py', data, MIXUP)
        make(config, tmp_path / 'whole')
        interrupt_after(6, config, tmp_path / 'store')
        make(config, tmp_path / 'store')
        assert contents(tmp_path / 'store') == contents(tmp_path / 'whole')

    @pytest.mark.slow
    def test_two_processes(self, config, tmp_path):
        """Each writes its own files; killed ones come again; a training in two processes reads them."""
        words = ['--epochs', 1, '--store', tmp_path / 'store']
        run_both('store_teacher', config, tmp_path / 'first', *words)
        whole = contents(tmp_path / 'store')
        files = {path: np.load(tmp_path / 'store' / path) for path in versions(tmp_path / 'store')}
        assert len(files.pop('teacher_weight.npy')) == len(files.pop('teacher_bias.npy')) == 10
        assert sorted(files) == [f'epoch_0/rank_{rank}/{number:05d}.npy' for rank in (0, 1) for number in (0, 1)]
        assert sum(map(len, files.values())) == IMAGES + 1
        (tmp_path / 'store' / 'epoch_0/rank_1/00000.npy').unlink()
        before = versions(tmp_path / 'store')
        run_both('store_teacher', config, tmp_path / 'second', *words)
        assert contents(tmp_path / 'store') == whole
        assert rewritten(before, versions(tmp_path / 'store')) == ['epoch_0/rank_1/00000.npy']
        options = ['train_cfg.max_epochs=1', f'model.teacher_store={tmp_path / "store"}']
        run_both('train', config, tmp_path / 'run', '--cfg-options', *options)
        assert (tmp_path / 'run' / 'epoch_1.pth').is_file()

    @pytest.mark.slow
    def test_the_script_that_launches_several(self, config, undisturbed, tmp_path):
        env = {**os.environ, 'PORT': str(free_port()), 'CUDA_VISIBLE_DEVICES': ''}
        words = ['--epochs', 1, '--store', tmp_path / 'store', '--work-dir', tmp_path / 'run']
        done = run_program('tools/dist_store_teacher.sh', config, 2, *words, env=env)
        assert f'1 epochs are stored: train with model.teacher_store={tmp_path / "store"}' in done.output
        stored, expected = (TeacherStore(folder) for folder in (tmp_path / 'store', undisturbed.folder))
        assert stored.manifest.processes == 2
        stored.check()
        a, b = (decode(store.read(0, range(IMAGES)), 10) for store in (stored, expected))
        torch.testing.assert_close(a, b, rtol=2**-10, atol=1e-5)
        done = run_program('tools/dist_store_teacher.sh', config, check=False)
        assert done.returncode == 2
        assert done.stderr.startswith('dist_store_teacher.sh: error: CONFIG and DEVICES are needed: ')


class TestLog:
    def test_what_will_be_written_and_how_far_it_is(self, undisturbed):
        assert f'10 of 10 logits of {2 * IMAGES} views (2 epochs) go to {undisturbed.folder}: ' in undisturbed.log
        assert ': 20 bytes a view, 0.0 MiB in all' in undisturbed.log
        lines = re.findall(r'teacher: (\d+)/202 views, (\d+) a second, time left (\d+:\d\d:\d\d)', undisturbed.log)
        assert [int(done) for done, _, _ in lines] == [32, 64, 96, 101, 133, 165, 197, 202]
        assert all(int(speed) > 0 for _, speed, _ in lines)
        assert lines[-1][2] == '0:00:00'
        assert f'2 epochs are stored: train with model.teacher_store={undisturbed.folder}' in undisturbed.log
        assert sum(path.stat().st_size for path in undisturbed.folder.rglob('*.npy')) >= 2 * IMAGES * 20

    def test_the_time_left(self, monkeypatch):
        now, lines = [100.0], []
        monkeypatch.setattr('mmcls_kd.engine.console.time', SimpleNamespace(monotonic=lambda: now[0]))
        progress = Progress(lines.append, 8000)
        for seconds, count in ((4, 80), (8, 80), (4, 10), (5, 20), (1, 7810)):
            now[0] += seconds
            progress.add(count)
        assert lines == [
            'teacher: 160/8000 views, 13 a second, time left 0:09:48',
            'teacher: 8000/8000 views, 364 a second, time left 0:00:00',
        ]


class TestUnreadable:
    """A folder of images of which one cannot be read."""

    @pytest.fixture
    def images(self, tmp_path):
        random = np.random.default_rng(0)
        (tmp_path / 'images').mkdir()
        for i in range(20):
            pixels = random.integers(0, 255, (28, 28), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / 'images' / f'{i}.png')
        (tmp_path / 'list.txt').write_text(''.join(f'{i}.png {i % 10}\n' for i in range(20)))
        return tmp_path / 'images'

    @pytest.fixture
    def config(self, images, data, tmp_path):
        more = f"""
train_dataloader = dict(batch_size=8, dataset=dict(
    _delete_=True, type='CustomDataset', data_root='{images}', ann_file='{images.parent}/list.txt',
    metainfo=dict(classes=list('abcdefghij')), pipeline=[
        dict(type='LoadImageFromFile', color_type='grayscale'), dict(type='RandomFlip', prob=0.5),
        dict(type='PackInputs')]))
train_cfg = dict(max_epochs=2, on_unreadable='skip')
"""
        return write_config(tmp_path / 'config.py', data, more)

    @pytest.mark.slow
    @pytest.mark.parametrize('batch_size', [8, 1])
    def test_the_others_keep_their_records(self, config, images, tmp_path, monkeypatch, batch_size):
        make(config, tmp_path / 'whole')
        whole = (images / '11.png').read_bytes()
        (images / '11.png').write_bytes(whole[:100])
        log = make(config, tmp_path / 'store', options=[f'train_dataloader.batch_size={batch_size}'])
        assert 'left out (number 2 in this process): the image ' in log
        watched = Watched().install(monkeypatch)
        train(config, tmp_path / 'run', tmp_path / 'store')
        seen = watched.logits()
        assert len(seen) == 2 * 19
        for epoch in (0, 1):
            places = sorted(place for e, place in seen if e == epoch)
            expected = decode(TeacherStore(tmp_path / 'whole').read(epoch, places), 10)
            found = torch.stack([seen[epoch, place] for place in places])
            torch.testing.assert_close(found, expected, rtol=2**-10, atol=1e-5)
        (images / '11.png').write_bytes(whole)
        with pytest.raises(
            SystemExit, match=r'train.py: error: .* its images were changed since it was made, last .*11\.png'
        ):
            train(config, tmp_path / 'mended', tmp_path / 'store')

    def test_or_it_ends_the_writing(self, config, images, tmp_path):
        (images / '11.png').write_bytes(b'')
        options = ['train_cfg.on_unreadable=stop', 'train_dataloader.sampler.shuffle=False']
        with pytest.raises(SystemExit, match=r'store_teacher.py: error: .*11\.png of the training data cannot be read'):
            make(config, tmp_path / 'store', options=options)


class TestRefusals:
    def refused(self, config, tmp_path, *arguments, options=()):
        words = ['--epochs', 1, '--store', tmp_path / 'store', *arguments]
        return refused('store_teacher', config, tmp_path / 'run', *words, options=options)

    @pytest.mark.parametrize('k', [0, 11, -1])
    def test_a_top_k_that_cannot_be(self, k, config, tmp_path):
        assert f'top-k of {k} logits: choose from 1 to 10' in self.refused(config, tmp_path, '--top-k', k)

    @pytest.mark.parametrize('epochs', [0, -1])
    def test_no_epoch(self, epochs, config, tmp_path):
        assert f'--epochs {epochs}: at least one epoch' in self.refused(config, tmp_path, '--epochs', epochs)

    def test_no_distiller(self, tmp_path, data):
        options = [f'train_dataloader.dataset.data_root={data}']
        message = self.refused(TOOLBOX / STUDENT, tmp_path, options=options)
        assert 'resnet18-w4_3e.py trains no distiller, so it has no teacher' in message

    def test_no_method_with_a_teacher(self, tmp_path, data):
        options = [f'train_dataloader.dataset.data_root={data}']
        config = TOOLBOX / 'configs/distillers/fashion_mnist/res18-w4_sd_fmnist.py'
        assert 'this run has no teacher whose logits could be stored' in self.refused(config, tmp_path, options=options)

    def test_a_teacher_in_train_mode(self, config, tmp_path):
        message = self.refused(config, tmp_path, options=['model.teacher_mode=train'])
        assert "a store is for teacher_mode='eval'" in message

    def test_a_run_that_reads_a_store(self, config, undisturbed, tmp_path):
        message = self.refused(config, tmp_path, options=[f'model.teacher_store={undisturbed.folder}'])
        assert 'this run takes its logits from a store, and cannot make one' in message

    def test_no_seed_and_no_epochs(self, data, tmp_path):
        config = write_config(tmp_path / 'config.py', data, 'randomness = dict(_delete_=True, seed=None)')
        assert 'a teacher store needs a fixed seed' in self.refused(config, tmp_path)
        loop = 'train_cfg = dict(_delete_=True, by_epoch=False, max_iters=4)\nlog_processor = dict(by_epoch=False)'
        config = write_config(tmp_path / 'config.py', data, loop)
        assert 'train_cfg.type is ResumableIterLoop' in self.refused(config, tmp_path)

    @pytest.mark.slow
    def test_another_store_in_the_folder(self, config, copy, tmp_path):
        before = contents(copy)
        torch.save(
            MODELS.build(network_cfg(f'{TOOLBOX}/configs/fashion_mnist/resnet18-w16_9e.py')).state_dict(),
            tmp_path / 'other.pth',
        )
        for arguments, options, line in (
            ([], ['randomness.seed=8'], 'seed is 7 in the store and 8 here'),
            (['--top-k', 3], [], 'k is 10 in the store and 3 here'),
            ([], [f'model.teacher_pretrained={tmp_path / "other.pth"}'], 'teacher.weights is '),
            ([], ['model.teacher_precision=bf16'], "teacher.precision is None in the store and 'bf16' here"),
        ):
            with pytest.raises(SystemExit) as stopped:
                make(config, copy, 2, *arguments, options=options)
            assert str(stopped.value.code).startswith(f'store_teacher.py: error: {copy} holds another store: {line}')
        assert contents(copy) == before

    def test_a_sampler_that_gives_processes_different_numbers(self, data, tmp_path, monkeypatch):
        uneven = 'train_dataloader = dict(sampler=dict(round_up=False))'
        config = write_config(tmp_path / 'config.py', data, uneven)
        monkeypatch.setattr('mmcls_kd.teacher_store.writer.get_world_size', lambda: 2)
        assert 'round_up=False gives processes different numbers of images' in self.refused(config, tmp_path)

    def test_logits_that_float16_cannot_hold(self, config, tmp_path, monkeypatch):
        monkeypatch.setattr(
            'mmcls_kd.teachers.frozen.FrozenTeacher.__call__', lambda *_: {'logit': torch.full((2, 10), 1e6)}
        )
        assert 'the teacher gives logits that float16 cannot hold (largest: 1e+06)' in self.refused(config, tmp_path)

    def test_a_first_batch_that_does_not_fit(self, data, tmp_path):
        config = write_config(tmp_path / 'config.py', data, 'data_preprocessor = dict(mean=[1, 2], std=[1, 1])')
        assert 'the teacher takes images of 1 channels, and the student’s have 2' in self.refused(config, tmp_path)

    def test_a_disk_that_is_too_small(self, config, tmp_path, monkeypatch):
        whole = SimpleNamespace(free=IMAGES * 20)
        monkeypatch.setattr(shutil, 'disk_usage', lambda path: whole)
        make(config, tmp_path / 'just_enough', 1)
        whole.free -= 1
        message = self.refused(config, tmp_path)
        assert re.search(r'the store needs 0\.00 GiB more and .* has 0\.00 GiB free: store fewer epochs', message)
