"""DeiT-III's block against the formula of the paper, and mmpretrain's still being wrong."""

import torch
import torch.nn.functional as F
from mmpretrain.models.backbones.deit3 import DeiT3 as UpstreamDeiT3
from mmpretrain.registry import MODELS

from mmcls_kd.backbones import DeiT3

ARCH = dict(embed_dims=12, num_layers=2, num_heads=3, feedforward_channels=20)


def randomised(kind):
    """A network whose every parameter matters: norms and layer scales far from 1 and 0."""
    torch.manual_seed(0)
    network = kind(arch=ARCH, img_size=16, patch_size=8).double()
    network.eval()  # returns nothing
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return network


def paper_block(block, x):
    """x + γ₁ attention(norm₁ x), then x + γ₂ feed-forward(norm₂ x), in elementary steps (arXiv 2204.07118, 3.1)."""

    def norm(layer, value):
        mean = value.mean(-1, keepdim=True)
        variance = ((value - mean) ** 2).mean(-1, keepdim=True)
        return (value - mean) / (variance + layer.eps).sqrt() * layer.weight + layer.bias

    n, length, width = x.shape
    heads = ARCH['num_heads']
    qkv = norm(block.ln1, x) @ block.attn.qkv.weight.T + block.attn.qkv.bias
    q, k, v = qkv.reshape(n, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    attention = (q @ k.transpose(-1, -2) / (width // heads) ** 0.5).softmax(-1) @ v
    attention = attention.transpose(1, 2).reshape(n, length, width)
    x = x + block.attn.gamma1.weight * (attention @ block.attn.proj.weight.T + block.attn.proj.bias)

    first, second = block.ffn.layers[0][0], block.ffn.layers[1]
    hidden = F.gelu(norm(block.ln2, x) @ first.weight.T + first.bias)
    return x + block.ffn.gamma2.weight * (hidden @ second.weight.T + second.bias)


def test_the_block_is_the_papers():
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    for block in randomised(DeiT3).layers:
        torch.testing.assert_close(block(x), paper_block(block, x))


def test_upstream_is_still_wrong():
    """When this fails, mmpretrain has mended its DeiT3: drop ours, and the note in README and vitkd.md."""
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    for block in randomised(UpstreamDeiT3).layers:
        assert not torch.allclose(block(x), paper_block(block, x))


def test_the_whole_network_applies_its_blocks():
    network = randomised(DeiT3)
    image = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    patches = network.patch_embed(image)[0] + network.pos_embed
    x = torch.cat([network.cls_token.expand(2, -1, -1), patches], 1)
    for block in network.layers:
        x = paper_block(block, x)
    torch.testing.assert_close(network(image)[0], network.ln1(x)[:, 0])


def test_weights_of_upstream_load():
    upstream, ours = randomised(UpstreamDeiT3), randomised(DeiT3)
    ours.load_state_dict(upstream.state_dict(), strict=True)


def test_it_takes_the_place_of_upstreams_and_says_so_where_it_is_used(monkeypatch):
    said = []
    monkeypatch.setattr('mmcls_kd.backbones.deit3.print_log', lambda text, *_: said.append(text))
    assert MODELS.get('DeiT3') is DeiT3
    randomised(DeiT3)
    assert len(said) == 1
    assert said[0].startswith("mmcls_kd's DeiT3 takes the place of mmpretrain's")
