"""The benchmark's networks against the published ones: names, shapes, recorded values."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from formula import fill, images
from torch import nn

from mmcls_kd.backbones.cifar_benchmark import NETWORKS, build
from mmcls_kd.networks.sources import find_network

DATA = Path(__file__).parent.parent / 'data'
FACTS = json.loads((DATA / 'cifar_nets.json').read_text())
RECORDED = ('resnet20', 'resnet8x4', 'wrn_16_2', 'vgg8', 'ShuffleV2')


def made(name, **keywords):
    with torch.device('meta'):
        return build(name, **keywords)


@pytest.mark.parametrize('name', FACTS['networks'])
def test_names_shapes_and_parameters(name):
    facts, network = FACTS['networks'][name], made(name)
    assert [(k, list(v.shape)) for k, v in network.state_dict().items()] == list(facts['keys'].items())
    assert sum(p.numel() for p in network.parameters()) == facts['parameters']
    assert isinstance(network.get_submodule(facts['classifier'][0]), nn.Linear)
    features, preacts, logit = network.eval().features(torch.empty(2, 3, 32, 32, device='meta'))
    assert [list(f.shape[1:]) for f in features] == facts['feature_shapes']
    assert logit.shape == (2, 100)
    assert preacts is None or [p.shape for p in preacts] == [f.shape for f in features]


def test_tiny_imagenets_teacher():
    facts, network = FACTS['extra']['ResNet18'], made('ResNet18', num_classes=200)
    assert [(k, list(v.shape)) for k, v in network.state_dict().items()] == list(facts['keys'].items())
    assert sum(p.numel() for p in network.parameters()) == facts['parameters']
    features, preacts, logit = network.eval().features(torch.empty(2, 3, 64, 64, device='meta'))
    assert [tuple(f.shape[1:]) for f in features[:-1]] == [(64, 64, 64)] * 2 + [(128, 32, 32), (256, 16, 16), (512, 8, 8)]
    assert logit.shape == (2, 200)
    assert [norm.num_features for norm in network.bn_before_relu()] == [64, 128, 256, 512]
    assert len(preacts) == len(features)


def test_every_network_is_there():
    assert set(NETWORKS) >= set(FACTS['networks'])
    assert len(FACTS['networks']) == 22


@pytest.mark.parametrize('name', FACTS['networks'])
def test_norms_before_the_relu(name):
    network, facts = made(name), FACTS['networks'][name]
    named = {id(module): path for path, module in network.named_modules()}
    if name in ('MobileNetV2', 'ShuffleV1', 'ShuffleV2'):
        with pytest.raises(ValueError, match=f'{name} has no batch norm alone before the ReLU of each stage: '):
            network.bn_before_relu()
        return
    norms = network.bn_before_relu()
    assert [f'{named[id(norm)]}:{type(norm).__name__}' for norm in norms] == facts['bn_before_relu']
    assert len(norms) == len(network.stage_places)


@pytest.mark.parametrize('name', RECORDED)
def test_recorded_values(name):
    recorded = np.load(DATA / 'cifar_nets.npz')
    network = build(name).double().eval()
    fill(network)
    with torch.no_grad():
        features, preacts, logit = network.features(images().double())
    close(logit.numpy(), recorded[f'{name}/logits'])
    close(network(images().double()).detach().numpy(), recorded[f'{name}/logits'])
    for kind, tensors in (('feat', features), ('preact', preacts)):
        assert len(tensors) == recorded[f'{name}/{kind}.count']
        for i, tensor in enumerate(tensors):
            found, key = tensor.numpy(), f'{name}/{kind}{i}'
            assert list(found.shape) == list(recorded[f'{key}.shape'])
            close(found.sum(), recorded[f'{key}.sum'])
            close(np.linalg.norm(found), recorded[f'{key}.norm'])
            close(found.flatten()[np.linspace(0, found.size - 1, 16).astype(int)], recorded[f'{key}.sample'])


def close(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize('name', [*RECORDED, 'resnet14', 'MobileNetV2', 'ShuffleV1'])
def test_training_mode_is_the_network_of_its_batch_statistics(name):
    """One pass with momentum 1 stores the batch's statistics: with these, eval mode gives the same, in each feature."""
    torch.manual_seed(0)
    network = build(name, num_classes=10).double()
    fill(network)
    batch = torch.randn(2, 3, 32, 32).double()
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    elements = {}
    for norm in norms:
        norm.momentum = 1.0
        norm.register_forward_hook(lambda m, args, _: elements.__setitem__(m, args[0].numel() / args[0].shape[1]))
    with torch.no_grad():
        wanted = network.train().features(batch)
        assert {int(norm.num_batches_tracked) for norm in norms} == {1}  # the reading of features runs no norm twice
        for norm in norms:
            norm.running_var *= (elements[norm] - 1) / elements[norm]  # torch stores the unbiased one
        found = network.eval().features(batch)
    for one, other in zip(found, wanted, strict=True):
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize('name', ['resnet8', 'vgg8', 'ShuffleV1', 'ShuffleV2'])
def test_stages_are_activated_maps_before_the_relu(name):
    features, preacts, _ = build(name).features(torch.randn(2, 3, 32, 32))
    for feature, preact in zip(features[1:-1], preacts[1:-1], strict=True):
        found = preact.relu()
        if name == 'ShuffleV2':  # which interleaves its two halves afterwards
            found = torch.stack(found.chunk(2, dim=1), dim=2).flatten(1, 2)
        assert (preact < 0).any()
        assert torch.equal(found, feature)


@torch.no_grad()
def test_initialisation():
    torch.manual_seed(0)
    wrn, vgg, mobile, resnet = (build(name) for name in ('wrn_16_2', 'vgg8', 'MobileNetV2', 'resnet20'))
    assert wrn.block3.layer[1].conv2.weight.std() == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.02)
    assert not wrn.fc.bias.any()
    assert resnet.layer3[1].conv1.weight.std() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)
    assert resnet.fc.bias.any()
    assert vgg.block3[0].weight.std() == pytest.approx((2 / (9 * 512)) ** 0.5, rel=0.02)
    assert not vgg.block3[0].bias.any()
    assert vgg.classifier.weight.std() == pytest.approx(0.01, rel=0.02)
    depthwise = mobile.blocks[6][0].conv[3].weight
    assert depthwise.std() == pytest.approx((2 / (9 * 480)) ** 0.5, rel=0.05)
    assert mobile.classifier[0].weight.std() == pytest.approx(0.01, rel=0.02)


@pytest.mark.parametrize('name', ['resnet8', 'wrn_16_1', 'vgg8', 'ShuffleV2', 'MobileNetV2'])
def test_larger_images_and_other_classes(name):
    features, _, logit = made(name, num_classes=7).eval().features(torch.empty(2, 3, 64, 64, device='meta'))
    assert logit.shape == (2, 7)
    assert features[-2].shape[-1] == {'resnet8': 16, 'wrn_16_1': 16, 'vgg8': 4, 'ShuffleV2': 8, 'MobileNetV2': 4}[name]


def test_unknown_name():
    with pytest.raises(ValueError, match="the CIFAR benchmark has no network 'resnet32x'; did you mean 'resnet32x4'"):
        build('resnet32x')
    with pytest.raises(ValueError, match="no network 'resnet32x'; did you mean 'resnet32x4'.*; it has .*MobileNetV2"):
        find_network('cifar:resnet32x')


def test_needs_torch_alone():
    code = (
        'import sys; from mmcls_kd.backbones.cifar_benchmark import build; build("resnet8"); '
        'print(sorted({"mmengine", "mmpretrain", "mmcv", "torchvision"} & set(sys.modules)))'
    )
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout == '[]\n'
