"""Training from a store: bit by bit the training under a live teacher, and refused where it would not be."""

import shutil
import signal

import folders
import numpy as np
import pytest
import torch
from interruption import Run, assert_same_run, last, logged
from mmpretrain.registry import MODELS
from networks import batch, build, method, resnet, vit
from stores import IMAGES, MIXUP, Watched, make, refused, run_both, train, write_config

from mmcls_kd.teacher_store import TeacherStore

pytestmark = [
    pytest.mark.filterwarnings('ignore:.*instance named of'),
    pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning'),
]


@pytest.fixture
def watched(monkeypatch):
    return Watched().install(monkeypatch)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('stores')


@pytest.fixture(scope='module')
def config(data, folder):
    return write_config(folder / 'config.py', data)


@pytest.fixture(scope='module')
def store(config, folder):
    """All logits of two epochs, made with batches of 32."""
    make(config, folder / 'store')
    return folder / 'store'


@pytest.fixture(scope='module')
def mixed(data, folder):
    """A config with mixup, and a store of one of its epochs."""
    config = write_config(folder / 'mixed.py', data, MIXUP)
    make(config, folder / 'mixed_store', 1)
    return config, folder / 'mixed_store'


@pytest.fixture(scope='module')
def rounded(config, folder):
    """The work directory of a run under a live teacher whose logits are rounded to float16."""
    with pytest.MonkeyPatch.context() as patch:
        Watched().install(patch).k = 'float16'
        train(config, folder / 'rounded')
    return folder / 'rounded'


UNLABELLED = """
methods = ['nkd']
model = dict(label='teacher')
labelled = dict(_base_.train_dataloader.dataset, indices=9)
unlabelled = dict(type='WithoutLabels', dataset=_base_.train_dataloader.dataset)
train_dataloader = dict(dataset=dict(_delete_=True, type='MixedDataset', datasets=[labelled, unlabelled], ratio=4))
"""


class TestSameRun:
    @pytest.mark.parametrize('workers', [0, 2])
    def test_as_under_a_live_teacher_in_float16(self, workers, config, store, rounded, tmp_path):
        train(config, tmp_path / 'run', store, options=[f'train_dataloader.num_workers={workers}'])
        assert_same_run(tmp_path / 'run', rounded)
        assert len(logged(rounded)) == 8

    def test_of_images_without_labels(self, data, tmp_path, watched):
        """Labels that are the teacher's class, and samples that have none, are the same."""
        config = write_config(tmp_path / 'config.py', data, UNLABELLED)
        make(config, tmp_path / 'store')
        train(config, tmp_path / 'run', tmp_path / 'store')
        watched.k = 'float16'
        train(config, tmp_path / 'live')
        assert_same_run(tmp_path / 'run', tmp_path / 'live')
        assert len(logged(tmp_path / 'run')) == 2 * 4  # of 3 · 9 + 101 images

    def test_not_as_under_one_in_float32(self, config, rounded, tmp_path):
        train(config, tmp_path / 'run')
        with pytest.raises(AssertionError, match='differs by up to'):
            assert_same_run(tmp_path / 'run', rounded)

    @pytest.mark.slow
    def test_with_some_of_the_logits(self, config, watched, tmp_path):
        make(config, tmp_path / 'store', 2, '--top-k', 3)
        train(config, tmp_path / 'run', tmp_path / 'store')
        assert all(row.unique().numel() <= 4 for row in watched.logits().values())
        watched.k = 3
        train(config, tmp_path / 'live')
        assert_same_run(tmp_path / 'run', tmp_path / 'live')

    def test_with_mixup(self, mixed, watched, tmp_path):
        config, store = mixed
        train(config, tmp_path / 'run', store, options=['train_cfg.max_epochs=1'])
        watched.k = 'float16'
        train(config, tmp_path / 'live', options=['train_cfg.max_epochs=1'])
        assert_same_run(tmp_path / 'run', tmp_path / 'live')

    @pytest.mark.slow
    def test_after_a_kill(self, mixed, tmp_path):
        config, store = mixed
        options = [f'model.teacher_store={store}', 'train_cfg.max_epochs=3', 'default_hooks.checkpoint.by_epoch=False']
        options = ['--cfg-options', *options, 'default_hooks.checkpoint.interval=3']
        for moment in ('[1][4/4]', '[3][2/4]'):
            run = Run(config, tmp_path / 'run', '--resume', *options)
            assert run.wait_for(moment), run.output()
            run.send(signal.SIGKILL)
            assert run.wait() == [-signal.SIGKILL]
        assert Run(config, tmp_path / 'run', '--resume', *options).wait() == [0]
        assert Run(config, tmp_path / 'undisturbed', *options).wait() == [0]
        assert_same_run(tmp_path / 'run', tmp_path / 'undisturbed')


def assert_near(seen, expected):
    """Each view has the same logits, up to another order of summing in the network and one step of float16."""
    assert set(seen) == set(expected)
    views = sorted(expected)
    a, b = (torch.stack([logits[view] for view in views]) for logits in (seen, expected))
    torch.testing.assert_close(a, b, rtol=2**-10, atol=1e-5)


class TestOtherLayouts:
    def test_another_batch_size(self, config, store, watched, tmp_path):
        options = ['train_dataloader.batch_size=64']
        train(config, tmp_path / 'run', store, options=options)
        stored = watched.logits()
        assert len(watched.seen) == 1 + 2 * 2  # the check before the training, then the batches
        assert set(stored) == {(epoch, place) for epoch in (0, 1) for place in range(IMAGES)}
        watched.seen.clear()
        train(config, tmp_path / 'live', options=options)
        assert_near(stored, watched.logits())
        assert not torch.equal(stored[0, 3], stored[1, 3])

    @pytest.mark.slow
    @pytest.mark.parametrize('made_by', [1, 2])
    def test_two_processes(self, made_by, config, store, watched, tmp_path):
        if made_by == 2:
            store = tmp_path / 'store'
            run_both('store_teacher', config, tmp_path / 'making', '--epochs', 2, '--store', store)
            check_halves(store)
        watched.path = tmp_path / 'live'
        run_both('train', config, tmp_path / 'run_live')
        live = watched.written()
        watched.path = tmp_path / 'stored'
        run_both('train', config, tmp_path / 'run', '--cfg-options', f'model.teacher_store={store}')
        stored = watched.written()
        for one, other in zip(stored, live, strict=True):
            assert_near(one, other)
            assert len(one) == 2 * (IMAGES + 1) // 2  # its half of both epochs; one image comes twice
        everything = stored[0] | stored[1]
        assert set(everything) == {(epoch, place) for epoch in (0, 1) for place in range(IMAGES)}
        if made_by == 2:  # and one process alone
            watched.path = None
            train(config, tmp_path / 'alone', store)
            assert_near(watched.logits(), everything)

    def test_another_batch_size_with_mixup_is_refused(self, mixed, tmp_path):
        config, store = mixed
        options = [f'model.teacher_store={store}', 'train_dataloader.batch_size=64']
        message = refused('train', config, tmp_path / 'run', options=options)
        assert 'does not fit this run: batch.batch_size is 32 in the store and 64 here (1 more differ)' in message

    def test_another_number_of_processes_with_mixup_is_refused(self, mixed, store, config, tmp_path, monkeypatch):
        monkeypatch.setattr('mmcls_kd.engine.views.get_world_size', lambda: 2)
        monkeypatch.setattr(torch.utils.data.DataLoader, '__len__', lambda self: 4)
        message = refused('train', mixed[0], tmp_path / 'run', options=[f'model.teacher_store={mixed[1]}'])
        assert 'does not fit this run: batch.processes is 1 in the store and 2 here;' in message

    @pytest.mark.slow
    def test_repeated_augmentation_in_one_process_more(self, data, tmp_path, monkeypatch):
        """Its order has one place more with two processes, where one process has an odd number of images."""
        sampler = "train_dataloader = dict(sampler=dict(_delete_=True, type='RepeatAugSampler'))"
        config = write_config(tmp_path / 'config.py', data, sampler)
        make(config, tmp_path / 'store', 1)
        train(config, tmp_path / 'run', tmp_path / 'store')
        monkeypatch.setattr('mmpretrain.datasets.samplers.repeat_aug.get_dist_info', lambda: (1, 2))
        monkeypatch.setattr('mmcls_kd.engine.views.get_world_size', lambda: 2)
        message = refused('train', config, tmp_path / 'two', options=[f'model.teacher_store={tmp_path / "store"}'])
        assert f'it holds {IMAGES} records an epoch and this run needs {IMAGES + 1}' in message


def check_halves(store):
    """Two processes have written as many records, in files of their own; only one image is in both."""
    ranks = [[np.load(path) for path in sorted(store.glob(f'epoch_0/rank_{rank}/*.npy'))] for rank in '01']
    assert [sum(map(len, records)) for records in ranks] == [(IMAGES + 1) // 2] * 2
    both = [{record.tobytes() for record in np.concatenate(records)} for records in ranks]
    assert len(both[0] & both[1]) == 1
    assert (store / 'epoch_0' / 'rank_1' / 'SHA256SUMS').is_file()


def assert_same_weights(one, other):
    """The students of two runs are equal, bit by bit."""
    weights = [last(folder)['state_dict'] for folder in (one, other)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[1])


class TestCycle:
    def test_views_and_order_come_again(self, mixed, watched, tmp_path):
        config, store = mixed
        log = train(config, tmp_path / 'run', store, options=['train_cfg.max_epochs=3'])
        assert f'teacher_store {store} holds 1 of 3 epochs: their views, order and batches come again in turn' in log
        batches = watched.seen[1:]
        assert len(batches) == 12
        for first, second, third in zip(batches[:4], batches[4:8], batches[8:], strict=True):
            assert first.views == second.views == third.views
            assert torch.equal(first.images, second.images)
            assert torch.equal(first.images, third.images)
            assert torch.equal(first.logits, third.logits)
        losses = [entry['loss'] for entry in logged(tmp_path / 'run').values()]
        assert losses[0] != losses[4]  # the student goes on

    @pytest.mark.slow
    def test_a_resumed_run_keeps_its_cycle_when_the_store_grows(self, data, watched, tmp_path):
        config = write_config(tmp_path / 'config.py', data)
        make(config, tmp_path / 'store', 1)
        options = ['train_cfg.max_epochs=3', 'default_hooks.checkpoint.max_keep_ckpts=3']
        train(config, tmp_path / 'calm', tmp_path / 'store', options=options)
        make(config, tmp_path / 'store', 3)
        watched.seen.clear()
        train(config, tmp_path / 'run', tmp_path / 'store', '--resume', tmp_path / 'calm' / 'epoch_1.pth', options=options)
        assert {view[0] for batch in watched.seen for view in batch.views} == {0}
        assert_same_weights(tmp_path / 'run', tmp_path / 'calm')

    def test_a_full_store_does_not_repeat_and_says_nothing(self, config, store, watched, tmp_path):
        log = train(config, tmp_path / 'run', store)
        assert 'come again' not in log
        batches = watched.seen[1:]
        assert not torch.equal(batches[0].images, batches[4].images)
        assert [batch.views[0] for batch in batches[::4]] == [(0, 0), (1, 0)]


#: What may change in a run, by more lines in its config or by an option, and which line of the store then differs.
OTHER = {
    'seed': ('randomness = dict(seed=8)', 'seed is 7 in the store and 8 here;'),
    'pipeline': (
        "train_dataloader = dict(dataset=dict(pipeline=[dict(type='RandomCrop', crop_size=28, padding=2), "
        "dict(type='RandomFlip', prob=0.3, direction='horizontal'), dict(type='PackInputs')]))",
        'pipeline.0.1.prob is 0.5 in the store and 0.3 here;',
    ),
    'classes': (
        "train_dataloader = dict(dataset=dict(metainfo=dict(classes=list('jihgfedcba'))))",
        "classes.0 is 'T-shirt/top' in the store and 'j' here",
    ),
    'order': ('train_dataloader = dict(sampler=dict(shuffle=False))', 'sampler.shuffle is True in the store and False'),
    'fewer images': ('train_dataloader = dict(dataset=dict(indices=96))', 'samples is 101 in the store and 96 here (1 more'),
    'mean': ('data_preprocessor = dict(mean=[70.0])', 'preprocessing.mean.0 is 72.94 in the store and 70.0 here;'),
    'mixup': (MIXUP, 'preprocessing.batch_augments'),
    'loop': (
        'train_cfg = dict(_delete_=True, by_epoch=False, max_iters=4)\nlog_processor = dict(by_epoch=False)',
        'a teacher store is for training by epochs, and train_cfg.type is ResumableIterLoop',
    ),
    'no seed': (
        'randomness = dict(_delete_=True, seed=None)',
        'a teacher store needs a fixed seed: set randomness=dict(seed=0',
    ),
    'network': (
        "model = dict(teacher_cfg='configs/fashion_mnist/resnet18-w4_3e.py', teacher_pretrained=None)",
        'teacher.network.backbone.stem_channels is 16 in the store and 4 here',
    ),
    'teacher in train mode': ("model = dict(teacher_mode='train')", "holds logits of teacher_mode='eval'; leave one of"),
}


class TestRefusals:
    """Each in one line that names what differs."""

    def refused(self, data, store, tmp_path, more='', *arguments, options=()):
        config = write_config(tmp_path / 'config.py', data, more)
        return refused('train', config, tmp_path / 'run', *arguments, options=[f'model.teacher_store={store}', *options])

    @pytest.mark.parametrize(('more', 'message'), OTHER.values(), ids=OTHER)
    def test_another_run(self, more, message, data, store, tmp_path):
        assert message in self.refused(data, store, tmp_path, more)

    def test_a_changed_label(self, store, tmp_path):
        data = folders.fashion_mnist(tmp_path / 'data', wrong_label=3)
        assert 'does not fit this run: data_list is ' in self.refused(data, store, tmp_path)

    def test_the_same_data_elsewhere_are_the_same(self, config, data, store, tmp_path):
        shutil.copytree(data, tmp_path / 'data')
        train(config, tmp_path / 'run', store, options=[f'train_dataloader.dataset.data_root={tmp_path / "data"}'])

    def test_other_weights_of_the_teacher(self, data, store, tmp_path):
        torch.save(MODELS.build(resnet(8)).state_dict(), tmp_path / 'other.pth')
        message = self.refused(data, store, tmp_path, options=[f'model.teacher_pretrained={tmp_path / "other.pth"}'])
        assert 'does not fit this run: teacher.weights is ' in message

    @pytest.mark.parametrize(('chosen', 'tensor'), [('mgd', 'feat_t'), ('at', 'stages_t')])
    def test_a_method_that_needs_features(self, chosen, tensor, data, store, tmp_path):
        message = self.refused(data, store, tmp_path, '', '--methods', 'nkd', chosen)
        assert f"holds logit_t, and loss_{chosen} needs '{tensor}': make a store that holds it, in another folder" in message
        assert f'store ... --with {tensor.removesuffix("_t")}`; in plain PyTorch' in message

    def test_a_method_that_needs_tokens(self, store):
        losses = method('ViTKDLoss', student_dims=16, teacher_dims=16)
        with pytest.raises(ValueError, match="holds logit_t, and loss_vitkd needs 'tokens_low_t': make"):
            build(losses, student=vit(), teacher=vit(), teacher_store=str(store))

    def test_another_number_of_classes(self, store):
        with pytest.raises(ValueError, match='the student has 7 classes and the teacher 10'):
            build(method('NKDLoss'), student=resnet(classes=7), teacher_store=str(store))

    def test_samples_that_do_not_say_where_they_are(self, store):
        distiller = build(method('NKDLoss'), teacher_store=str(store))
        assert distiller.teacher is None
        data = distiller.data_preprocessor(batch(), training=True)
        with pytest.raises(ValueError, match='samples lack the `view` field .*; train with'):
            distiller(**data, mode='loss')

    def test_a_damaged_store(self, data, store, tmp_path):
        shutil.copytree(store, tmp_path / 'store')
        path = tmp_path / 'store' / 'epoch_1' / 'rank_0' / '00000.npy'
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        message = self.refused(data, tmp_path / 'store', tmp_path)
        assert f'teacher_store {tmp_path / "store"}: epoch_1/rank_0/00000.npy is damaged' in message

    def test_no_store(self, data, tmp_path):
        message = self.refused(data, tmp_path / 'nowhere', tmp_path)
        assert f'teacher_store {tmp_path / "nowhere"}: no manifest.json there' in message


def test_a_store_needs_nothing_of_the_teacher(config, store, tmp_path, monkeypatch):
    """Not even a config that can be found; and a loss that needs none reads nothing."""
    monkeypatch.setattr('mmcls_kd.distillers.recipe.Teacher', None)
    options = [f'model.teacher_store={store}', 'model.teacher_cfg=configs/nowhere.py', 'train_cfg.max_epochs=1']
    train(config, tmp_path / 'run', options=[*options, 'model.teacher_pretrained=nowhere.pth'])
    assert not any('teacher' in key for key in last(tmp_path / 'run')['state_dict'])
    assert TeacherStore(store).manifest.epochs == 2
