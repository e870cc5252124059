"""Several labels an image, one logit for two classes, and images without labels, in plain PyTorch."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from small_networks import CLASSES, CNN, batch, pair
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeCopyMode, FakeTensorMode
from torch.utils.data import DataLoader, TensorDataset

from mmcls_kd import Distiller, DistillLoss, losses
from mmcls_kd.recipe.labels import task_loss
from mmcls_kd.teachers import store_logits


class Probe(DistillLoss):
    """Keeps labels and teacher's logits as a loss gets them; 0 itself."""

    def forward(self, logit_s, logit_t, gt_label):
        self.logit_t, self.gt_label = logit_t, gt_label
        return 0 * logit_s.sum()


def several(count=8):
    return (torch.rand(count, CLASSES, generator=torch.Generator().manual_seed(5)) < 0.3).float()


class TestSeveralLabels:
    def test_task_and_loss(self):
        (student, teacher), (images, _), labels = pair(), batch(), several()
        out = Distiller(student, teacher, [losses.SigmoidKDLoss(temp=2.0), 'mgd', 'rkd'], multi_label=True)(images, labels)
        logit_s, logit_t = student(images), teacher.eval()(images)
        p = logit_s.sigmoid()
        task = -(labels * p.log() + (1 - labels) * (1 - p).log()).sum(dim=1).mean()
        torch.testing.assert_close(out['task'], task)
        torch.testing.assert_close(out['sigmoidkd'], losses.sigmoid_kd_loss(logit_s, logit_t, 2.0))
        assert torch.equal(out['loss'], torch.stack([out[key] for key in ('task', 'sigmoidkd', 'mgd', 'rkd')]).sum())

    def test_softmax_methods_are_refused_and_the_others_named(self):
        student, teacher = pair()
        with pytest.raises(ValueError, match=r'^kd, nkd: .*softmax.* among .*ATLoss, .*SigmoidKDLoss, VIDLoss') as told:
            Distiller(student, teacher, ['kd', 'mgd', 'nkd'], multi_label=True)
        assert 'DISTLoss' not in str(told.value)

    @pytest.mark.parametrize(
        ('labels', 'said'),
        [
            (torch.arange(8) % CLASSES, r'labels are scores \(N, 10\), 1 for each label'),
            (3 * several(), 'scores go up to 3.0'),
        ],
    )
    def test_labels_of_another_form_are_refused(self, labels, said):
        with pytest.raises(ValueError, match=said):
            Distiller(*pair(), 'sigmoidkd', multi_label=True)(batch()[0], labels)

    def test_multi_hot_scores_of_a_student_for_one_label_are_refused(self):
        student, teacher = pair()
        with pytest.raises(ValueError, match=r'add up to \d.*multi_label=True'):
            Distiller(student, teacher, 'kd')(batch()[0], several())
        given = Distiller(student, teacher, 'sigmoidkd', task_loss=F.binary_cross_entropy_with_logits)
        given(batch()[0], several())  # its own task loss may take them

    @pytest.mark.parametrize('weights', [(1, 1), (3, 1)])
    def test_several_teachers_give_the_mean_probability_of_each_label(self, weights):
        from mmcls_kd import TeacherSpec

        teachers = [CNN(8), CNN(6)]
        probe = Probe()
        specs = [TeacherSpec(network, weight=weight) for network, weight in zip(teachers, weights, strict=True)]
        Distiller(CNN(), specs, probe, multi_label=True)(batch()[0], several())
        mean = sum(w * network.eval()(batch()[0]).sigmoid() for w, network in zip(weights, teachers, strict=True))
        torch.testing.assert_close(probe.logit_t.sigmoid(), mean / sum(weights))

    def test_a_store_of_the_largest_logits_is_refused(self, tmp_path):
        images, _ = batch()
        data = TensorDataset(images, several(), torch.arange(len(images)))
        whole = store_logits(CNN(8), DataLoader(data, 4), tmp_path / 'whole')
        Distiller(CNN(), whole, 'sigmoidkd', multi_label=True)(*data[:4])
        largest = store_logits(CNN(8), DataLoader(data, 4), tmp_path / 'largest', k=3)
        with pytest.raises(ValueError, match='has the 3 largest of 10 logits.*store all'):
            Distiller(CNN(), largest, 'sigmoidkd', multi_label=True)
        with pytest.raises(ValueError, match='has the 3 largest of 10 logits'):
            Distiller(CNN(), [whole, largest], 'sigmoidkd', multi_label=True)
        Distiller(CNN(), largest, 'kd')


class TestOneLogit:
    def test_task_and_loss(self):
        (student, teacher), labels = (CNN(classes=1), CNN(8, classes=1)), torch.tensor([0, 1] * 4)
        out = Distiller(student, teacher, 'sigmoidkd')(batch()[0], labels)
        logit_s, logit_t = student(batch()[0]), teacher.eval()(batch()[0])
        two = torch.cat([torch.zeros_like(logit_s), logit_s], dim=1)
        torch.testing.assert_close(out['task'], F.cross_entropy(two, labels))
        torch.testing.assert_close(out['sigmoidkd'], losses.sigmoid_kd_loss(logit_s, logit_t))

    def test_softmax_methods_two_logits_and_other_labels_are_refused(self):
        one, two = CNN(classes=1), CNN(8, classes=2)
        with pytest.raises(ValueError, match='one logit and two logits are two forms of two classes'):
            Distiller(one, two, 'sigmoidkd')
        with pytest.raises(ValueError, match=r'kd: .*one logit \(sigmoid\)'):
            Distiller(one, CNN(8, classes=1), 'kd')
        with pytest.raises(ValueError, match='labels go from 0 to 2, and the student has 2 classes'):
            Distiller(one, CNN(8, classes=1), 'sigmoidkd')(batch(3)[0], torch.arange(3))


class TestWithoutLabels:
    def test_no_label_no_task_loss(self):
        student, teacher = pair()
        out = Distiller(student, teacher, 'dist')(batch()[0])
        assert out['task'] == 0
        assert torch.equal(out['loss'], out['dist'])
        out['loss'].backward()
        assert all(parameter.grad is not None for parameter in student.parameters())

    @pytest.mark.parametrize('kind', ['indices', 'scores', 'several'])
    @pytest.mark.parametrize('own', [False, True])
    def test_a_mixed_batch_has_the_mean_over_its_labelled_samples(self, kind, own):
        (student, teacher), (images, labels) = pair(), batch()
        if kind != 'indices':
            labels = F.one_hot(labels, CLASSES).float() if kind == 'scores' else several()
        mixed = labels.clone()
        mixed[[1, 4, 5]] = -1
        known = [0, 2, 3, 6, 7]
        task_loss = F.binary_cross_entropy_with_logits if kind == 'several' else F.cross_entropy
        keywords = dict(multi_label=kind == 'several', task_loss=task_loss if own else None)
        out = Distiller(student, teacher, 'rkd', **keywords)(images, mixed)
        expected = task_loss(student(images)[known], labels[known])
        torch.testing.assert_close(out['task'], expected * (CLASSES if kind == 'several' and not own else 1))

    def test_labelled_batches_are_what_they_were(self):
        (student, teacher), (images, labels) = pair(), batch()
        out = Distiller(student, teacher, 'dist')(images, labels)
        assert torch.equal(out['task'], F.cross_entropy(student(images), labels, reduction='none').mean())

    def test_methods_that_need_a_label_are_refused_and_the_others_named(self):
        distiller = Distiller(*pair(), ['nkd', 'dist'])
        images, labels = batch()
        distiller(images, labels)
        for missing in (None, torch.where(torch.arange(8) == 3, -1, labels)):
            with pytest.raises(ValueError, match=r"and nkd needs a label: set label='teacher'.* among .*DISTLoss") as told:
                distiller(images, missing)
        assert 'DKDLoss' not in str(told.value)

    @pytest.mark.parametrize('kind', ['indices', 'scores'])
    def test_the_teachers_class_where_the_user_says_so(self, kind):
        (student, teacher), (images, labels) = pair(), batch()
        taught = teacher.eval()(images).argmax(dim=1)
        expected = torch.where(torch.arange(8) < 3, taught, labels)
        if kind == 'scores':
            labels, expected = F.one_hot(labels, CLASSES).float(), F.one_hot(expected, CLASSES).float()
        labels[:3] = -1
        probe = Probe()
        distiller = Distiller(student, teacher, dict(probe=probe, nkd='nkd'), label='teacher')
        out = distiller(images, labels)
        assert torch.equal(probe.gt_label, expected)
        torch.testing.assert_close(out['nkd'], losses.nkd_loss(student(images), teacher.eval()(images), expected))
        distiller(images)
        assert torch.equal(probe.gt_label, taught)

    def test_the_teachers_labels_where_there_are_several(self):
        (student, teacher), (images, _), labels = pair(), batch(), several()
        expected = torch.cat([(teacher.eval()(images)[:3] > 0).float(), labels[3:]])
        labels[:3] = -1
        probe = Probe()
        Distiller(student, teacher, dict(probe=probe, kd='sigmoidkd'), multi_label=True, label='teacher')(images, labels)
        assert torch.equal(probe.gt_label, expected)

    def test_no_teacher_no_class_of_it(self):
        with pytest.raises(ValueError, match="label='teacher': tfnkd has no teacher"):
            Distiller(CNN(), losses='tfnkd', label='teacher')
        with pytest.raises(ValueError, match="label='student': choose 'teacher'"):
            Distiller(*pair(), 'dist', label='student')

    def test_a_stored_teacher(self, tmp_path):
        images, labels = batch()
        data = TensorDataset(images, labels, torch.arange(len(images)))
        stored = store_logits(CNN(8), DataLoader(data, 4), tmp_path / 'store')
        probe = Probe()
        Distiller(CNN(), stored, probe, label='teacher')(images, None, torch.arange(8))
        assert torch.equal(probe.gt_label, probe.logit_t.argmax(dim=1))


@pytest.mark.parametrize('multi_label', [False, True])
def test_the_form_without_waiting_for_the_labels_is_the_same(multi_label, monkeypatch):
    """On a GPU, and compiled, the mean is taken with the unlabelled samples' loss times 0."""
    logit = torch.randn(8, CLASSES, dtype=torch.float64)
    labels = several().double() if multi_label else torch.arange(8)
    labels[2:4] = -1
    expected = task_loss(logit, labels, multi_label)
    monkeypatch.setattr(torch.compiler, 'is_compiling', lambda: True)
    torch.testing.assert_close(task_loss(logit, labels, multi_label), expected)
    labels[:] = -1
    assert task_loss(logit, labels, multi_label) == 0


class TestWithoutWaiting:
    """A task loss of the user's own where the labels are not on the host: on a GPU, and in a compiled graph."""

    def step(self, monkeypatch, task_loss, labels, multi_label=False):
        """One step, forward and backward, on tensors that have no values; the loss."""
        distiller = Distiller(CNN(), task_loss=task_loss, multi_label=multi_label)
        mode = FakeTensorMode()
        with FakeCopyMode(mode):
            distiller, images, labels = copy.deepcopy((distiller, batch()[0], labels))
        monkeypatch.setattr(torch.compiler, 'is_compiling', lambda: True)
        with mode:
            out = distiller(images, labels)
            out['loss'].backward()
        return out

    @pytest.mark.parametrize('reduction', ['mean', 'none'])
    @pytest.mark.parametrize('kind', ['indices', 'several', None])
    def test_no_value_is_needed_on_the_host(self, reduction, kind, monkeypatch):
        own = F.binary_cross_entropy_with_logits if kind == 'several' else F.cross_entropy
        labels = {'indices': batch()[1], 'several': several(), None: None}[kind]
        out = self.step(monkeypatch, partial(own, reduction=reduction), labels, kind == 'several')
        assert out['loss'].shape == ()
        assert out['task'].shape in ((), (8,), (8, CLASSES))

    def test_a_value_on_the_host_would_be_seen(self, monkeypatch):
        def own(logit, labels):
            return F.cross_entropy(logit, labels) * labels.max().item()

        with pytest.raises(DataDependentOutputException):
            self.step(monkeypatch, own, batch()[1])

    @pytest.mark.parametrize('reduction', ['mean', 'none'])
    @pytest.mark.parametrize('missing', [(), (2, 3, 7)])
    @pytest.mark.parametrize('kind', ['indices', 'several'])
    def test_its_value_is_that_of_the_labelled_ones(self, reduction, missing, kind, monkeypatch):
        logit = torch.randn(8, CLASSES, dtype=torch.float64, requires_grad=True)
        labels = several().double() if kind == 'several' else torch.arange(8)
        labels[list(missing)] = -1
        own = partial(F.binary_cross_entropy_with_logits if kind == 'several' else F.cross_entropy, reduction=reduction)
        expected = task_loss(logit, labels, kind == 'several', own)
        rows = [i for i in range(8) if i not in missing]
        torch.testing.assert_close(expected, own(logit[rows], labels[rows]))
        monkeypatch.setattr(torch.compiler, 'is_compiling', lambda: True)
        if missing and reduction == 'mean':
            with pytest.raises(RuntimeError, match='samples without a label, and task_loss returns a mean'):
                task_loss(logit, labels, kind == 'several', own)
            return
        found = task_loss(logit, labels, kind == 'several', own)
        torch.testing.assert_close(found.mean(), expected.mean())
        (wanted,), (gradient,) = (torch.autograd.grad(value.mean(), logit) for value in (expected, found))
        torch.testing.assert_close(gradient, wanted)

    def test_a_first_batch_with_missing_labels_lets_a_mean_wait(self):
        distiller = Distiller(*pair(), 'rkd', task_loss=F.cross_entropy)
        images, labels = batch()
        distiller(images, labels)
        assert not distiller._missing
        labels[0] = -1
        distiller(images, labels)
        assert distiller._missing
        meta = torch.zeros(8, CLASSES, device='meta'), torch.zeros(8, dtype=torch.long, device='meta')
        assert task_loss(*meta, given=F.cross_entropy).shape == ()
        with pytest.raises((NotImplementedError, RuntimeError)):
            task_loss(*meta, given=F.cross_entropy, missing=True)
