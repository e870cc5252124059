"""Sizes of tensors that a config may leave out: found by the dry run, and the right ones named where they are wrong."""

import re

import pytest
from families import built
from networks import build, images, method, resnet, samples, vit
from torch import nn

from mmcls_kd.dis_losses import LOSSES

# What each loss takes of a student of width 4 (ResNet) or 16 (ViT) and a teacher of 8 or 24.
MAPS, VECTORS = dict(student_channels=32, teacher_channels=64), dict(student_dims=32, teacher_dims=64)
STAGES = dict(student_channels=(4, 8, 16, 32))
SIZES = {
    'CCLoss': VECTORS,
    'CRDLoss': VECTORS,
    'EmbeddingLoss': VECTORS,
    'QueueLoss': VECTORS,
    'FitNetLoss': MAPS,
    'OFALoss': dict(**STAGES, student_sizes=(32, 16, 8, 8), num_classes=10),
    'ScaleKDLoss': dict(
        **STAGES, teacher_channels=(8, 16, 32, 64), teacher_heights=(32, 16, 8, 8), teacher_widths=(32, 16, 8, 8)
    ),
    **{key: dict(**STAGES, teacher_channels=(8, 16, 32, 64)) for key in ('SemCKDLoss', 'AFDLoss', 'ABLoss', 'OFDLoss')},
    'FSPLoss': dict.fromkeys(('student_channels', 'teacher_channels'), (8, 16, 32, 64)),
    'ICKDLoss': MAPS,
    'NORMLoss': MAPS,
    **dict.fromkeys(('SRDLoss', 'SRDCorrelationLoss', 'PEFDLoss', 'VkDLoss'), MAPS),  # of vectors as wide as the maps
    'FTLoss': MAPS,
    'ReviewKDLoss': dict(**STAGES, teacher_channels=(8, 16, 32, 64), **VECTORS),
    'SimKD': MAPS,
    'VIDLoss': MAPS,
    'WKDFeatureLoss': MAPS,
    'MGDLoss': MAPS,
    'SRRLLoss': MAPS,
    'USKDLoss': dict(channel=16, num_classes=10),
    'WSLDLoss': dict(num_classes=10),
    'ViTKDLoss': dict(student_dims=16, teacher_dims=24),
}
CASES = [(loss, keyword) for loss, sizes in SIZES.items() for keyword in sizes]


def distiller(loss, **keywords):
    pair = dict(student=vit(16), teacher=vit(24)) if loss == 'ViTKDLoss' else {}
    if loss == 'CRDLoss':
        pair, keywords = dict(num_samples=4), dict(nce_k=2) | keywords
    if loss == 'FSPLoss':  # of equal widths alone
        pair = dict(student=resnet(8))
    if loss == 'SemCKDLoss':
        pair = dict(batch_size=len(samples()))
    return build(method(loss, 'loss_x', **keywords), **pair)


def test_every_loss_whose_sizes_depend_on_the_networks_is_here():
    assert {name: set(kind.sizes) for name, kind in LOSSES.items() if kind.sizes} == {
        name: set(sizes) for name, sizes in SIZES.items()
    }


@pytest.mark.parametrize('loss', SIZES)
def test_left_out_they_are_those_of_the_tensors(loss):
    model = distiller(loss)
    assert {keyword: getattr(model.distill_losses['loss_x'], keyword) for keyword in SIZES[loss]} == SIZES[loss]
    total = sum(model.loss(images(), samples()).values())
    total.backward()
    assert total.isfinite()


@pytest.mark.parametrize('loss', SIZES)
def test_given_and_right_they_are_taken(loss):
    assert distiller(loss, **SIZES[loss]).state_dict().keys() == distiller(loss).state_dict().keys()


@pytest.mark.parametrize(('loss', 'keyword'), CASES)
def test_given_and_wrong_the_message_has_the_right_one(loss, keyword):
    right = SIZES[loss][keyword]
    with pytest.raises(
        ValueError,
        match=rf'loss_x: {keyword}=99 is wrong, \w+ has the shape \(N, .*: set {keyword}={re.escape(str(right))}, or',
    ):
        distiller(loss, **{keyword: 99})


def test_of_a_tap_that_the_config_chose():
    model = build(method('USKDLoss', 'loss_x'), taps=dict(feat_mid='backbone.layer1'))
    assert model.distill_losses['loss_x'].channel == 4
    with pytest.raises(ValueError, match=r'channel=16 is wrong, feat_mid has the shape \(N, 4\): set channel=4'):
        build(method('USKDLoss', 'loss_x', channel=16), taps=dict(feat_mid='backbone.layer1'))


def test_of_classes_that_the_student_has_and_the_teacher_is_mapped_to():
    model = build(method('WSLDLoss', 'loss_x'), teacher=resnet(8, classes=12), teacher_classes=list(range(10)))
    assert model.distill_losses['loss_x'].num_classes == 10


class TestLossesOfOthers:
    class Own(nn.Module):
        """A loss without ``sizes``."""

        def __init__(self, width=3):
            super().__init__()
            self.width = width

        def forward(self, feat_s, feat_t):
            return feat_s.mean() * feat_t.mean() * self.width

    class Sized(Own):
        """One with them."""

        sizes = {'width': ('feat_t', 1), 'height': ('feat_s', 2), 'deep': ('early_s', 1)}

        def __init__(self, width, height, deep):
            super().__init__(width)
            self.height, self.deep = height, deep

        def forward(self, feat_s, feat_t, early_s):
            return super().forward(feat_s, feat_t) + early_s.mean()

    def test_without_sizes_nothing_is_given(self):
        assert build(method(self.Own, 'loss_x')).distill_losses['loss_x'].width == 3
        assert build(method(self.Own, 'loss_x', width=7)).distill_losses['loss_x'].width == 7

    def test_with_sizes_of_known_and_new_tensors(self):
        loss = build(method(self.Sized, 'loss_x'), taps=dict(early_s='backbone.layer1')).distill_losses['loss_x']
        assert (loss.width, loss.height, loss.deep) == (64, 8, 4)
        with pytest.raises(ValueError, match=r'deep=5 is wrong, early_s has the shape \(N, 4, 32, 32\): set deep=4'):
            build(method(self.Sized, 'loss_x', deep=5), taps=dict(early_s='backbone.layer1'))

    def test_of_each_stage(self):
        class Staged(self.Own):
            sizes = {'widths': ('stages_t', 1), 'heights': ('stages_s', 2)}

            def __init__(self, widths, heights):
                super().__init__()
                self.widths, self.heights = widths, heights

            def forward(self, stages_s, stages_t):
                return stages_s[0].mean() * stages_t[0].mean()

        loss = build(method(Staged, 'loss_x', heights=[32, 16, 8, 8])).distill_losses['loss_x']
        assert loss.widths == (8, 16, 32, 64)
        with pytest.raises(ValueError, match=r'widths=8 is wrong, .*: set widths=\(8, 16, 32, 64\), or leave it out'):
            build(method(Staged, 'loss_x', widths=8))

    @pytest.mark.parametrize(
        ('tensor', 'dim', 'message'),
        [
            (
                'nope_s',
                1,
                r"loss_x: Wrong.sizes says that width is size 1 of 'nope_s', which is not there; there are .*feat_s",
            ),
            ('logit_s', 2, "width is size 2 of 'logit_s', which is not there"),
        ],
    )
    def test_sizes_of_what_is_not_there(self, tensor, dim, message):
        class Wrong(self.Own):
            sizes = {'width': (tensor, dim)}

            def forward(self, feat_s, feat_t):
                return feat_s.mean()

        with pytest.raises(ValueError, match=message):
            build(method(Wrong, 'loss_x'))


def any_network(name):
    """A network of a family as a config could give it."""
    network = built(name)
    return dict(type='ModuleClassifier', model=getattr(network, 'model', network))


STUDENTS = ['timm ResNet', 'timm Swin', 'torchvision ViT', 'hf ConvNext', 'hf DeiT']
TEACHERS = ['timm ViT_with_registers', 'timm ConvNeXt', 'torchvision Swin', 'hf Swin', 'hf Dinov2WithRegisters']


@pytest.mark.parametrize('teacher', TEACHERS)
@pytest.mark.parametrize('student', STUDENTS)
def test_features_of_any_two_families_fit(student, teacher):
    """MGD between maps made of whatever the networks have: tokens, other sizes, other widths."""
    model = build(method('MGDLoss', alpha_mgd=1e-3), student=any_network(student), teacher=any_network(teacher))
    losses = model.loss(images(2), samples(2))
    losses['loss_mgd'].backward()
    assert losses['loss_mgd'] > 0
    assert any(p.grad is not None and p.grad.any() for p in model.student.parameters())


@pytest.mark.parametrize('teacher', ['timm DeiT_distilled', 'hf Dinov2WithRegisters', 'torchvision ViT'])
def test_tokens_of_any_two_transformers_fit(teacher):
    student = vit(8)
    student['backbone']['patch_size'] = 4  # 64 tokens; the teacher's 16
    model = build(method('ViTKDLoss', alpha_vitkd=1e-2, beta_vitkd=1e-2), student=student, teacher=any_network(teacher))
    loss = model.loss(images(2), samples(2))['loss_vitkd']
    loss.backward()
    assert loss > 0
    assert model.student.backbone.layers[0].ffn.layers[1].weight.grad.any()
