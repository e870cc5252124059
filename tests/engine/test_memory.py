"""Images in memory: batches made at once hold bit for bit what the pipeline makes of one image after another."""

import gc
import pickle

import folders
import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import FUNCTIONS, DefaultScope
from mmengine.runner import Runner
from mmpretrain.datasets import FashionMNIST
from mmpretrain.registry import DATASETS
from PIL import Image

from mmcls_kd.engine import memory
from mmcls_kd.engine.data import batches_from, reproducible
from mmcls_kd.engine.draws import WORDS, Draws, first_words
from mmcls_kd.engine.seeds import derive_seed, derive_seeds
from mmcls_kd.errors import ChoiceError, UnreadableImageError

PACK = [dict(type='PackInputs')]
FLIP = dict(type='RandomFlip', prob=0.5)
READ = dict(type='LoadImageFromFile')
RESIZE = dict(type='Resize', scale=(12, 10))
RAND_AUGMENT = dict(num_policies=2, magnitude_level=9)
SHAPED = [
    dict(type='NumpyToPIL'),
    dict(type='torchvision/Pad', padding=2),
    dict(type='torchvision/Grayscale', num_output_channels=3),
    dict(type='PILToNumpy'),
]


def crop(size, **settings):
    return dict(type='RandomCrop', crop_size=size, **settings)


@pytest.fixture(autouse=True)
def without_collections(monkeypatch):
    """Let mmengine's data sets leave out the collection of garbage, which takes half a second each."""
    monkeypatch.setattr(gc, 'collect', lambda *_: 0)


@pytest.fixture(scope='module')
def grey(tmp_path_factory):
    return folders.fashion_mnist(tmp_path_factory.mktemp('grey') / 'images', train=90)


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    folder, random = tmp_path_factory.mktemp('photos'), np.random.RandomState(0)
    for i in range(22):
        (folder / f'class{i % 3}').mkdir(exist_ok=True)
        Image.fromarray(random.randint(0, 256, (11 + i % 2, 14, 3)).astype(np.uint8)).save(
            folder / f'class{i % 3}' / f'{i}.png'
        )
    return folder


def loader(root, pipeline, kind='FashionMNIST', in_memory=None, batch_size=8, on_unreadable='stop', workers=0, **cfg):
    dataset = dict(type=kind, data_root=str(root), pipeline=[*pipeline, *cfg.pop('pack', PACK)])
    cfg = dict(
        batch_size=batch_size,
        num_workers=workers,
        persistent_workers=False,
        dataset=dataset if 'dataset' not in cfg else dict(cfg.pop('dataset'), dataset=dataset),
        sampler=dict(type=cfg.pop('sampler', 'DefaultSampler'), shuffle=True),
        **cfg,
    )
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return Runner.build_dataloader(reproducible(cfg, 5, on_unreadable, in_memory), seed=5)


def passed(data, epoch=0, start=0):
    data.batch_sampler.sampler.set_epoch(epoch)
    return list(batches_from(data, start))


def content(sample):
    """All that a data sample holds."""
    label = sample.gt_label.tolist() if 'gt_label' in sample else None
    return label, dict(sample.metainfo_items()), {key: type(value) for key, value in sample.metainfo_items()}


def assert_same(a, b):
    assert len(a) == len(b) > 0
    for made, loaded in zip(a, b, strict=True):
        assert len(made['inputs']) == len(loaded['inputs'])
        assert all(torch.equal(x, y) for x, y in zip(made['inputs'], loaded['inputs'], strict=True))
        pairs = zip(made['data_samples'], loaded['data_samples'], strict=True)
        assert all(content(x) == content(y) for x, y in pairs)
        assert made.get('unreadable') == loaded.get('unreadable')


class TestDraws:
    """Draws of many samples, against NumPy's own generator."""

    def test_words(self):
        seeds = np.random.RandomState(0).randint(0, 2**32, 50, np.uint32)
        words = first_words(seeds, 200)
        for k, seed in enumerate(seeds):
            assert (words[:, k] == np.random.RandomState(seed).randint(0, 2**32, 200, np.uint32)).all()

    def test_sequences_that_outlast_the_prepared_words(self):
        seeds = np.random.RandomState(1).randint(0, 2**63 - 1, 400).astype(np.uint64)
        draws, shares = Draws(seeds), [0.2, 0.3, 0.5]
        drawn = [draws.integers(5), draws.integers(1), draws.integers(1000), draws.choices(shares), draws.uniform()]
        drawn += [draws.integers(9) for _ in range(WORDS)]
        for k, seed in enumerate(seeds):
            alone = np.random.RandomState(int(seed) % 2**32)
            expected = [alone.randint(0, 5), alone.randint(0, 1), alone.randint(0, 1000), alone.choice(3, p=shares)]
            expected += [alone.random_sample(), *(alone.randint(0, 9) for _ in range(WORDS))]
            assert [one[k] for one in drawn] == expected

    def test_seeds(self):
        found = derive_seeds((3, '100%', -1), [4, 0], [5, 2**40])
        assert found.tolist() == [derive_seed(3, '100%', -1, 4, 5), derive_seed(3, '100%', -1, 0, 2**40)]


GREY = {
    'nothing': [],
    'crop': [crop(28, padding=2)],
    'crop_and_flip': [crop(28, padding=2), FLIP],
    'flip_before_crop': [dict(type='RandomFlip', prob=0.3, direction='vertical'), crop((20, 24))],
    'two_crops': [crop(26), crop((24, 40), padding=(1, 2), pad_val=7)],
    'four_sides': [crop(27, padding=(0, 1, 2, 3), pad_val=128), FLIP],
    'three_directions': [
        dict(type='RandomFlip', prob=[0.3, 0.2, 0.4], direction=['horizontal', 'vertical', 'diagonal']),
        dict(type='RandomFlip', prob=0.8, direction=['vertical', 'diagonal']),
    ],
    'colour': [*SHAPED, crop(32, padding=4, pad_val=(3, 5, 250)), FLIP],
    'rounded_value': [crop(28, padding=2, pad_val=127.5), crop(28, padding=1, pad_val=300)],
    'erased': [*SHAPED, crop(26), dict(type='RandomErasing', mode='rand', erase_prob=0.9), FLIP],
    'resized': [dict(type='RandomResizedCrop', scale=(20, 16)), FLIP],
    'jittered': [*SHAPED, crop(24), dict(type='ColorJitter', brightness=0.4, hue=0.1), FLIP],
    'one_value_of_colours': [*SHAPED, crop(32, padding=4, pad_val=(123.675, 0.5, 1.5)), crop(32, padding=4, pad_val=128)],
}
FALLBACKS = {
    'RandAugment': [crop(24), dict(type='RandAugment', policies=[dict(type='Solarize', thr=9)], **RAND_AUGMENT), FLIP],
    'ColorJitter': [*SHAPED, FLIP, dict(type='ColorJitter', brightness=0.4, backend='cv2'), crop(20)],
    'RandomErasing': [*SHAPED, dict(type='RandomErasing', mode='rand', fill_std=20, erase_prob=0.9), FLIP],
    'pad_if_needed': [crop(32, pad_if_needed=True)],
    'TwoViews': [dict(type='TwoViews', weak=[crop(28, padding=2, pad_if_needed=True), FLIP])],
    'torchvision/RandomRotation': [dict(type='NumpyToPIL'), dict(type='torchvision/RandomRotation', degrees=9)],
}


@pytest.mark.parametrize('name', GREY)
def test_a_batch_is_that_of_the_pipeline(grey, name):
    stacked = dict(type='default_collate')
    ours, theirs = (loader(grey, GREY[name], in_memory=kept, collate_fn=stacked) for kept in (None, False))
    assert 'a batch at a time' in ours.dataset.notice
    for epoch, start in ((0, 0), (7, 3)):
        made = passed(ours, epoch, start)
        assert isinstance(made[0]['inputs'], torch.Tensor)
        assert_same(made, passed(theirs, epoch, start))
    assert not torch.equal(made[0]['inputs'], passed(ours, 8, 3)[0]['inputs'])


@pytest.mark.parametrize('name', FALLBACKS)
def test_another_transform_is_named_and_gets_the_kept_image(grey, name):
    ours, theirs = loader(grey, FALLBACKS[name]), loader(grey, FALLBACKS[name], in_memory=False)
    assert name in ours.dataset.notice
    assert 'one at a time' in ours.dataset.notice
    for _ in range(2):  # once read, then kept
        for made, loaded in zip(passed(ours, 2), passed(theirs, 2), strict=True):
            both = zip(made['inputs'], loaded['inputs'], strict=True)
            views = [pair for x, y in both for pair in (zip(x, y, strict=True) if name == 'TwoViews' else [(x, y)])]
            assert all(torch.equal(x, y) for x, y in views)
            if name != 'TwoViews':
                assert_same([made], [loaded])
    assert ours.dataset.memory is not None
    assert ours.dataset.makes_batches == (name != 'TwoViews')


TWO_VIEWS = {
    'grey': [crop(26), dict(type='TwoViews', weak=[FLIP, crop(24, padding=2)])],
    'alike': [dict(type='TwoViews', strong=[], weak=[FLIP], both=[crop(20)])],
    'one_without_draws': [dict(type='TwoViews')],
    'colour': [*SHAPED, dict(type='TwoViews', weak=[FLIP], strong=[dict(type='StrongAugment', cutout=0.8, num_policies=3)])],
    'erased': [*SHAPED, dict(type='TwoViews', strong=[dict(type='RandomErasing', mode='rand')])],
}


@pytest.mark.parametrize('name', TWO_VIEWS)
def test_two_views(grey, name):
    settings = dict(collate_fn=dict(type='pseudo_collate' if name == 'alike' else 'default_collate'))
    ours, theirs = (loader(grey, TWO_VIEWS[name], in_memory=kept, **settings) for kept in (None, False))
    assert 'a batch at a time' in ours.dataset.notice
    assert ours.dataset.memory.is_random
    for epoch, start in ((0, 0), (7, 3)):
        for made, loaded in zip(passed(ours, epoch, start), passed(theirs, epoch, start), strict=True):
            pairs = list(zip(made['inputs'], loaded['inputs'], strict=True))
            assert all(type(a) is type(b) for a, b in pairs)
            for view, expected in pairs:
                assert_same([{**made, 'inputs': view}], [{**loaded, 'inputs': expected}])


def test_two_views_of_different_sizes_are_left_to_the_pipeline(grey):
    data = loader(grey, [dict(type='TwoViews', strong=[crop(20)])])
    assert not data.dataset.makes_batches
    with pytest.raises(ValueError, match='TwoViews: the weak view has the shape'):
        passed(data)


CHANGED = {
    'probabilities': (
        [dict(type='RandomFlip', prob=[0.2, 0.3], direction=['horizontal', 'vertical'])],
        lambda flip: flip.prob.reverse(),
    ),
    'policies': ([*SHAPED, dict(type='AutoAugment', policies='imagenet')], lambda chosen: chosen.transforms.reverse()),
    'strong': ([*SHAPED, dict(type='StrongAugment')], lambda strong: setattr(strong.augment, 'num_policies', 1)),
    'view': ([dict(type='TwoViews', weak=[FLIP])], lambda both: both.views[1].transforms.pop()),
}


@pytest.mark.parametrize('pipeline', [[READ, RESIZE, crop(8), FLIP], [READ, RESIZE, FLIP]])
def test_image_files(photos, pipeline):
    ours, theirs = (loader(photos, pipeline, 'CustomDataset', kept) for kept in (None, False))
    assert ours.dataset.makes_batches
    for _ in range(2):
        assert_same(passed(ours, 1), passed(theirs, 1))


def test_images_of_several_sizes_are_read_again(photos, caplog):
    ours, theirs = (loader(photos, [READ, crop(8), FLIP], 'CustomDataset', kept) for kept in (None, False))
    assert ours.dataset.makes_batches  # the first image does not tell
    assert_same(passed(ours), passed(theirs))
    assert ours.dataset.memory is None


@pytest.mark.parametrize('on_unreadable', ['stop', 'skip'])
def test_images_of_several_sizes_that_stay_so_are_listed(photos, on_unreadable):
    settings = dict(kind='CustomDataset', collate_fn=dict(type='pseudo_collate'), on_unreadable=on_unreadable)
    ours, theirs = (loader(photos, [READ, FLIP], in_memory=kept, **settings) for kept in (None, False))
    assert ours.dataset.makes_batches
    assert_same(passed(ours), passed(theirs))


def test_facts_are_those_of_the_packing(photos):
    pack = [dict(type='PackInputs', meta_keys=('flip', 'soft'))]
    ours, theirs = (loader(photos, [READ, RESIZE, FLIP], 'CustomDataset', kept, pack=pack) for kept in (None, False))
    for data in (ours.dataset.dataset, theirs.dataset.dataset):
        data.get_data_info = lambda index, own=data.get_data_info: dict(own(index), soft=np.arange(2) + index)
    for _ in range(2):
        for made, loaded in zip(passed(ours), passed(theirs), strict=True):
            for x, y in zip(made['data_samples'], loaded['data_samples'], strict=True):
                assert {*x.metainfo_keys()} == {*y.metainfo_keys()} == {'flip', 'soft', 'sample_idx', 'view'}
                assert x.soft.tolist() == y.soft.tolist() == [x.sample_idx, x.sample_idx + 1]
                assert x.flip == y.flip
    assert ours.dataset.makes_batches


@pytest.mark.parametrize('last', [FLIP, dict(type='TwoViews', strong=[dict(type='Rotate', angle=30.0)])])
def test_who_changes_the_facts_of_a_sample_changes_no_other(photos, last):
    data = loader(photos, [READ, RESIZE, last], 'CustomDataset', True, pack=[dict(type='PackInputs', meta_keys=('words',))])
    inner = data.dataset.dataset
    inner.get_data_info = lambda index, own=inner.get_data_info: dict(own(index), words=['a'])
    for _ in range(2):
        for batch in passed(data):
            for sample in batch['data_samples']:
                assert sample.words == ['a']
                sample.words.append('b')


def test_files_that_cannot_be_read(photos, tmp_path):
    for path in photos.rglob('*.png'):
        (tmp_path / path.parent.name).mkdir(exist_ok=True)
        (tmp_path / path.parent.name / path.name).write_bytes(path.read_bytes()[: 60 if path.stem in ('3', '9') else None])
    pipeline = [READ, RESIZE, FLIP]
    with pytest.raises(UnreadableImageError, match=r'class0.+\.png'):
        passed(loader(tmp_path, pipeline, 'CustomDataset'))
    ours, theirs = (loader(tmp_path, pipeline, 'CustomDataset', kept, on_unreadable='skip') for kept in (None, False))
    assert ours.dataset.makes_batches
    made = passed(ours)
    assert_same(made, passed(theirs))
    assert sum(len(batch['unreadable']) for batch in made) == 2
    for path in tmp_path.rglob('*.png'):
        path.write_bytes(b'')
    data = loader(tmp_path, pipeline, 'CustomDataset', on_unreadable='skip', in_memory=True)
    made = passed(data)
    assert [len(batch['data_samples']) for batch in made] == [0] * len(data)
    assert sum(len(batch['unreadable']) for batch in made) == len(data.dataset)


@pytest.mark.parametrize('sampler', ['DefaultSampler', 'RepeatAugSampler'])
def test_neither_batch_size_nor_workers_nor_processes_matter(grey, sampler, monkeypatch):
    pipeline = GREY['crop_and_flip' if sampler == 'DefaultSampler' else 'erased']

    def views(**settings):
        batches = passed(loader(grey, pipeline, sampler=sampler, **settings), 1)
        return {s.view: x for batch in batches for s, x in zip(batch['data_samples'], batch['inputs'], strict=True)}

    plain = views()
    several = {}
    for rank in range(3):
        for module in ('mmengine.dataset.sampler', 'mmpretrain.datasets.samplers.repeat_aug', 'mmcls_kd.engine.data'):
            monkeypatch.setattr(f'{module}.get_dist_info', lambda rank=rank: (rank, 3))
        several |= views()
    monkeypatch.undo()
    for other in (views(batch_size=7), views(workers=2), several):
        assert plain.keys() == other.keys()
        assert all(torch.equal(plain[view], other[view]) for view in plain)


def test_an_incomplete_last_batch_can_be_left_out(grey):
    whole, cut = (passed(loader(grey, [FLIP], drop_last=drop)) for drop in (False, True))
    assert [len(batch['inputs']) for batch in whole] == [8] * 11 + [2]
    assert_same(cut, whole[:-1])


def test_draws_are_made_for_many_batches_at_once(grey, monkeypatch):
    monkeypatch.setattr(memory, 'AT_ONCE', 20)  # that is 24 samples, three batches
    assert_same(passed(loader(grey, GREY['crop_and_flip'])), passed(loader(grey, GREY['crop_and_flip'], in_memory=False)))


class TestChoice:
    """Which images are kept."""

    def test_not_those_above_the_limit_unless_demanded(self, grey, monkeypatch):
        monkeypatch.setattr(memory, 'LIMIT', 90 * 784 - 1)
        large = loader(grey, [FLIP]).dataset
        assert (large.memory, large.notice) == (None, None)
        assert loader(grey, [FLIP], in_memory=True).dataset.makes_batches

    def test_not_those_above_the_machines_memory(self, grey, monkeypatch):
        monkeypatch.setattr(memory.os, 'sysconf', lambda name: dict(SC_PHYS_PAGES=10, SC_PAGE_SIZE=4096)[name])
        assert 'this machine has 0.0' in loader(grey, [FLIP], in_memory=True).dataset.notice

    @pytest.mark.parametrize(('told', 'fits'), [('40960', False), ('max', True), ('9223372036854771712', True)])
    def test_not_those_above_the_memory_of_a_container(self, grey, monkeypatch, tmp_path, told, fits):
        (tmp_path / 'limit').write_text(f'{told}\n')
        monkeypatch.setattr(memory, 'CGROUPS', (str(tmp_path / 'limit'), str(tmp_path / 'none')))
        assert loader(grey, [FLIP], in_memory=True).dataset.makes_batches == fits

    def test_not_if_zero_says_so(self, grey):
        assert loader(grey, [FLIP], in_memory=0).dataset.memory is None

    def test_not_those_that_a_data_set_makes_in_a_way_of_its_own_unless_demanded(self, grey, monkeypatch):
        class Relabelled(FashionMNIST):
            def get_data_info(self, index):
                return dict(super().get_data_info(index), gt_label=np.random.randint(10))

        monkeypatch.setitem(DATASETS.module_dict, 'Relabelled', Relabelled)
        ours, theirs = (loader(grey, [FLIP], 'Relabelled', kept) for kept in (None, False))
        for epoch in range(2):
            assert_same(passed(ours, epoch), passed(theirs, epoch))
        assert loader(grey, [FLIP], 'Relabelled', in_memory=True).dataset.makes_batches

    def test_not_those_with_boxes_that_are_flipped_too(self, photos):
        pack = [dict(type='PackInputs', meta_keys=('gt_bboxes',))]
        ours, theirs = (loader(photos, [READ, RESIZE, FLIP], 'CustomDataset', kept, pack=pack) for kept in (None, False))
        for data in (ours.dataset.dataset, theirs.dataset.dataset):
            data.get_data_info = lambda index, own=data.get_data_info: dict(own(index), gt_bboxes=np.float32([[1, 2, 5, 6]]))
        boxes = [[s.gt_bboxes.tolist() for batch in passed(data) for s in batch['data_samples']] for data in (ours, theirs)]
        assert boxes[0] == boxes[1]

    def test_not_those_that_workers_augment_one_at_a_time(self, grey):
        beside = loader(grey, FALLBACKS['RandAugment'], workers=2).dataset
        assert beside.memory is None
        assert 'by 2 workers: RandAugment is computed image by image' in beside.notice
        assert loader(grey, FALLBACKS['RandAugment'], workers=2, in_memory=True).dataset.memory is not None

    def test_not_files_of_any_size_that_workers_crop_and_resize(self, photos):
        pipeline = [dict(type='RandomResizedCrop', scale=8), FLIP]
        beside = loader(photos, [READ, *pipeline], 'CustomDataset', workers=2).dataset
        assert 'by 2 workers: RandomResizedCrop is computed image by image' in beside.notice
        assert loader(photos, [READ, *pipeline], 'CustomDataset').dataset.makes_batches
        assert loader(photos, [READ, RESIZE, *pipeline], 'CustomDataset', workers=2).dataset.makes_batches

    def test_not_those_of_a_wrapper_and_a_demand_is_answered(self, grey):
        repeated = dict(type='RepeatDataset', times=2)
        assert loader(grey, [FLIP], dataset=repeated).dataset.notice is None
        demanded = loader(grey, [FLIP], dataset=repeated, in_memory=True).dataset
        assert 'not kept in memory: RepeatDataset' in demanded.notice

    def test_not_after_the_pipeline_was_switched(self, grey):
        data = loader(grey, GREY['crop_and_flip'])
        other = loader(grey, [crop(20)], in_memory=False)
        data.dataset.dataset.pipeline = other.dataset.dataset.pipeline
        assert_same(passed(data), passed(other))

    def test_not_after_a_transform_was_set_otherwise(self, grey, photos):
        for root, pipeline, change in [
            (grey, [crop(28, padding=2), FLIP], dict(prob=0.9)),
            (photos, [READ, RESIZE, FLIP], dict(scale=(9, 7))),
        ]:
            kind = 'CustomDataset' if root is photos else 'FashionMNIST'
            ours, theirs = (loader(root, pipeline, kind, kept) for kept in (None, False))
            passed(ours)
            for data in (ours, theirs):
                vars(data.dataset.dataset.pipeline.transforms[1]).update(change)
            assert_same(passed(ours), passed(theirs))

    def test_not_after_the_list_was_exchanged(self, grey):
        ours, theirs = (loader(grey, [FLIP], in_memory=kept) for kept in (None, False))
        passed(ours)
        for data in (ours, theirs):
            data.dataset.dataset.get_subset_(list(range(89, -1, -1)))
        assert_same(passed(ours), passed(theirs))

    @pytest.mark.parametrize('name', ['probabilities', 'policies', 'strong', 'view'])
    def test_not_after_a_part_of_a_transform_was_changed(self, grey, name):
        pipeline, change = CHANGED[name]
        data = loader(grey, pipeline).dataset
        assert data.makes_batches
        change(data.dataset.pipeline.transforms[-2])
        assert not data.makes_batches

    def test_not_after_a_transform_of_a_view_was_set_otherwise(self, grey):
        ours, theirs = (loader(grey, [dict(type='TwoViews', weak=[FLIP])], in_memory=kept) for kept in (None, False))
        assert ours.dataset.makes_batches
        for data in (ours, theirs):
            data.dataset.dataset.pipeline.transforms[0].views[1].transforms[0].prob = 1.0
        assert not ours.dataset.makes_batches
        strong = [[view for batch in passed(data) for view in batch['inputs'][1]] for data in (ours, theirs)]
        assert all(torch.equal(a, b) for a, b in zip(*strong, strict=True))

    @pytest.mark.parametrize('name', ['default_collate', 'pseudo_collate'])
    def test_those_of_either_collation_of_mmengine(self, grey, name):
        ours, theirs = (loader(grey, [FLIP], collate_fn=dict(type=name), in_memory=kept) for kept in (None, False))
        assert ours.dataset.makes_batches
        made, loaded = passed(ours), passed(theirs)
        assert_same(made, loaded)
        assert type(made[0]['inputs']) is type(loaded[0]['inputs'])

    def test_not_for_a_collation_of_the_users_own(self, grey, monkeypatch):
        monkeypatch.setitem(FUNCTIONS.module_dict, 'own_collate', pseudo_collate)
        assert loader(grey, [FLIP], collate_fn=dict(type='own_collate')).dataset.memory is None

    def test_another_choice_is_refused(self, grey):
        with pytest.raises(ChoiceError, match='in_memory=.yes.: choose one of None, True, False'):
            loader(grey, [FLIP], in_memory='yes')

    def test_labels_of_several_classes(self, photos, tmp_path):
        lines = ''.join(f'class{i % 3}/{i}.png {i % 3}\n' for i in range(22))
        (tmp_path / 'list.txt').write_text(lines)
        data = loader(photos, [READ, RESIZE, FLIP], 'CustomDataset')
        data.dataset.dataset.get_data_info = several = lambda index, own=data.dataset.dataset.get_data_info: dict(
            own(index), gt_label=[0, 1] if index == 5 else 1
        )
        first = passed(data)
        assert data.dataset.memory.reason == memory.OTHER_LABELS
        samples = [sample for batch in first for sample in batch['data_samples']]
        assert {tuple(s.gt_label.tolist()) for s in samples if s.sample_idx == 5} == {(0, 1)} != several


def test_a_process_that_is_not_forked_reads_for_itself(grey):
    ours = loader(grey, GREY['crop_and_flip'])
    other = loader(grey, [])
    other.dataset.__dict__.update(pickle.loads(pickle.dumps(ours.dataset)).__dict__)
    assert other.dataset.memory is None
    assert_same(passed(ours), passed(other))
