"""Teachers of any library: what is read of the fast twin is the network's own, and their head judges features."""

import copy

import pytest
import torch
from families import FAMILIES, built, expected
from kit import assert_close, seeded
from networks import build, images, method, samples
from torch import nn

from mmcls_kd.features.dry_run import dry_run
from mmcls_kd.features.families import default_taps
from mmcls_kd.features.layouts import parts
from mmcls_kd.teachers.fast import TOLERANCE, FastNetwork
from mmcls_kd.teachers.head import find_head

WITH_HEAD = [
    'mmpretrain ResNet',
    'mmpretrain MobileNetV2',
    'mmpretrain ConvNeXt',
    'mmpretrain Swin',
    'timm ResNet',
    'timm EfficientNet',
    'timm ConvNeXt',
    'timm Swin',
    'torchvision ResNet',
    'torchvision MobileNetV2',
    'torchvision GoogLeNet',
    'torchvision ConvNeXt',
    'torchvision Swin',
    'hf ResNet',
    'hf ConvNext',
    'hf Swin',
]
#: These pool their patch tokens, as a CNN its map.
POOLED = ['timm BEiT', 'timm EVA', 'timm ViT_with_registers_alone']
KINDS = ('ViT', 'Vision', 'DeiT', 'Dinov2')
TRANSFORMERS = [name for name in FAMILIES if name not in POOLED and any(kind in name for kind in KINDS)]
#: With an activation between the last map and the classifier that is no module; with a class token that joins late.
OTHERS = ['torchvision DenseNet', 'timm CaiT']


def as_config(name):
    """A network of a family as a config gives it, with that very network in it."""
    network = built(name)
    return dict(type='ModuleClassifier', model=network.model)


def surveyed(name):
    network = built(name)
    found = dry_run(network, 'teacher')
    return network, found, default_taps(network, found)


@pytest.mark.parametrize('name', FAMILIES)
def test_all_that_the_fast_twin_gives_is_the_networks_own(name):
    network, found, taps = surveyed(name)
    network.requires_grad_(False)
    before = copy.deepcopy(network.state_dict())
    inputs = torch.randn(3, 3, *found.size, generator=seeded(1))
    wanted, fast = expected(name, network, inputs), FastNetwork(network)
    with torch.no_grad():
        for names in (list(taps), [*taps][:1], [*taps][1:2], list(taps)):  # the whole pass, and such that end early
            tensors = fast(inputs, {key: taps[key] for key in names})
            assert set(tensors) == set(names)
            for key, read in tensors.items():
                for tensor, its in zip(parts(read), parts(wanted[key]), strict=True):
                    assert (tensor - its).abs().max() < TOLERANCE * its.abs().max().clamp(min=1), key
        assert_close(network(inputs), wanted['logit'])  # the passes that ended early left nothing behind
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize('name', ['torchvision ResNet', 'hf ResNet'])
def test_their_batch_norms_are_folded(name):
    network, found, taps = surveyed(name)
    fast = FastNetwork(network.requires_grad_(False))
    with torch.no_grad():
        fast(torch.randn(3, 3, *found.size), {'logit': taps['logit']})
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast._ready.modules())


@pytest.mark.parametrize('precision', ['bf16'])
@pytest.mark.parametrize('name', ['timm ViT', 'hf Swin', 'torchvision ConvNeXt'])
def test_in_lower_precision(name, precision):
    network, found, taps = surveyed(name)
    inputs = torch.randn(3, 3, *found.size, generator=seeded(1))
    with torch.no_grad():
        tensors = FastNetwork(network.requires_grad_(False), precision)(inputs, taps)
    for key, wanted in expected(name, network, inputs).items():
        for tensor, its in zip(parts(tensors[key]), parts(wanted), strict=True):
            assert tensor.dtype == torch.float32
            assert (tensor - its).abs().max() < 0.1 * its.abs().max(), key


class TestHead:
    def test_each_family_is_here(self):
        assert {*WITH_HEAD, *POOLED, *TRANSFORMERS, *OTHERS} == set(FAMILIES)

    @pytest.mark.parametrize('name', WITH_HEAD + POOLED)
    def test_it_makes_the_networks_scores_of_its_last_map(self, name):
        network, found, taps = surveyed(name)
        network.requires_grad_(False)
        head = find_head(network, found, taps)
        inputs = torch.randn(3, 3, *found.size, generator=seeded(2))
        wanted = expected(name, network, inputs)
        feat = wanted['feat'].requires_grad_()
        logit = head(feat)
        torch.testing.assert_close(logit, wanted['logit'], rtol=1e-3, atol=1e-4)
        logit.square().sum().backward()
        assert feat.grad.any()

    @pytest.mark.parametrize('name', TRANSFORMERS + OTHERS)
    def test_there_is_none_where_something_else_comes_before_the_scores(self, name):
        assert find_head(*surveyed(name)) is None

    @pytest.mark.parametrize('name', ['torchvision ViT', 'timm BEiT', 'timm ResNet'])
    def test_scores_that_are_the_same_for_all_images_prove_nothing(self, name):
        network, found, taps = surveyed(name)
        with torch.no_grad():
            [module for module in network.modules() if isinstance(module, nn.Linear)][-1].weight.zero_()
        assert find_head(network, found, taps) is None

    def test_scores_that_hardly_change_do(self):
        network, found, taps = surveyed('timm ResNet')
        with torch.no_grad():
            network.model.fc.weight.mul_(1e-4)
            network.model.fc.bias.fill_(1)
        assert find_head(network, found, taps) is not None

    def test_a_loss_that_needs_it_says_why_not(self):
        with pytest.raises(ValueError, match=r"unknown input 'teacher_head' \(it needs one teacher whose class scores"):
            build(method('SRRLLoss'), teacher=as_config('timm ViT'))

    def test_srrl_with_a_teacher_of_another_library(self):
        distiller = build(method('SRRLLoss', alpha=0.5, beta=2.0), teacher=as_config('timm ResNet')).eval()
        inputs = images()
        value = distiller.loss(inputs, samples())['loss_srrl']
        network, connectors = distiller.teacher.model, distiller.distill_losses['loss_srrl'].Connectors
        connected = connectors(distiller.student.backbone(inputs)[-1]).mean((2, 3))
        feat_t = network.forward_features(inputs).mean((2, 3))
        logits = [nn.functional.linear(feat, network.fc.weight, network.fc.bias) for feat in (connected, feat_t)]
        wanted = 0.5 * (connected - feat_t).square().mean() + 2 * (logits[0] - logits[1]).square().mean()
        torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-6)
        value.backward()
        assert distiller.student.backbone.conv1.weight.grad.any()
        assert network.fc.weight.grad is None

    def test_of_mapped_classes(self):
        order = [3, 1, 4, 9, 5, 2, 6, 8, 7, 0]
        distiller = build(method('SRRLLoss'), teacher=as_config('timm ResNet'), teacher_classes=order).eval()
        feat = torch.randn(2, 32, 3, 3)
        network = distiller.teacher.model
        wanted = nn.functional.linear(feat.mean((2, 3)), network.fc.weight, network.fc.bias)[:, order]
        torch.testing.assert_close(distiller.teacher_head(feat), wanted)
