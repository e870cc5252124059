"""Measures of embeddings against loops over numbers, heads on backbones, and the hook that measures in validation."""

import math

import numpy as np
import pytest
import timm
import torch
from folders import class_folders
from kit import seeded
from mmengine.config import Config
from mmengine.runner import Runner
from mmpretrain.registry import MODELS
from networks import build, images, method, resnet
from small_networks import CNN

from mmcls_kd import EmbeddingNetwork, knn_accuracy, linear_probe_accuracy, with_linear_head
from mmcls_kd.engine import KNNHook, WithoutLabels
from mmcls_kd.engine.config import student_only
from mmcls_kd.export import load_classifier
from mmcls_kd.features.probes import knn_agreement, knn_scores

TIMM = dict(type='TimmClassifier', model_name='test_resnet', num_classes=0)


def vectors(count, width=3, seed=0):
    return torch.randn(count, width, generator=seeded(seed), dtype=torch.float64)


@pytest.mark.parametrize('k', [1, 4, 50])
def test_knn_scores_are_the_votes(k):
    train, test, labels = vectors(9), vectors(5, seed=1), torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2])
    expected = []
    for vector in test.tolist():
        cosines = [
            sum(a * b for a, b in zip(vector, other, strict=True)) / math.dist(vector, [0] * 3) / math.dist(other, [0] * 3)
            for other in train.tolist()
        ]
        nearest = sorted(range(9), key=lambda i: -cosines[i])[:k]
        expected.append([sum(math.exp((cosines[i] - 1) / 0.2) for i in nearest if labels[i] == c) for c in range(3)])
    found = knn_scores(train, labels, test, k, temperature=0.2)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    target = torch.tensor(expected).argmax(dim=1)
    assert knn_accuracy(train, labels, test, target, k, temperature=0.2) == 1.0
    assert knn_accuracy(train, labels, test, (target + 1) % 3, k, temperature=0.2) == 0.0


def nearest_by_hand(train, vector, k):
    """Indices of the most similar vectors and their cosines, by a loop over numbers."""
    cosines = [
        sum(a * b for a, b in zip(vector, other, strict=True)) / math.hypot(*vector) / math.hypot(*other) for other in train
    ]
    return [(i, cosines[i]) for i in sorted(range(len(train)), key=lambda i: -cosines[i])[:k]]


@pytest.mark.parametrize('k', [1, 3, 50])
def test_agreement_without_classes_is_the_share_of_common_neighbours(k):
    given = vectors(9), vectors(9, 4, seed=1), vectors(7, seed=2), vectors(7, 4, seed=3)
    ours, theirs, student, teacher = (tensor.tolist() for tensor in given)
    shares = [
        len({i for i, _ in nearest_by_hand(ours, a, k)} & {i for i, _ in nearest_by_hand(theirs, b, k)}) / min(k, 9)
        for a, b in zip(student, teacher, strict=True)
    ]
    assert knn_agreement(*given, k=k) == pytest.approx(sum(shares) / 7)
    assert k == 50 or 0 < sum(shares) < 7
    assert knn_agreement(given[0], 2 * given[0], given[2], 3 * given[2], k=k) == 1.0


@pytest.mark.parametrize('k', [1, 4, 50])
def test_agreement_with_classes_is_the_share_of_equal_votes(k):
    given, labels = (
        (vectors(9), vectors(9, 4, seed=1), vectors(7, seed=2), vectors(7, 4, seed=3)),
        [0, 1, 2, 0, 1, 2, 0, 2, 2],
    )

    def vote(train, vector):
        near = nearest_by_hand(train, vector, k)
        return max(range(3), key=lambda c: sum(math.exp(cosine / 0.2) for i, cosine in near if labels[i] == c))

    ours, theirs, student, teacher = (tensor.tolist() for tensor in given)
    alike = [vote(ours, a) == vote(theirs, b) for a, b in zip(student, teacher, strict=True)]
    assert knn_agreement(*given, torch.tensor(labels), k, temperature=0.2) == pytest.approx(sum(alike) / 7)


def test_a_linear_probe_is_the_regularised_regression():
    """Against plain gradient descent in NumPy."""
    labels = torch.arange(40) % 3
    centres = 1.5 * vectors(3, seed=5)
    train, test = vectors(40) + centres[labels], vectors(40, seed=1) + centres[labels]
    x, y = train.numpy(), np.eye(3)[labels.numpy()]
    mean, std = x.mean(axis=0), x.std(axis=0)
    x, weight, bias = (x - mean) / std, np.zeros((3, 3)), np.zeros(3)
    for _ in range(3000):
        z = np.exp(x @ weight + bias)
        error = (z / z.sum(axis=1, keepdims=True) - y) / len(x)
        weight, bias = weight - 0.5 * (x.T @ error + 0.1 * weight), bias - 0.5 * error.sum(axis=0)
    found = (((test.numpy() - mean) / std) @ weight + bias).argmax(axis=1)
    expected = float((found == labels.numpy()).mean())
    assert 0.5 < expected < 1
    assert linear_probe_accuracy(train, labels, test, labels, weight_decay=0.1) == pytest.approx(expected)
    assert linear_probe_accuracy(train, labels, test, torch.from_numpy(found), weight_decay=0.1) == 1.0


class TestHeads:
    @pytest.mark.parametrize('frozen', [True, False])
    def test_a_head_learns_with_or_without_its_backbone(self, frozen):
        network = with_linear_head(timm.create_model('test_resnet', num_classes=0), 4, frozen).train()
        assert network.backbone.training is not frozen
        network(images()).square().sum().backward()
        assert all((parameter.grad is None) is frozen for parameter in network.backbone.parameters())
        assert network.head.weight.grad is not None

    def test_a_classifier_is_refused(self):
        with pytest.raises(ValueError, match=r'the network has 10 classes: give one without \(num_classes=0\)'):
            with_linear_head(CNN(), 10)

    @pytest.mark.parametrize('student', [TIMM, resnet(4)['backbone']], ids=['timm', 'mmpretrain'])
    def test_a_config_begins_with_a_distillers_student(self, student, tmp_path):
        distiller = build(method('EmbeddingLoss'), student=student)
        torch.save(dict(state_dict=distiller.state_dict()), tmp_path / 'epoch_1.pth')
        cfg = dict(type='LinearHeadClassifier', network=student, num_classes=5, pretrained=str(tmp_path / 'epoch_1.pth'))
        network = MODELS.build({**cfg, 'frozen': True})
        network.init_weights()
        own, kept = distiller.student.state_dict(), network.model.backbone.state_dict()
        assert own.keys() == kept.keys()
        assert all(torch.equal(kept[name], tensor) for name, tensor in own.items())
        assert network(images()).shape == (4, 5)
        other = MODELS.build({**cfg, 'pretrained': None})
        other.load_state_dict(network.state_dict())  # strict: saved names are those that are loaded
        assert all(torch.equal(a, b) for a, b in zip(other.parameters(), network.parameters(), strict=True))
        with pytest.raises(FileNotFoundError, match='student weights nowhere'):
            MODELS.build({**cfg, 'pretrained': 'nowhere.pth'})
        torch.save(dict(state_dict=network.state_dict()), tmp_path / 'student.pth')
        alone = Config(dict(model={**cfg, 'pretrained': 'nowhere.pth'}))
        student_only(alone)  # as in test, export and predict: the saved student has all weights
        saved = load_classifier(alone, str(tmp_path / 'student.pth'))
        assert all(torch.equal(a, b) for a, b in zip(saved.parameters(), network.parameters(), strict=True))


class TestHook:
    def run(self, folder, student=None, **hook):
        """Train one epoch on a few images in folders; returns the last metrics."""
        pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
        for split in ('train', 'val'):
            class_folders(folder / split, a=6, b=6)
        data = {
            split: dict(
                batch_size=4,
                num_workers=0,
                dataset=dict(type='CustomDataset', data_root=str(folder / split), pipeline=pipeline),
                sampler=dict(type='DefaultSampler', shuffle=split == 'train'),
            )
            for split in ('train', 'val')
        }
        cfg = Config(
            dict(
                default_scope='mmpretrain',
                work_dir=str(folder / 'run'),
                log_level='WARNING',
                experiment_name=folder.name,
                model=dict(
                    type='ClassificationDistiller',
                    teacher_cfg=resnet(4, classes=2),
                    teacher_pretrained=False,
                    student_cfg=student or resnet(4)['backbone'],
                    distill_cfg=[method('EmbeddingLoss')],
                ),
                train_dataloader=data['train'],
                val_dataloader=data['val'],
                train_cfg=dict(by_epoch=True, max_epochs=1, val_interval=1),
                val_cfg=dict(),
                val_evaluator=[] if student is None else dict(type='Accuracy'),
                optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
                default_hooks=dict(checkpoint=dict(type='CheckpointHook', save_best='knn/top1')),
                custom_hooks=[dict(type='KNNHook', **hook)],
                randomness=dict(seed=0),
            )
        )
        runner = Runner.from_cfg(cfg)
        runner.train()
        return runner

    def test_it_adds_the_accuracy_of_neighbours(self, tmp_path):
        """The images of both classes are the same ones, so that one neighbour of both sets is right for half of them."""
        runner = self.run(tmp_path, train_images=12, k=1, linear=True)
        assert runner.message_hub.get_scalar('val/knn/top1').current() == 50.0
        assert runner.message_hub.get_scalar('val/linear/top1').current() == 50.0
        assert list((tmp_path / 'run').glob('best_knn_top1_*.pth'))

    def test_a_classifier_has_both(self, tmp_path):
        runner = self.run(tmp_path, student=resnet(4, classes=2), train_images=5)
        assert {'val/knn/top1', 'val/accuracy/top1'} <= {*runner.message_hub.log_scalars}

    def test_it_draws_nothing(self, tmp_path):
        runner = self.run(tmp_path, train_images=12)
        hook, state = next(hook for hook in runner.hooks if isinstance(hook, KNNHook)), torch.get_rng_state()
        hook.after_val_epoch(runner, {})
        assert torch.equal(state, torch.get_rng_state())

    def test_images_without_labels_have_no_votes(self, tmp_path):
        runner = self.run(tmp_path, train_images=12, k=1)
        hook = next(hook for hook in runner.hooks if isinstance(hook, KNNHook))
        loader = hook._loaders_of(runner, 'val_dataloader')[0]
        loader.dataset.dataset = WithoutLabels(loader.dataset.dataset)
        with pytest.raises(ValueError, match='none of 12 images has one label'):
            hook.after_val_epoch(runner, {})

    @pytest.mark.parametrize('name', ['k', 'train_images', 'temperature', 'seed', 'linear'])
    @pytest.mark.parametrize('value', [-1, 'many', float('nan'), float('inf'), None, [3]])
    def test_unfit_settings_are_refused(self, name, value):
        with pytest.raises(ValueError, match=rf'KNNHook: {name}=.*: give (a (whole )?number|True or False)'):
            KNNHook(**{name: value})

    @pytest.mark.parametrize('keywords', [dict(k=0), dict(train_images=0), dict(temperature=0), dict(k=True), dict(k=2.5)])
    def test_numbers_out_of_range_are_refused(self, keywords):
        with pytest.raises(ValueError, match='KNNHook: .* give a (whole )?number(, 1 or more| above 0)'):
            KNNHook(**keywords)


def test_an_embedding_network_is_known_for_what_it_is():
    assert with_linear_head(EmbeddingNetwork(torch.nn.Conv2d(3, 4, 3)), 3)(images()).shape == (4, 3)
