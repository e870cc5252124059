"""What a loss can be put into: several stages at a time, and a temperature that is learnt."""

import copy
import math

import pytest
import torch
from kit import assert_close, labels, logits
from mmengine.logging import MessageHub
from networks import build, images, method, resnet, samples, store_of_logits, vit
from torch import nn

from mmcls_kd.dis_losses import KDLoss, NKDLoss, kd_loss, nkd_loss
from mmcls_kd.distillers.classification import RunnerProgress
from mmcls_kd.recipe.wrappers import AtStages, CurriculumTemperature


def at_epoch(monkeypatch, epoch):
    """Put the training in progress into an epoch, counted from 1."""
    hub = MessageHub('test_wrappers')
    hub.update_info('epoch', epoch - 1)
    monkeypatch.setattr(MessageHub, 'get_current_instance', classmethod(lambda _: hub))


class Gap(nn.Module):
    """The mean square between maps, the student's widened by weights of its own; the label counts, too."""

    sizes = {'width_s': ('feat_s', 1), 'width_t': ('feat_t', 1)}

    def __init__(self, width_s, width_t, scale=1.0):
        super().__init__()
        self.align, self.scale = nn.Conv2d(width_s, width_t, 1), scale

    def forward(self, feat_s, feat_t, gt_label):
        return self.scale * (self.align(feat_s).mean((2, 3)) - feat_t.mean((2, 3))).square().mean() + gt_label.sum()


def at_stages(stages, **keywords):
    return method(Gap, 'loss_gap', stages=stages, **keywords)


def given(distiller):
    """What a distiller's only loss gets of a batch, and the loss."""
    seen = {}
    (loss,) = distiller.distill_losses.values()
    handle = loss.register_forward_pre_hook(lambda _module, _args, kwargs: seen.update(kwargs), with_kwargs=True)
    value = distiller.loss(images(), samples())['loss_gap']
    handle.remove()
    return seen, value


class TestAtStages:
    @pytest.mark.parametrize(('student', 'teacher'), [(resnet(4), resnet(8)), (vit(16), vit(24)), (resnet(4), vit(24))])
    @pytest.mark.parametrize('stages', [[1, 2, 3, 4], [4, 2], [-1, -3], 2, (1, -1)])
    def test_the_sum_of_the_losses_at_the_stages(self, stages, student, teacher):
        distiller = build(at_stages(stages), student=student, teacher=teacher).eval()
        seen, value = given(distiller)
        parts = distiller.distill_losses['loss_gap'].losses
        numbers = [stages] if isinstance(stages, int) else stages
        assert list(parts) == [f'stage{number}' for number in numbers]
        total = 0
        for number in numbers:
            place = number if number < 0 else number - 1
            maps = seen['stages_s'][place], seen['stages_t'][place]
            total = total + parts[f'stage{number}'](*maps, seen['gt_label'])
        torch.testing.assert_close(value, total)

    def test_at_the_stages_of_the_networks(self):
        distiller = build(at_stages([1, 3])).eval()
        seen, _ = given(distiller)
        for network, name in ((distiller.student, 'stages_s'), (distiller.teacher, 'stages_t')):
            network.backbone.out_indices = (0, 1, 2, 3)
            for its, read in zip(network.backbone(images()), seen[name], strict=True):
                torch.testing.assert_close(read, its, rtol=1e-4, atol=1e-5)

    def test_a_loss_of_each_ones_sizes_with_readable_names(self):
        distiller = build(at_stages([1, -1], scale=3.0))
        shapes = {name: tuple(value.shape) for name, value in distiller.state_dict().items() if 'loss_gap' in name}
        assert shapes == {
            'distill_losses.loss_gap.losses.stage1.align.weight': (8, 4, 1, 1),
            'distill_losses.loss_gap.losses.stage1.align.bias': (8,),
            'distill_losses.loss_gap.losses.stage-1.align.weight': (64, 32, 1, 1),
            'distill_losses.loss_gap.losses.stage-1.align.bias': (64,),
        }
        assert [loss.scale for loss in distiller.distill_losses['loss_gap'].losses.values()] == [3.0, 3.0]
        other = build(at_stages([1, -1], scale=3.0))
        other.load_state_dict(distiller.state_dict())
        assert all(value.equal(distiller.state_dict()[name]) for name, value in other.state_dict().items())

    def test_each_one_learns_and_so_does_the_student_up_to_the_last_of_them(self):
        distiller = build(at_stages([1, 2]))
        distiller.loss(images(), samples())['loss_gap'].backward()
        assert all(loss.align.weight.grad.any() for loss in distiller.distill_losses['loss_gap'].losses.values())
        backbone = distiller.student.backbone
        assert backbone.layer2[0].conv1.weight.grad.any()
        assert backbone.layer3[0].conv1.weight.grad is None or not backbone.layer3[0].conv1.weight.grad.any()

    def test_a_loss_of_the_toolbox(self):
        stages = [2, 4]
        distiller = build(method('MGDLoss', stages=stages, loss_weight=2.0), student=vit(16)).eval()
        losses = distiller.distill_losses['loss_mgd'].losses
        assert [(loss.student_channels, loss.teacher_channels) for loss in losses.values()] == [(16, 16), (16, 64)]
        torch.manual_seed(3)
        value = distiller.loss(images(), samples())['loss_mgd']
        seen = {}
        for name, loss in losses.items():
            loss.register_forward_pre_hook(lambda _m, _a, kw, name=name: seen.update({name: kw}), with_kwargs=True)
        distiller.loss(images(), samples())
        torch.manual_seed(3)
        torch.testing.assert_close(value, 2 * sum(loss(**seen[name]) for name, loss in losses.items()))

    def test_of_one_network_alone(self):
        class Own(nn.Module):
            def forward(self, feat_s):
                return feat_s.mean()

        distiller = build(method(Own, 'loss_own', stages=[1, 4])).eval()
        assert not distiller.teachers
        distiller.student.backbone.out_indices = (0, 3)
        wanted = sum(part.mean() for part in distiller.student.backbone(images()))
        torch.testing.assert_close(distiller.loss(images(), samples())['loss_own'], wanted)

    @pytest.mark.parametrize(
        ('stages', 'message'),
        [
            ([5], r'loss_gap: stages=\[5\]: stages_s has 4, from 1 to 4, or from -4 to -1'),
            (0, 'loss_gap: stages=0: stages_s has 4'),
            ([1, -5], r'loss_gap: stages=\[1, -5\]: stages_s has 4'),
            ([], r'loss_gap: stages=\[\]: stages_s has 4'),
            ([1.0], r'loss_gap: stages=\[1.0\]: stages_s has 4'),
            ([True], r'loss_gap: stages=\[True\]: stages_s has 4'),
            ('12', "loss_gap: stages='12': stages_s has 4"),
            ([2, 2], r'loss_gap: stages=\[2, 2\] names a stage twice'),
            ([4, -1], r'loss_gap: stages=\[4, -1\] names a stage twice'),
            ([1, -4], r'loss_gap: stages=\[1, -4\] names a stage twice'),
        ],
    )
    def test_refused(self, stages, message):
        with pytest.raises(ValueError, match=message):
            build(at_stages(stages))

    def test_refused_where_one_network_has_fewer(self):
        taps = dict(stages_t=['backbone.layer2', 'backbone.layer4'])
        with pytest.raises(ValueError, match=r'loss_gap: stages=\[3\]: stages_t has 2, from 1 to 2'):
            build(at_stages([3]), taps=taps)
        _, value = given(build(at_stages([1, 2]), taps=taps))
        assert value.isfinite()

    @pytest.mark.parametrize('kind', ['NKDLoss', 'USKDLoss', 'ViTKDLoss'])
    def test_refused_for_a_loss_without_maps(self, kind):
        with pytest.raises(ValueError, match=r'loss_x: stages is for losses of feat_s or feat_t; its inputs are .*_s'):
            build(method(kind, 'loss_x', stages=[1]), student=vit(16), teacher=vit(24))

    def test_a_wrong_size_is_that_of_the_stage(self):
        with pytest.raises(
            ValueError, match=r'loss_gap: width_t=64 is wrong, feat_t has the shape \(N, 16, 16, 16\): set wid'
        ):
            build(at_stages([2], width_t=64))

    def test_by_itself(self):
        maps = [torch.full((1, 1, 1, 1), float(i)) for i in range(4)]
        loss = AtStages({2: nn.Identity(), -1: nn.Identity()})
        loss.losses['stage2'].forward = lambda feat_s, factor: factor * feat_s.sum()
        loss.losses['stage-1'].forward = lambda feat_s, factor: 100 * factor * feat_s.sum()
        assert loss(stages_s=maps, factor=2) == 2 * (1 + 300)


class TestMoreThanLogits:
    """Several teachers and stores have logits alone."""

    class Own(nn.Module):
        def forward(self, vector_s, vector_t):
            return vector_s.mean() + vector_t.mean()

    CASES = ((at_stages([1]), 'loss_gap needs .stages_t'), (method(Own, 'loss_own'), 'loss_own needs .vector_t'))

    @pytest.mark.parametrize(('chosen', 'message'), CASES)
    def test_several_teachers(self, chosen, message):
        with pytest.raises(ValueError, match=f'several teachers have no common features, and {message}'):
            build(chosen, teacher=[resnet(8), vit(16)], teacher_pretrained=[False, False])

    @pytest.mark.parametrize(('chosen', 'message'), CASES)
    def test_a_store(self, chosen, message, tmp_path):
        store_of_logits(tmp_path)
        with pytest.raises(ValueError, match=f'teacher_store .+ holds logit_t, and {message}'):
            build(chosen, teacher_store=str(tmp_path))


class Fixed(nn.Module):
    """A loss whose temperature cannot be learnt: it has none."""

    def forward(self, logit_s):
        return logit_s.mean()


ARGUMENTS = dict(logit_s=logits(4, 6, 2.0, 1), logit_t=logits(4, 6, 3.0, 2))
KINDS = {
    'kd': (lambda: KDLoss(temp=4.0, alpha=0.3), ARGUMENTS),
    'nkd': (lambda: NKDLoss(temp=2.0), dict(**ARGUMENTS, gt_label=labels('hard', 4, 6))),
}
each_kind = pytest.mark.parametrize('kind', KINDS)


def learnt(kind, **keywords):
    """A loss with a learnt temperature in float64, and what it takes."""
    make, arguments = KINDS[kind]
    return CurriculumTemperature(make(), **keywords, progress=RunnerProgress()).double(), arguments


class TestCurriculum:
    @each_kind
    def test_at_first_the_loss_at_the_temperature_of_the_middle(self, kind):
        wrapped, arguments = learnt(kind)
        loss = KINDS[kind][0]()
        loss.temp = 1 + 20 / (1 + math.exp(-1))
        assert_close(wrapped(**arguments).detach(), loss(**arguments))
        assert wrapped.temp.item() == pytest.approx(loss.temp)

    def test_start_and_range(self):
        wrapped, arguments = learnt('kd', start=2.0, range=3.0)
        with torch.no_grad():
            wrapped.theta.fill_(-0.5)
        temp = 2 + 3 / (1 + math.exp(0.5))
        assert_close(wrapped(**arguments).detach(), kd_loss(**arguments, temp=temp, alpha=0.3))

    @each_kind
    @pytest.mark.parametrize(
        ('epoch', 'strength'),
        [(1, (1 - math.cos(math.pi / 10)) / 2), (5, 0.5), (9, (1 + math.cos(math.pi / 10)) / 2), (10, 1.0), (99, 1.0)],
    )
    def test_theta_climbs_as_far_as_the_epoch_lets_it(self, kind, epoch, strength, monkeypatch):
        at_epoch(monkeypatch, epoch)
        wrapped, arguments = learnt(kind)
        wrapped(**arguments).backward()
        loss, step = KINDS[kind][0](), 1e-4

        def value(theta):
            loss.temp = 1 + 20 / (1 + math.exp(-theta))
            return loss(**arguments).item()

        numeric = (value(1 + step) - value(1 - step)) / (2 * step)
        assert abs(numeric) > 1e-3
        assert wrapped.theta.grad.item() == pytest.approx(-strength * numeric, rel=1e-5)

    def test_after_how_many_epochs(self, monkeypatch):
        found = {}
        for epoch, epochs in ((3, 3), (10, 10), (2, 4), (5, 10)):
            at_epoch(monkeypatch, epoch)
            wrapped, arguments = learnt('kd', epochs=epochs)
            wrapped(**arguments).backward()
            found[epoch, epochs] = wrapped.theta.grad.item()
        assert found[3, 3] == pytest.approx(found[10, 10])
        assert found[2, 4] == pytest.approx(found[5, 10]) == pytest.approx(found[3, 3] / 2)

    @each_kind
    def test_the_students_gradient_is_that_of_the_loss(self, kind, monkeypatch):
        at_epoch(monkeypatch, 3)
        wrapped, arguments = learnt(kind)
        gradients = []
        for loss in (wrapped, copy.deepcopy(wrapped.loss)):
            if loss is not wrapped:
                loss.temp = wrapped.temp.item()
            logit_s = arguments['logit_s'].clone().requires_grad_()
            loss(**{**arguments, 'logit_s': logit_s}).backward()
            gradients.append(logit_s.grad)
        assert gradients[0].any()
        assert_close(*gradients)

    @each_kind
    def test_the_losss_own_temperature_is_a_number_again_also_after_an_error(self, kind):
        wrapped, arguments = learnt(kind)
        own = wrapped.loss.temp
        wrapped(**arguments).backward()
        assert (type(wrapped.loss.temp), wrapped.loss.temp) == (float, own)
        with pytest.raises((RuntimeError, ValueError)):
            wrapped(**{**arguments, 'logit_t': torch.zeros(3, 5)})
        assert (type(wrapped.loss.temp), wrapped.loss.temp) == (float, own)

    def test_it_can_be_copied(self):
        wrapped, arguments = learnt('kd')
        value = wrapped(**arguments)
        other = copy.deepcopy(wrapped)
        assert other(**arguments).equal(value)
        value.backward()
        assert other.theta.grad is None
        copied = copy.deepcopy(build(method('KDLoss', curriculum=dict())))
        assert copied.distill_losses['loss_kd'].theta == 1

    def test_the_loss_gets_larger_along_thetas_own_step_and_smaller_along_the_students(self, monkeypatch):
        at_epoch(monkeypatch, 10)
        wrapped, arguments = learnt('nkd')
        before = wrapped(**arguments)
        before.backward()
        with torch.no_grad():
            wrapped.theta -= 1e-3 * wrapped.theta.grad
        assert wrapped(**arguments) > before

    @pytest.mark.parametrize(
        ('kind', 'curriculum', 'message'),
        [
            ('MGDLoss', dict(), 'loss_x: curriculum: MGDLoss has no temperature `temp`'),
            (Fixed, dict(), 'loss_x: curriculum: Fixed has no temperature `temp`'),
            ('KDLoss', dict(start=0), 'loss_x: curriculum: start=0 has to be above 0'),
            ('KDLoss', dict(range=-1.0), 'loss_x: curriculum: range=-1.0 has to be above 0'),
            ('KDLoss', dict(epochs=0), 'loss_x: curriculum: epochs=0 has to be above 0'),
            ('KDLoss', dict(start=float('nan')), 'loss_x: curriculum: start=nan has to be above 0'),
            ('KDLoss', dict(start='low'), "loss_x: curriculum: start='low' has to be a number"),
            ('KDLoss', dict(stop=3), "loss_x: .*unexpected keyword argument 'stop'"),
            ('KDLoss', True, 'loss_x: curriculum=True has to be a dict of start, range, epochs'),
        ],
    )
    def test_refused(self, kind, curriculum, message):
        with pytest.raises(ValueError, match=message):
            build(method(kind, 'loss_x', curriculum=curriculum))


class TestCurriculumInADistiller:
    KD = method('KDLoss', alpha=0.3, curriculum=dict(start=2.0, range=4.0, epochs=5))
    TEMP = 2 + 4 / (1 + math.exp(-1))

    def test_loss_task_weight_and_log(self):
        distiller = build(self.KD).eval()
        losses = distiller.loss(images(), samples())
        logit_s, logit_t = distiller.student(images()), distiller.teacher(images())
        torch.testing.assert_close(losses['loss_kd'], kd_loss(logit_s, logit_t, self.TEMP, 0.3))
        torch.testing.assert_close(losses['ori_loss'], 0.7 * nn.functional.cross_entropy(logit_s, torch.arange(4)))
        assert list(losses) == ['ori_loss', 'loss_kd', 'temp_kd']
        total, log_vars = distiller.parse_losses(losses)
        torch.testing.assert_close(total, losses['ori_loss'] + losses['loss_kd'])
        assert float(log_vars['temp_kd']) == pytest.approx(self.TEMP)

    @pytest.mark.parametrize('name', ['loss_kd', 'kd_loss', 'kd', 'my_loss_kd'])
    def test_the_temperature_is_no_loss_whatever_the_name(self, name):
        distiller = build(method('KDLoss', name, curriculum=dict())).eval()
        losses = distiller.loss(images(), samples())
        (logged,) = set(losses) - {'ori_loss', name}
        assert logged.startswith('temp_')
        total, log_vars = distiller.parse_losses(losses)
        torch.testing.assert_close(total, losses['ori_loss'] + losses[name])
        assert logged in log_vars

    def test_names_of_its_state_and_what_trains_it(self):
        distiller = build(self.KD)
        assert 'distill_losses.loss_kd.theta' in distiller.state_dict()
        assert 'distill_losses.loss_kd.theta' in dict(distiller.named_parameters())
        losses = distiller.loss(images(), samples())
        assert not losses['temp_kd'].requires_grad
        distiller.parse_losses(losses)[0].backward()
        assert distiller.distill_losses['loss_kd'].theta.grad.abs() > 0

    def test_its_weight_and_the_epochs(self, monkeypatch):
        gradients = []
        for epoch in (1, 5):
            at_epoch(monkeypatch, epoch)
            torch.manual_seed(0)
            curriculum = dict(method('NKDLoss', curriculum=dict(epochs=5), loss_weight=2.0))
            distiller = build(curriculum).eval()
            distiller.loss(images(), samples())['loss_nkd'].backward()
            gradients.append(distiller.distill_losses['loss_nkd'].theta.grad.item())
        assert gradients[0] / gradients[1] == pytest.approx((1 - math.cos(math.pi / 5)) / 2, rel=1e-4)

    def test_under_autocast(self):
        distiller = build(method('NKDLoss', curriculum=dict()))
        with torch.autocast('cpu', dtype=torch.bfloat16):
            losses = distiller.loss(images(), samples())
        assert losses['loss_nkd'].dtype == losses['temp_nkd'].dtype == torch.float32
        losses['loss_nkd'].backward()
        assert distiller.distill_losses['loss_nkd'].theta.grad.isfinite()

    def test_beside_one_of_a_fixed_temperature(self):
        distiller = build(method('NKDLoss', 'loss_learnt', curriculum=dict()), method('NKDLoss', temp=2.0)).eval()
        losses = distiller.loss(images(), samples())
        logit_s, logit_t = distiller.student(images()), distiller.teacher(images())
        temp = 1 + 20 / (1 + math.exp(-1))
        torch.testing.assert_close(losses['loss_learnt'], nkd_loss(logit_s, logit_t, torch.arange(4), temp))
        torch.testing.assert_close(losses['loss_nkd'], nkd_loss(logit_s, logit_t, torch.arange(4), 2.0))
        assert losses['temp_learnt'].item() == pytest.approx(temp)
