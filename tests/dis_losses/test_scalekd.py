"""ScaleKD: its two views against a cosine transform, its projector against its formula, and the teacher's last stage."""

import copy
import math

import pytest
import timm
import torch
import torchvision
from kit import assert_close, seeded
from mmpretrain.registry import MODELS
from scipy.fft import dctn, idctn
from small_networks import CNN, pair
from torch import nn

from mmcls_kd import Distiller
from mmcls_kd.dis_losses import dual_view_loss
from mmcls_kd.dis_losses.scalekd import CrossAttentionProjector
from mmcls_kd.teachers.frozen import FrozenTeacher

SWIN = dict(depths=[1, 1, 2, 1], num_heads=[1, 2, 3, 6])


def normal(*shape, seed=0):
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def without_direct_component(feat):
    """The alternative view as the paper words it: transformed, the first coefficient 0, and back."""
    coefficients = dctn(feat.numpy(), axes=(2, 3), norm='ortho')
    coefficients[:, :, 0, 0] = 0
    return torch.from_numpy(idctn(coefficients, axes=(2, 3), norm='ortho'))


@pytest.mark.parametrize('shape', [(3, 4, 5, 2), (1, 2, 1, 1), (2, 3, 7, 7)])
def test_the_views(shape):
    feat_s, feat_t = normal(*shape, seed=1), normal(*shape, seed=2)
    first = sum((s - t) ** 2 for s, t in zip(feat_s.flatten().tolist(), feat_t.flatten().tolist(), strict=True))
    views = [without_direct_component(feat).flatten().tolist() for feat in (feat_s, feat_t)]
    second = sum((s - t) ** 2 for s, t in zip(*views, strict=True))
    expected = torch.tensor((0.3 * first + 0.7 * second) / feat_s.numel(), dtype=torch.float64)
    assert_close(dual_view_loss(feat_s, feat_t, 0.3, 0.7), expected)


def normed(x):
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()


@pytest.mark.parametrize('own_query', [True, False])
def test_the_projector(own_query):
    torch.manual_seed(0)
    projector = CrossAttentionProjector(3, 4, (2, 3), heads=2, own_query=own_query).double()
    feat, query = normal(2, 3, 2, 3, seed=3), None if own_query else normal(2, 4, 2, 3, seed=4)
    tokens = torch.einsum('dc,nchw->ndhw', projector.patches.weight[:, :, 0, 0], feat)
    tokens = tokens + projector.patches.bias[None, :, None, None] + projector.position
    tokens = normed(tokens.flatten(2).transpose(1, 2))
    wanted = (projector.query.expand(2, -1, -1, -1) if own_query else query).flatten(2).transpose(1, 2)
    weights, biases = (value.chunk(3) for value in (projector.attention.in_proj_weight, projector.attention.in_proj_bias))
    read = (normed(wanted), tokens, tokens)
    q, k, v = (x @ weight.T + bias for x, weight, bias in zip(read, weights, biases, strict=True))
    heads = []
    for part in (slice(0, 2), slice(2, 4)):
        attention = (q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(2)).softmax(-1)
        heads.append(attention @ v[..., part])
    out = projector.attention.out_proj
    found = wanted + torch.cat(heads, -1) @ out.weight.T + out.bias
    inner = normed(found) @ projector.mlp[0].weight.T + projector.mlp[0].bias
    inner = 0.5 * inner * (1 + torch.erf(inner / math.sqrt(2)))
    found = found + inner @ projector.mlp[2].weight.T + projector.mlp[2].bias
    assert_close(projector(feat, (2, 3), query), found.transpose(1, 2).reshape(2, 4, 2, 3))


def classifier(backbone, channels):
    head = dict(type='LinearClsHead', num_classes=5, in_channels=channels)
    return MODELS.build(dict(type='ImageClassifier', backbone=backbone, neck=dict(type='GlobalAveragePooling'), head=head))


NETWORKS = {
    'ResNet of mmpretrain': (lambda: classifier(dict(type='ResNet', depth=18), 512), 64),
    'Swin of mmpretrain': (
        lambda: classifier(dict(type='SwinTransformer', arch=dict(embed_dims=24, **SWIN)), 192),
        224,
    ),
    'Swin of timm': (lambda: timm.create_model('swin_tiny_patch4_window7_224', embed_dim=24, num_classes=5, **SWIN), 224),
    'MLP-Mixer of timm': (lambda: timm.create_model('mixer_s32_224', num_classes=5), 224),
    'ResNet of torchvision': (lambda: torchvision.models.resnet18(num_classes=5), 64),
    'plain': (CNN, 32),
}


@pytest.mark.parametrize(('network', 'size'), NETWORKS.values(), ids=NETWORKS)
def test_the_last_stage_of_a_teacher_is_found(network, size):
    torch.manual_seed(0)
    teacher = FrozenTeacher(network(), size=(size, size))
    found = teacher(torch.randn(3, 3, size, size, generator=seeded(1)), None, ['stages', 'feat'])
    assert copy.deepcopy(teacher.tail) is teacher.tail
    with torch.no_grad():
        torch.testing.assert_close(teacher.tail(found['stages'][-2]), found['feat'], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('name', ['vit_tiny_patch16_224', 'deit_tiny_patch16_224'])
def test_a_class_token_is_in_the_way(name):
    assert FrozenTeacher(timm.create_model(name, depth=4, num_classes=5), size=(224, 224)).tail is None


def test_features_pass_through_the_teacher_which_learns_nothing():
    student, teacher = pair()
    distiller = Distiller(student, teacher, dict(scalekd='scalekd'))
    before = copy.deepcopy(teacher.state_dict())
    out = distiller(torch.randn(2, 3, 32, 32, generator=seeded(0)), torch.tensor([0, 1]))
    out['loss'].backward()
    projectors = distiller.distill_losses['scalekd'].projectors
    assert projectors[0].query.grad.abs().sum() > 0
    assert projectors[1].query is None
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not [name for name in distiller.state_dict() if 'tail' in name]
    assert not [part for part in distiller.modules() if part is teacher.layer4]


def test_without_perception_the_last_queries_are_trained():
    student, teacher = pair()
    distiller = Distiller(student, teacher, dict(scalekd=dict(type='scalekd', perception=False)))
    value = distiller(torch.randn(2, 3, 32, 32, generator=seeded(0)), torch.tensor([0, 1]))['scalekd']
    value.backward()
    assert distiller.distill_losses['scalekd'].projectors[1].query.grad.abs().sum() > 0


@pytest.mark.parametrize('heads', [[3, 8], [4], [1, 5]])
def test_heads_that_do_not_divide(heads):
    with pytest.raises(ValueError, match=r'scalekd: heads=.*: give two numbers that divide \[32, 64\]'):
        Distiller(*pair(), dict(scalekd=dict(type='scalekd', heads=heads)))


def test_one_stage_is_too_few():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    with pytest.raises(ValueError, match=r"scalekd .*unknown input 'stages_s'"):
        Distiller(network, CNN(), 'scalekd')
