"""The benchmark of the input side."""

import pytest
from folders import imagenet
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from benchmark.data import measure_loading, show_loading, variants
from mmcls_kd.engine.data import reproducible

PREPROCESSING = dict(mean=[100.0, 110.0, 120.0], std=[50.0, 60.0, 70.0], to_rgb=True)


@pytest.fixture(scope='module')
def loader(tmp_path_factory):
    root = imagenet(tmp_path_factory.mktemp('imagenet'))
    pipeline = [dict(type='LoadImageFromFile'), dict(type='CenterCrop', crop_size=32), dict(type='PackInputs')]
    dataset = dict(type='ImageNet', data_root=str(root), split='train', serialize_data=False, pipeline=pipeline)
    cfg = dict(
        batch_size=4,
        num_workers=0,
        dataset=dataset,
        sampler=dict(type='DefaultSampler', shuffle=True),
        collate_fn=dict(type='default_collate'),
    )
    return Config(dict(train_dataloader=cfg)).train_dataloader


def first_batch(cfg):
    init_default_scope('mmpretrain')
    return next(iter(Runner.build_dataloader(reproducible(cfg, seed=0), seed=0)))


def first_steps(cfg):
    init_default_scope('mmpretrain')
    dataset = Runner.build_dataloader(reproducible(cfg, seed=0, in_memory=False), seed=0).dataset
    dataset[0]
    return [type(step).__name__ for step in dataset.dataset.pipeline.transforms]


def test_each_variant_changes_one_thing(loader):
    chosen = variants(loader, [0, 2], ['pillow'], PREPROCESSING)
    assert list(chosen)[:5] == [
        '0 workers',
        '2 workers',
        '2 workers, not persistent',
        '2 workers, decoded by pillow',
        '2 workers, normalised by them',
    ]
    assert chosen['2 workers, decoded by pillow']['dataset']['pipeline'][0]['imdecode_backend'] == 'pillow'
    assert not chosen['2 workers, not persistent']['persistent_workers']
    assert 'imdecode_backend' not in loader['dataset']['pipeline'][0]


def test_mmpretrains_own_transforms_and_reduced_jpegs(loader):
    assert first_steps(variants(loader, [0], [], {}, [0.5])['0 workers, own transforms of mmpretrain'])[0] == 'OwnLoading'
    assert not any('JPEG' in name for name in variants(loader, [0], [], {}, [0.5]))
    loader = Config(dict(train_dataloader=loader)).train_dataloader
    loader['dataset']['pipeline'][1] = dict(type='RandomResizedCrop', scale=32)
    chosen = variants(loader, [0], [], {}, [0.5])
    assert first_steps(chosen['0 workers']) == ['LoadAndCrop', 'QuickPackInputs']
    assert first_steps(chosen['0 workers, own transforms of mmpretrain']) == [
        'OwnLoading',
        'RandomResizedCrop',
        'OwnPacking',
    ]
    assert chosen['0 workers, JPEGs reduced to 0.5']['dataset']['pipeline'][0]['reduce_to'] == 0.5
    same = [name for name in chosen if 'reduced' not in name]
    assert len({first_batch(chosen[name])['inputs'].numpy().tobytes() for name in same}) == 1


def test_normalised_by_workers_gives_what_the_preprocessor_would(loader):
    chosen = variants(loader, [0], [], PREPROCESSING)
    raw, done = first_batch(chosen['0 workers'])['inputs'], first_batch(chosen['0 workers, normalised by them'])['inputs']
    assert str(raw.dtype) == 'torch.uint8'
    assert str(done.dtype) == 'torch.float32'
    mean, std = (raw.new_tensor(PREPROCESSING[key]).float()[None, :, None, None] for key in ('mean', 'std'))
    expected = (raw.flip(1).float() - mean) / std
    assert (done - expected).abs().max() < 1e-4


def test_passes_are_timed_with_and_without_workers_and_shown(loader, capsys):
    measured = measure_loading(variants(loader, [0, 1], [], {}), rounds=2)
    assert {images for images, _ in measured.values()} == {8}
    assert all(len(timing.seconds) == 2 for _, timing in measured.values())
    show_loading(measured)
    assert '1 workers, not persistent' in capsys.readouterr().out
