"""The inputs student_weight, student_bias, teacher_weight and teacher_bias: the linear classifiers behind the last maps."""

import copy

import pytest
import torch
from families import FAMILIES, built
from networks import build as build_adapter
from networks import images, method, resnet, samples, store_of_logits, vit
from small_networks import CLASSES, CNN, FunctionalHead, ViT, batch, pair
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from mmcls_kd import Distiller, DistillLoss, TeacherSpec
from mmcls_kd.backbones.cifar_benchmark import build
from mmcls_kd.features.classifier import linear_classifier
from mmcls_kd.features.dry_run import dry_run
from mmcls_kd.features.families import default_taps
from mmcls_kd.teachers import FrozenTeacher, store_logits


class Reads(DistillLoss):
    """A loss that keeps its inputs."""

    def forward(self, student_weight, student_bias, teacher_weight, teacher_bias):
        self.seen = student_weight, student_bias, teacher_weight, teacher_bias
        return student_weight.square().mean() + student_bias.sum() + teacher_weight.mean()


class ReadsTeacher(DistillLoss):
    def forward(self, logit_s, teacher_weight):
        return logit_s.mean() + teacher_weight.mean()


def path_of(network):
    found = dry_run(network, 'student', whole=True)
    return linear_classifier(network, found, default_taps(network, found))


class ConvHead(CNN):
    """A CNN that classifies by a 1 × 1 convolution without bias behind the pool."""

    def __init__(self, width=4):
        super().__init__(width)
        self.fc = nn.Conv2d(8 * width, CLASSES, 1, bias=False)

    def forward(self, images):
        return self.fc(self.pool(self.features(images))).flatten(1)


class WithDropout(CNN):
    def forward(self, images):
        return self.fc(nn.functional.dropout(self.pool(self.features(images)).flatten(1), 0.9, self.training))


class Doubled(CNN):
    """A CNN that changes the pooled vector before its classifier."""

    def forward(self, images):
        return self.fc(2 * self.pool(self.features(images)).flatten(1))


#: The linear classifier of a network of each library; None where another vector goes in.
PATHS = {
    'mmpretrain ResNet': 'head.fc',
    'mmpretrain MobileNetV2': 'head.fc',
    'mmpretrain ConvNeXt': None,  # a norm stands between
    'mmpretrain VisionTransformer': None,
    'timm ResNet': 'model.fc',
    'timm EfficientNet': 'model.classifier',
    'torchvision ResNet': 'model.fc',
    'torchvision MobileNetV2': 'model.classifier.1',
    'torchvision DenseNet': None,  # its ReLU is a function
    'hf ResNet': 'model.classifier.1',
    'hf ViT': None,
}


DEFAULT = ('mmpretrain ResNet', 'mmpretrain ConvNeXt', 'timm ResNet', 'torchvision ResNet')


@pytest.mark.parametrize('name', [pytest.param(n, marks=() if n in DEFAULT else pytest.mark.slow) for n in PATHS])
def test_it_is_found_in_the_networks_of_each_library(name):
    assert name in FAMILIES
    assert path_of(built(name)) == PATHS[name]


@pytest.mark.parametrize('name', ['resnet8x4', 'wrn_16_1', 'vgg8', 'MobileNetV2', 'ShuffleV1', 'ShuffleV2'])
def test_and_in_those_of_the_cifar_benchmark(name):
    network = build(name, 10)
    assert path_of(network) == network.classifier_path


def test_modules_and_modes():
    assert path_of(CNN().train()) == 'fc'
    assert path_of(ConvHead()) == 'fc'
    assert path_of(WithDropout().train()) == 'fc'
    assert [path_of(kind()) for kind in (Doubled, ViT, FunctionalHead)] == [None, None, None]


@pytest.mark.parametrize('form', ['pooled', 'tokens', 'flat'])
def test_a_tap_that_is_no_map(form):
    teacher = FrozenTeacher(CNN(8), taps=dict(feat_t=dict(path='layer4', form=form)))
    assert teacher.classifier is None
    assert teacher.linear_weight.shape == (CLASSES, 64)


def test_weights_of_zero_do_not_hide_it():
    network = CNN()
    nn.init.zeros_(network.fc.weight)
    assert path_of(network) == 'fc'


def test_they_are_the_live_parameters():
    student, teacher = pair()
    distiller = Distiller(student, teacher, dict(x=Reads()))
    loss = distiller.distill_losses['x']
    for _ in range(2):
        out = distiller(*batch())
        weight, bias, *teachers = loss.seen
        assert weight.equal(student.fc.weight)
        assert bias.equal(student.fc.bias)
        assert all(
            one.equal(own) and not one.requires_grad for one, own in zip(teachers, teacher.fc.parameters(), strict=True)
        )
        student.zero_grad()
        out['x'].backward()
        torch.testing.assert_close(student.fc.weight.grad, 2 * student.fc.weight.detach() / weight.numel())
        assert student.fc.bias.grad.eq(1).all()
        assert teacher.fc.weight.grad is None
        with torch.no_grad():
            student.fc.weight.add_(1.0)
            teacher.fc.weight.add_(1.0)


def test_a_convolution_without_bias():
    distiller = Distiller(ConvHead(), ConvHead(8), dict(x=Reads()))
    distiller(*batch())
    shapes = [tuple(tensor.shape) for tensor in distiller.distill_losses['x'].seen]
    assert shapes == [(CLASSES, 32), (CLASSES,), (CLASSES, 64), (CLASSES,)]
    assert not distiller.distill_losses['x'].seen[1].any()


def test_the_teachers_are_those_of_the_students_classes():
    class_map = [3, 1, 0, 5, 4, 9, 8, 7, 6, 11]
    teacher = CNN(8, classes=12)
    distiller = Distiller(CNN(), TeacherSpec(teacher, class_map=class_map), dict(x=Reads()))
    distiller(*batch())
    *_, weight, bias = distiller.distill_losses['x'].seen
    assert weight.equal(teacher.fc.weight[class_map])
    assert bias.equal(teacher.fc.bias[class_map])


def test_a_copy_reads_its_own_student():
    distiller = Distiller(*pair(), dict(x=Reads()))
    other = copy.deepcopy(distiller)
    nn.init.zeros_(other.student.fc.weight)
    other(*batch())
    assert not other.distill_losses['x'].seen[0].any()
    assert distiller.student.fc.weight.any()


def test_nothing_is_added_to_the_state():
    student, teacher = pair()
    assert set(Distiller(student, teacher, dict(x=Reads())).state_dict()) == {f'student.{k}' for k in student.state_dict()}


def test_under_autocast_catkd_and_sdd_compute_in_float32():
    out = {}
    for enabled in (False, True):
        distiller = Distiller(*pair(), ['catkd', 'sdd'])
        with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
            out[enabled] = distiller(*batch())
        assert {value.dtype for value in out[enabled].values()} == {torch.float32}
    torch.testing.assert_close(out[True]['sdd'], out[False]['sdd'], rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ('student', 'teacher', 'said'),
    [
        (
            Doubled(),
            CNN(8),
            "x .Reads.: unknown input 'student_weight' .it needs a student whose class scores are one linear",
        ),
        (
            CNN(),
            Doubled(8),
            "unknown input 'teacher_weight' .it needs one teacher whose class scores are one linear layer of",
        ),
        (CNN(), [CNN(8), CNN(8)], "unknown input 'teacher_weight' .it needs one teacher"),
        (CNN(), None, 'x: a teacher is needed'),
    ],
)
def test_networks_without_one_are_refused(student, teacher, said):
    with pytest.raises(ValueError, match=said):
        Distiller(student, teacher, dict(x=Reads()))


def test_stored_teachers_without_one_are_refused(tmp_path):
    data = TensorDataset(*batch(), torch.arange(8))
    stored = store_logits(CNN(8), DataLoader(data, 8), tmp_path / 'store')
    said = "store holds no linear classifier .*, and x needs 'teacher_weight': the same .*features=.'feat'.. stores it"
    with pytest.raises(ValueError, match=said):
        Distiller(CNN(), stored, dict(x=ReadsTeacher()))
    other = store_logits(Doubled(8), DataLoader(data, 8), tmp_path / 'other', features=['feat'])
    assert other.facts['teacher_weight']().shape == (CLASSES, 64)
    with pytest.raises(ValueError, match='other holds no linear classifier behind the teacher’s last map, and x needs'):
        Distiller(CNN(), other, dict(x=ReadsTeacher()))


@pytest.mark.parametrize('name', ['catkd', 'sdd'])
def test_at_several_stages_it_is_a_sentence(name):
    distiller = Distiller(*pair(), dict(type=name, stages=[1, 4]))
    with pytest.raises(ValueError, match='feat_s has 4 channels, and the classifier 32 inputs; leave out `stages`'):
        distiller(*batch())


class TestInAConfig:
    def test_both_methods_train(self):
        distiller = build_adapter(method('CATKDLoss'), method('SDDLoss', loss=dict(type='NKDLoss', temp=2.0)))
        losses = distiller.loss(images(), samples())
        sum(value for name, value in losses.items() if not name.startswith('ori')).backward()
        assert {'loss_catkd', 'loss_sdd'} < losses.keys()
        assert distiller.student.head.fc.weight.grad.any()
        assert distiller.student.head.fc.bias.grad.any()
        assert distiller.student.backbone.conv1.weight.grad.any()

    def test_a_transformer_is_refused(self):
        with pytest.raises(ValueError, match=r"loss_catkd .CATKDLoss.: unknown input 'student_weight'"):
            build_adapter(method('CATKDLoss'), student=vit(16), teacher=resnet(8))

    def test_a_store_is_refused(self, tmp_path):
        store_of_logits(tmp_path)
        said = "holds no linear classifier behind the teacher’s last map, and loss_reads needs 'teacher_weight': the same"
        with pytest.raises(ValueError, match=said):
            build_adapter(method(ReadsTeacher, 'loss_reads'), teacher_store=str(tmp_path))
