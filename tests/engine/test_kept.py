"""Validation and test images in memory: batches hold what a dataloader makes, and what cannot be kept is read as before."""

import gc

import folders
import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from PIL import Image
from torch.utils.data import DataLoader

from mmcls_kd.engine import kept, memory
from mmcls_kd.engine.console import ConsoleRunner
from mmcls_kd.engine.kept import KeptLoader, keep_images
from mmcls_kd.errors import ChoiceError

READ = dict(type='LoadImageFromFile')
RESIZE = dict(type='Resize', scale=(12, 10))


@pytest.fixture(autouse=True)
def without_collections(monkeypatch):
    """Let mmengine's data sets leave out the collection of garbage, which takes half a second each."""
    monkeypatch.setattr(gc, 'collect', lambda *_: 0)


@pytest.fixture(scope='module')
def grey(tmp_path_factory):
    return folders.fashion_mnist(tmp_path_factory.mktemp('grey') / 'images', train=30, test=45)


@pytest.fixture
def photos(tmp_path):
    random = np.random.RandomState(0)
    for i in range(22):
        (tmp_path / f'class{i % 3}').mkdir(exist_ok=True)
        pixels = random.randint(0, 256, (11 + i // 20, 14, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f'class{i % 3}' / f'{i:02}.png')
    return tmp_path


def config(root, pipeline=(), kind='FashionMNIST', pack=(), workers=0, **cfg):
    settings = dict(split='test') if kind == 'FashionMNIST' else {}
    pipeline = [*pipeline, dict(type='PackInputs', **dict(pack))]
    return dict(
        batch_size=8,
        num_workers=workers,
        persistent_workers=False,
        dataset=dict(type=kind, data_root=str(root), pipeline=pipeline, test_mode=True, **settings),
        sampler=dict(type='DefaultSampler', shuffle=False),
        **cfg,
    )


def loader(*args, in_memory=None, **settings):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        found = Runner.build_dataloader(config(*args, **settings), seed=5)
    keep_images(found, in_memory)
    return found


def content(batch):
    samples = [
        (s.gt_label.tolist() if 'gt_label' in s else None, sorted(s.metainfo_items()), sorted(s.all_keys()))
        for s in batch['data_samples']
    ]
    return type(batch['inputs']), [x.tolist() for x in batch['inputs']], samples


def assert_as_loaded(*args, **settings):
    ours, theirs = loader(*args, **settings), loader(*args, **settings, in_memory=False)
    assert (type(ours), type(theirs)) == (KeptLoader, DataLoader)
    for _ in range(2):  # once read, then kept
        assert [*map(content, ours)] == [*map(content, theirs)]
    return ours


@pytest.mark.parametrize('collate', ['pseudo_collate', 'default_collate'])
def test_batches_are_those_of_a_dataloader(grey, collate):
    ours = assert_as_loaded(grey, collate_fn=dict(type=collate))
    assert len(ours) == 6
    ours.dataset.data_list[:] = [None] * 45  # the images are read once
    assert len([*ours]) == 6


@pytest.mark.parametrize('drop_last', [False, True])
def test_image_files(photos, drop_last):
    pack = dict(meta_keys=('img_path', 'scale_factor', 'ori_shape'))  # no sample_idx
    assert_as_loaded(photos, [READ, RESIZE], 'CustomDataset', pack=pack, drop_last=drop_last)


def test_a_part_for_each_process(grey, monkeypatch):
    for rank in range(2):
        monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda rank=rank: (rank, 2))
        assert_as_loaded(grey)


def test_images_of_several_sizes_are_read_again(photos):
    ours, theirs = (loader(photos, [READ], 'CustomDataset', in_memory=choice) for choice in (None, False))
    for _ in range(2):
        assert [*map(content, ours)] == [*map(content, theirs)]
    assert ours.memory is None


def test_an_image_that_cannot_be_read_is_told_as_without(photos):
    (photos / 'class1' / '13.png').write_bytes(b'no image')
    told = []
    for choice in (None, False):
        with pytest.raises(Exception) as caught:  # noqa: PT011  (OpenCV's, whatever it is)
            list(loader(photos, [READ, RESIZE], 'CustomDataset', in_memory=choice))
        told.append((caught.type, str(caught.value)))
    assert told[0] == told[1]


def test_a_pipeline_that_was_changed_is_followed(grey, photos):
    ours = loader(photos, [READ, RESIZE], 'CustomDataset')
    theirs = loader(photos, [READ, RESIZE], 'CustomDataset', in_memory=False)
    list(ours)
    for data in (ours, theirs):
        data.dataset.pipeline.transforms[1].scale = (9, 7)
    assert [*map(content, ours)] == [*map(content, theirs)]


def test_another_list_or_collation_is_followed(grey):
    ours, theirs = loader(grey), loader(grey, in_memory=False)
    list(ours)
    for data in (ours, theirs):
        data.dataset.get_subset_(list(range(44, -1, -1)))
    assert [*map(content, ours)] == [*map(content, theirs)]
    ours = loader(grey)
    ours.collate_fn = len
    assert [*ours] == [8, 8, 8, 8, 8, 5]


def test_an_order_whose_end_is_unknown(grey):
    class Endless:
        def __iter__(self):
            yield from (3, 1)

    batches = []
    for choice in (True, False):
        data = DataLoader(loader(grey, in_memory=False).dataset, sampler=Endless(), collate_fn=pseudo_collate)
        keep_images(data, choice)
        batches.append([*map(content, data)])
    assert type(data) is DataLoader
    assert batches[0] == batches[1] != []


def test_random_numbers_go_on_as_after_a_dataloader(grey):
    numbers = []
    for choice in (None, False):
        data = loader(grey, in_memory=choice)
        torch.manual_seed(0)
        list(data)
        numbers.append(torch.rand(3).tolist())
    assert numbers[0] == numbers[1]


@pytest.mark.parametrize(
    ('kind', 'settings'),
    [
        ('random', dict(pipeline=[dict(type='RandomFlip', prob=0.5)])),
        ('augmented', dict(pipeline=[dict(type='ColorJitter', brightness=0.4)])),
        ('collated', dict(collate_fn=dict(type='collate_of_a_user'))),
    ],
)
def test_others_stay_as_they_are(grey, kind, settings, monkeypatch, caplog):
    from mmengine.registry import FUNCTIONS

    monkeypatch.setitem(FUNCTIONS.module_dict, 'collate_of_a_user', lambda samples: samples)
    monkeypatch.setattr(kept, 'print_log', lambda text, _: told.append(text))
    told = []
    assert type(loader(grey, **settings)) is DataLoader
    assert told == []
    assert type(loader(grey, **settings, in_memory=True)) is DataLoader
    assert 'the images of FashionMNIST are not kept in memory' in told[0]


def test_files_that_workers_decode_are_kept_on_demand_alone(photos, grey):
    given = [photos, [READ, RESIZE], 'CustomDataset']
    assert type(loader(*given, workers=2)) is DataLoader
    assert type(loader(*given, workers=2, in_memory=True)) is KeptLoader
    assert type(loader(grey, workers=2)) is KeptLoader  # nothing to decode


def test_those_above_the_limit_are_kept_on_demand_alone(grey, monkeypatch):
    monkeypatch.setattr(kept, 'LIMIT', 45 * 784 - 1)
    assert type(loader(grey)) is DataLoader
    assert type(loader(grey, in_memory=True)) is KeptLoader


def test_another_choice_is_refused(grey):
    with pytest.raises(ChoiceError, match='in_memory=.yes.: choose one of None, True, False'):
        loader(grey, in_memory='yes')


@pytest.mark.parametrize('part', ['val', 'test'])
def test_a_runs_loops_keep_their_images(grey, tmp_path, part):
    def run(**settings):
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            runner = ConsoleRunner(
                model=dict(
                    type='ImageClassifier',
                    backbone=dict(type='LeNet5'),
                    neck=dict(type='GlobalAveragePooling'),
                    head=dict(type='LinearClsHead', num_classes=10, in_channels=120),
                    data_preprocessor=dict(mean=[100.0], std=[60.0], num_classes=10),
                ),
                work_dir=str(tmp_path),
                default_scope='mmpretrain',
                randomness=dict(seed=1),
                log_level='WARNING',
                experiment_name=f'{part}{settings}',
                **{
                    f'{part}_dataloader': config(grey, [dict(type='Resize', scale=32)]),
                    f'{part}_cfg': settings,
                    f'{part}_evaluator': dict(type='Accuracy', topk=(1, 5)),
                },
            )
            loop = getattr(runner, f'{part}_loop')
            runner.call_hook('before_run')
            torch.manual_seed(0)
            runner.model.init_weights()
            return type(loop.dataloader), loop.run(), loop.run()

    (ours, *metrics), (theirs, *read) = run(), run(in_memory=False)
    assert (ours, theirs) == (KeptLoader, DataLoader)
    assert metrics == read
    assert metrics[0]['accuracy/top5'] > 0


def test_the_limit_is_that_of_training_images():
    assert kept.LIMIT == memory.LIMIT == 512 * 2**20
