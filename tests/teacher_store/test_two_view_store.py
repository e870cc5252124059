"""Stores of two views: both views' logits, the training under a live teacher, and stores of one view refused."""

import json

import numpy as np
import pytest
import torch
from interruption import assert_same_run
from small_networks import CLASSES, CNN, batch, pair
from stores import IMAGES, Watched, make, refused, train, write_config
from torch.utils.data import DataLoader, Dataset

from mmcls_kd import Distiller, DistillLoss
from mmcls_kd.teacher_store import TeacherStore
from mmcls_kd.teachers import store_logits
from mmcls_kd.teachers.records import parts_of, record_type
from mmcls_kd.teachers.store import MANIFEST

pytestmark = [
    pytest.mark.filterwarnings('ignore:.*instance named of'),
    pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning'),
]

METHOD = "model = dict(distill_cfg=[dict(methods=[dict(type='CRLDLoss', name='loss_crld', tau_weak=0.0)])])"
TWO_VIEWS = f"""
weak = [dict(type='RandomCrop', crop_size=28, padding=2), dict(type='RandomFlip', prob=0.5)]
train_dataloader = dict(dataset=dict(pipeline=[dict(type='TwoViews', weak=weak), dict(type='PackInputs')]))
{METHOD}
"""


def test_training_from_a_store_of_both_views_is_that_under_a_live_teacher(data, tmp_path, monkeypatch):
    config = write_config(tmp_path / 'config.py', data, TWO_VIEWS)
    said = make(config, tmp_path / 'store', 1)
    assert f'10 of 10 logits of {2 * IMAGES} views (1 epochs)' in said
    assert '20 bytes a view' in said
    store = TeacherStore(tmp_path / 'store')
    assert store.manifest.views_each == 2
    assert store.type.itemsize == 2 * record_type(10, 10).itemsize == 40
    weak, strong = parts_of(store.read(0, range(IMAGES))).values()
    assert not np.array_equal(weak['logit'], strong['logit'])

    watched = Watched().install(monkeypatch)
    options = ['train_cfg.max_epochs=1']
    train(config, tmp_path / 'run', tmp_path / 'store', options=options)
    assert {view[2:] for view in watched.logits()} == {(), ('strong',)}
    watched.k = 'float16'
    train(config, tmp_path / 'live', options=options)
    assert_same_run(tmp_path / 'run', tmp_path / 'live')


def test_a_store_of_one_view_is_refused(data, tmp_path):
    one = write_config(tmp_path / 'one.py', data)
    make(one, tmp_path / 'store', 1)
    manifest = json.loads((tmp_path / 'store' / MANIFEST).read_text())
    assert 'views_each' not in manifest  # as those of earlier versions
    assert TeacherStore(tmp_path / 'store').manifest.views_each == 1
    config = write_config(tmp_path / 'config.py', data, TWO_VIEWS)
    message = refused('train', config, tmp_path / 'run', options=[f'model.teacher_store={tmp_path / "store"}'])
    assert 'has the logits of one view of each image, and loss_crld reads logit_s_strong: make a store of both' in message


class Pairs(Dataset):
    """Two views of each image, its label and its index."""

    def __init__(self):
        self.images, self.labels = batch()

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return (self.images[index], self.images[index].flip(2)), self.labels[index], index


class Probe(DistillLoss):
    """Keeps the teacher's logits; 0 itself."""

    def forward(self, logit_s, logit_t, logit_t_strong):
        self.seen = logit_t, logit_t_strong
        return 0 * logit_s.sum()


@pytest.mark.parametrize('k', [None, 3])
def test_plain_pytorch_stores_both_views_of_a_pair(tmp_path, k):
    student, teacher = pair(norm=False)
    stored = store_logits(teacher, DataLoader(Pairs(), 3), tmp_path / 'store', k)
    (weak, strong), labels, indices = next(iter(DataLoader(Pairs(), 8)))
    seen = []
    for given in (teacher, stored):
        probe = Probe()
        Distiller(student, given, probe)((weak, strong), labels, indices)
        seen.append(probe.seen)
    for live, found in zip(*seen, strict=True):
        largest = live.topk(k or CLASSES, dim=1).indices
        torch.testing.assert_close(found.gather(1, largest), live.gather(1, largest), rtol=2**-10, atol=1e-5)
    assert not torch.equal(*seen[1])


def test_plain_pytorch_refuses_a_store_of_one_view(tmp_path):
    images, labels = batch()
    loader = DataLoader([(image, label, index) for index, (image, label) in enumerate(zip(images, labels, strict=True))], 3)
    stored = store_logits(CNN(8), loader, tmp_path / 'store')
    with pytest.raises(
        ValueError, match='one view of each image, and mlkd reads logit_s_strong: make a store of both views'
    ):
        Distiller(CNN(), stored, 'mlkd')
    assert Distiller(CNN(), stored, dict(mlkd=dict(type='mlkd', views=1)))(images, labels, range(8))['mlkd'].isfinite()
