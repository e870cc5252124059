import torch
from mmpretrain.registry import MODELS
from torch import nn

from mmcls_kd.networks.sources import network_cfg


def build():
    return MODELS.build(network_cfg('configs/mobilenet_v1/mobilenet_v1.py'))


def test_parameters_as_published():
    assert sum(p.numel() for p in build().parameters()) == 4_231_976


def test_outputs_after_model_and_after_s4():
    mid, last = build().backbone(torch.zeros(1, 3, 64, 64))
    assert mid.shape == (1, 512, 4, 4)
    assert last.shape == (1, 1024, 2, 2)


def test_units_by_the_table_of_the_paper():
    backbone = build().backbone
    assert len(backbone.model) == 12
    assert len(backbone.s4) == 2
    stem, units = backbone.model[0], [*backbone.model[1:], *backbone.s4]
    assert [type(m) for m in stem] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    assert (stem[0].out_channels, stem[0].stride) == (32, (2, 2))
    widths = [32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024]
    strides = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1]
    for unit, width, following, stride in zip(units, widths[:-1], widths[1:], strides, strict=True):
        depthwise, _, _, pointwise, _, _ = unit
        assert [type(m) for m in unit] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU] * 2
        assert (depthwise.groups, depthwise.kernel_size, depthwise.stride) == (width, (3, 3), (stride, stride))
        assert (pointwise.kernel_size, pointwise.out_channels) == ((1, 1), following)
        assert depthwise.bias is None
        assert pointwise.bias is None


def test_initialisation():
    network = build()
    nn.init.zeros_(network.backbone.model[0][0].weight)
    network.init_weights()
    conv = network.backbone.s4[1][3].weight
    assert abs(conv.std().item() / (2 / 1024) ** 0.5 - 1) < 0.02  # Kaiming, fan out
    assert network.backbone.model[0][0].weight.any()
    assert (network.backbone.model[0][1].weight == 1).all()
