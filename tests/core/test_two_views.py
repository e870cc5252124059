"""Two views in plain PyTorch: what each network sees, batch statistics, the task loss, and refusals."""

import copy

import pytest
import torch
import torch.nn.functional as F
from small_networks import batch, pair

from mmcls_kd import Distiller, DistillLoss
from mmcls_kd.distiller import logger


class Probe(DistillLoss):
    """Keeps what it is given; 0 itself."""

    def forward(self, logit_s, vector_t, logit_t_strong, feat_s_strong):
        self.seen = dict(logit_s=logit_s, vector_t=vector_t, logit_t_strong=logit_t_strong, feat_s_strong=feat_s_strong)
        return 0 * (logit_s.sum() + feat_s_strong.sum())


class OneView(DistillLoss):
    """Reads the weak view; 0 itself."""

    def forward(self, logit_s, logit_t):
        return 0 * (logit_s.sum() + logit_t.sum())


def views():
    """Two views of a batch, and its labels."""
    images, labels = batch()
    return (images, images.flip(3) + 0.1), labels


def count_forwards(network):
    """The images of each forward pass of a network, in order."""
    seen = []
    network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    return seen


def test_each_input_is_that_of_its_view_and_each_network_runs_once_a_view():
    student, teacher = pair(norm=False)
    probe = Probe()
    distiller = Distiller(student, teacher, probe)
    of_student, of_teacher = count_forwards(student), count_forwards(teacher)
    (weak, strong), labels = views()
    distiller((weak, strong), labels)['loss'].backward()
    assert [torch.equal(images, view) for images, view in zip(of_student, (weak, strong), strict=True)] == [True] * 2
    assert [torch.equal(images, view) for images, view in zip(of_teacher, (weak, strong), strict=True)] == [True] * 2

    expected = dict(
        logit_s=student(weak),
        vector_t=teacher.pool(teacher.features(weak)).flatten(1),
        logit_t_strong=teacher(strong),
        feat_s_strong=student.features(strong),
    )
    for name, tensor in expected.items():
        torch.testing.assert_close(probe.seen[name], tensor, msg=name)


def test_the_student_has_the_batch_statistics_of_each_view_the_weak_one_first():
    student, teacher = pair()
    distiller = Distiller(student, teacher, 'crld')
    twin = copy.deepcopy(student)
    (weak, strong), labels = views()
    out = distiller((weak, strong), labels)
    logits = [twin(weak), twin(strong)]
    for name, value in twin.state_dict().items():
        assert torch.equal(student.state_dict()[name], value), name
    assert student.layer1[1].num_batches_tracked == 2
    assert torch.equal(out['task'], F.cross_entropy(logits[0], labels) + F.cross_entropy(logits[1], labels))


@pytest.mark.parametrize(
    ('settings', 'counted'),
    [
        (dict(), (1, 1)),
        (dict(task_views=['weak']), (1, 0)),
        (dict(task_views=['strong'], task_weight=0.25), (0, 0.25)),
        (dict(task_weight=0.1, loss_weight=0.9), (0.1, 0.1)),
    ],
)
def test_the_task_loss_is_that_of_the_chosen_views_times_its_weight(settings, counted):
    student, teacher = pair(norm=False)
    distiller = Distiller(student, teacher, dict(mlkd=dict(type='mlkd', **settings)))
    given, labels = views()
    out = distiller(given, labels)
    each = [F.cross_entropy(student(images), labels) for images in given]
    expected = sum(weight * loss for weight, loss in zip(counted, each, strict=True))
    torch.testing.assert_close(out['task'], expected)
    torch.testing.assert_close(out['loss'], out['task'] + out['mlkd'])


def test_a_loss_of_one_view_may_have_the_task_loss_of_both():
    student, teacher = pair(norm=False)
    distiller = Distiller(student, teacher, dict(kd=dict(type='kd', task_views=['weak', 'strong'])))
    of_teacher = count_forwards(teacher)
    given, labels = views()
    out = distiller(given, labels)
    torch.testing.assert_close(out['task'], 0.5 * sum(F.cross_entropy(student(images), labels) for images in given))
    assert len(of_teacher) == 1
    with pytest.raises(ValueError, match=r'the task loss is that of both views \(task_views\), and there is one view'):
        distiller(given[0], labels)


def test_several_stages_of_the_strong_view_are_read():
    class Strong(DistillLoss):
        def forward(self, feat_s_strong, feat_t_strong):
            return feat_s_strong.mean() - feat_t_strong.mean()

    student, teacher = pair(norm=False)
    (weak, strong), labels = views()
    found = Distiller(student, teacher, dict(strong=dict(type=Strong, stages=[1, 4])))((weak, strong), labels)['strong']
    expected = 0
    for network, sign in ((student, 1), (teacher, -1)):
        first = network.layer1(network.stem(strong))
        expected = expected + sign * (first.mean() + network.features(strong).mean())
    torch.testing.assert_close(found, expected)


def test_one_view_is_refused_where_two_are_read():
    student, teacher = pair()
    (weak, _), labels = views()
    message = r'reads logit_s_strong, and there is one view of each image: give two, distiller\(\(weak, strong\), labels\)'
    with pytest.raises(ValueError, match=message):
        Distiller(student, teacher, 'crld')(weak, labels)
    with pytest.raises(ValueError, match='3 views of each image: there are two'):
        Distiller(student, teacher, 'crld')((weak, weak, weak), labels)


def test_a_strong_view_that_nothing_reads_is_not_used_and_said_so_once(monkeypatch):
    student, teacher = pair()
    distiller = Distiller(student, teacher, OneView())
    of_student, of_teacher = count_forwards(student), count_forwards(teacher)
    given, labels = views()
    told = []
    monkeypatch.setattr(logger, 'warning', told.append)
    distiller(given, labels)
    distiller(given, labels)
    assert told == ['no loss reads the strong view of the images (no input ends in _strong): it is not used']
    assert len(of_student) == len(of_teacher) == 2


@pytest.mark.parametrize(
    ('loss', 'message'),
    [
        (dict(type='kd', task_views=['both']), r"task_views=\['both'\]: give a list of 'weak', 'strong' or both"),
        (dict(type='kd', task_views=[]), r'task_views=\[\]: give a list'),
        (dict(type='kd', task_weight='all'), r"task_weight='all': give a number"),
    ],
)
def test_wrong_settings_of_the_task_loss_are_refused(loss, message):
    with pytest.raises(ValueError, match=message):
        Distiller(*pair(), loss)


def test_there_is_one_label_for_both_views():
    class Wrong(DistillLoss):
        def forward(self, logit_s, gt_label_strong):
            return logit_s.sum() * gt_label_strong.sum()

    with pytest.raises(ValueError, match="unknown input 'gt_label_strong'"):
        Distiller(*pair(), Wrong())


def test_several_teachers_have_a_mean_of_each_view():
    student, teacher = pair(norm=False)
    (weak, strong), labels = views()
    one = Distiller(student, teacher, 'crld')((weak, strong), labels)
    two = Distiller(student, [teacher, copy.deepcopy(teacher)], 'crld')((weak, strong), labels)
    torch.testing.assert_close(one['crld'], two['crld'])
