"""Fake quantisation: the numbers of int8, the gradients of float, and a network that is otherwise left alone."""

import numpy as np
import pytest
import torch
from kit import assert_close
from torch import nn
from torch.nn.utils import fuse_conv_bn_eval
from torch.utils.checkpoint import checkpoint

from mmcls_kd.recipe.fake_quant import FakeQuantisation, quantised_input, quantised_weight


def rounded(values, scale, zero, least, most):
    """8-bit numbers as ONNX's QuantizeLinear and DequantizeLinear make them, in float64."""
    integers = np.clip(np.rint(np.asarray(values, dtype=np.float64) / scale) + zero, least, most)
    return (integers - zero) * scale


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    )


class TestNumbers:
    def test_a_weight_has_a_scale_for_each_output_channel(self):
        weight = torch.randn(6, 4, 3, 3) * torch.logspace(-3, 3, 6)[:, None, None, None]
        expected = [rounded(w, np.abs(w).max() / 127, 0, -127, 127) for w in weight.double().numpy()]
        assert_close(quantised_weight(weight), torch.tensor(np.stack(expected)).float())

    def test_the_rounding_of_a_weight_is_that_of_the_folded_one(self):
        conv, norm = nn.Conv2d(3, 8, 3).eval(), nn.BatchNorm2d(8).eval()
        nn.init.normal_(norm.weight)  # of both signs
        norm.running_var.uniform_(0.5, 2)
        folded = fuse_conv_bn_eval(conv, norm).weight
        conv.weight = nn.Parameter(quantised_weight(conv.weight))
        assert_close(quantised_weight(folded), fuse_conv_bn_eval(conv, norm).weight)

    @pytest.mark.parametrize('low', [-3.0, 0.0, 1.0])
    def test_an_input_has_one_scale_over_a_range_with_zero(self, low):
        values = torch.rand(64) * 5 + low
        least, most = min(values.min().item(), 0), max(values.max().item(), 0)
        scale = (most - least) / 255
        expected = rounded(values, scale, np.rint(-least / scale), 0, 255)
        assert_close(quantised_input(values), torch.tensor(expected).float())

    def test_a_symmetric_input_has_the_zero_point_0(self):
        values = torch.randn(64)
        expected = rounded(values, values.abs().max().item() / 127, 0, -127, 127)
        assert_close(quantised_input(values, symmetric=True), torch.tensor(expected).float())

    @pytest.mark.parametrize('symmetric', [False, True])
    def test_zeros_stay_zeros_and_nan_stays_nan(self, symmetric):
        assert not quantised_input(torch.zeros(4), symmetric).any()
        assert not quantised_weight(torch.zeros(4, 2)).any()
        assert quantised_input(torch.tensor([1.0, torch.nan]), symmetric).isnan().any()

    @pytest.mark.parametrize('symmetric', [False, True])
    def test_gradients_pass_through(self, symmetric):
        for round_, shape in ((quantised_weight, (4, 9)), (lambda x: quantised_input(x, symmetric), (50,))):
            values = torch.randn(shape, requires_grad=True)
            factor = torch.randn(shape)
            (round_(values) * factor).sum().backward()
            assert_close(values.grad, factor)

    def test_half_precision_is_kept(self):
        assert quantised_input(torch.randn(8).bfloat16()).dtype == torch.bfloat16


class TestNetwork:
    def test_computes_with_rounded_weights_and_inputs_in_training(self):
        net = network().train()
        images = torch.randn(2, 3, 8, 8)
        plain = network().train()
        x = nn.functional.conv2d(quantised_input(images), quantised_weight(plain[0].weight))
        x = plain[1](x).relu().mean((2, 3))
        expected = nn.functional.linear(quantised_input(x), quantised_weight(plain[5].weight), plain[5].bias)
        FakeQuantisation(net)
        assert_close(net(images), expected)

    def test_is_the_float_one_in_eval_mode_and_after_removal(self):
        net, plain, images = network().eval(), network().eval(), torch.randn(2, 3, 8, 8)
        quantisation = FakeQuantisation(net)
        assert torch.equal(net(images), plain(images))
        quantisation.remove()
        assert torch.equal(net.train()(images), plain.train()(images))

    def test_keeps_its_parameters(self):
        net = network()
        names, parameters = list(net.state_dict()), list(net.parameters())
        FakeQuantisation(net)
        net.train()(torch.randn(2, 3, 8, 8)).square().sum().backward()
        assert list(net.state_dict()) == names
        assert all(new is old for new, old in zip(net.parameters(), parameters, strict=True))
        assert all(parameter.grad.abs().sum() > 0 for parameter in net.parameters())

    def test_is_whole_after_an_error(self):
        net = network().train()
        FakeQuantisation(net)
        with pytest.raises(RuntimeError):
            net(torch.randn(2, 5, 8, 8))
        assert isinstance(net[0].weight, nn.Parameter)
        assert 'weight' in net[0]._parameters

    def test_gradients_are_the_same_under_checkpointing(self):
        images, gradients = torch.randn(2, 3, 8, 8), []
        for run in (lambda net: net(images), lambda net: checkpoint(net, images, use_reentrant=False)):
            net = network().train()
            FakeQuantisation(net)
            run(net).square().sum().backward()
            gradients.append([parameter.grad for parameter in net.parameters()])
        for one, other in zip(*gradients, strict=True):
            assert_close(one, other)

    def test_layers_are_those_that_the_network_calls(self):
        net = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).train()
        layers, called = FakeQuantisation(net).layers, set()
        for name, module in net.named_modules():
            module.register_forward_hook(lambda *_, name=name: called.add(name))
        net(torch.randn(2, 3, 8))
        assert set(layers) == {'linear1', 'linear2'} <= called

    def test_an_attention_that_calls_its_projection_keeps_it(self):
        class Attention(nn.MultiheadAttention):
            def forward(self, x):
                return self.out_proj(x)

        assert [*FakeQuantisation(Attention(8, 2)).layers] == ['out_proj']

    def test_a_weight_that_is_computed_in_each_pass_is_refused(self):
        normed = network()
        torch.nn.utils.parametrizations.weight_norm(normed[0])
        with pytest.raises(ValueError, match=r'the weight of 0 is computed in each pass .weight norm'):
            FakeQuantisation(normed)

    def test_without_a_layer_is_refused(self):
        with pytest.raises(ValueError, match='ReLU has no convolution and no linear layer to quantise'):
            FakeQuantisation(nn.ReLU())
