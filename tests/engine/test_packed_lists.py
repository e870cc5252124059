"""Lists of images kept packed: the same samples as mmpretrain's own, of files and folders, chosen or not."""

import copy
import pickle
from types import SimpleNamespace

import folders
import numpy as np
import pytest
from mmpretrain.datasets import CustomDataset, ImageNet

from mmcls_kd.checks.training import labels_of
from mmcls_kd.engine.data import sample_infos
from mmcls_kd.engine.image_files import changed, describe, paths_of
from mmcls_kd.engine.labels import folder_names
from mmcls_kd.engine.views import data_list
from mmcls_kd.files.packed_list import PackedList

LINES = [f'n{number % 7:02d}/some image {number}.png {number * 37 % 1200}' for number in range(30)]
CHOICES = (None, 5, 0, -3, [4, 1, 1, -2], range(3, 9))


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Let mmengine not search for garbage in all that the tests imported, each time that it serializes a list."""
    monkeypatch.setattr('mmengine.dataset.base_dataset.gc', SimpleNamespace(collect=int))


def of_file(folder, lines, serialize_data, **settings):
    (folder / 'list.txt').write_bytes('\n'.join(lines).encode())
    return CustomDataset(str(folder), 'images', 'list.txt', serialize_data=serialize_data, **settings)


def assert_alike(dataset, plain):
    """Compare a packed list with mmpretrain's."""
    assert isinstance(dataset.data_list, PackedList)
    assert not isinstance(plain.data_list, PackedList)
    infos = [plain.get_data_info(i) for i in range(len(plain))]
    assert len(dataset) == len(infos)
    assert [dataset.get_data_info(i) for i in range(len(dataset))] == infos
    assert list(dataset.data_list) == [dataset.data_list[i] for i in range(len(dataset))] == plain.data_list
    assert list(sample_infos(dataset, 3)) == list(sample_infos(plain, 3))
    assert all(type(info.get('gt_label', 0)) is int for info in dataset.data_list)
    assert data_list(dataset) == data_list(plain)
    assert dataset.metainfo == plain.metainfo
    assert folder_names(dataset) == folder_names(plain)
    if infos and 'gt_label' in infos[0]:
        assert np.array_equal(dataset.get_gt_labels(), plain.get_gt_labels())
        assert dataset.get_cat_ids(0) == plain.get_cat_ids(0)
        for ours, theirs in zip(labels_of(dataset, 'x', False), labels_of(plain, 'x', False), strict=True):
            assert np.array_equal(ours, theirs)


@pytest.mark.parametrize('indices', CHOICES, ids=str)
def test_lines_with_labels(tmp_path, indices):
    assert_alike(*(of_file(tmp_path, LINES, packed, indices=indices) for packed in (True, False)))


@pytest.mark.parametrize('end', ['', '\n'])
@pytest.mark.parametrize('with_label', [True, False])
@pytest.mark.parametrize('root', ['images', 'images/', ''])
def test_ends_labels_and_prefixes(tmp_path, root, with_label, end):
    lines = [*LINES[:-1], LINES[-1] + end]
    settings = dict(with_label=with_label, metainfo=dict(classes=['a', 'b']))
    found = [of_file(tmp_path, lines, packed, **settings) for packed in (True, False)]
    for dataset in found:
        dataset.data_prefix = dict(img_path=root)
        dataset._fully_initialized = False
    found[0].serialize_data = True
    found[0].full_init()
    found[1].full_init()
    assert_alike(*found)


@pytest.mark.parametrize('indices', CHOICES, ids=str)
@pytest.mark.parametrize('with_label', [True, False])
def test_folders(tmp_path, with_label, indices):
    root = folders.class_folders(tmp_path, size=8, cat=4, dog=3, äh=5)
    settings = dict(data_root=str(root), with_label=with_label, indices=indices)
    assert_alike(*(CustomDataset(**settings, serialize_data=packed) for packed in (True, False)))


@pytest.mark.parametrize(
    'lines',
    [
        ['ä.png 3', 'b.png 4'],
        ['a.png 3\r', 'b.png 4'],
        ['a.png 3 ', 'b.png 4'],
        [' a.png 3', 'b.png 4'],
        ['a.png -3', 'b.png +4'],
        ['a.png 1_000', 'b.png 4'],
        ['/elsewhere/a.png 3', 'b.png 4'],
    ],
)
def test_lines_that_are_not_plain_are_read_by_mmpretrain(tmp_path, lines):
    dataset, plain = (of_file(tmp_path, lines, packed) for packed in (True, False))
    assert dataset.serialize_data
    assert [dataset.get_data_info(i) for i in range(2)] == [plain.get_data_info(i) for i in range(2)]


@pytest.mark.parametrize('lines', [['a.png 3', 'b.png'], ['a.png 3', '', 'b.png 4'], ['a.png x'], ['a.png 5x'], ['12']])
def test_faulty_lines_are_refused_as_before(tmp_path, lines):
    messages = []
    for packed in (True, False):
        with pytest.raises(ValueError, match=r'unpack|invalid literal') as caught:
            of_file(tmp_path, lines, packed)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize(
    ('lines', 'named'),
    [
        (['a.png,cat'], "line 1 'a.png,cat': not two fields, a path and a label with a blank between them"),
        (['ä.png 0', 'b.png cat', 'c.png'], "line 2 'b.png cat': the label 'cat' is no integer"),
        (['a.png 0', '', 'c.png 1'], "line 2 '': not two fields"),
    ],
)
def test_a_faulty_line_is_named_with_the_needed_form(tmp_path, lines, named):
    with pytest.raises(ValueError, match='each line has the form `path label`, such as `cat/1.jpg 0`') as caught:
        of_file(tmp_path, lines, True)
    assert str(caught.value).startswith(f'{tmp_path}/list.txt: {named}')
    assert '\n' not in str(caught.value)


def test_a_list_in_another_encoding_is_named(tmp_path):
    (tmp_path / 'list.txt').write_bytes(b'a.png 0\ncaf\xe9.png 1\n')
    with pytest.raises(ValueError, match=r"list.txt: line 2 'caf\\\\xe9.png 1': not UTF-8; "):
        CustomDataset(str(tmp_path), 'images', 'list.txt')


@pytest.mark.parametrize('name', ['load_data_list', 'filter_data'])
def test_classes_of_the_users_own_get_the_list_that_they_change(tmp_path, name):
    def changed_list(self):
        return [{**info, 'own': True} for info in getattr(CustomDataset, name)(self)]

    (tmp_path / 'list.txt').write_text('\n'.join(LINES))
    dataset = type('Own', (CustomDataset,), {name: changed_list})(str(tmp_path), ann_file='list.txt')
    assert dataset.serialize_data
    assert all(dataset.get_data_info(i)['own'] for i in range(len(LINES)))


def test_a_file_is_read_anew_only_if_it_changed(tmp_path):
    first, again = of_file(tmp_path, LINES, True), CustomDataset(str(tmp_path), 'images', 'list.txt')
    assert again.data_list is first.data_list
    assert of_file(tmp_path, LINES[1:], True).data_list[0]['img_path'].endswith(LINES[1].rpartition(' ')[0])
    with pytest.raises(FileNotFoundError, match=r'gone\.txt'):
        CustomDataset(str(tmp_path), 'images', 'gone.txt')


def test_subclasses_subsets_and_copies(tmp_path):
    root = folders.imagenet(tmp_path, train=12)
    dataset, plain = (ImageNet(str(root), 'train', serialize_data=packed) for packed in (True, False))
    assert_alike(dataset, plain)
    for chosen in ([3, 0], -2, 4):
        subset, other = dataset.get_subset(chosen), plain.get_subset(chosen)
        assert [*subset.data_list] == [*other.data_list]
    assert [*copy.deepcopy(dataset).data_list] == [*pickle.loads(pickle.dumps(dataset)).data_list] == plain.data_list
    dataset.get_subset_(range(5))
    assert len(dataset) == 5
    with pytest.raises(IndexError):
        PackedList('', b'', np.array([], int), np.array([], int), None)[0]


def test_files_that_come_again_are_looked_at_once(tmp_path, monkeypatch):
    root = folders.class_folders(tmp_path / 'images', size=8, cat=2, dog=1)
    lines = ['cat/0.jpg 0', 'dog/0.jpg 1', 'cat/0.jpg 1', 'gone.jpg 0', 'cat/1.jpg 0'] * 3
    data = of_file(tmp_path, lines, True)
    assert list(paths_of(data)) == [str(root / line[:-2]) for line in lines]
    noted = describe(data)
    looked = []
    monkeypatch.setattr('mmcls_kd.engine.image_files.sha256', lambda path: looked.append(path.name) or 'x')
    describe(data)
    assert sorted(looked) == ['0.jpg', '0.jpg', '1.jpg']
    assert noted == {**describe(of_file(tmp_path, lines, False)), 'content': noted['content']}
    assert changed(noted, data) is None
