"""The contract of the teacher: frozen, in its mode, loaded strictly, and outside of everything that trains."""

import copy

import pytest
import torch
from mmengine.dist import all_gather
from mmengine.model import ExponentialMovingAverage, MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from networks import batch, build, images, method, resnet, samples
from processes import run_in_two
from torch import nn

NKD = method('NKDLoss')
SRRL = method('SRRLLoss', student_channels=32, teacher_channels=64)


@pytest.fixture
def teacher_file(tmp_path):
    path = tmp_path / 'teacher.pth'
    torch.save(dict(state_dict=build(NKD).teacher.state_dict(), meta=dict(epoch=1)), path)
    return path


class TestOutside:
    def test_of_module_tree_and_optimizer(self):
        distiller = build(NKD)
        ours = {id(p) for p in distiller.teacher.parameters()}
        assert not ours & {id(p) for p in distiller.parameters()}
        assert distiller.teacher not in set(distiller.modules())
        assert not [name for name in distiller.state_dict() if name.startswith('teacher')]

    def test_of_the_moving_average_which_shares_it(self):
        distiller = build(NKD)
        average = ExponentialMovingAverage(distiller, momentum=0.1)
        assert average.module.teacher is distiller.teacher
        assert not [name for name in average.state_dict() if 'teacher' in name]

    def test_a_deep_copy_records_its_own_students_tensors(self):
        distiller = build(NKD).eval()
        twin = copy.deepcopy(distiller)
        nn.init.zeros_(twin.student.head.fc.weight)
        ours, twins = distiller.loss(images(), samples()), twin.loss(images(), samples())
        assert not torch.equal(ours['loss_nkd'], twins['loss_nkd'])

    @pytest.mark.slow
    def test_of_ddp(self):
        run_in_two(ddp_leaves_the_teacher_alone)

    def test_initialisation_does_not_reach_it(self):
        distiller = build(NKD)
        before = copy.deepcopy(distiller.teacher.state_dict())
        distiller.init_weights()
        assert all(torch.equal(v, before[k]) for k, v in distiller.teacher.state_dict().items())


def ddp_leaves_the_teacher_alone(rank):
    distiller = build(SRRL)
    with torch.no_grad():
        distiller.teacher.head.fc.weight.add_(rank)  # each rank has another teacher: broadcasting would make them equal
    before = copy.deepcopy(distiller.teacher.state_dict())
    wrapped = MMDistributedDataParallel(distiller, device_ids=None, broadcast_buffers=True)
    optim = OptimWrapper(torch.optim.SGD(wrapped.parameters(), lr=0.1))
    for _ in range(3):
        wrapped.train_step(batch(), optim)
    assert all(torch.equal(v, before[k]) for k, v in distiller.teacher.state_dict().items())
    assert not [name for name, _ in wrapped.named_parameters() if 'teacher' in name]
    teachers = all_gather(distiller.teacher.head.fc.weight)
    students = all_gather(distiller.student.head.fc.weight.detach())
    assert not torch.equal(*teachers)
    torch.testing.assert_close(*students)


class TestMode:
    def test_eval_whatever_the_runner_calls(self):
        distiller = build(NKD).train()
        assert not any(m.training for m in distiller.teacher.modules())
        before = copy.deepcopy(distiller.teacher.state_dict())
        distiller.loss(images(), samples())
        assert all(torch.equal(v, before[k]) for k, v in distiller.teacher.state_dict().items())

    def test_train_takes_batch_statistics(self):
        distiller = build(NKD, teacher_mode='train').eval()
        assert all(m.training for m in distiller.teacher.modules())
        x = images()
        losses = distiller.loss(x, samples())
        reference = build(NKD).eval()
        reference.student.load_state_dict(distiller.student.state_dict())
        reference.teacher.load_state_dict(distiller.teacher.state_dict())
        assert not torch.isclose(losses['loss_nkd'], reference.loss(x, samples())['loss_nkd'])
        label = torch.cat([sample.gt_label for sample in samples()])
        with torch.no_grad():
            logits = reference.student(x), reference.teacher.train()(x)
        torch.testing.assert_close(losses['loss_nkd'].detach(), reference.distill_losses['loss_nkd'](*logits, label))

    def test_another_mode_is_refused(self):
        with pytest.raises(ValueError, match="teacher_mode='test': choose one of 'eval', 'train'"):
            build(NKD, teacher_mode='test')


class TestFrozen:
    def test_no_gradient_reaches_its_weights(self):
        distiller = build(NKD, SRRL)
        sum(distiller.loss(images(), samples()).values()).backward()
        assert all(p.grad is None and not p.requires_grad for p in distiller.teacher.parameters())

    def test_gradient_passes_through_its_head(self):
        distiller = build(method('SRRLLoss', student_channels=32, teacher_channels=64, alpha=0.0))
        distiller.loss(images(), samples())['loss_srrl'].backward()
        assert distiller.student.backbone.conv1.weight.grad.any()

    def test_it_moves_with_the_distiller(self):
        distiller = build(NKD).double()
        assert distiller.teacher.head.fc.weight.dtype == torch.float64
        losses = distiller.loss(images().double(), samples())
        assert losses['loss_nkd'].dtype == torch.float64


class TestWeights:
    def test_loaded_from_a_file(self, teacher_file):
        distiller = build(NKD, teacher_pretrained=str(teacher_file))
        weights = torch.load(teacher_file)['state_dict']
        assert all(torch.equal(v, weights[k]) for k, v in distiller.teacher.state_dict().items())

    @pytest.mark.parametrize('missing', [None, ''])
    def test_none_is_refused_with_how_to_allow_it(self, missing):
        with pytest.raises(ValueError, match=r'no weights: set model.teacher_pretrained .*or to False'):
            build(NKD, teacher_pretrained=missing)

    def test_a_network_of_ones_own_has_no_published_weights(self):
        with pytest.raises(ValueError, match='teacher_pretrained=True means .* this is a ImageClassifier: give a file'):
            build(NKD, teacher_pretrained=True)

    @pytest.mark.parametrize(
        ('change', 'message'),
        [
            (lambda w: w.pop('head.fc.bias'), r'missing: head\.fc\.bias'),
            (lambda w: w.update(extra=torch.zeros(1)), 'unexpected: extra'),
            (lambda w: w.update({'head.fc.bias': torch.zeros(3)}), r'other shapes: size mismatch for head\.fc\.bias'),
        ],
    )
    def test_what_does_not_fit_is_named(self, teacher_file, change, message):
        weights = torch.load(teacher_file)['state_dict']
        change(weights)
        torch.save(weights, teacher_file)
        with pytest.raises(ValueError, match=f'teacher weights .* do not fit this ResNet_CIFAR; {message}'):
            build(NKD, teacher_pretrained=str(teacher_file))

    def test_all_of_what_does_not_fit_is_named(self, teacher_file):
        weights = torch.load(teacher_file)['state_dict']
        weights['extra'] = weights.pop('backbone.conv1.weight')
        weights['head.fc.bias'] = torch.zeros(3)
        torch.save(weights, teacher_file)
        pattern = r'missing: backbone\.conv1\.weight; unexpected: extra; other shapes: size mismatch for head\.fc\.bias'
        with pytest.raises(ValueError, match=pattern):
            build(NKD, teacher_pretrained=str(teacher_file))

    def test_a_missing_file(self):
        with pytest.raises(FileNotFoundError, match=r'teacher weights nowhere\.pth'):
            build(NKD, teacher_pretrained='nowhere.pth')

    def test_a_students_weights_come_out_of_a_distillers_checkpoint(self, tmp_path):
        first = build(NKD, student=resnet(8))
        torch.save(dict(state_dict=first.state_dict()), tmp_path / 'distilled.pth')
        second = build(NKD, teacher_pretrained=str(tmp_path / 'distilled.pth'))
        torch.testing.assert_close(second.teacher.head.fc.weight, first.student.head.fc.weight.data)


class TestNeed:
    def test_self_distillation_builds_none(self):
        distiller = build(method('TFNKDLoss'), teacher='configs/that/does/not/exist.py', teacher_pretrained=None)
        assert distiller.teacher is None
        assert list(distiller.loss(images(), samples())) == ['ori_loss', 'loss_tfnkd']

    def test_a_method_that_needs_one_says_so(self):
        from mmpretrain.registry import MODELS

        cfg = dict(type='ClassificationDistiller', teacher_cfg=None, student_cfg=resnet(), distill_cfg=[NKD])
        with pytest.raises(ValueError, match=r'need a teacher: set model\.teacher_cfg'):
            MODELS.build(cfg)
        del cfg['teacher_cfg']
        with pytest.raises(ValueError, match=r'need a teacher: set model\.teacher_cfg'):
            MODELS.build(cfg)
        del cfg['student_cfg']
        with pytest.raises(ValueError, match=r'^model\.student_cfg is missing: '):
            MODELS.build(cfg)

    def test_a_missing_config(self):
        with pytest.raises(FileNotFoundError, match=r'config configs/nowhere\.py: neither in the working directory'):
            build(NKD, teacher='configs/nowhere.py')
