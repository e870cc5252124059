import copy

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmpretrain.registry import MODELS
from networks import batch, build, images, method, resnet, samples, vit
from torch import nn

from mmcls_kd.dis_losses import kd_loss, nkd_loss

NKD, KD, TFNKD = method('NKDLoss'), method('KDLoss'), method('TFNKDLoss')
USKD = method('USKDLoss', channel=16, num_classes=10)
MGD = method('MGDLoss', student_channels=32, teacher_channels=64)
SRRL = method('SRRLLoss', student_channels=32, teacher_channels=64)


def train_step(distiller, data=None):
    wrapper = OptimWrapper(torch.optim.SGD(distiller.parameters(), lr=0.1))
    return distiller.train().train_step(data or batch(), wrapper)


class TestLosses:
    def test_each_method_under_its_name_beside_the_students_own(self):
        losses = build(NKD, MGD, SRRL, USKD, TFNKD).loss(images(), samples())
        assert list(losses) == ['ori_loss', 'loss_nkd', 'loss_mgd', 'loss_srrl', 'loss_uskd', 'loss_tfnkd']

    @pytest.mark.parametrize('soft', [False, True])
    def test_values_are_those_of_the_functions_on_the_networks_outputs(self, soft):
        distiller = build(NKD).eval()
        x, data_samples = images(), samples(soft=soft)
        losses = distiller.loss(x, data_samples)
        logit_s, logit_t = distiller.student(x), distiller.teacher(x)
        expected = nkd_loss(logit_s, logit_t, torch.arange(4))
        torch.testing.assert_close(losses['loss_nkd'], expected)
        label = torch.stack([s.gt_score for s in data_samples]) if soft else torch.arange(4)
        torch.testing.assert_close(losses['ori_loss'], nn.functional.cross_entropy(logit_s, label))

    def test_kd_weighs_the_task_loss_but_not_the_accuracy(self):
        student = resnet(4)
        student['head']['cal_acc'] = True
        x, data_samples = images(), samples()
        losses = build(method('KDLoss', alpha=0.75), student=student).eval().loss(x, data_samples)
        plain = build(TFNKD, student=student).eval()
        assert set(losses) == {'ori_loss', 'ori_accuracy_top-1', 'loss_kd'}
        distiller = build(method('KDLoss', alpha=0.75, temp=2.0), student=student).eval()
        plain.student.load_state_dict(distiller.student.state_dict())
        ours, theirs = distiller.loss(x, data_samples), plain.loss(x, data_samples)
        torch.testing.assert_close(ours['ori_loss'], 0.25 * theirs['ori_loss'])
        torch.testing.assert_close(ours['ori_accuracy_top-1'], theirs['ori_accuracy_top-1'])
        expected = kd_loss(distiller.student(x), distiller.teacher(x), temp=2.0, alpha=0.75)
        torch.testing.assert_close(ours['loss_kd'], expected)

    @pytest.mark.parametrize('other', [MGD, SRRL, USKD])
    def test_a_student_starts_with_the_same_weights_under_every_method(self, other):
        def start(one):
            torch.manual_seed(3)
            distiller = build(one)
            distiller.init_weights()  # as the Runner does
            return distiller.student.state_dict()

        torch.testing.assert_close(start(other), start(TFNKD), rtol=0, atol=0)

    def test_loss_weight_multiplies_any_method(self):
        distiller = build(NKD, method('NKDLoss', 'loss_double', loss_weight=2.0)).eval()
        losses = distiller.loss(images(), samples())
        torch.testing.assert_close(losses['loss_double'], 2 * losses['loss_nkd'])

    def test_a_method_counts_whatever_its_name_is(self):
        distiller = build(method('NKDLoss', 'knowledge'), method('TFNKDLoss', 'self')).eval()
        losses = distiller.loss(images(), samples())
        total, log_vars = distiller.parse_losses(losses)
        torch.testing.assert_close(total, losses['ori_loss'] + losses['knowledge'] + losses['self'])
        assert log_vars['loss'] is total
        assert {'ori_loss', 'knowledge', 'self'} <= set(log_vars)

    def test_a_step_trains_student_and_losses_and_not_the_teacher(self):
        distiller = build(NKD, SRRL)
        teacher = copy.deepcopy(distiller.teacher.state_dict())
        before = copy.deepcopy(distiller.state_dict())
        train_step(distiller)
        changed = {k.split('.')[0] for k, v in distiller.state_dict().items() if not torch.equal(v, before[k])}
        assert changed == {'student', 'distill_losses'}
        assert all(torch.equal(v, teacher[k]) for k, v in distiller.teacher.state_dict().items())

    def test_vision_transformers(self):
        vitkd = method('ViTKDLoss', student_dims=16, teacher_dims=24)
        uskd = method('USKDLoss', channel=16, num_classes=10)
        losses = build(vitkd, NKD, uskd, student=vit(16), teacher=vit(24, 'DeiT3')).loss(images(), samples())
        assert all(torch.isfinite(v) and v > 0 for v in losses.values())

    def test_under_autocast_the_losses_are_float32(self):
        distiller = build(NKD, MGD, SRRL, USKD, TFNKD, KD)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            losses = distiller.loss(images(), samples())
        assert {k for k, v in losses.items() if v.dtype != torch.float32} <= {'ori_loss'}
        assert all(torch.isfinite(v) for v in losses.values())


class TestAskingByName:
    def test_a_loss_registered_outside_trains(self):
        @MODELS.register_module()
        class OutsideLoss(nn.Module):
            def __init__(self, scale):
                super().__init__()
                self.scale = nn.Parameter(torch.tensor(scale))

            def forward(self, feat_s, gt_label, logit_t, power=2):
                assert gt_label.shape == (4,)
                return self.scale * feat_s.pow(power).mean() + 0 * logit_t.sum()

        try:
            distiller = build(method('OutsideLoss', 'loss_outside', scale=3.0))
            log_vars = train_step(distiller)
            assert log_vars['loss_outside'] > 0
            assert distiller.distill_losses['loss_outside'].scale != 3.0
        finally:
            MODELS.module_dict.pop('OutsideLoss')

    def test_a_name_that_nobody_provides(self):
        @MODELS.register_module()
        class TypoLoss(nn.Module):
            def forward(self, logits_s):
                return logits_s.sum()

        try:
            with pytest.raises(
                ValueError, match=r"TypoLoss\): unknown input 'logits_s'.*did you mean 'logit_s'.*available inputs: .*feat_s"
            ):
                build(method('TypoLoss'))
        finally:
            MODELS.module_dict.pop('TypoLoss')

    def test_a_tensor_that_this_network_does_not_have(self):
        with pytest.raises(ValueError, match="loss_vitkd .* unknown input 'tokens_low_s'"):
            build(method('ViTKDLoss', student_dims=4, teacher_dims=8))

    def test_only_what_is_asked_for_is_computed(self):
        distiller = build(MGD)
        calls = []
        distiller.teacher.head.register_forward_hook(lambda *_: calls.append('head'))
        distiller.teacher.backbone.register_forward_hook(lambda *_: calls.append('backbone'))
        distiller.loss(images(), samples())
        assert calls == ['backbone']

    def test_no_hook_stays_behind(self):
        distiller = build(NKD, MGD, USKD)
        distiller.loss(images(), samples())
        assert not any(m._forward_hooks for part in (distiller, distiller.teacher) for m in part.modules())


class TestMethods:
    def test_switched_off_methods_are_not_built(self):
        distiller = build(NKD, method('KDLoss', use_this=False))
        assert list(distiller.distill_losses) == ['loss_nkd']
        assert distiller.task_weight == 1

    @pytest.mark.parametrize(
        ('groups', 'message'),
        [
            ([], 'no distillation method is chosen'),
            ([method('NKDLoss', use_this=False), method('KDLoss', use_this=False)], 'offers: nkd, kd'),
            ([method('NKDLos')], "loss_nkdlos: unknown loss type 'NKDLos'; did you mean 'NKDLoss'"),
            ([method('NKDLoss'), method('NKDLoss')], "two methods have the name 'loss_nkd'"),
            ([method('NKDLoss', 'keys')], "cannot have the name 'keys'"),
            ([method('NKDLoss', gama=2.0)], "loss_nkd: .*unexpected keyword argument 'gama'"),
            ([dict(type='NKDLoss', name='loss_nkd')], 'list of dict'),
            ([dict(methods=[dict(type='NKDLoss')])], 'needs `type` and `name`'),
        ],
    )
    def test_refused(self, groups, message):
        with pytest.raises(ValueError, match=message):
            build(*groups)

    def test_a_keyword_that_only_the_config_can_give_is_missing(self):
        class NeedyLoss(nn.Module):
            def __init__(self, power):
                super().__init__()

            def forward(self, logit_s):
                return logit_s.sum()

        with pytest.raises(ValueError, match=r"loss_needy: .*missing 1 required positional argument: 'power'"):
            build(method(NeedyLoss, 'loss_needy'))

    def test_legacy_flags_change_nothing(self):
        distiller = build(NKD, is_vit=True, use_logit=False, sd=True)
        assert list(distiller.loss(images(), samples())) == ['ori_loss', 'loss_nkd']


class TestStudent:
    def test_tensor_and_predict_are_the_students(self):
        distiller = build(NKD).eval()
        x = images()
        torch.testing.assert_close(distiller(x), distiller.student(x))
        predicted = distiller(x, samples(), mode='predict')
        torch.testing.assert_close(predicted[1].pred_score, distiller.student(x).softmax(1)[1])
        torch.testing.assert_close(distiller.extract_feat(x)[-1], distiller.student.extract_feat(x)[-1])

    def test_its_batch_augmentation_is_applied(self):
        student = resnet(4, train_cfg=dict(augments=dict(type='Mixup', alpha=0.8)), data_preprocessor=dict(num_classes=10))
        distiller = build(NKD, TFNKD, student=student)
        torch.manual_seed(0)
        data = distiller.data_preprocessor(batch(), training=True)
        scores = torch.stack([s.gt_score for s in data['data_samples']])
        assert ((scores > 0).sum(1) > 1).any()
        assert torch.isfinite(sum(distiller.loss(**data).values()))

    def test_the_distillers_own_batch_augmentation_comes_first(self):
        student = resnet(4, train_cfg=dict(augments=dict(type='Mixup', alpha=0.8)))
        own = dict(augments=dict(type='CutMix', alpha=1.0))
        distiller = build(NKD, student=student, train_cfg=own, data_preprocessor=dict(num_classes=10))
        (augment,) = distiller.data_preprocessor.batch_augments.augments
        assert type(augment).__name__ == 'CutMix'

    def test_its_normalisation_is_used_where_none_is_given(self):
        distiller = build(NKD, student=resnet(4, data_preprocessor=dict(mean=[1.0] * 3, std=[2.0] * 3)))
        inputs = distiller.data_preprocessor(dict(inputs=torch.full((1, 3, 2, 2), 5.0)))['inputs']
        assert (inputs == 2).all()

    def test_it_starts_from_weights_and_keeps_them(self, tmp_path):
        weights = build(NKD).student.state_dict()
        torch.save(dict(state_dict=weights), tmp_path / 'student.pth')
        distiller = build(NKD, student_pretrained=str(tmp_path / 'student.pth'))
        distiller.init_weights()
        assert all(torch.equal(v, weights[k]) for k, v in distiller.student.state_dict().items())

    def test_weights_of_another_student_are_refused(self, tmp_path):
        torch.save(build(NKD, student=vit()).student.state_dict(), tmp_path / 'vit.pth')
        with pytest.raises(
            ValueError, match=r'student weights .* missing: backbone.conv1.weight.*unexpected: backbone.cls_token'
        ):
            build(NKD, student_pretrained=str(tmp_path / 'vit.pth'))

    def test_teacher_and_student_tell_the_same_classes_apart(self):
        with pytest.raises(ValueError, match='the student has 10 classes and the teacher 7'):
            build(NKD, teacher=resnet(8, classes=7))


class TestUnreadOutputs:
    """Swin has a norm before each stage output; DDP refuses parameters without gradient."""

    SWIN = dict(
        type='ImageClassifier',
        backbone=dict(
            type='SwinTransformer',
            arch=dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1]),
            img_size=32,
            patch_size=2,
            window_size=2,
            out_indices=(0, 1, 2, 3),
        ),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=10, in_channels=64, loss=dict(type='CrossEntropyLoss')),
    )

    @pytest.mark.parametrize('chosen', [TFNKD, method('USKDLoss', channel=32, num_classes=10)])
    def test_every_trainable_parameter_has_a_gradient(self, chosen):
        distiller = build(chosen, student=self.SWIN)
        names = [name for name, _ in distiller.named_parameters()]
        sum(distiller.loss(images(), samples()).values()).backward()
        assert not [n for n, p in distiller.named_parameters() if p.requires_grad and p.grad is None]
        assert 'student.backbone.norm0.weight' in names

    def test_a_resnets_stem_norm_is_none_of_them(self):
        student = resnet(4)
        student['backbone']['out_indices'] = (0, 1, 2, 3)
        distiller = build(TFNKD, student=student)
        assert all(p.requires_grad for p in distiller.student.parameters())
        assert tuple(distiller.student.backbone.out_indices) == (0, 1, 2, 3)

    def test_a_swin_without_that_stage_offers_no_middle_feature(self):
        swin = copy.deepcopy(self.SWIN)
        swin['backbone']['out_indices'] = (3,)
        with pytest.raises(ValueError, match="unknown input 'feat_mid'"):
            build(USKD, student=swin)

    def test_the_middle_feature_is_the_pooled_third_stage_behind_its_norm(self):
        distiller = build(method('USKDLoss', channel=32, num_classes=10), student=self.SWIN).eval()
        seen = {}
        distiller.distill_losses['loss_uskd'].register_forward_pre_hook(lambda m, a, k: seen.update(k), with_kwargs=True)
        x = images()
        distiller.loss(x, samples())
        distiller.student.backbone.out_indices = (2,)
        torch.testing.assert_close(seen['feat_mid'], distiller.student.backbone(x)[0].mean((2, 3)))


class TestStateDict:
    def test_names(self):
        names = build(SRRL, USKD).state_dict()
        assert {n.split('.')[0] for n in names} == {'student', 'distill_losses'}
        assert {'distill_losses.loss_srrl.Connectors.0.weight', 'distill_losses.loss_uskd.fc.bias'} <= set(names)

    def original(self, distiller):
        """As the original toolbox saves it: with the teacher inside."""
        state = {k: torch.randn_like(v) if v.is_floating_point() else v for k, v in distiller.state_dict().items()}
        teacher = {f'teacher.{k}': torch.zeros_like(v) for k, v in distiller.teacher.state_dict().items()}
        return {**teacher, **state}

    def test_a_state_dict_of_the_original_loads_strictly(self):
        distiller = build(SRRL)
        state = self.original(distiller)
        distiller.load_state_dict(state, strict=True)
        assert all(torch.equal(v, state[k]) for k, v in distiller.state_dict().items())
        assert not distiller.teacher.head.fc.weight.any()  # a teacher without weights of its own takes those

    def test_the_teachers_own_weights_stay(self, tmp_path):
        torch.save(build(SRRL).teacher.state_dict(), tmp_path / 'teacher.pth')
        distiller = build(SRRL, teacher_pretrained=str(tmp_path / 'teacher.pth'))
        distiller.load_state_dict(self.original(distiller), strict=True)
        assert distiller.teacher.head.fc.weight.any()

    def test_weights_without_a_student_are_refused(self):
        distiller = build(NKD)
        with pytest.raises(ValueError, match='set model.student_pretrained'):
            distiller.load_state_dict(distiller.student.state_dict(), strict=False)
