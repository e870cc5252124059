"""The CIFAR benchmark's networks by name: their features, their head, and what they refuse."""

import pytest
import torch
from mmpretrain.registry import MODELS
from torch import nn

from mmcls_kd import Distiller, DistillLoss
from mmcls_kd.backbones.cifar_benchmark import build
from mmcls_kd.distillers.teacher import network_pixels
from mmcls_kd.features.dry_run import dry_run
from mmcls_kd.features.families import default_taps
from mmcls_kd.features.taps import record, shapes_of
from mmcls_kd.networks.sources import find_network
from mmcls_kd.teachers.frozen import FrozenTeacher

NAMES = ('resnet8', 'resnet8x4', 'wrn_16_1', 'vgg8', 'MobileNetV2', 'ShuffleV1', 'ShuffleV2')
#: The map that is pooled for the classifier, where it is not the last stage's.
LAST = {'wrn_16_1': 'relu', 'MobileNetV2': 'conv2', 'ShuffleV2': 'relu2'}


class ReadsPreact(DistillLoss):
    def forward(self, stages_preact_s):
        return sum(part.mean() for part in stages_preact_s)


def batch():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def settled(name, num_classes=10):
    """A network whose norms have statistics of images, so that folding them is not trivial."""
    torch.manual_seed(0)
    network = build(name, num_classes)
    network(torch.randn(8, 3, 32, 32))
    return network.eval()


@pytest.mark.parametrize('name', NAMES)
def test_taps_are_the_published_features(name):
    network = MODELS.build(find_network(f'cifar:{name}').cfg).eval()
    found = dry_run(network, 'student')
    taps = default_taps(network, found)
    with torch.no_grad(), record(network, taps) as read:
        network(batch())
        features, preacts, logit = network.model.features(batch())
    assert found.size == (32, 32)
    for name_of, wanted in (('stages', features[1:-1]), ('stages_preact', (preacts or [])[1:-1])):
        assert len(read.get(name_of, ())) == len(wanted)
        assert all(torch.equal(one, its) for one, its in zip(read.get(name_of, ()), wanted, strict=True))
        assert not wanted or shapes_of(taps, found)[name_of] == tuple(tuple(one.shape) for one in wanted)
    assert torch.equal(read['vector'], features[-1])
    assert torch.equal(read['logit'], logit)
    assert torch.equal(read['feat'].mean(dim=(2, 3)), features[-1])
    if name in LAST:
        assert taps['feat'].modules == (f'model.{LAST[name]}',)
    else:
        assert torch.equal(read['feat'], features[-2])
    assert torch.equal(read['feat_mid'], features[-3].mean(dim=(2, 3)))


@pytest.mark.parametrize('name', NAMES)
def test_the_teacher_reads_the_same_folded_and_has_a_linear_head(name):
    network = settled(name)
    wanted = dict(zip(('features', 'preacts', 'logit'), network.features(batch()), strict=True))
    teacher = FrozenTeacher(network)
    names = [key for key in teacher.taps if key in ('stages', 'stages_preact', 'feat', 'logit')]
    read = teacher(batch(), None, names)
    assert any(isinstance(module, nn.Identity) for module in teacher.fast._ready.modules())  # norms were folded
    for one, its in zip(read['stages'], wanted['features'][1:-1], strict=True):
        torch.testing.assert_close(one, its, rtol=1e-3, atol=1e-4)
    for one, its in zip(read.get('stages_preact', ()), (wanted['preacts'] or [])[1:-1], strict=True):
        torch.testing.assert_close(one, its, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(teacher.head(read['feat']), wanted['logit'], rtol=1e-3, atol=1e-4)
    assert torch.equal(teacher.linear_weight, network.get_submodule(network.classifier_path).weight)


def test_a_student_trains_on_maps_before_the_relu_and_no_norm_runs_twice():
    torch.manual_seed(0)
    student, teacher = build('wrn_16_1', 10), build('wrn_16_2', 10)
    taps = default_taps(student, dry_run(student, 'student', whole=True))
    with record(student.train(), {'stages_preact': taps['stages_preact']}) as read:
        student(batch())
    sum(part.square().mean() for part in read['stages_preact']).backward()
    assert student.block1.layer[0].conv1.weight.grad.any()
    assert int(student.bn1.num_batches_tracked) == int(student.block2.layer[0].bn1.num_batches_tracked) == 1
    distiller = Distiller(student, teacher, ['kd', 'at']).train()
    distiller(batch(), torch.tensor([1, 2]))['loss'].backward()
    assert int(student.bn1.num_batches_tracked) == 2


def test_linear_stages_have_none_before_the_relu():
    network = build('MobileNetV2')
    assert 'stages_preact' not in default_taps(network, dry_run(network, 'student', whole=True))
    with pytest.raises(ValueError, match=r"unknown input 'stages_preact_s' \(.* the stages of this student end otherwise"):
        Distiller(network, build('vgg8'), [dict(type=ReadsPreact)])


def test_a_relu_that_runs_several_times_is_read_in_its_last_call():
    """torchvision's blocks call theirs twice; a pass that stops early does not stop at the first call."""
    network = MODELS.build(dict(type='TorchvisionClassifier', model_name='resnet18', num_classes=4)).eval()
    taps = default_taps(network, dry_run(network, 'student', (32, 32)))
    with torch.no_grad(), record(network, {'stages_preact': taps['stages_preact']}, stop=True) as read:
        network(batch())
    with torch.no_grad(), record(network, {'stages': taps['stages']}) as stages:
        network(batch())
    assert all(torch.equal(one.relu(), its) for one, its in zip(read['stages_preact'], stages['stages'], strict=True))


def test_input_preprocessing():
    source = find_network('cifar:resnet8')
    pixels = network_pixels(MODELS.build(source.cfg), source)
    assert pixels.mean == pytest.approx((129.3105, 124.1085, 112.404))
    assert pixels.to_rgb
    assert pixels.size is None
    of_ten = find_network(dict(type='CifarClassifier', model_name='resnet8', num_classes=10))
    assert network_pixels(MODELS.build(of_ten.cfg), of_ten).mean != pixels.mean  # the student's


def test_unknown_name():
    with pytest.raises(ValueError, match="no network 'resnet32x'; did you mean .*'resnet32x4'.*; it has resnet8, "):
        find_network('cifar:resnet32x')
