"""A store on disk: the record of each place, whatever the layout, and every damage named."""

import hashlib
import json
import shutil
import subprocess
from types import SimpleNamespace

import folders
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain.datasets import CustomDataset, FashionMNIST

from mmcls_kd.engine import views
from mmcls_kd.engine.config import datasets_of
from mmcls_kd.engine.image_files import changed, describe
from mmcls_kd.teacher_store import TeacherStore
from mmcls_kd.teachers.records import decode, encode
from mmcls_kd.teachers.store import CHECKSUMS, MANIFEST, Manifest, Shard, checksums, rows_of, save, shard_count

CLASSES = 12


def write(folder, processes=1, rows=10, shard_rows=4, epochs=1, k=3, complete=None):
    """Write a store of random logits; returns them, (epochs, rows · processes, C), in the order of the places."""
    generator = torch.Generator().manual_seed(processes + 10 * rows)
    logits = torch.randn(epochs, rows * processes, CLASSES, generator=generator)
    manifest = Manifest({}, {}, CLASSES, k, processes, rows, shard_rows, epochs if complete is None else complete)
    for epoch in range(epochs):
        for rank in range(processes):
            own = encode(logits[epoch, rank::processes], k)
            for number in range(shard_count(manifest)):
                shard = Shard(epoch, rank, number)
                start = number * shard_rows
                save(folder, shard, own[start : start + rows_of(manifest, shard)])
    manifest.write(folder)
    return logits


@pytest.fixture
def folder(tmp_path):
    """A store of two epochs by two processes, each of whose epochs is three files."""
    write(tmp_path / 'store', processes=2, epochs=2)
    return tmp_path / 'store'


@pytest.mark.parametrize('processes', [1, 2, 3])
@pytest.mark.parametrize(('rows', 'shard_rows'), [(1, 1), (7, 1), (10, 4), (12, 4), (10, 100)])
def test_each_place_has_its_record(tmp_path, processes, rows, shard_rows):
    logits = write(tmp_path, processes, rows, shard_rows, epochs=2)
    store = TeacherStore(tmp_path)
    order = torch.randperm(rows * processes, generator=torch.Generator().manual_seed(0)).tolist()
    for epoch in (0, 1):
        found = decode(store.read(epoch, order), CLASSES)
        assert torch.equal(found, decode(encode(logits[epoch, order], 3), CLASSES))
    for place in order[:5]:  # one alone, and twice
        expected = encode(logits[0, [place, place]], 3)
        assert store.read(0, [place, place]).tobytes() == expected.tobytes()


def test_more_files_are_read_than_stay_mapped(tmp_path):
    logits = write(tmp_path, processes=2, rows=40, shard_rows=2)
    store = TeacherStore(tmp_path)
    for _ in range(2):
        for start in range(0, 80, 8):
            expected = encode(logits[0, start : start + 8], 3)
            assert store.read(0, range(start, start + 8)).tobytes() == expected.tobytes()
    assert store._open.cache_info().currsize == 4


def test_files_are_plain_numpy_files(folder):
    records = np.load(folder / 'epoch_1' / 'rank_0' / '00002.npy')
    assert len(records) == 2
    assert records.dtype.names == ('logit', 'class', 'rest')


def test_epochs_come_again_in_turn(folder):
    store = TeacherStore(folder)
    first, second = (store.read(epoch, range(20)).tobytes() for epoch in (0, 1))
    assert first != second
    assert [store.read(epoch, range(20)).tobytes() for epoch in (2, 3, 7)] == [first, second, second]


def test_a_place_that_was_not_stored(folder):
    store = TeacherStore(folder)
    store.read(0, [19])
    with pytest.raises(IndexError, match='has 20 records an epoch and none for place 20'):
        store.read(0, [3, 20])


def test_a_whole_store_passes(folder):
    store = TeacherStore(folder)
    assert len(list(store.shards())) == 2 * 2 * 3
    store.check()


@pytest.mark.parametrize('lost', [Shard(0, 0, 0), Shard(1, 1, 2)])
def test_a_missing_file_is_named(folder, lost):
    (folder / lost.path).unlink()
    with pytest.raises(FileNotFoundError, match=f'{lost.path} is missing; the same `python -m mmcls_kd store` command'):
        TeacherStore(folder)


def test_a_file_that_is_cut_short_is_named(folder):
    path = folder / Shard(1, 0, 1).path
    path.write_bytes(path.read_bytes()[: 3 * TeacherStore(folder).type.itemsize])
    with pytest.raises(ValueError, match=f'{Shard(1, 0, 1).path} is cut short'):
        TeacherStore(folder)


def test_a_file_that_has_lost_one_byte_is_found(folder):
    path = folder / Shard(0, 1, 2).path
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f'{Shard(0, 1, 2).path} is (damaged|cut short)'):
        TeacherStore(folder).check()


@pytest.mark.parametrize('place', [0, 60, -1])
def test_one_wrong_byte_is_found_and_the_file_named(folder, place):
    path = folder / Shard(1, 1, 0).path
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    store = TeacherStore(folder)
    with pytest.raises(
        ValueError, match=rf'{Shard(1, 1, 0).path} is damaged \(its SHA-256 .*; the same `python -m mmcls_kd store`'
    ):
        store.check()
    store.check(shard for shard in store.shards() if shard.epoch == 0)  # the others are whole


def test_a_file_without_a_checksum_is_not_trusted(folder):
    listing = folder / 'epoch_0' / 'rank_1' / CHECKSUMS
    listing.write_text(''.join(listing.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(ValueError, match=f'{Shard(0, 1, 2).path} is damaged'):
        TeacherStore(folder).check()


@pytest.mark.skipif(shutil.which('sha256sum') is None, reason='needs sha256sum')
def test_sha256sum_agrees(folder):
    place = folder / 'epoch_1' / 'rank_1'
    done = subprocess.run(['sha256sum', '-c', CHECKSUMS], cwd=place, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f'{name}: OK' for name in sorted(checksums(place))]
    assert len(checksums(place)) == 3
    (place / '00001.npy').write_bytes(b'')
    done = subprocess.run(['sha256sum', '-c', CHECKSUMS], cwd=place, capture_output=True, text=True, check=False)
    assert '00001.npy: FAILED' in done.stdout.splitlines()


class TestManifest:
    def test_it_comes_back_as_it_was(self, tmp_path):
        manifest = Manifest(dict(seed=3, pipeline=[dict(type='A')]), dict(weights='ab'), 10, 5, 2, 7, 4, epochs=1)
        manifest.write(tmp_path / 'new' / 'folder')
        assert Manifest.read(tmp_path / 'new' / 'folder') == manifest
        assert [path.name for path in (tmp_path / 'new' / 'folder').iterdir()] == [MANIFEST]

    def test_none(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r'no manifest.json there; `python -m mmcls_kd store CONFIG'):
            TeacherStore(tmp_path / 'nowhere')

    @pytest.mark.parametrize('text', ['', '{"views": {}', 'no JSON', '[]', '3', 'null', '{"format": 1}', '\0\1'])
    def test_one_that_cannot_be_read(self, folder, text):
        (folder / MANIFEST).write_text(text)
        with pytest.raises(ValueError, match='manifest.json is no manifest of a teacher store that can be read'):
            TeacherStore(folder)

    def test_bytes_that_are_no_text(self, folder):
        (folder / MANIFEST).write_bytes(b'\xff\xfe\xff')
        with pytest.raises(ValueError, match='manifest.json is no manifest of a teacher store that can be read'):
            TeacherStore(folder)

    def changed(self, folder, **values):
        content = json.loads((folder / MANIFEST).read_text())
        (folder / MANIFEST).write_text(json.dumps(content | values))

    def test_another_format(self, folder):
        self.changed(folder, format=1)
        with pytest.raises(ValueError, match='its format is 1, and this version reads format 2'):
            TeacherStore(folder)

    def test_a_line_that_this_version_does_not_know(self, folder):
        self.changed(folder, colour='red')
        with pytest.raises(ValueError, match='can be read: .*colour'):
            TeacherStore(folder)

    def test_no_complete_epoch(self, tmp_path):
        write(tmp_path, complete=0)
        with pytest.raises(ValueError, match='not one epoch is complete; the same `python -m mmcls_kd store` command'):
            TeacherStore(tmp_path)

    def test_epochs_that_are_not_complete_are_not_read(self, tmp_path):
        write(tmp_path, epochs=2, complete=1)
        store = TeacherStore(tmp_path)
        assert store.read(1, range(10)).tobytes() == store.read(0, range(10)).tobytes()
        assert {shard.epoch for shard in store.shards()} == {0}


class TestImagesOfTheStore:
    """Image files count by their content; where sizes and times are as they were, they are not read."""

    def data(self, root, **settings):
        return CustomDataset(data_root=str(root), serialize_data=False, **settings)

    def test_what_is_changed_and_what_is_not(self, tmp_path, monkeypatch):
        images, copied = folders.class_folders(tmp_path / 'images', size=28, cat=2, dog=2), tmp_path / 'copy'
        noted = describe(self.data(images))
        shutil.copytree(images, copied, copy_function=shutil.copyfile)
        assert changed(noted, self.data(copied)) is None
        path = copied / 'dog' / '1.jpg'
        path.write_bytes(path.read_bytes()[:-2] + b'\xff\xda')  # of the same size
        assert changed(noted, self.data(copied)) == f'its images were changed since it was made, last {path}'
        assert changed({}, self.data(copied)) is None  # of an earlier version
        monkeypatch.setattr('mmcls_kd.engine.image_files.sha256', None)
        assert changed(noted, self.data(images)) is None

    def test_data_without_files(self, data):
        assert describe(FashionMNIST(data_root=str(data))) == {}


def test_parts_of_a_data_set_stand_in_their_order():
    """The fingerprint of views has their pipelines in another one, by which stores that exist stay valid."""
    first, second, third = (dict(type='ImageNet', pipeline=[dict(type=name)]) for name in 'ABC')
    inner = dict(type='ConcatDataset', datasets=[first, dict(type='RepeatDataset', times=2, dataset=second)])
    cfg = Config(dict(train_dataloader=dict(dataset=dict(type='ConcatDataset', datasets=[inner, third]))))
    types = [dataset['type'] for _, dataset in datasets_of(cfg)]
    assert types == ['ConcatDataset', 'ConcatDataset', 'ImageNet', 'RepeatDataset', 'ImageNet', 'ImageNet']
    assert [part['pipeline'][0]['type'] for _, part in datasets_of(cfg) if 'pipeline' in part] == ['A', 'B', 'C']
    assert [pipeline[0]['type'] for pipeline in views.pipelines_of(cfg)] == ['C', 'B', 'A']


class TestClassesOfTheStore:
    """What a manifest says of the views, compared with another run of the same data."""

    @pytest.fixture
    def compare(self, monkeypatch):
        def call(stored, here):
            data = SimpleNamespace(metainfo=dict(classes=here))
            loop = SimpleNamespace(dataloader=SimpleNamespace(dataset=data))
            monkeypatch.setattr(views, 'loop_of', lambda runner: loop)
            monkeypatch.setattr(views, 'views_of', lambda runner: dict(seed=0, classes=list(here)))
            monkeypatch.setattr(views, 'changed', lambda noted, dataset: None)
            return views.view_differences(dict(seed=0, classes=stored), None)

        return call

    @pytest.mark.parametrize(
        ('stored', 'differ'),
        [
            (['ant', 'bee'], False),
            (['Ant, emmet', 'bee'], False),
            ([], False),
            (['bee', 'ant'], True),
            (['x', 'y'], True),
            (hashlib.sha256(repr(('ant', 'bee')).encode()).hexdigest(), False),
            (hashlib.sha256(repr(('bee', 'ant')).encode()).hexdigest(), True),
        ],
    )
    def test_classes(self, stored, differ, compare):
        assert bool(compare(stored, ('ant', 'bee'))) is differ
