"""Every loss trains in plain PyTorch, on CNNs and transformers; losses are given in every form; what is wrong is refused."""

import copy
import logging

import numpy as np
import pytest
import torch
from small_networks import CLASSES, CNN, ViT, batch, pair
from torch import nn
from torch.nn import functional as F

from mmcls_kd import Distiller, TeacherSpec, losses
from mmcls_kd.dis_losses import LOSSES
from mmcls_kd.recipe.wrappers import AtStages, CurriculumTemperature

KEYWORDS = {'CRDLoss': dict(nce_k=20)}
#: Losses that a kind of network cannot have, each with a part of the refusal.
REFUSED = {
    (
        CNN,
        'ViTKDLoss',
    ): "vitkd .*unknown input 'tokens_low_s', a feature .* this student.*define others with taps",
    (ViT, 'SRRLLoss'): "srrl .*unknown input 'teacher_head' .it needs one teacher whose class scores are made of the pooled",
    (ViT, 'ScaleKDLoss'): 'scalekd: ScaleKD sends features through the teacher’s last stage, .* set perception=False',
    (ViT, 'OFDLoss'): "ofd .*unknown input 'stages_preact_s'",
    (ViT, 'ABLoss'): "ab .*unknown input 'stages_preact_s'",
    **{(kind, 'FSPLoss'): 'fsp: FSPLoss compares stages of the same channels' for kind in (CNN, ViT)},
    **{
        (ViT, name): f"{name[:-4].lower()} .*unknown input 'student_weight' .it needs a student whose class scores are one"
        for name in ('CATKDLoss', 'SDDLoss')
    },
    **{(kind, 'DeiTTokenLoss'): "deittoken .*unknown input 'logit_token_s', a feature" for kind in (CNN, ViT)},
    (ViT, 'SimKD'): 'simkd: SimKD needs a teacher whose class scores are made of the pooled map',
}


@pytest.mark.parametrize('network', [CNN, ViT])
@pytest.mark.parametrize('name', LOSSES)
def test_every_loss_trains(network, name):
    student, teacher = pair(network)
    given = dict(type=name, **KEYWORDS.get(name, {}))
    if reason := REFUSED.get((network, name)):
        with pytest.raises(ValueError, match=reason):
            Distiller(student, teacher, given, num_samples=100)
        return
    distiller = Distiller(student, teacher, given, num_samples=100, batch_size=8)
    optimizer = torch.optim.SGD(distiller.parameters(), lr=0.01)
    images, labels = batch()
    given = (images, images.flip(2)) if distiller.needs_strong else images
    for _ in range(2):
        out = distiller(given, labels, torch.arange(len(images)))
        optimizer.zero_grad()
        out['loss'].backward()
        optimizer.step()
    term = next(out[key] for key in out if key not in ('loss', 'task'))
    assert term.isfinite()
    assert term.dtype == torch.float32
    assert all(p.grad is None or p.grad.isfinite().all() for p in distiller.parameters())
    torch.testing.assert_close(out['loss'], out['task'].mean() + term.mean())
    alone = torch.autograd.grad(distiller(given, labels, torch.arange(len(images)))['loss'], student.parameters())
    assert any(gradient.abs().sum() for gradient in alone)
    assert all(parameter.grad is None for parameter in teacher.parameters())


class TestForms:
    def test_the_module_that_is_given_is_trained(self):
        student, teacher = pair(norm=False)
        optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
        given = losses.FitNetLoss(student_channels=32, teacher_channels=64)
        distiller = Distiller(student, teacher, dict(fitnet=given))
        assert distiller.student is student
        assert distiller.distill_losses['fitnet'] is given
        assert distiller.teacher.network is teacher
        before = copy.deepcopy(student.state_dict())
        distiller(*batch())['loss'].backward()
        optimizer.step()
        moved = [name for name, weight in student.named_parameters() if not torch.equal(weight, before[name])]
        assert len(moved) == len(list(student.parameters()))
        expected = [f'student.{name}' for name, _ in student.named_parameters()]
        names = [name for name, _ in distiller.named_parameters()]
        assert names == [*expected, *(f'distill_losses.fitnet.{name}' for name, _ in given.named_parameters())]

    @pytest.mark.parametrize(
        ('given', 'names'),
        [
            ('nkd', ['nkd']),
            ('NKDLoss', ['nkd']),
            (losses.NKDLoss, ['nkd']),
            (losses.NKDLoss(), ['nkd']),
            (dict(type='NKDLoss', temp=2.0), ['nkd']),
            (['nkd', losses.DISTLoss, losses.RKDLoss(), dict(type='mgd')], ['nkd', 'dist', 'rkd', 'mgd']),
            ([dict(type='kd', name='mine'), 'kd'], ['mine', 'kd']),
            (dict(a='kd', b='kd'), ['a', 'b']),
            (dict(a=dict(type=losses.KDLoss)), ['a']),
        ],
    )
    def test_losses_are_given_in_any_form(self, given, names):
        distiller = Distiller(*pair(), given)
        assert list(distiller.distill_losses) == names
        assert list(distiller(*batch())) == ['loss', 'task', *names]

    def test_one_that_is_switched_off_is_left_out(self):
        distiller = Distiller(*pair(), dict(a='dist', b=dict(type='kd', use_this=False)))
        assert list(distiller.distill_losses) == ['a']

    def test_an_object_has_a_weight_in_a_dict(self):
        given = losses.KDLoss()
        distiller = Distiller(*pair(), dict(one=given, two=dict(type=given, loss_weight=3.0)))
        assert distiller.distill_losses['two'] is given
        out = distiller(*batch())
        torch.testing.assert_close(out['two'], 3 * out['one'])

    def test_building_draws_no_random_numbers_and_leaves_modes_alone(self):
        student, teacher = pair()
        student.layer1.eval()
        state = torch.get_rng_state()
        distiller = Distiller(student, teacher, ['kd', 'mgd'])
        assert torch.equal(state, torch.get_rng_state())
        assert student.training
        assert not student.layer1.training
        assert not any(part.training for part in teacher.modules())
        distiller.train()
        assert not any(part.training for part in teacher.modules())
        distiller.eval()
        assert not student.training
        assert not student._forward_hooks
        assert not any(part._forward_hooks for part in student.modules())

    def test_without_teacher_and_losses_only_the_labels_count(self):
        student, _ = pair()
        images, labels = batch()
        out = Distiller(student)(images, labels)
        assert list(out) == ['loss', 'task']
        torch.testing.assert_close(out['loss'], F.cross_entropy(student(images), labels))


class TestRefusals:
    @pytest.mark.parametrize(
        ('given', 'reason'),
        [
            (['kd', losses.KDLoss()], "the name 'kd' is taken; give each loss its own, as in losses=dict"),
            (dict(task='kd'), "the name 'task' is taken"),
            (dict(loss='kd'), "the name 'loss' is taken"),
            (dict(forward='kd'), "cannot have the name 'forward'; take one such as loss_forward_1"),
            ({'a.b': 'kd'}, "cannot have the name 'a.b'; take one such as loss_a_b_1"),
            ({'': 'kd'}, "cannot have the name ''"),
            ({1: 'kd'}, 'cannot have the name 1'),
            ('nkdd', "there is no loss 'nkdd'; did you mean 'nkd'"),
            ('MGDLos', "there is no loss 'MGDLos'; did you mean 'MGDLoss'"),
            (losses.kd_loss, 'losses: give a loss, a list of losses, or a dict of losses by name, not <function'),
            ([losses.kd_loss], 'is no loss: give a loss, its class, its name, or a dict'),
            (5, 'losses: give a loss, a list of losses, or a dict of losses by name, not 5'),
            (None, 'losses: give a loss, a list of losses, or a dict of losses by name, not None'),
            ((), 'losses: none is given, so the teacher would teach nothing'),
            (nn.Linear, "linear .Linear.: unknown input 'input'; available inputs: gt_label, "),
            (dict(k=dict(type='kd', tempo=3)), "unexpected keyword argument 'tempo'"),
            (dict(k=dict(type='kd', loss_weight='2')), "k: loss_weight: value, .* are numbers, but one of .'2'"),
            (dict(k=dict(type='kd', stages=[1])), 'k: stages is for losses of feat_s or feat_t'),
            (dict(k=dict(type='at', stages=[9])), r'stages=\[9\]: stages_s has 4, from 1 to 4'),
            (dict(m=dict(type='mgd', curriculum={})), 'MGDLoss has no temperature'),
            (dict(k=dict(type=losses.KDLoss(), temp=2)), 'k: temp would change a loss that is built'),
            (dict(k=dict(type=losses.ATLoss(), stages=[1])), 'k: stages would change a loss that is built'),
            (
                losses.MGDLoss(16, 64),
                r'mgd: .*channels=16, but feat_s has the shape \(N, 32, 4, 4\): .*student_channels=32, or',
            ),
            (losses.FitNetLoss(32, 16), 'fitnet: .*teacher_channels=16, but feat_t .*build it with teacher_channels=64'),
            (
                dict(m=dict(type='mgd', student_channels=16)),
                'student_channels=16 is wrong, .* set student_channels=32',
            ),
            ([dict(type='simkd', name='a'), 'simkd'], 'a and simkd both make the predictions'),
            (dict(c=dict(type='crd')), 'num_samples=None'),
        ],
    )
    def test_losses(self, given, reason):
        with pytest.raises(ValueError, match=reason):
            Distiller(*pair(), given)

    @pytest.mark.parametrize(
        ('given', 'keywords', 'reason'),
        [
            (None, {}, r'kd: a teacher is needed: Distiller\(student, teacher=\.\.\.\)'),
            ([], {}, 'the list is empty'),
            (CNN, {}, "teacher: give a module, a name, a TeacherSpec, a StoredTeacher or a list, not <class '.*CNN'>"),
            ('resnet18', {}, "teacher='resnet18': give a module, or a name such as timm:NAME, torchvision:NAME, hf:NAME"),
            ('tim:resnet18', {}, "did you mean 'timm'"),
            (CNN(classes=7), {}, 'student has 10 classes and the teacher 7: .*TeacherSpec.network, class_map='),
            ([CNN(), CNN(classes=7)], {}, r'\[10, 7\] classes: .*TeacherSpec\(class_map'),
            ([TeacherSpec(CNN(), weight=0), CNN()], {}, r'\[0, 1.0\]: each has to be a number above 0'),
            (TeacherSpec(CNN(), class_map=[*range(9), 10]), {}, r'class_map=.*10\]: give .* a list of 0 to 9'),
            (TeacherSpec(CNN(), class_map=[*range(9), -1]), {}, r'class_map=.*-1\]: give'),
            (TeacherSpec(CNN(), class_map=list('abcdefghij')), {}, 'class_map=.*: give'),
            (TeacherSpec(CNN(), class_map=[True] * 10), {}, 'class_map=.*: give'),
            (TeacherSpec(CNN(), class_map=3), {}, 'class_map=3: give'),
            (TeacherSpec(CNN(), class_map=[*range(9), 3]), {}, 'class_map gives the teacher’s class 3 to two classes'),
            (nn.Sequential(CNN(), nn.Softmax(1)), {}, 'the teacher returns probabilities .*: leave out the softmax at its'),
            ([CNN(), nn.Sequential(CNN(), nn.Softmax(1))], {}, 'the teacher returns probabilities'),
            (TeacherSpec(CNN(), class_map=[0, 1, 2]), {}, 'student has 10 classes and the teacher 3'),
            (TeacherSpec(CNN(), inputs=dict(mean=1, std=2)), {}, r'that of the images is not: Distiller\(..., inputs='),
            (
                TeacherSpec(CNN(), inputs=dict(means=1)),
                dict(inputs=dict(mean=0)),
                "TeacherSpec.inputs has no 'means'",
            ),
            (CNN(), dict(inputs=dict(std=0)), r'^inputs: mean=\[0.0\] and std=\[0.0\] do not fit'),
            (CNN(), dict(teacher_mode='evil'), "teacher_mode='evil': choose one of 'eval', 'train'"),
            (CNN(), dict(teacher_precision='int4'), "teacher_precision='int4': choose one of 'bf16'"),
            (nn.DataParallel(CNN()), {}, 'teacher: DataParallel wraps it'),
            (CNN(), dict(taps=dict(feat='layer3')), "'feat' has to say whose tensor it is: feat_s"),
            (CNN(), dict(taps=dict(feat_s='layr3')), "feat_s: no module 'layr3' runs .*nearest paths: layer3"),
        ],
    )
    def test_teachers(self, given, keywords, reason):
        with pytest.raises(ValueError, match=reason):
            Distiller(CNN(), given, 'kd', **keywords)

    @pytest.mark.filterwarnings('ignore:.torch.jit:DeprecationWarning')
    @pytest.mark.filterwarnings('ignore:.torch.jit:FutureWarning')
    def test_networks_without_parts(self):
        network, images = CNN().eval(), batch()[0]
        traced = torch.jit.trace(network, images)
        inside = nn.Sequential(traced)
        exported = torch.export.export(network, (images,)).module()
        for given, name in ((traced, 'TorchScript'), (exported, 'torch.export')):
            with pytest.raises(ValueError, match=f'teacher: {name} hides the parts of a network: give'):
                Distiller(CNN(), given, 'kd')
        distiller = Distiller(CNN(), inside, 'kd')
        logit = distiller.teacher(images, None, ['logit'])['logit']
        torch.testing.assert_close(logit, network(images))
        with pytest.raises(ValueError, match="mgd .MGDLoss.: unknown input 'feat_t'"):
            Distiller(CNN(), inside, 'mgd')

    @pytest.mark.parametrize('role', ['student', 'teacher'])
    def test_networks_without_values(self, role):
        student, teacher = CNN(), CNN()
        dict(student=student, teacher=teacher)[role].to('meta')
        with pytest.raises(ValueError, match=f'{role}: its parameters are on the meta device, without values: load its'):
            Distiller(student, teacher, 'kd')
        devices = {part.device.type for network in (student, teacher) for part in network.parameters()}
        assert devices == {'cpu', 'meta'}  # the other network stays where it is

    def test_networks_that_change_the_images(self):
        class Normalising(CNN):
            def forward(self, images):
                return super().forward(images.sub_(0.5))

        said = ' changes the images in place, which the other network sees, too: .* images = images.clone'
        with pytest.raises(ValueError, match=f'the student{said}'):
            Distiller(Normalising(), CNN(), 'kd')
        with pytest.raises(ValueError, match=f'the teacher{said}'):
            Distiller(CNN(), Normalising(), 'kd')
        Distiller(Normalising(), losses='tfnkd')(*batch())

    def test_a_student_that_returns_probabilities_is_refused(self):
        ending = nn.Sequential(CNN(), nn.Softmax(1))
        with pytest.raises(ValueError, match='the student returns probabilities .*: leave out the softmax at its end'):
            Distiller(ending, CNN(), 'dist')
        own = Distiller(ending, nn.Sequential(CNN(), nn.Softmax(1)), 'mgd', task_loss=lambda p, y: F.nll_loss(p.log(), y))
        assert own(*batch())['loss'].isfinite()  # a loss of probabilities, and a teacher of features
        assert Distiller(nn.Sequential(CNN(), nn.LogSoftmax(1)), CNN(), 'dist')(*batch())['loss'].isfinite()

    def test_several_teachers_have_no_features(self):
        with pytest.raises(ValueError, match="mgd .MGDLoss.: unknown input 'feat_t'"):
            Distiller(CNN(), [CNN(), CNN()], 'mgd')

    def test_students(self):
        student, teacher = pair()
        with pytest.raises(ValueError, match="student: give a module, not 'resnet18'"):
            Distiller('resnet18', teacher, 'kd')
        with pytest.raises(ValueError, match='student: DataParallel wraps it: give the module itself, and wrap'):
            Distiller(nn.DataParallel(student), teacher, 'kd')
        with pytest.raises(ValueError, match='shares parameters with the student'):
            Distiller(student, student, 'kd')
        teacher.stem = student.stem
        with pytest.raises(ValueError, match='shares parameters with the student'):
            Distiller(student, [copy.deepcopy(student), teacher], 'kd')
        assert all(parameter.requires_grad for parameter in student.parameters())
        with pytest.raises(ValueError, match=r'student: no parameter is trainable .*student.requires_grad_\(True\)'):
            Distiller(student.requires_grad_(False), CNN(), 'kd')

    def test_a_teacher_that_is_built_takes_no_settings(self):
        built = Distiller(*pair(), 'kd').teacher
        for keywords in (dict(teacher_mode='train'), dict(teacher_precision='bf16'), dict(taps=dict(feat_t='layer3'))):
            with pytest.raises(ValueError, match=r'a FrozenTeacher does not heed (teacher|taps\[.feat_t)'):
                Distiller(CNN(), built, 'kd', **keywords)
        with pytest.raises(ValueError, match='does not heed class_map'):
            Distiller(CNN(), TeacherSpec(built, class_map=list(range(10))), 'kd')
        assert Distiller(CNN(), built, 'kd').teacher is built
        assert Distiller(CNN(), [built, CNN()], 'kd').teacher.teachers[0] is built

    def test_indices(self):
        distiller = Distiller(*pair(), dict(crd=dict(type='crd', nce_k=20)), num_samples=100)
        images, labels = batch()
        with pytest.raises(ValueError, match=r'index of each sample is needed: distiller\(images, labels, indices\)'):
            distiller(images, labels)
        assert distiller(images, labels, list(range(8)))['crd'].isfinite()  # a list is enough
        with pytest.raises(RuntimeError, match='sample_idx that is not from 0 to 99'):
            distiller(images, labels, torch.arange(8) + 99)

    def test_a_module_that_no_longer_runs_is_named(self):
        student, teacher = pair()
        distiller = Distiller(student, teacher, 'fitnet')
        student.forward = lambda images: torch.zeros(len(images), CLASSES)
        with pytest.raises(RuntimeError, match="module 'layer4' did not run in this forward pass: name another by `taps`"):
            distiller(*batch())


class TestLabelsAndWeights:
    def test_task_loss_of_ones_own(self):
        student, teacher = pair()
        images, labels = batch()
        out = Distiller(student, teacher, 'dist', task_loss=lambda z, label: F.cross_entropy(z, label, reduction='none'))(
            images, labels
        )
        assert out['task'].shape == (8,)
        torch.testing.assert_close(out['loss'], F.cross_entropy(student(images), labels) + out['dist'])
        smooth = Distiller(student, teacher, 'dist', task_loss=nn.CrossEntropyLoss(label_smoothing=0.1))(images, labels)
        torch.testing.assert_close(smooth['task'], F.cross_entropy(student(images), labels, label_smoothing=0.1))

    def test_kd_weights_the_task(self):
        images, labels = batch()
        alone = Distiller(*pair(), 'dist')(images, labels)['task']
        given = dict(a=losses.KDLoss(alpha=0.9), b=losses.KDLoss(alpha=0.5))
        distiller = Distiller(*pair(), given)
        assert distiller.task_weight == pytest.approx(0.05)
        torch.testing.assert_close(distiller(images, labels)['task'], 0.05 * alone)

    def test_labels_are_indices_or_scores(self):
        images, labels = batch()
        one_hot = F.one_hot(labels, CLASSES)
        names = ['kd', 'nkd', 'dkd', 'wsld', 'tfnkd']  # of scores USKD takes two classes for labels
        by_index = Distiller(*pair(), names)(images, labels)
        for scores in (one_hot, one_hot.float(), one_hot.double()):
            by_score = Distiller(*pair(), names)(images, scores)
            for name, value in by_index.items():
                torch.testing.assert_close(by_score[name], value, msg=name)
        student, teacher = pair()
        mixed = 0.7 * one_hot + 0.3 * one_hot.roll(1, 1)
        out = Distiller(student, teacher, names)(images, mixed)
        distiller = Distiller(student, teacher, 'dist')
        expected = -(mixed * student(images).log_softmax(1)).sum(1).mean()
        torch.testing.assert_close(distiller(images, mixed)['task'], expected)
        assert all(value.isfinite() for value in out.values())

    @pytest.mark.parametrize('form', [torch.int32, torch.uint8, np.array, list, torch.bool])
    def test_labels_of_any_integers_are_the_same(self, form):
        images, labels = batch()
        labels[0], labels[1] = 0, CLASSES - 1
        given = {torch.bool: lambda: F.one_hot(labels, CLASSES).bool(), np.array: labels.numpy, list: labels.tolist}
        names = ['nkd', 'dkd', 'tfnkd']
        expected = Distiller(*pair(), names)(images, labels)
        found = Distiller(*pair(), names)(images, given[form]() if form in given else labels.to(form))
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, msg=name)

    @pytest.mark.parametrize(
        ('labels', 'reason'),
        [
            (
                torch.zeros(8, 1, dtype=torch.int64),
                r'shape \(8, 1\) for 8 images: give class indices, \(8,\), or scores, \(8, 10\)',
            ),
            (torch.zeros(7, dtype=torch.int64), r'labels of shape \(7,\) for 8 images'),
            (torch.zeros(8, CLASSES + 1), r'labels of shape \(8, 11\) for 8 images'),
            (torch.zeros(8), r'torch\.float32: give class indices as integers: labels\.long\(\)'),
            (3, r'labels of shape \(\) for 8 images'),
        ],
    )
    def test_labels_of_another_shape_are_refused(self, labels, reason):
        with pytest.raises(ValueError, match=reason):
            Distiller(*pair(), 'nkd')(batch()[0], labels)

    @pytest.mark.parametrize(
        ('given', 'reason'),
        [
            (lambda images: images[:0], r'images of shape \(0, 3, 32, 32\): give a batch of at least one image'),
            (lambda images: images[0], r'images of shape \(3, 32, 32\): give a batch'),
            (lambda images: images.numpy(), r'images: give a tensor, or two of them, \(weak, strong\), not ndarray'),
            (lambda images: (images, images[:4]), r'images of shape \(4, 3, 32, 32\): .* two views of the same images'),
        ],
    )
    def test_images_of_another_shape_are_refused(self, given, reason):
        images, labels = batch()
        images = given(images)
        with pytest.raises(ValueError, match=reason):
            Distiller(*pair(), dict(mlkd='MLKDLoss') if isinstance(images, tuple) else 'nkd')(images, labels[: len(images)])

    def test_schedules_follow_the_epoch(self):
        weight = dict(value=4.0, warmup=4, decay=(6, 8), final=1.0)
        distiller = Distiller(*pair(), dict(a='dist', b=dict(type='dist', loss_weight=weight)))
        factors = []
        for epoch in range(9):
            distiller.set_epoch(epoch)
            out = distiller(*batch())
            factors.append(float(out['b'].detach() / out['a'].detach()))
        assert factors == pytest.approx([1, 2, 3, 4, 4, 4, 2.5, 1, 1])
        by_iteration = Distiller(
            *pair(), dict(a='dist', b=dict(type='dist', loss_weight=dict(value=4.0, warmup=4, by_epoch=False)))
        )
        by_iteration.set_epoch(3, iteration=1)
        out = by_iteration(*batch())
        torch.testing.assert_close(out['b'], 2 * out['a'])
        by_iteration.loss_weights['b'] = 3.0
        out = copy.deepcopy(by_iteration)(*batch())
        torch.testing.assert_close(out['b'], 3 * out['a'])

    @pytest.mark.parametrize(
        ('losses', 'scheduled'),
        [
            (dict(kd='kd', warm=dict(type='dist', loss_weight=dict(value=2.0, warmup=20))), 'warm'),
            ('ctkd', 'ctkd'),
            (['kd', 'dist'], ''),
        ],
    )
    def test_a_schedule_that_stands_still_is_told_of_once(self, losses, scheduled, caplog):
        distiller = Distiller(*pair(), losses)
        for _ in range(2):
            distiller(*batch())
        told = [record.getMessage() for record in caplog.records]
        assert [text.split(':')[0] for text in told] == ([scheduled] if scheduled else [])
        assert all('call distiller.set_epoch(epoch) at the start of each epoch' in text for text in told)
        other = Distiller(*pair(), losses)
        other.set_epoch(0)
        other(*batch())
        assert len(caplog.records) == len(told)

    def test_a_schedule_of_iterations_that_stands_still_is_told_of_once(self, caplog):
        weight = dict(value=4.0, warmup=4, by_epoch=False)
        distiller = Distiller(*pair(), dict(warm=dict(type='dist', loss_weight=weight)))
        for epoch in range(2):
            distiller.set_epoch(epoch)
            distiller(*batch())
        (told,) = [record.getMessage() for record in caplog.records]
        assert told.startswith('warm: the schedule of the weight counts iterations')
        assert 'distiller.set_epoch(epoch, iteration) before each step' in told
        other = Distiller(*pair(), dict(warm=dict(type='dist', loss_weight=weight)))
        for iteration in range(2):
            other.set_epoch(0, iteration)
            other(*batch())
        other.set_epoch(1)  # the count of iterations stays
        assert other.progress.iteration == 1
        assert len(caplog.records) == 1

    @pytest.mark.parametrize('entry', [dict(type='KDLoss', alpha=1.5), dict(type='dist', task_weight=-0.5)])
    def test_a_task_loss_that_would_be_maximised_is_refused(self, entry):
        with pytest.raises(ValueError, match=r'the task loss has the weight -0\.5 .*: give an alpha from 0 to 1, or'):
            Distiller(*pair(), dict(it=entry))
        assert Distiller(*pair(), dict(kd=dict(type='KDLoss', alpha=1.5, task_weight=1.0))).task_weight == 1

    @pytest.mark.parametrize(
        'losses',
        ['lskd', 'normkd', 'normdkd', *(dict(it=dict(type=kind, standardize=True)) for kind in ('kd', 'dkd', 'nkd', 'rld'))],
    )
    def test_standardised_logits_of_two_classes_are_refused(self, losses):
        name = losses if isinstance(losses, str) else 'it'
        with pytest.raises(ValueError, match=f'^{name}: standardised logits of two classes .* nothing would be learned'):
            Distiller(CNN(classes=2), CNN(8, classes=2), losses)
        assert Distiller(CNN(classes=3), CNN(8, classes=3), losses).num_classes == 3

    def test_a_curriculum_learns_its_temperature(self):
        distiller = Distiller(*pair(), dict(ctkd=dict(type='kd', curriculum=dict(start=1.0, range=20.0, epochs=10))))
        wrapper = distiller.distill_losses['ctkd']
        assert isinstance(wrapper, CurriculumTemperature)
        gradients = []
        for epoch in (0, 4, 9, 20):
            distiller.set_epoch(epoch)
            wrapper.theta.grad = None
            distiller(*batch())['loss'].backward()
            gradients.append(float(wrapper.theta.grad))
        shares = [gradient / gradients[-1] for gradient in gradients]
        assert shares == pytest.approx([(1 - torch.cos(torch.tensor(torch.pi * e / 10)).item()) / 2 for e in (1, 5, 10, 10)])
        assert distiller.temperatures()['ctkd'].item() == pytest.approx(1 + 20 / (1 + 2.718281828**-1), rel=1e-5)

    def test_stages_sum(self):
        distiller = Distiller(*pair(), dict(whole=dict(type='at', stages=[1, 2, -1]), one=dict(type='at', stages=[1])))
        assert isinstance(distiller.distill_losses['whole'], AtStages)
        parts = Distiller(*pair(), {f'at{i}': dict(type='at', stages=i) for i in (1, 2, 4)})
        out, other = distiller(*batch()), parts(*batch())
        torch.testing.assert_close(out['whole'], other['at1'] + other['at2'] + other['at4'])
        torch.testing.assert_close(out['one'], other['at1'])


class Own(losses.DistillLoss):
    """A loss of a user's; ``mistake`` makes something of the difference of the logits."""

    def __init__(self, mistake):
        super().__init__()
        self.mistake = mistake

    def forward(self, logit_s, logit_t):
        return self.mistake(logit_s - logit_t)


class TestMistakesInALossOfOnesOwn:
    @pytest.mark.parametrize(
        ('mistake', 'said'),
        [
            (lambda x: x.abs().mean().item(), 'forward returns a value of type float: return a tensor of floating-point'),
            (lambda _: None, 'forward returns a value of type NoneType'),
            (lambda x: dict(a=x.mean()), 'forward returns a value of type dict'),
            (lambda x: (x > 0).sum(), 'forward returns a tensor of torch.int64'),
            (
                lambda x: x.abs().mean().detach(),
                'its value has no gradient, so nothing learns from it: .*, and let layers before them be trainable',
            ),
            (
                lambda x: x @ x,
                r'RuntimeError: (?:mm: )?mat1 .* cannot be multiplied .*; it got logit_s \(8, \d+\), logit_t \(8, \d+\)',
            ),
            (lambda x: x.nothing, "AttributeError: 'Tensor' object has no attribute 'nothing'"),
        ],
    )
    def test_are_refused_by_the_name_of_the_loss(self, mistake, said):
        distiller = Distiller(*pair(), losses=dict(mine=Own(mistake)))
        with pytest.raises(ValueError, match=rf'^mine \(Own\): {said}'):
            distiller(*batch())

    @pytest.mark.parametrize('changed', ['logit_t', 'logit_s', 'stages_t'])
    def test_a_change_of_an_input_in_place_is_refused(self, changed):
        class Changing(losses.DistillLoss):
            def forward(self, logit_s, logit_t, stages_t):
                given = dict(logit_s=logit_s, logit_t=logit_t, stages_t=stages_t[-1])
                given[changed].div_(4)
                return (logit_s - logit_t).abs().mean()

        distiller = Distiller(*pair(), losses=dict(mine=Changing(), kd='kd'))
        with pytest.raises(ValueError, match=rf'^mine \(Changing\): forward changes its input {changed} in place, which'):
            distiller(*batch())

    def test_a_loss_may_be_0_before_it_begins_and_a_constant_after(self):
        values = iter([lambda _: torch.zeros(()), lambda x: x.abs().mean(), lambda _: torch.ones(())])
        distiller = Distiller(*pair(), losses=dict(mine=Own(lambda x: next(values)(x))))
        assert distiller(*batch())['mine'] == 0
        distiller(*batch())
        assert distiller(*batch())['mine'] == 1
        with torch.no_grad():
            Distiller(*pair(), losses=dict(mine=Own(lambda x: x.mean())))(*batch())

    @pytest.mark.parametrize(
        'parts',
        [[nn.Linear(2, 2)], (nn.Parameter(torch.ones(2)),), dict(a=nn.Linear(2, 2)), [(nn.Linear(2, 2),)]],
        ids=['list', 'tuple', 'dict', 'nested'],
    )
    def test_trainable_parts_outside_of_modules_are_told(self, parts, monkeypatch):
        told, loss = [], Own(torch.mean)
        monkeypatch.setattr(logging.getLogger('mmcls_kd.distiller'), 'warning', told.append)
        loss.parts = parts
        Distiller(*pair(), losses=dict(mine=loss))
        assert len(told) == 1
        assert told[0].startswith('mine: Own.parts holds trainable parts in a ')
        assert told[0].endswith('neither trained nor saved: make it an nn.ModuleList, nn.ModuleDict or nn.ParameterList')

    def test_frozen_parts_and_second_names_of_known_ones_are_not(self, monkeypatch):
        told, loss = [], Own(torch.mean)
        monkeypatch.setattr(logging.getLogger('mmcls_kd.distiller'), 'warning', told.append)
        loss.layers = nn.ModuleList([nn.Linear(2, 2)])
        loss.pairs = [(loss.layers[0], nn.Linear(2, 2).requires_grad_(False))]
        Distiller(*pair(), losses=dict(mine=loss))
        assert not told

    def test_a_tensor_that_is_no_buffer_is_told(self, monkeypatch):
        told, loss = [], Own(torch.mean)
        monkeypatch.setattr(logging.getLogger('mmcls_kd.distiller'), 'warning', told.append)
        loss.center = torch.zeros(2)
        Distiller(*pair(), losses=dict(mine=loss))
        assert told[0].startswith('mine: Own.center is a tensor that is neither saved nor moved to another device: make it')

    def test_parameters_that_forward_makes_are_told(self, monkeypatch):
        told, made = [], []
        monkeypatch.setattr(logging.getLogger('mmcls_kd.distiller'), 'warning', told.append)
        loss = Own(lambda x: loss.layer(x).mean())

        def make(*_):
            if not made:
                loss.layer = nn.Linear(CLASSES, 2)
                made.append(True)

        loss.register_forward_pre_hook(make)
        distiller = Distiller(*pair(), losses=dict(mine=loss))
        optimizer = torch.optim.SGD(distiller.parameters(), lr=0.1)
        for _ in range(3):
            distiller(*batch())['loss'].backward()
            optimizer.step()
        assert told[0].startswith('mine: parameters that are made in forward are unknown to an optimizer from before: make')

    def test_unknown_facts_and_a_constructor_without_super(self):
        class Unknown(Own):
            facts = {'mistake': 'num_sample'}

        class Bare(losses.DistillLoss):
            def __init__(self):
                self.weight = 1

            def forward(self, logit_s, logit_t):
                return logit_s.mean()

        with pytest.raises(ValueError, match="Unknown.facts says that mistake is 'num_sample', .*mean 'num_samples'"):
            Distiller(*pair(), losses=dict(mine=Unknown))
        with pytest.raises(ValueError, match=r'mine: Bare.__init__ does not call super\(\).__init__\(\)'):
            Distiller(*pair(), losses=dict(mine=Bare))
