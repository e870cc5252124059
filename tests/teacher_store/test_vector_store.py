"""Stores of vectors: training under the live teacher, bit by bit; stores without the vector are refused."""

import copy
import json

import numpy as np
import pytest
import torch
from interruption import assert_same_run, last, logged
from mmengine.config import Config
from mmpretrain.registry import MODELS
from networks import build, method
from stores import IMAGES, Watched, make, refused, rounded, run_both, train, write_config

from mmcls_kd.files.paths import TOOLBOX
from mmcls_kd.networks.sources import network_cfg
from mmcls_kd.teacher_store import TeacherStore
from mmcls_kd.teachers.several import TeacherGroup
from mmcls_kd.teachers.store import MANIFEST

pytestmark = [
    pytest.mark.filterwarnings('ignore:.*instance named of'),
    pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning'),
]

WIDTH = 128  # of the vector of the demo's teacher
ON_VECTORS = ['RKDLoss', 'PKTLoss', 'CCLoss', 'CRDLoss', 'SRDCorrelationLoss', 'PEFDLoss', 'VkDLoss', 'QueueLoss']


def losses(*types, more=''):
    """Lines of a config that has these losses alone."""
    methods = [dict(type=kind, name=f'loss_{kind}', **(dict(nce_k=20) if kind == 'CRDLoss' else {})) for kind in types]
    return f'model = dict(distill_cfg=[dict(methods={methods})]{more})'


TAP = ", taps=dict(vector_t=dict(path='backbone.layer3', form='pooled'))"
ONE_EPOCH = ['train_cfg.max_epochs=1']


@pytest.fixture
def watched(monkeypatch):
    return Watched().install(monkeypatch)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('vectors')


@pytest.fixture(scope='module')
def config(data, folder):
    """The demo's config, with methods that read the vector and no logits."""
    return write_config(folder / 'config.py', data, losses(*ON_VECTORS))


@pytest.fixture(scope='module')
def store(config, folder):
    """One epoch of logits and vectors; the log of its making is beside it."""
    log = make(config, folder / 'store', 1)
    (folder / 'store.log').write_text(log)
    return folder / 'store'


def manifest_of(store):
    return json.loads((store / MANIFEST).read_text())


@pytest.mark.own_process  # it trains
def test_training_from_it_is_that_under_a_live_teacher(config, store, watched, tmp_path):
    train(config, tmp_path / 'run', store, options=ONE_EPOCH)
    assert all(batch.logits is None for batch in watched.seen)
    watched.k = 'float16'
    train(config, tmp_path / 'live', options=ONE_EPOCH)
    assert_same_run(tmp_path / 'run', tmp_path / 'live')
    values = next(iter(logged(tmp_path / 'run').values()))
    assert all(values[f'loss_{name}'] != 0 for name in ON_VECTORS)


def test_it_says_what_it_holds(store, folder):
    said = (folder / 'store.log').read_text()
    assert f'10 of 10 logits and vector_t ({WIDTH} numbers) of {IMAGES} views (1 epochs) go to {store}: ' in said
    assert f': {20 + 2 * WIDTH} bytes a view, ' in said
    manifest = manifest_of(store)
    assert manifest['features'] == {'vector': WIDTH}
    assert manifest['teacher']['taps'] == {'vector': None}
    records = TeacherStore(store).read(0, range(IMAGES))
    assert records.dtype.names == ('logit', 'vector_t')
    assert records.dtype.itemsize == 20 + 2 * WIDTH


def test_a_run_that_reads_logits_alone_stores_what_it_always_did(data, store, tmp_path):
    """And continues a store of vectors as that is."""
    config = write_config(tmp_path / 'config.py', data, losses('KDLoss'))
    before = (store / MANIFEST).read_bytes()
    make(config, tmp_path / 'logits', 1)
    manifest = manifest_of(tmp_path / 'logits')
    assert 'features' not in manifest
    assert 'taps' not in manifest['teacher']
    assert TeacherStore(tmp_path / 'logits').type == [('logit', '<f2', (10,))]
    make(config, store, 1)
    assert (store / MANIFEST).read_bytes() == before
    vectors, logits = (TeacherStore(folder).read(0, range(IMAGES)) for folder in (store, tmp_path / 'logits'))
    assert (vectors['logit'] == logits['logit']).all()

    asked = make(config, tmp_path / 'asked', 1, '--with', 'vector')
    assert f'and vector_t ({WIDTH} numbers) of' in asked
    assert manifest_of(tmp_path / 'asked')['features'] == {'vector': WIDTH}

    more = write_config(tmp_path / 'more.py', data, losses('RKDLoss'))
    words = ['--epochs', 1, '--store', tmp_path / 'logits']
    message = refused('store_teacher', more, tmp_path / 'run', *words)
    assert f"holds another store: features.vector is '(not there)' in the store and {WIDTH} here; choose" in message
    options = [f'model.teacher_store={tmp_path / "logits"}']
    message = refused('train', more, tmp_path / 'run', options=options)
    assert f"teacher_store {tmp_path / 'logits'} holds logit_t, and loss_RKDLoss needs 'vector_t': make a store" in message
    assert '(`python -m mmcls_kd store ... --with vector`; in plain PyTorch store_logits' in message


class TestRefusals:
    def refused(self, data, tmp_path, lines, tool='train', *arguments, options=()):
        config = write_config(tmp_path / 'config.py', data, lines)
        return refused(tool, config, tmp_path / 'run', *arguments, options=options)

    def test_another_tap(self, data, store, tmp_path):
        lines = losses('RKDLoss', more=", taps=dict(vector_t='backbone.layer4')")
        message = self.refused(data, tmp_path, lines, options=[f'model.teacher_store={store}'])
        assert "does not fit this run: teacher.taps.vector is None in the store and 'backbone.layer4' here" in message

    def test_maps_beside_vectors(self, store):
        for kind, name in (('ReviewKDLoss', 'stages_t'), ('FitNetLoss', 'feat_t')):
            with pytest.raises(ValueError, match=f'holds logit_t and vector_t, and loss_.* needs {name!r}: make a store'):
                build(method(kind), teacher_store=str(store))
        with pytest.raises(
            ValueError, match="loss_.* needs 'teacher_head', a part of the network; leave one of the two out"
        ):
            build(method('SRRLLoss'), teacher_store=str(store))

    def test_an_unknown_feature(self, data, tmp_path):
        words = ['--epochs', 1, '--store', tmp_path / 'store', '--with']
        message = self.refused(data, tmp_path, losses('KDLoss'), 'store_teacher', *words, 'vektor')
        assert "--with: the teacher has no feature 'vektor'; did you mean 'vector'?; it has feat, " in message


@pytest.mark.own_process
def test_maps(data, watched, tmp_path):
    """Those that are asked for, of one stage and of all, and what else methods on maps read."""
    kinds = ['MGDLoss', 'ATLoss', 'ReviewKDLoss', 'CATKDLoss', 'SDDLoss']
    sdd = 'dict(type="SDDLoss", name="loss_SDDLoss", loss=dict(type="NKDLoss"))'
    config = write_config(tmp_path / 'config.py', data, losses(*kinds[:-1]).replace('])]', f', {sdd}])]'))
    said = make(config, tmp_path / 'store', 1, '--with', 'feat', 'stages_t')
    sizes = ['16x28x28', '32x14x14', '64x7x7', '128x4x4']
    assert manifest_of(tmp_path / 'store')['features'] == {'vector': WIDTH, 'feat': sizes[-1], 'stages': sizes}
    assert 'vector_t (128 numbers) and feat_t (128x4x4 numbers) and stages_t_0 (16x28x28 numbers) and stages_t_1 (' in said
    records = TeacherStore(tmp_path / 'store').read(0, range(IMAGES))
    assert f': {records.dtype.itemsize} bytes a view, ' in said
    assert records['stages_t_1'].shape == (IMAGES, 32, 14, 14)
    assert (records['stages_t_3'] == records['feat_t']).all()
    train(config, tmp_path / 'run', tmp_path / 'store', options=ONE_EPOCH)
    watched.k = 'float16'
    train(config, tmp_path / 'live', options=ONE_EPOCH)
    assert_same_run(tmp_path / 'run', tmp_path / 'live')
    values = next(iter(logged(tmp_path / 'run').values()))
    assert all(values[f'loss_{name}'] != 0 for name in kinds)


@pytest.mark.slow
@pytest.mark.own_process
def test_logits_and_vectors_of_two_views(data, watched, tmp_path):
    """SRD reads logits and vector of the weak view, MLKD the logits of both; the vector is a tap of the config."""
    lines = (
        losses('SRDLoss', 'RKDLoss', 'MLKDLoss', more=TAP)
        + """
weak = [dict(type='RandomCrop', crop_size=28, padding=2), dict(type='RandomFlip', prob=0.5)]
train_dataloader = dict(dataset=dict(pipeline=[dict(type='TwoViews', weak=weak), dict(type='PackInputs')]))
"""
    )
    config = write_config(tmp_path / 'config.py', data, lines)
    said = make(config, tmp_path / 'store', 1)
    assert f'{20 + WIDTH} bytes a view' in said
    assert TeacherStore(tmp_path / 'store').type.itemsize == 2 * (20 + WIDTH)
    assert manifest_of(tmp_path / 'store')['teacher']['taps'] == {'vector': dict(path='backbone.layer3', form='pooled')}
    train(config, tmp_path / 'run', tmp_path / 'store', options=ONE_EPOCH)
    watched.k = 'float16'
    train(config, tmp_path / 'live', options=ONE_EPOCH)
    assert_same_run(tmp_path / 'run', tmp_path / 'live')


@pytest.mark.slow
@pytest.mark.own_process
@pytest.mark.parametrize('classes', [True, False], ids=['several teachers', 'a teacher without classes'])
def test_embeddings(classes, data, watched, monkeypatch, tmp_path):
    """Of several teachers each one's embedding is stored; of one without classes nothing else."""
    networks, files, kinds = [], [], ('NKDLoss', 'EmbeddingLoss') if classes else ('EmbeddingLoss', 'QueueLoss')
    for width in (16, 4) if classes else (16,):
        network = network_cfg(f'{TOOLBOX}/configs/fashion_mnist/resnet18-w16_9e.py')
        network.backbone.update(base_channels=width, stem_channels=width)
        network.head.in_channels = 8 * width
        if not classes:
            network.pop('head')
        files.append(str(tmp_path / f'{width}.pth'))
        torch.manual_seed(width)
        torch.save(MODELS.build(copy.deepcopy(network)).state_dict(), files[-1])
        networks.append(network.to_dict())
    several = networks if classes else networks[0], files if classes else files[0]
    Config(dict(model=networks[0])).dump(tmp_path / 'network.py')
    more = f', teacher_cfg={several[0] if classes else str(tmp_path / "network.py")!r}, teacher_pretrained={several[1]!r}'
    config = write_config(tmp_path / 'config.py', data, losses(*kinds, more=more))
    make(config, tmp_path / 'store', 1)
    manifest = TeacherStore(tmp_path / 'store').manifest
    assert manifest.features == {'vector': [128, 32] if classes else 128}
    assert manifest.classes == (10 if classes else 0)
    train(config, tmp_path / 'run', tmp_path / 'store', options=ONE_EPOCH)
    if classes:  # their joint logits are stored, not each one's
        live = TeacherGroup.__call__

        def joint(self, *arguments):
            return {name: rounded(read) for name, read in live(self, *arguments).items()}

        monkeypatch.setattr(TeacherGroup, '__call__', joint)
    else:
        watched.k = 'float16'
    train(config, tmp_path / 'live', options=ONE_EPOCH)
    assert_same_run(tmp_path / 'run', tmp_path / 'live')


@pytest.mark.slow
@pytest.mark.own_process
def test_a_loss_that_is_built_from_the_classifier(data, watched, tmp_path):
    """Its weight is stored in a file of its own, in which damage is found, and which the same command makes again."""
    config = write_config(tmp_path / 'config.py', data, losses('WKDLogitLoss'))
    make(config, tmp_path / 'store', 1)
    path = tmp_path / 'store' / 'teacher_weight.npy'
    weight = np.load(path)
    assert weight.shape == (10, WIDTH)
    assert weight.dtype == np.float32
    train(config, tmp_path / 'run', tmp_path / 'store', options=ONE_EPOCH)
    watched.k = 'float16'
    train(config, tmp_path / 'live', options=ONE_EPOCH)
    assert_same_run(tmp_path / 'run', tmp_path / 'live')

    np.save(path, weight + 1)
    options = [f'model.teacher_store={tmp_path / "store"}']
    message = refused('train', config, tmp_path / 'damaged', options=options)
    assert f'teacher_store {tmp_path / "store"}: teacher_weight.npy is missing or damaged; the same' in message
    other = write_config(tmp_path / 'other.py', data, losses('KDLoss', 'FitNetLoss'))
    said = make(other, tmp_path / 'store', 1)
    assert 'asked for, here by --with feat (4096 bytes a view); a method that needs feat_t cannot be trained from' in said
    assert 'teacher_weight' in manifest_of(tmp_path / 'store')['facts']  # as it was
    make(config, tmp_path / 'store', 1)
    assert (np.load(path) == weight).all()


@pytest.mark.slow
@pytest.mark.own_process
def test_a_resumed_run(config, tmp_path):
    """CRD's memories and the queue go on, from the vectors of the second epoch."""
    make(config, tmp_path / 'store', 2)
    train(config, tmp_path / 'calm', tmp_path / 'store')
    train(config, tmp_path / 'run', tmp_path / 'store', '--resume', tmp_path / 'calm' / 'epoch_1.pth')
    weights = (last(tmp_path / name)['state_dict'] for name in ('run', 'calm'))
    torch.testing.assert_close(*weights, rtol=0, atol=0)


@pytest.mark.slow
def test_two_processes(config, store, tmp_path):
    """Each writes its own files, and a training in two processes reads them."""
    run_both('store_teacher', config, tmp_path / 'making', '--epochs', 1, '--store', tmp_path / 'store')
    both, one = (TeacherStore(folder).read(0, range(IMAGES)) for folder in (tmp_path / 'store', store))
    torch.testing.assert_close(*(torch.from_numpy(read['vector_t'].copy()) for read in (both, one)), rtol=2e-3, atol=1e-4)
    options = [*ONE_EPOCH, f'model.teacher_store={tmp_path / "store"}']
    run_both('train', config, tmp_path / 'run', '--cfg-options', *options)
    assert (tmp_path / 'run' / 'epoch_1.pth').is_file()
