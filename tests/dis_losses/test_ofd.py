"""OFD: margins by an oracle and at their limits, and the teacher's batch norms that they are made of."""

import pytest
import torch
from families import built
from kit import assert_close
from networks import build as build_adapter
from networks import images, method, samples
from scipy.stats import norm as normal
from scipy.stats import truncnorm
from small_networks import CNN, batch, pair
from torch import nn

from mmcls_kd import Distiller
from mmcls_kd.backbones.cifar_benchmark import build
from mmcls_kd.dis_losses import OFDLoss, ofd_loss, ofd_margin
from mmcls_kd.features.dry_run import dry_run
from mmcls_kd.features.families import default_taps
from mmcls_kd.features.norms import norms_before_relu


def norms_of(network):
    found = dry_run(network, 'teacher', whole=True)
    return norms_before_relu(network, found, default_taps(network, found)['stages_preact'])


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64], ids=str)
def test_a_margin_is_the_mean_of_the_negative_values(dtype):
    weight = torch.tensor([1.0, -2.0, 0.5, 0.1, 1.0], dtype=dtype)
    bias = torch.tensor([0.3, -1.0, 1.2, -0.4, 3.5], dtype=dtype)
    expected = []
    for sigma, mu in zip(weight.double().abs().tolist(), bias.double().tolist(), strict=True):
        share = normal.cdf(0, mu, sigma)
        expected.append(truncnorm.mean(-float('inf'), -mu / sigma, mu, sigma) if share > 1e-3 else -3 * sigma)
    assert expected[-1] == -3
    assert_close(ofd_margin(weight, bias), torch.tensor(expected, dtype=dtype))


def test_margins_of_weights_of_zero_are_their_limits():
    weight, bias = torch.zeros(3), torch.tensor([-2.0, 0.0, 2.0])
    assert ofd_margin(weight, bias).tolist() == [-2.0, 0.0, 0.0]
    assert_close(ofd_margin(weight + 1e-30, bias), torch.tensor([-2.0, 0.0, 0.0]), scale=1.0)
    extreme = ofd_margin(torch.tensor([1e-38, 1e30, 1.0]), torch.tensor([-1e30, 1.0, -1e30]))
    assert extreme.isfinite().all()
    assert (extreme <= 0).all()


def test_only_what_matters_counts():
    margin = [torch.tensor([-1.0])]

    def value(s, t):
        return ofd_loss([torch.full((1, 1, 1, 1), s)], [torch.full((1, 1, 1, 1), t)], margin).item()

    assert [value(-3.0, -2.0), value(-3.0, -0.5), value(0.5, -2.0), value(-1.0, 2.0)] == [0.0, 0.0, 2.25, 9.0]


@pytest.mark.parametrize('name', ['resnet8x4', 'vgg8', 'wrn_16_1'])
def test_the_norms_of_the_cifar_benchmark_are_the_stated(name):
    network = build(name, 10)
    assert norms_of(network) == network.bn_before_relu()


def test_those_of_other_libraries_are_beside_the_relu():
    own = built('mmpretrain ResNet')
    assert norms_of(own) == [getattr(own.backbone, f'layer{i}')[-1].bn2 for i in range(1, 5)]
    timm, torchvision = built('timm ResNet'), built('torchvision ResNet')
    assert norms_of(timm) == [getattr(timm.model, f'layer{i}')[-1].bn2 for i in range(1, 5)]
    assert norms_of(torchvision) == [getattr(torchvision.model, f'layer{i}')[-1].bn2 for i in range(1, 5)]
    assert norms_of(built('hf ResNet')) is None


def test_the_teachers_norms_make_the_margins():
    student, teacher = pair()
    for i in range(1, 5):
        nn.init.normal_(getattr(teacher, f'layer{i}')[1].bias)
    loss = Distiller(student, teacher, 'ofd').distill_losses['ofd']
    for i, margin in enumerate(loss.margins):
        own = getattr(teacher, f'layer{i + 1}')[1]
        assert margin.equal(ofd_margin(own.weight, own.bias))
    assert not any('margin' in name for name in loss.state_dict())


def test_in_a_config():
    distiller = build_adapter(method('OFDLoss'))
    losses = distiller.loss(images(), samples())
    losses['loss_ofd'].backward()
    assert distiller.student.backbone.conv1.weight.grad.any()


def test_a_teacher_without_norms_needs_margins():
    with pytest.raises(ValueError, match=r'ofd: OFD takes margins from the batch norm .*: give them by margins='):
        Distiller(*pair(norm=False), 'ofd')
    margins = [[-1.0] * width for width in (8, 16, 32, 64)]
    assert Distiller(*pair(norm=False), dict(type='ofd', margins=margins))(*batch())['ofd'].isfinite()


@pytest.mark.parametrize(
    ('keywords', 'said'),
    [
        (dict(margins=[[0.0]]), r'has the shapes \[\(1,\)\]: give one number for each .*, \(2,\)'),
        (dict(margins=None), 'OFD takes margins'),
        (dict(student_channels=[1, 2], margins=[[0.0] * 2]), 'the student has 2 of them and the teacher 1'),
    ],
)
def test_what_does_not_fit_is_refused(keywords, said):
    with pytest.raises(ValueError, match=said):
        OFDLoss(**dict(student_channels=[1], teacher_channels=[2]) | keywords)


def test_one_value_a_channel_is_a_sentence_in_training():
    loss = OFDLoss([1], [1], [[-1.0]])
    with pytest.raises(ValueError, match='OFDLoss has batch norms'):
        loss((torch.ones(1, 1, 1, 1),), (torch.ones(1, 1, 1, 1),))
    assert loss.eval()((torch.ones(1, 1, 1, 1),), (torch.ones(1, 1, 2, 2),)).isfinite()
    assert isinstance(CNN().layer1[1], nn.BatchNorm2d)
