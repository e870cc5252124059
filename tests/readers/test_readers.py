"""Shards and tables give the images and labels of the same files in folders, and faults are named before training."""

import pickle
import re
import shutil
import tarfile
from pathlib import Path

import folders
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from containers import cut, files_of, odd_images, write_parquet, write_shards
from mmengine.dataset import pseudo_collate
from mmpretrain.registry import DATASETS
from processes import run_in_two
from torch.utils.data import DataLoader

import mmcls_kd.registry  # noqa: F401
from mmcls_kd.configs.reading import read_config
from mmcls_kd.engine.data import PlacedSampler, SeededDataset, image_fault
from mmcls_kd.engine.image_files import from_outside, looked_at
from mmcls_kd.engine.labels import check_names
from mmcls_kd.engine.views import data_list
from mmcls_kd.errors import MissingLibraryError, UnreadableImageError
from mmcls_kd.files.paths import TOOLBOX
from mmcls_kd.readers import HuggingFaceDataset, WebDataset, shards
from mmcls_kd.readers.labels import numbered

QUICK = dict(serialize_data=False)  # mmengine collects garbage first
PIPELINE = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """The same images in class folders, shards and parquet files."""
    root = tmp_path_factory.mktemp('containers')
    for split, count in (('train', 6), ('val', 3)):
        folders.class_folders(root / 'folders' / split, apple=count, leaf=count, sky=count)
        write_shards(files_of(root / 'folders' / split), root / 'shards' / split)
        write_parquet(files_of(root / 'folders' / split), root / 'parquet' / split / '0.parquet')
    return root


@pytest.fixture
def table(tmp_path):
    """Builds a data set of datasets, with its cache in a folder of the test's."""

    def build(path='', **settings):
        options = dict(cache_dir=str(tmp_path / 'cache'), **settings.pop('load_options', {}))
        settings = dict(pipeline=PIPELINE, **QUICK) | settings
        return HuggingFaceDataset(str(path), load_options=options, **settings)

    return build


def folder_set(root, pipeline=PIPELINE):
    return DATASETS.build(dict(type='CustomDataset', data_root=str(root), pipeline=pipeline, **QUICK))


def shard_set(root, **settings):
    return DATASETS.build(dict(type='WebDataset', data_root=str(root), pipeline=PIPELINE, **QUICK, **settings))


def assert_same(found, expected):
    assert len(found) == len(expected)
    assert found.metainfo['classes'] == expected.metainfo['classes']
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours['inputs'], theirs['inputs'])
        assert torch.equal(ours['data_samples'].gt_label, theirs['data_samples'].gt_label)


def test_equal_to_folders(root, table, tmp_path):
    expected = folder_set(root / 'folders/train')
    assert_same(shard_set(root / 'shards', data_prefix='train'), expected)
    assert_same(shard_set(root / 'shards/train', shards=['s-{000..001}.tar', 's-002.tar']), expected)
    parquet = table(data_root=str(root / 'parquet'), data_prefix='train')
    assert_same(parquet, expected)
    assert_same(table(root / 'parquet/train/*.parquet'), expected)
    assert_same(table(root / 'folders', split='train'), expected)  # plain files stay plain files
    parquet.load().save_to_disk(str(tmp_path / 'saved'))
    assert_same(table(tmp_path / 'saved'), expected)
    names = [path.parent.name for path in files_of(root / 'folders/train')]
    raw = write_parquet(files_of(root / 'folders/train'), tmp_path / 'raw.parquet', names)
    assert_same(table(raw), expected)


@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
@pytest.mark.parametrize('colour', ['color', 'grayscale', 'unchanged'])
def test_pixels_of_any_mode(backend, colour, table, tmp_path):
    files = files_of(odd_images(tmp_path / 'images'))
    write_shards(files, tmp_path / 'shards')
    write_parquet(files, tmp_path / 'parquet/0.parquet')
    load = [dict(type='LoadImageFromFile', color_type=colour, imdecode_backend=backend)]
    expected = folder_set(tmp_path / 'images', load)
    tables = table(tmp_path / 'parquet', pipeline=load)
    in_shards = WebDataset(data_root=str(tmp_path / 'shards'), pipeline=load)
    for ours, theirs, reference in zip(in_shards, tables, expected, strict=True):
        assert np.array_equal(ours['img'], reference['img'])
        assert np.array_equal(theirs['img'], reference['img'])


def look(rank, root, folder):
    """Note the images that each process's loader gives in an epoch."""
    for kind, settings in (
        ('web', dict(type='WebDataset', data_root=str(root / 'shards/train'))),
        ('table', dict(type='HuggingFaceDataset', path=str(root / 'parquet/train'), load_options=dict(cache_dir=folder))),
    ):
        data = SeededDataset(dict(**settings, pipeline=PIPELINE), seed=0)
        sampler = PlacedSampler(dict(type='DefaultSampler', shuffle=True, round_up=False), data, seed=0)
        loader = DataLoader(data, 4, sampler=sampler, num_workers=2, collate_fn=pseudo_collate)
        seen = [sample.sample_idx for batch in loader for sample in batch['data_samples']]
        torch.save(seen, f'{folder}/{kind}{rank}')


def test_every_sample_once_over_processes_and_workers(root, tmp_path):
    run_in_two(look, root, str(tmp_path))
    for kind in ('web', 'table'):
        ours, theirs = (torch.load(tmp_path / f'{kind}{rank}') for rank in (0, 1))
        assert sorted(ours + theirs) == list(range(18))
        assert len(ours) == len(theirs) == 9


def test_a_table_goes_to_workers_that_are_not_forked(root, table):
    found = table(root / 'parquet/train')
    copy = pickle.loads(pickle.dumps(found))
    assert torch.equal(copy[3]['inputs'], found[3]['inputs'])


class TestLabels:
    def build(self, tmp_path, root, table, values, kind='json', **settings):
        files = files_of(root / 'folders/train')
        given = dict(zip(files, values, strict=True))
        label = (lambda path: dict(y=given[path])) if kind == 'json' else given.__getitem__
        write_shards(files, tmp_path / 'shards', label=label, kind=kind)
        write_parquet(files, tmp_path / '0.parquet', list(values))
        one = shard_set(tmp_path / 'shards', label='json:y' if kind == 'json' else kind, **settings)
        return one, table(tmp_path / '0.parquet', **settings)

    def test_numbers(self, tmp_path, root, table):
        values = [i % 5 for i in range(18)]
        for found in self.build(tmp_path, root, table, values, 'cls'):
            assert found.get_gt_labels().tolist() == values
            assert 'classes' not in found.metainfo

    def test_one_hot(self, tmp_path, root, table):
        for found in self.build(tmp_path, root, table, np.eye(5, dtype=int)[np.arange(18) % 5].tolist()):
            assert found.get_gt_labels().tolist() == [i % 5 for i in range(18)]

    def test_names_in_the_order_of_the_classes(self, tmp_path, root, table):
        values = ['bird', 'sea lion', 'ant'] * 6
        for found in self.build(tmp_path, root, table, values, classes=['Sea_Lion', 'ant, emmet', 'dog', 'bird']):
            assert found.get_gt_labels().tolist() == [3, 0, 1] * 6
            assert found.metainfo['classes'] == ('Sea_Lion', 'ant, emmet', 'dog', 'bird')
            assert list(check_names(dict(train_dataloader=[found]))) == []

    def test_class_label_in_the_order_of_the_classes(self, root, table):
        found = table(root / 'parquet/train', classes=['sky', 'leaf', 'apple'])
        assert found.get_gt_labels().tolist() == [2] * 6 + [1] * 6 + [0] * 6

    def test_none(self, root, table):
        for found in (shard_set(root / 'shards/train', with_label=False), table(root / 'parquet/train', with_label=False)):
            assert 'gt_label' not in found.get_data_info(0)
            assert 'data_samples' in found[0]

    @pytest.mark.parametrize(
        ('values', 'classes', 'message'),
        [
            ([0, None], None, 'row 1: no label'),
            ([0, float('nan')], None, 'row 1: no label'),
            (['a', ''], None, 'row 1: no label'),
            ([0, -1], None, 'row 1: the label -1 is negative'),
            ([0, 3], 'abc', 'row 1: the label 3 is outside of the 3 classes (0 to 2)'),
            ([0.5], None, 'row 0: the label 0.5 is no class number, class name or one-hot vector'),
            ([True], None, 'row 0: the label True is no class number'),
            (
                ['ant', 'bees'],
                ['ant', 'bee'],
                "row 1: the label 'bees' is none of the 2 classes, or of several; did you mean",
            ),
            ([[0, 1], [1, 1]], None, 'row 1: the label [1 1] is no one-hot vector of 2 classes'),
            ([[0, 1], [0.4, 0.6]], None, 'row 1: the label [0.4 0.6] is no one-hot vector'),
            ([[0, 1]], 'abc', 'row 0: the label [0 1] is no one-hot vector of 3 classes'),
        ],
    )
    def test_refused(self, values, classes, message):
        with pytest.raises(ValueError) as error:  # noqa: PT011
            numbered(values, list(classes) if classes else None, 'row {}'.format)
        assert message in str(error.value)
        assert '\n' not in str(error.value)


class TestShardFaults:
    @pytest.fixture
    def folder(self, root, tmp_path):
        shutil.copytree(root / 'shards/train', tmp_path / 'shards')
        return tmp_path / 'shards'

    def refused(self, folder, **settings):
        with pytest.raises((ValueError, FileNotFoundError)) as error:
            shard_set(folder, **settings)
        assert '\n' not in str(error.value)
        return str(error.value)

    def test_ends_early_anywhere(self, folder):
        shard = folder / 's-001.tar'
        content = shard.read_bytes()
        with tarfile.open(shard) as tar:
            members = tar.getmembers()
        last = members[-1]
        places = [last.offset_data + 1, last.offset, last.offset + 100, members[2].offset, members[2].offset_data + 700]
        for end in (*places, last.offset_data + 512):
            shard.write_bytes(content[:end])
            assert 'ends early' in (text := self.refused(folder))
            assert text.startswith(f'{shard}: ')
        shard.write_bytes(b'')
        assert self.refused(folder).startswith(f'{shard}: not a tar archive')

    def test_damaged_header(self, folder):
        with tarfile.open(folder / 's-001.tar') as tar:
            place = tar.getmembers()[4].offset
        with (folder / 's-001.tar').open('r+b') as file:
            file.seek(place)
            file.write(b'x' * 40)
        assert f's-001.tar: the shard ends early, or is damaged, at byte {place:,} of' in self.refused(folder)

    def test_packed(self, folder):
        with tarfile.open(folder / 's-003.tar.gz', 'w:gz'):
            pass
        assert 's-003.tar.gz: not a tar archive' in (text := self.refused(folder, shards='*.tar*'))
        assert 'a compressed shard has no random access' in text

    def test_keys(self, folder, root):
        text = self.refused(folder, label='txt')
        assert f"{folder}/s-000.tar: sample 'apple_0' has no label 'txt', but cls, jpg: set label=..." in text
        text = self.refused(folder, image='png')
        assert "s-000.tar: sample 'apple_0' has no image (png), but cls, jpg: set image=..." in text
        write_shards(files_of(root / 'folders/train'), folder, label=lambda path: dict(y=1), kind='json')
        text = self.refused(folder, label='json:x')
        assert "sample 'apple_0': the JSON of the label has no field 'x'" in text
        write_shards(files_of(root / 'folders/train'), folder, kind='json', label=lambda path: float('inf'))
        assert 'the JSON of the label has no field' in self.refused(folder, label='json:x')

    def test_a_sample_that_lacks_its_label(self, folder):
        with tarfile.open(folder / 's-003.tar', 'w') as tar:
            tar.addfile(tarfile.TarInfo('late.jpg'))
        assert "s-003.tar: sample 'late' has no label 'cls', but jpg" in self.refused(folder)

    def test_labels(self, folder, root):
        write_shards(files_of(root / 'folders/train'), folder, label=lambda path: 3 + (path.stem == '5'))
        text = self.refused(folder, classes=['a', 'b', 'c', 'd'])
        assert text == f"{folder}/s-000.tar: sample 'apple_5': the label 4 is outside of the 4 classes (0 to 3)"

    def test_names_of_files(self, folder):
        assert self.refused(folder, shards='train-*.tar') == f'{folder}/train-*.tar: there is no such shard'
        assert 'there is no such shard' in self.refused(folder, shards='s-{000..009}.tar')
        assert 'stands there twice' in self.refused(folder, shards=['*.tar', 's-001.tar'])
        assert 'fetch them first' in self.refused(folder, shards='http://host/s-000.tar')

    def test_damaged_image(self, folder, root, tmp_path):
        files = files_of(shutil.copytree(root / 'folders/train', tmp_path / 'images'))
        cut(files[9])
        write_shards(files, folder)
        data = SeededDataset(dict(type='WebDataset', data_root=str(folder), pipeline=PIPELINE), seed=0)
        data[8]
        with pytest.raises(
            UnreadableImageError, match=r'/s-001\.tar#\d+\+\d+/leaf_3\.jpg of the training data cannot be read'
        ):
            data[9]
        assert image_fault(data.get_data_info(8)['img_path']) is None


class TestTableFaults:
    def refused(self, build):
        with pytest.raises((ValueError, FileNotFoundError)) as error:
            build()
        assert '\n' not in str(error.value)
        return str(error.value)

    def test_unreadable_parquet(self, root, table, tmp_path):
        file = write_parquet(files_of(root / 'folders/train'), tmp_path / 'p/1.parquet')
        shutil.copy(root / 'parquet/train/0.parquet', tmp_path / 'p')
        content = file.read_bytes()
        cut(file)
        assert self.refused(lambda: table(tmp_path / 'p')).startswith(f'{file}: not a parquet file that can be read (')
        file.write_bytes(content[:4] + b'\xff' * 200 + content[204:])
        assert self.refused(lambda: table(tmp_path / 'p')).startswith(f'{file}: not a parquet file that can be read (')

    def test_files_that_number_their_classes_differently(self, root, table, tmp_path):
        files = files_of(root / 'folders/train')
        write_parquet(files[:6], tmp_path / 'p/0.parquet')
        write_parquet(files[6:], tmp_path / 'p/1.parquet')
        text = self.refused(lambda: table(tmp_path / 'p'))
        assert text.startswith(
            f'{tmp_path}/p/1.parquet: its label numbers stand for leaf, sky, those of 0.parquet for apple: '
        )

    def test_names(self, root, table, tmp_path):
        path = root / 'parquet/train'
        text = self.refused(lambda: table(path, label='lable'))
        assert text == f"{path}: no column 'lable', but image, label: set label=...; did you mean 'label'?"
        assert "no column 'imge', but image, label: set image=...; did you" in self.refused(
            lambda: table(path, image='imge')
        )
        assert 'there is no such parquet file' in self.refused(lambda: table(path / 'none.parquet'))
        assert 'has the splits train, validation: set split=...' in self.refused(lambda: table(root / 'folders'))
        assert 'Unknown split "test"' in self.refused(lambda: table(root / 'folders', split='test'))
        assert 'datasets cannot load it' in self.refused(lambda: table(tmp_path / 'none'))

    def test_a_class_with_the_name_of_a_split(self, table, tmp_path):
        """Of which the library puts validation images among those to train on."""
        for split in ('train', 'validation'):
            folders.class_folders(tmp_path / 'images' / split, bus=2, train=2)
        text = self.refused(lambda: table(tmp_path / 'images', split='train'))
        assert text.startswith(f'{tmp_path}/images: its rows are of train, validation, as datasets takes the folder train ')
        named = {'train': 'train/**', 'validation': 'validation/**'}
        data = table(tmp_path / 'images', split='train', load_options=dict(data_files=named))
        assert len(data) == 4
        assert {Path(info['img_path']).parts[-3] for info in data.data_list} == {'train'}
        assert len(table(tmp_path / 'images', split='validation')) == 4

    @pytest.mark.parametrize('split', ['train+validation', 'all'])
    def test_several_splits_that_are_asked_for(self, root, table, split):
        parts = [len(table(root / 'folders', split=part)) for part in ('train', 'validation')]
        assert len(table(root / 'folders', split=split)) == sum(parts)

    def test_rows(self, root, table, tmp_path):
        image = (root / 'folders/train/sky/0.jpg').read_bytes()
        pq.write_table(pa.table(dict(image=[image, None], label=[0, 1])), tmp_path / 'a.parquet')
        assert 'a.parquet: row 1 has no image in its column' in self.refused(lambda: table(tmp_path / 'a.parquet'))
        pq.write_table(pa.table(dict(image=[image, image], label=[0, None])), tmp_path / 'b.parquet')
        assert self.refused(lambda: table(tmp_path / 'b.parquet')) == f'{tmp_path}/b.parquet: row 1: no label'


def test_a_class_that_training_lacks_is_named(root, table, tmp_path):
    folders.class_folders(tmp_path / 'val', apple=1, kiwi=1, sky=1)
    write_shards(files_of(tmp_path / 'val'), tmp_path / 'shards')
    write_parquet(files_of(tmp_path / 'val'), tmp_path / '0.parquet')
    for train, val, place in (
        (shard_set(root / 'shards/train'), shard_set(tmp_path / 'shards'), rf'{tmp_path}/shards/s-000\.tar#\S+/kiwi_0\.jpg'),
        (table(root / 'parquet/train'), table(tmp_path / '0.parquet'), rf'{tmp_path}/0\.parquet#1/0\.jpg'),
    ):
        with pytest.raises(ValueError, match=rf"only here: 'kiwi' \(the first image of such a class: \w+://{place}\)"):
            list(check_names(dict(train_dataloader=[train], val_dataloader=[val])))
    ours = shard_set(root / 'shards/val')
    assert list(check_names(dict(train_dataloader=[shard_set(root / 'shards/train')], val_dataloader=[ours]))) == []


class TestIndex:
    @pytest.fixture
    def folder(self, root, tmp_path):
        return shutil.copytree(root / 'shards/train', tmp_path / 'shards', ignore=shutil.ignore_patterns('.*'))

    @pytest.fixture
    def built(self, monkeypatch):
        """The shards of each index that is built."""
        done, build = [], shards.build_index
        monkeypatch.setattr(shards, 'build_index', lambda *words: done.append(words) or build(*words))
        return done

    def test_kept_and_built_anew_for_changed_shards(self, folder, built, root):
        first = shard_set(folder)
        index = next(folder.glob('.mmcls_kd_index_*.npz'))
        assert_same(shard_set(folder), first)
        assert len(built) == 1
        write_shards(files_of(root / 'folders/train')[1:], folder)
        assert len(shard_set(folder)) == 17
        assert len(built) == 2
        cut(index)
        assert len(shard_set(folder)) == 17
        assert len(built) == 3
        assert len(shard_set(folder, label='cls', with_label=False)) == 17  # another index
        assert len(list(folder.iterdir())) == 3 + 2

    def test_elsewhere_or_not_at_all(self, folder, built, tmp_path, monkeypatch):
        shard_set(folder, index_dir=str(tmp_path / 'index'))
        assert len(list((tmp_path / 'index').iterdir())) == 1
        assert len(list(folder.iterdir())) == 3
        monkeypatch.setattr(shards, 'atomic_path', lambda path: (_ for _ in ()).throw(OSError(30, 'Read-only', str(path))))
        assert len(shard_set(folder)) == 18
        assert len(list(folder.iterdir())) == 3

    def test_fingerprint_does_not_depend_on_the_folder(self, root, table, tmp_path):
        shutil.copytree(root, tmp_path / 'copy')
        for build in (
            lambda top: shard_set(top / 'shards', data_prefix='train'),
            lambda top: table(data_root=str(top / 'parquet'), data_prefix='train'),
        ):
            assert data_list(build(root)) == data_list(build(tmp_path / 'copy'))

    def test_a_store_knows_the_files(self, root, table):
        def files(dataset):
            return [Path(file.path) for part in looked_at(dataset, from_outside) for file in part]

        assert files(shard_set(root / 'shards/train')) == sorted((root / 'shards/train').glob('*.tar'))
        assert files(table(root / 'parquet/train')) == [root / 'parquet/train/0.parquet']


@pytest.mark.parametrize(
    ('kind', 'settings'),
    [
        *[(WebDataset, dict(shards=value)) for value in (5, [], '', [5])],
        *[(WebDataset, dict(image=value)) for value in (5, [])],
        *[(WebDataset, {key: value}) for key, value in dict(label=None, index_dir=5, with_label='no').items()],
        *[(HuggingFaceDataset, dict(path=value)) for value in (5, '')],
        *[(HuggingFaceDataset, dict(path='x', **{key: 5})) for key in ('split', 'name', 'image', 'label', 'load_options')],
        (HuggingFaceDataset, dict(path='x', with_label=None)),
    ],
)
def test_settings_of_another_kind_are_refused(kind, settings):
    key = list(settings)[-1]
    with pytest.raises(ValueError, match=rf'^{kind.__name__}: {key}=.*: give (a text|a dict|True or False)'):
        kind(**settings)


def test_missing_libraries(monkeypatch):
    monkeypatch.setattr('mmcls_kd.errors.find_spec', lambda name: None)
    for build, extra in ((WebDataset, 'webdataset'), (lambda: HuggingFaceDataset('x'), 'datasets')):
        with pytest.raises(MissingLibraryError, match=rf"pip install 'mmcls_kd\[{extra}\]'"):
            build()


@pytest.mark.parametrize('number', [0, 1])
def test_configs_of_the_page(number, root, monkeypatch, tmp_path):
    page = (TOOLBOX / 'docs/readers.md').read_text()
    config = re.findall(r'```python\n(# (?:shards|tables)\.py\n.*?)```', page, re.DOTALL)[number]
    (tmp_path / 'config.py').write_text(config)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('datasets.config.HF_DATASETS_CACHE', tmp_path / 'cache')
    for name in ('shards', 'parquet'):
        (tmp_path / f'my_{name}').symlink_to(root / name)
    cfg = read_config('config.py')
    assert_same(DATASETS.build(cfg.train_dataloader.dataset | {'pipeline': PIPELINE}), folder_set(root / 'folders/train'))
    assert len(DATASETS.build(cfg.val_dataloader.dataset)) == 9


def test_writer_of_the_page(root, monkeypatch, tmp_path):
    page = (TOOLBOX / 'docs/readers.md').read_text()
    code = re.search(r'```python\n(from pathlib.*?)```', page, re.DOTALL)[1]
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'my_images').symlink_to(root / 'folders')
    (tmp_path / 'my_shards/train').mkdir(parents=True)
    exec(code, {})
    assert_same(shard_set(tmp_path / 'my_shards', data_prefix='train'), folder_set(root / 'folders/train'))
