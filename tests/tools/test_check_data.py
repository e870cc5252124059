"""tools/check_data.py names every fault of the data, with its file, and changes nothing."""

import json
import re
import sys
from types import SimpleNamespace

import folders
import numpy as np
import pytest
from commands import DISTILLER, STUDENT, run, tool
from mmpretrain.datasets import CIFAR100
from mmpretrain.registry import DATASETS
from PIL import Image
from rich.console import Console

from mmcls_kd.checks import data as data_check
from mmcls_kd.checks import images
from mmcls_kd.checks.data import ImageFile, read_all

IMAGENET = 'configs/distillers/imagenet/res18_sd_img.py'
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def save_image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(0).randint(0, 256, (32, 32, 3))
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def class_folders(root, **counts):
    """A folder of images for each class."""
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            save_image(root / name / f'{i}.jpg')
    return root


def annotated(root, text):
    """Images a.jpg, b.jpg and c.jpg, and an annotation file with this text."""
    for name in 'abc':
        save_image(root / f'{name}.jpg')
    (root / 'list.txt').write_bytes(text if isinstance(text, bytes) else text.encode())
    return dict(type='CustomDataset', data_root=str(root), ann_file='list.txt')


def folder_set(root, **settings):
    return dict(type='CustomDataset', data_root=str(root), **settings)


def contents(folder):
    return {path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in folder.rglob('*')}


@pytest.fixture
def check(monkeypatch, capsys):
    """Runs the tool; returns its exit code, all its output, and the findings by data set."""

    def call(config, *arguments):
        monkeypatch.setattr(sys, 'argv', ['check_data.py', str(config), '--workers', '2', *map(str, arguments)])
        capsys.readouterr()
        try:
            tool('check_data')()
            code = 0
        except SystemExit as stopped:
            code = stopped.code
            if isinstance(code, str):  # what Python itself does with it
                print(code, file=sys.stderr)
                code = 1
        captured = capsys.readouterr()
        findings = [line for line in captured.out.splitlines() if re.match(r'(train|val|test)( \d+)?: (?!listing)', line)]
        last = (captured.err if code else captured.out).splitlines()[-1]
        return SimpleNamespace(code=code, out=captured.out, last=last, findings=findings)

    return call


@pytest.fixture
def check_sets(check, tmp_path):
    """Runs the tool on a config with these data sets."""

    def call(train, val=None, num_classes=2, arguments=()):
        config = tmp_path / 'config.py'
        loaders = {'train_dataloader': train, 'val_dataloader': val}
        model = dict(type='ImageClassifier', head=dict(type='LinearClsHead', num_classes=num_classes))
        lines = [f'{name} = dict(dataset={dataset!r})\n' for name, dataset in loaders.items() if dataset]
        config.write_text(f'model = {model!r}\n' + ''.join(lines))
        return check(config, *arguments)

    return call


def on(root):
    return ['--cfg-options', *(f'{loader}.dataset.data_root={root}' for loader in LOADERS)]


def test_annotated_images_that_are_in_order(check, tmp_path):
    root = folders.imagenet(tmp_path / 'imagenet')
    before = contents(root)
    done = check(IMAGENET, *on(root))
    assert done.code == 0
    assert done.last == 'check_data.py: all is well'
    (warning,) = done.findings  # eight images cannot be of a thousand classes
    assert warning.startswith(f'train: {root}/meta/train.txt: warning: 992 of 1000 classes have no training image: 1 ')
    assert warning.endswith(', ...')
    assert re.search(r'train +│ +8 │ +1,000 │ +8 │ +0 │ +1 ', done.out)
    assert re.search(r'val +│ +6 │ +1,000 │ +6 │ +0 │ +0 ', done.out)
    assert re.search(r'test +│ as val', done.out)
    assert contents(root) == before


@pytest.mark.parametrize('config', [DISTILLER, STUDENT])
def test_images_in_memory_that_are_in_order(check, data, config):
    before = contents(data)
    done = check(config, *on(data))
    assert (done.code, done.findings, done.last) == (0, [], 'check_data.py: all is well')
    assert re.search(r'train +│ +256 │ +10 │ +10 │ +0 │', done.out)
    assert contents(data) == before


def several_labels(root, *labels):
    infos = [dict(img_path=f'{i}.jpg', gt_label=given) for i, given in enumerate(labels)]
    for i in range(len(labels)):
        save_image(root / f'{i}.jpg')
    (root / 'list.json').write_text(json.dumps(dict(metainfo=dict(classes=['ant', 'bee', 'cat']), data_list=infos)))
    return dict(type='MultiLabelDataset', data_root=str(root), ann_file='list.json', data_prefix='')


def test_several_labels_an_image(check_sets, tmp_path):
    done = check_sets(several_labels(tmp_path / 'data', [0, 2], [], [1]), num_classes=3)
    assert (done.code, done.findings) == (0, [])
    assert re.search(r'train +│ +3 │ +3 │ +3 │ +0 │', done.out)
    done = check_sets(several_labels(tmp_path / 'wrong', [0, 3], [1, 0, 1]), num_classes=3)
    assert [line.split('.jpg): ')[1] for line in done.findings if 'sample' in line] == [
        'label 3 is outside of the 3 classes (0 to 2)',
        'the labels [1, 0, 1] name one twice',
    ]


def test_images_without_labels(check_sets, tmp_path):
    root = class_folders(tmp_path / 'data', cat=4, dog=2)
    more = class_folders(tmp_path / 'more', **{'cat': 1, '2025': 2})
    mixed = dict(type='MixedDataset', datasets=[folder_set(root), dict(type='UnlabelledImages', data_root=str(more))])
    done = check_sets(mixed, folder_set(root))
    assert (done.code, done.findings) == (0, [])
    assert re.search(r'train 2 +│ +3 │ +0 │ +0 │ +0 │', done.out)
    (more / '2025' / '1.jpg').write_text('no image')
    assert check_sets(mixed).findings[0].startswith(f'train 2: {more}/2025/1.jpg: ')


def test_images_that_cannot_be_read(check_sets, tmp_path):
    root = class_folders(tmp_path / 'data', cat=4, dog=2)
    cut = root / 'cat' / '1.jpg'
    cut.write_bytes(cut.read_bytes()[:-200])
    (root / 'cat' / '2.jpg').write_bytes(b'')
    (root / 'dog' / '0.jpg').write_text('no image')
    png = save_image(root / 'dog' / 'deep' / 'x.PNG')
    png.write_bytes(png.read_bytes()[:400])
    done = check_sets(folder_set(root), folder_set(root))
    assert done.code == 1
    assert [line.split(': ')[1] for line in done.findings] == [
        str(root / name) for name in ('cat/1.jpg', 'cat/2.jpg', 'dog/0.jpg', 'dog/deep/x.PNG')
    ]
    assert 'truncated' in done.findings[0]
    assert 'no image that can be identified' in done.findings[1]
    assert done.last == 'check_data.py: error: 4 faults in the data (train 4)'  # val is the same: not read again


def test_images_that_the_pipeline_does_not_decode(check_sets, tmp_path):
    root = class_folders(tmp_path / 'data', cat=2, dog=2)
    path = root / 'cat' / 'x.tiff'
    Image.new('F', (32, 32)).save(path)
    load = dict(type='LoadImageFromFile')
    for pipeline, text in [
        (None, 'cv2 does not decode it'),
        ([load], 'cv2 does not decode it'),
        ([dict(load, imdecode_backend='pillow')], ''),
    ]:
        data = folder_set(root, extensions=('.jpg', '.tiff'), **(dict(pipeline=pipeline) if pipeline else {}))
        assert check_sets(data).findings == ([f'train: {path}: {text}'] if text else [])


def test_an_image_that_breaks_the_decoder(check_sets, tmp_path, monkeypatch):
    root = class_folders(tmp_path / 'data', cat=1, dog=1)

    def broken(path):
        raise IndexError('index out of range')

    monkeypatch.setattr(images, 'image_fault', broken)
    assert f'train: {root}/cat/0.jpg: IndexError: index out of range' in check_sets(folder_set(root)).findings


def test_wrong_lines_of_an_annotation_file(check_sets, tmp_path):
    lines = [
        b'a.jpg 0',
        b'b.jpg',
        b'',
        b'b.jpg\t1',
        b'b.jpg one',
        b'c.jpg 2',
        b'c.jpg -1',
        b'nowhere.jpg 1',
        b'a.jpg 1',
        b'\xff 1',
    ]
    train = annotated(tmp_path / 'data', b'\n'.join(lines))
    done = check_sets(train)
    place = f'train: {tmp_path}/data/list.txt: '
    two = 'not two fields, a path and a label with a blank between them'
    assert done.findings == [
        f"{place}line 2 'b.jpg': {two}",
        f"{place}line 3 '': {two}",
        f"{place}line 4 'b.jpg\\t1': {two}",
        f"{place}line 5 'b.jpg one': the label 'one' is no integer",
        f"{place}line 6 'c.jpg 2': label 2 is outside of the 2 classes (0 to 1)",
        f"{place}line 7 'c.jpg -1': label -1 is outside of the 2 classes (0 to 1)",
        f"{place}line 9 'a.jpg 1': this image stands in line 1 already",
        f"{place}line 10 '\\\\xff 1': not UTF-8",
        f"{place}line 8 'nowhere.jpg 1': the image file {tmp_path}/data/nowhere.jpg does not exist",
    ]
    assert done.code == 1
    assert done.last == 'check_data.py: error: 9 faults in the data (train 9)'


def test_annotation_files_that_are_in_order(check_sets, tmp_path):
    (tmp_path / 'data' / 'sub folder').mkdir(parents=True)
    save_image(tmp_path / 'data' / 'sub folder' / 'd e.jpg')
    train = annotated(tmp_path / 'data', 'a.jpg 0\r\nb.jpg 1\r\nsub folder/d e.jpg 1\r\n')
    done = check_sets(train)
    assert (done.code, done.findings) == (0, [])


def test_an_unreadable_image_of_an_annotation_file(check_sets, tmp_path):
    train = annotated(tmp_path / 'data', 'a.jpg 0\nb.jpg 1\n')
    (tmp_path / 'data' / 'b.jpg').write_bytes(b'')
    assert check_sets(train).findings == [f'train: {tmp_path}/data/b.jpg: no image that can be identified']


def test_annotation_files_that_are_missing_or_empty(check_sets, tmp_path):
    train = annotated(tmp_path / 'data', '')
    done = check_sets(train, dict(train, ann_file='other.txt'))
    assert f'train: {tmp_path}/data/list.txt: the annotation file is empty' in done.findings
    assert done.findings[1].startswith(f'val: {tmp_path}/data/other.txt: no such annotation file; CustomDataset expects')
    assert done.last.endswith('2 faults in the data (train 1, val 1)')


def test_empty_class_folders(check_sets, tmp_path):
    root = class_folders(tmp_path / 'data', ant=1, bee=0, cat=1, dog=0)
    (root / 'dog' / 'readme.txt').write_text('')
    done = check_sets(folder_set(root), num_classes=4)
    assert done.findings == [
        f'train: {root}/bee: no image in this class folder',
        f'train: {root}/dog: no image in this class folder',
        f'train: {root}: note: files that are not read: 1 of other types in class folders (1 .txt)',
    ]
    assert done.last.endswith('2 faults in the data (train 2)')


def test_no_class_folders(check_sets, tmp_path):
    root = tmp_path / 'data'
    annotated(root, '')
    done = check_sets(folder_set(root), folder_set(root, data_prefix='val'))
    assert done.findings[0].startswith(f'train: {root}: no class folder in it; CustomDataset expects')
    assert done.findings[1].startswith(f'val: {root}/val: no such folder; CustomDataset expects')


def test_class_folders_that_differ_between_splits(check_sets, tmp_path):
    train = class_folders(tmp_path / 'train', ant=1, bee=1, cat=1)
    val = class_folders(tmp_path / 'val', ant=1, cat=1, dog=1, elk=1)
    done = check_sets(folder_set(train), folder_set(val), num_classes=3)
    assert done.findings == [
        f'val: {val}: 4 class folders, but the model has 3 classes',
        f'val: {val}/bee: this class folder is missing; train has it',
        f'val: {val}/dog: train has no such class folder',
        f'val: {val}/elk: train has no such class folder',
    ]
    assert done.last.endswith('4 faults in the data (val 4)')


def test_imagenet_without_a_class(check, tmp_path):
    root = tmp_path / 'imagenet'
    class_folders(root / 'train', n01=1, n02=1)
    class_folders(root / 'val', n01=1)
    done = check(IMAGENET, *on(root))
    assert f'val: {root}/val/n02: this class folder is missing; train has it' in done.findings
    counts = '1 class folder, but the model has 1,000 classes and the data set declares 1,000 class names'
    assert f'val: {root}/val: {counts}' in done.findings


def test_class_names_that_differ_between_splits(check_sets, tmp_path):
    train = folder_set(class_folders(tmp_path / 'train', ant=1, bee=1))
    val = annotated(tmp_path / 'val', 'a.jpg 0\nb.jpg 1\n')
    place = f'val: {tmp_path}/val/list.txt: other classes than train: '
    done = check_sets(train, dict(val, classes=['bee', 'ant']))
    text = "'bee' is class 0 of this data set and 1 of train, 'ant' is class 1 of this data set and 0 of train"
    assert done.findings == [place + text]
    done = check_sets(train, dict(val, classes=['ant', 'fly', 'gnu']))
    assert done.findings == [
        f'val: {tmp_path}/val/list.txt: 3 class names, but the model has 2 classes',
        f"{place}missing: 'bee'; only here: 'fly', 'gnu'",
    ]
    assert check_sets(train, dict(val, classes=['ant', 'bee'])).code == 0
    assert check_sets(train, val).code == 0  # no names that could differ


def test_classes_that_differ_from_the_students(check, tmp_path, data):
    option = 'model.student_cfg.head.num_classes=7'
    done = check(DISTILLER, *on(data), option)
    assert f'train: {data}: 10 class names, but the model has 7 classes' in done.findings
    assert sum('label 7 is outside of the 7 classes (0 to 6)' in line for line in done.findings) == 35
    assert done.code == 1


def test_label_outside_of_the_classes(check, tmp_path):
    root = folders.fashion_mnist(tmp_path / 'data', train=64, test=10, wrong_label=12)
    done = check(STUDENT, *on(root))
    (finding,) = done.findings
    assert finding.endswith('sample 17 (an image without a file): label 12 is outside of the 10 classes (0 to 9)')
    assert done.last.endswith('1 fault in the data (train 1)')


def test_classes_without_a_training_image(check_sets, tmp_path):
    train = annotated(tmp_path / 'data', 'a.jpg 0\nb.jpg 2\n')
    done = check_sets(dict(train, classes=['x', 'y', 'z', 'w']), num_classes=4)
    text = "warning: 2 of 4 classes have no training image: 1 'y', 3 'w'"
    assert done.findings == [f'train: {tmp_path}/data/list.txt: {text}']
    assert done.code == 0


def test_data_sets_inside_wrappers(check_sets, tmp_path):
    first = class_folders(tmp_path / 'first', ant=1, bee=1)
    second = class_folders(tmp_path / 'second', ant=1, bee=2)
    (second / 'bee' / '1.jpg').write_bytes(b'')
    repeated = dict(type='RepeatDataset', times=3, dataset=folder_set(second))
    train = dict(type='ConcatDataset', datasets=[folder_set(first), repeated])
    done = check_sets(train, folder_set(second, pipeline=[dict(type='LoadImageFromFile')]))
    assert done.findings == [f'train 2: {second}/bee/1.jpg: no image that can be identified']
    assert re.search(r'val +│ as train 2', done.out)
    # together they have every class
    parts = [annotated(tmp_path / 'a', 'a.jpg 0\n'), annotated(tmp_path / 'b', 'a.jpg 1\n')]
    assert check_sets(dict(type='ConcatDataset', datasets=parts)).findings == []


def test_missing_data_folder(check, tmp_path):
    done = check(DISTILLER, *on(tmp_path / 'nowhere'))
    assert done.code == 1
    assert done.last.startswith('check_data.py: error: train_dataloader: the data set folder')
    assert 'python tools/fetch_fashion_mnist.py' in done.last


def test_files_that_mmpretrain_cannot_load(check, tmp_path, data, monkeypatch):
    root = folders.fashion_mnist(tmp_path / 'data', train=20, test=10)
    path = root / 't10k-labels-idx1-ubyte'
    path.write_bytes(path.read_bytes()[:-3])
    done = check(STUDENT, *on(root))
    assert len(done.findings) == 1
    assert done.findings[0].startswith(f'val: {root}: cannot be loaded (')
    monkeypatch.setattr(CIFAR100, 'url', 'http://127.0.0.1:9/never-fetched')
    done = check('configs/resnet/resnet18_8xb16_cifar100.py', *on(tmp_path / 'cifar'))
    assert 'cannot be loaded (RuntimeError: Cannot find CIFAR100 dataset' in done.findings[0]
    assert 'cifar-100-python/{train,test,meta}' in done.findings[0]
    assert not (tmp_path / 'cifar').exists()


def test_data_sets_without_labels_or_lists(check_sets, tmp_path):
    root = tmp_path / 'data'
    annotated(root, '')
    (root / 'c.jpg').write_bytes(b'')
    done = check_sets(folder_set(root, with_label=False))
    assert done.findings == [f'train: {root}/c.jpg: no image that can be identified']
    listed = annotated(root, 'a.jpg\nb.jpg\nnowhere.jpg\n')
    done = check_sets(dict(listed, with_label=False))
    assert done.findings == [f'train: {root}/nowhere.jpg: [Errno 2] No such file or directory']


class Ramp:
    """A data set of the user's own."""

    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, i):
        raise NotImplementedError


class LabelledRamp(Ramp):
    def get_data_info(self, i):
        return dict(img=None, gt_label=[i % 2, i // 2])  # two labels an image


def test_data_sets_of_the_users_own(check_sets, monkeypatch):
    monkeypatch.setitem(DATASETS.module_dict, 'Ramp', Ramp)
    monkeypatch.setitem(DATASETS.module_dict, 'LabelledRamp', LabelledRamp)
    done = check_sets(dict(type='Ramp', size=5), dict(type='LabelledRamp', size=5))
    assert done.findings == [
        'train: Ramp: warning: Ramp has no get_data_info, so its images are not looked at',
        'val: LabelledRamp: sample 4 (an image without a file): label 2 is outside of the 2 classes (0 to 1)',
    ]
    assert re.search(r'train +│ +5 │', done.out)
    assert "unexpected keyword argument 'length'" in check_sets(dict(type='Ramp', length=5)).last


def test_a_config_that_is_wrong(check, check_sets, tmp_path):
    assert check('configs/nowhere.py').last.startswith('check_data.py: error: config configs/nowhere.py: neither in')
    assert "there is no dataset 'FolderSet'" in check_sets(dict(type='FolderSet')).last
    assert "The split must be one of ['train'" in check_sets(dict(type='ImageNet', split='trian')).last
    assert 'no data set to check' in check_sets(None).last
    assert check_sets(folder_set(tmp_path), arguments=['--workers', '0']).code == 2


def test_progress(check_sets, tmp_path, monkeypatch):
    root = class_folders(tmp_path / 'data', cat=3, dog=2)
    monkeypatch.setattr(data_check, 'SECONDS_BETWEEN_LINES', 0)
    lines = check_sets(folder_set(root)).findings
    assert len(lines) == 5
    assert re.fullmatch(r'train: 3 of 5 images read, 0 faults, time left: [\d:]+', lines[2])
    monkeypatch.setattr(data_check, 'Console', lambda: Console(force_terminal=True, width=100))
    assert re.search(r'5/5.*images, time left.*0:00:0', check_sets(folder_set(root)).out)


def test_interruption(check_sets, tmp_path, monkeypatch):
    def interrupted(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(images, 'image_fault', interrupted)
    done = check_sets(folder_set(class_folders(tmp_path / 'data', cat=300, dog=2)))
    assert done.code == 130
    assert done.last == 'check_data.py: interrupted; the data are not checked to their end'


def test_reading_keeps_the_order(tmp_path):
    files = [ImageFile(str(save_image(tmp_path / f'{i}.png')) if i % 7 else f'{i}') for i in range(200)]
    results = list(read_all(iter(files), workers=3))  # more than one batch
    assert [file for file, _ in results] == files
    assert [fault is None for _, fault in results] == [bool(i % 7) for i in range(200)]


@pytest.mark.slow
def test_the_exit_code_and_the_last_line(tmp_path):
    root = folders.fashion_mnist(tmp_path / 'data', train=20, test=10, wrong_label=12)
    done = run('tools/check_data.py', STUDENT, *on(root), check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == 'check_data.py: error: 1 fault in the data (train 1)'
    assert 'Traceback' not in done.output
