"""Training data: the same draws however they are loaded, and no file that cannot be read is passed over in silence."""

import re

import folders
import numpy as np
import pytest
import torch
from interruption import Run
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpretrain.datasets import FashionMNIST
from PIL import Image

from mmcls_kd.engine.data import SampleIndex, batches_from, image_fault, reproducible, sample_infos
from mmcls_kd.engine.first_batch import first_images
from mmcls_kd.engine.seeds import derive_seed, seed_all
from mmcls_kd.errors import TrainingError, UnreadableImageError
from mmcls_kd.files.paths import TOOLBOX

CROP = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=16),
    dict(type='RandomFlip', prob=0.5),
    dict(type='AutoAugment', policies='imagenet'),
    dict(type='PackInputs'),
]


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    return folders.imagenet(tmp_path_factory.mktemp('images') / 'imagenet', train=12)


def loader(root, batch_size=4, workers=0, on_unreadable='stop', sampler='DefaultSampler', seed=5, **dataset):
    data = dict(type='ImageNet', data_root=str(root), split='train', pipeline=CROP, **dataset)
    cfg = dict(
        batch_size=batch_size,
        num_workers=workers,
        persistent_workers=workers > 0,
        dataset=data if sampler != 'twice' else dict(type='RepeatDataset', times=2, dataset=data),
        sampler=dict(type='DefaultSampler' if sampler == 'twice' else sampler, shuffle=True),
        collate_fn=dict(type='default_collate'),
    )
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return Runner.build_dataloader(reproducible(cfg, seed, on_unreadable), seed=seed)


def views(batches):
    """Each image of some batches with its number, in order."""
    return [(s.sample_idx, x) for batch in batches for s, x in zip(batch['data_samples'], batch['inputs'], strict=True)]


def assert_same(a, b):
    assert [number for number, _ in a] == [number for number, _ in b]
    assert all(torch.equal(x, y) for (_, x), (_, y) in zip(a, b, strict=True))


@pytest.mark.parametrize('sampler', ['DefaultSampler', 'RepeatAugSampler', 'twice'])
def test_views_depend_on_neither_batch_size_nor_workers(images, sampler):
    plain = views(loader(images, 4, sampler=sampler))
    assert_same(plain, views(loader(images, 3, sampler=sampler)))
    assert_same(plain, views(loader(images, 4, workers=2, sampler=sampler)))


def test_a_sample_has_another_view_in_another_epoch_place_and_run(images):
    data = loader(images)
    first = dict(views(data))
    data.batch_sampler.sampler.set_epoch(1)
    second = dict(views(data))
    other = dict(views(loader(images, seed=6)))
    assert sum(torch.equal(first[i], second[i]) for i in first) == 0
    assert sum(torch.equal(first[i], other[i]) for i in first) == 0
    dataset = data.dataset
    a, b = (dataset[SampleIndex(3, epoch=0, place=place)]['inputs'] for place in (0, 1))
    assert not torch.equal(a, b)


@pytest.mark.parametrize('workers', [0, 2])
def test_a_pass_can_start_in_the_middle(images, workers):
    whole = views(loader(images, workers=workers))
    data = loader(images, workers=workers)
    assert_same(views(batches_from(data, 2)), whole[8:])
    assert_same(views(data), whole)  # the next pass is whole again


def test_workers_end_with_the_training_process_alone(images):
    data = loader(images, workers=1)
    next(iter(data))
    worker = data._iterator._workers[0]
    worker.terminate()
    worker.join(0.5)
    assert worker.is_alive()
    assert len(views(data)) == 12


@pytest.mark.parametrize('device', [False, True])
def test_a_step_has_the_random_numbers_of_its_seed(monkeypatch, device):
    monkeypatch.setattr(torch.accelerator, 'is_available', lambda: device)
    seed_all(3, 'step', 5)
    drawn = torch.rand(4), np.random.rand(4)
    torch.manual_seed(derive_seed(3, 'step', 5))
    np.random.seed(derive_seed(3, 'step', 5) % 2**32)
    assert torch.equal(drawn[0], torch.rand(4))
    assert np.array_equal(drawn[1], np.random.rand(4))


def test_labels_of_idx_files(tmp_path):
    folders.fashion_mnist(tmp_path, train=20)
    infos = FashionMNIST(data_root=str(tmp_path), split='train').load_data_list()
    content = np.frombuffer((tmp_path / 'train-labels-idx1-ubyte').read_bytes(), dtype=np.uint8)[8:]
    assert [repr(info['gt_label']) for info in infos] == [f'array({label})' for label in content]  # what stores are told by


@pytest.mark.parametrize('step', [1, 3])
def test_infos_are_the_data_sets(tmp_path, step):
    folders.fashion_mnist(tmp_path, train=20)
    for serialize in (True, False):
        dataset = FashionMNIST(data_root=str(tmp_path), split='train', serialize_data=serialize, indices=range(2, 18))
        expected = [dataset.get_data_info(i) for i in range(0, 16, step)]
        found = list(sample_infos(dataset, step))
        assert [int(info['gt_label']) for info in found] == [int(info['gt_label']) for info in expected]
        assert all(np.array_equal(info['img'], other['img']) for info, other in zip(found, expected, strict=True))


class TestUnreadable:
    @pytest.fixture
    def broken(self, tmp_path):
        """A folder with three faulty files among twelve: cut short, empty, and missing."""
        root = folders.imagenet(tmp_path / 'imagenet', train=12)
        whole = (root / 'train' / '3.JPEG').read_bytes()
        (root / 'train' / '3.JPEG').write_bytes(whole[: len(whole) // 2])
        (root / 'train' / '5.JPEG').write_bytes(b'')
        (root / 'train' / '8.JPEG').unlink()
        return root

    def test_each_is_an_error_that_names_the_file(self, broken):
        dataset = loader(broken).dataset
        for number, reason in ((3, 'truncated'), (5, 'no image'), (8, 'No such file')):
            with pytest.raises(UnreadableImageError, match=rf'{number}\.JPEG of .* cannot be read \(.*{reason}'):
                dataset[number]

    def test_they_are_left_out_and_counted_when_that_is_asked_for(self, broken):
        batches = list(loader(broken, on_unreadable='skip'))
        assert {number for number, _ in views(batches)} == set(range(12)) - {3, 5, 8}
        assert sum(len(batch['unreadable']) for batch in batches) == 3

    def test_a_file_that_the_pipeline_does_not_decode(self, broken):
        path = broken / 'train' / '2.JPEG'
        Image.new('F', (32, 32)).save(path, 'TIFF')
        with pytest.raises(UnreadableImageError, match=r'2\.JPEG of .* cannot be read \(cv2 does not decode it\)'):
            loader(broken).dataset[2]
        batches = list(loader(broken, on_unreadable='skip'))
        assert {number for number, _ in views(batches)} == set(range(12)) - {2, 3, 5, 8}
        assert sum(len(batch['unreadable']) for batch in batches) == 4

    def test_a_batch_without_one_readable_image_is_empty(self, broken):
        dataset = loader(broken, on_unreadable='skip')
        batch = dataset.collate_fn([dataset.dataset[3], dataset.dataset[5]])
        assert not batch['inputs']
        assert not batch['data_samples']
        assert [re.search(r'\d+\.JPEG', message)[0] for message in batch['unreadable']] == ['3.JPEG', '5.JPEG']

    def test_the_first_images_are_readable_ones(self, broken):
        for number in (0, 1):
            (broken / 'train' / f'{number}.JPEG').unlink()
        assert [number for number, _ in views([first_images(loader(broken, on_unreadable='skip'))])] == [2, 4]
        for path in (broken / 'train').iterdir():
            path.write_bytes(b'')
        with pytest.raises(TrainingError, match='not one image of the training data can be read: .*check-data'):
            first_images(loader(broken, on_unreadable='skip'))

    def test_no_sample_takes_the_place_of_one_that_the_pipeline_refuses(self, broken):
        dataset = loader(broken).dataset
        dataset.dataset.pipeline.transforms[0].ignore_empty = True  # gives None for a file it cannot read
        with pytest.raises(UnreadableImageError, match=r'5\.JPEG'):
            dataset[5]

    def test_a_fault_of_a_transform_is_not_the_image_s(self, images):
        dataset = loader(images).dataset
        dataset.dataset.pipeline.transforms[1] = lambda results: 1 / 0
        with pytest.raises(ZeroDivisionError):
            dataset[0]

    def test_bytes_behind_the_image_are_no_fault(self, tmp_path):
        root = folders.imagenet(tmp_path / 'imagenet', train=2)
        with (root / 'train' / '0.JPEG').open('ab') as file:
            file.write(b'\0\0 something that a camera left')
        assert loader(root).dataset[0]['inputs'].shape == (3, 16, 16)

    @pytest.mark.parametrize(('choice', 'code'), [('stop', 1), ('skip', 0)])
    @pytest.mark.parametrize('workers', [0, pytest.param(2, marks=pytest.mark.slow)])
    def test_in_training(self, tmp_path, broken, choice, code, workers):
        run = self.training(tmp_path, broken, choice, workers)
        assert run.wait() == [code], run.output()
        if choice == 'stop':
            assert ' of the training data cannot be read (' in run.output().splitlines()[-1]
            assert '.JPEG' in run.output().splitlines()[-1]
        else:
            assert 'left out (number 3 in this process)' in run.output()

    @pytest.mark.parametrize(('processes', 'beside_5'), [(1, 4), pytest.param(2, 7, marks=pytest.mark.slow)])
    def test_a_batch_of_which_no_image_or_one_is_left_is_passed_over(self, tmp_path, broken, processes, beside_5):
        (broken / 'train' / f'{beside_5}.JPEG').write_bytes(b'')
        run = self.training(tmp_path, broken, 'skip', 0, processes, batch_size=2, sampler=dict(shuffle=False))
        assert run.wait() == [0] * processes, run.output()
        steps = 6 // processes
        assert f'Epoch(train) [1][{steps}/{steps}]' in run.output()
        assert 'the step is left out (3 of them so far): unreadable images leave less than two' in run.output()

    def test_too_many_such_batches_in_a_row_end_the_training(self, tmp_path, broken):
        (broken / 'train' / '7.JPEG').write_bytes(b'')
        loader = dict(batch_size=2, sampler=dict(shuffle=False))
        run = self.training(tmp_path, broken, 'skip', 0, more='train_cfg.update(max_nonfinite=3)', **loader)
        assert run.wait() == [1], run.output()
        last = run.output().splitlines()[-1]
        assert 'error: unreadable images leave less than two images of a batch, 4 times in a row; the log names them' in last

    @staticmethod
    def training(tmp_path, broken, choice, workers, processes=1, more='', **loader):
        loader = dict(batch_size=4) | loader
        config = tmp_path / 'config.py'
        config.write_text(f"""
_base_ = '{TOOLBOX}/configs/distillers/imagenet/res18_sd_img.py'
train_dataloader = dict(**{loader}, num_workers={workers}, persistent_workers={workers > 0}, dataset=dict(
    data_root='{broken}',
    pipeline=[dict(type='LoadImageFromFile'), dict(type='ResizeEdge', scale=32), dict(type='PackInputs')]))
train_cfg = dict(max_epochs=1, on_unreadable='{choice}')
val_cfg, val_dataloader, val_evaluator = None, None, None
model = dict(student_cfg=dict(_delete_=True, **{tiny_student()}))
default_hooks = dict(logger=dict(interval=1))
{more}
""")
        return Run(config, tmp_path / 'run', '--methods', 'tfnkd', processes=processes)


def tiny_student():
    backbone = dict(type='ResNet', depth=18, base_channels=4, stem_channels=4, out_indices=(2, 3))
    head = dict(type='LinearClsHead', num_classes=1000, in_channels=32)
    return dict(type='ImageClassifier', backbone=backbone, neck=dict(type='GlobalAveragePooling'), head=head)


class TestImageFault:
    def test_whole_images_have_none(self, tmp_path):
        pixels = np.random.default_rng(0).integers(0, 255, (9, 9, 3), dtype=np.uint8)
        for name in ('a.png', 'a.jpg', 'a.bmp', 'a.webp'):
            Image.fromarray(pixels).save(tmp_path / name)
            assert image_fault(str(tmp_path / name)) is None

    def test_a_cut_png_and_a_text_file(self, tmp_path):
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (99, 99, 3), dtype=np.uint8)).save(tmp_path / 'a.png')
        (tmp_path / 'a.png').write_bytes((tmp_path / 'a.png').read_bytes()[:5000])
        (tmp_path / 'b.jpg').write_text('a page that says that the image is gone')
        assert image_fault(str(tmp_path / 'a.png')) is not None
        assert image_fault(str(tmp_path / 'b.jpg')) == 'no image that can be identified'
