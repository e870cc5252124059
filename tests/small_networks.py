"""Small networks of plain PyTorch, for tests of the core."""

import torch
import torch.nn.functional as F
from torch import nn

CLASSES, SIZE = 10, 32


class CNN(nn.Module):
    """A CNN of four stages, each of twice the width of the one before.

    Args:
        width: Channels of the first stage.
        classes: Number of classes.
        norm: Whether there is batch norm.
    """

    def __init__(self, width=4, classes=CLASSES, norm=True):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, 1, 1)
        channels = [width, width, 2 * width, 4 * width, 8 * width]
        for i in range(1, 5):
            convolution = nn.Conv2d(channels[i - 1], channels[i], 3, 2, 1)
            norms = [nn.BatchNorm2d(channels[i])] if norm else []
            setattr(self, f'layer{i}', nn.Sequential(convolution, *norms, nn.ReLU()))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels[4], classes)

    def features(self, images):
        return self.layer4(self.layer3(self.layer2(self.layer1(self.stem(images)))))

    def forward(self, images):
        return self.fc(self.pool(self.features(images)).flatten(1))


class FunctionalHead(CNN):
    """A CNN whose logits are made by functions, not by a module."""

    def forward(self, images):
        return F.log_softmax(F.linear(self.features(images).mean(dim=(2, 3)), self.fc.weight, self.fc.bias), dim=1)


class Adapted(nn.Module):
    """A linear layer with an adapter; it shows the weight of the layer alone, as peft's does."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.adapter = layer, nn.Linear(layer.in_features, layer.out_features)
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x):
        return self.layer(x) + self.adapter(x)


class Encoder(nn.Module):
    """A transformer of torch's own encoder layers."""

    def __init__(self, adapted=(), layer=nn.TransformerEncoderLayer, batch_first=True):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 8, 8)
        self.encoder = nn.TransformerEncoder(
            layer(8, 2, 16, dropout=0, batch_first=batch_first), 2, enable_nested_tensor=False
        )
        self.head = nn.Linear(8, CLASSES)
        for name in adapted:
            part = self.encoder.layers[1]
            setattr(part, name, Adapted(getattr(part, name)))

    def forward(self, images):
        return self.head(self.encoder(self.patches(images).flatten(2).transpose(1, 2)).mean(1))


class WithLogits(CNN):
    """A CNN that returns an object with ``logits``."""

    def forward(self, images):
        return Output(super().forward(images))


class Output:
    """What :class:`WithLogits` returns."""

    def __init__(self, logits):
        self.logits = logits


class Block(nn.Module):
    """A block of a transformer."""

    def __init__(self, width):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, tokens):
        normed = self.norm1(tokens)
        tokens = tokens + self.attn(normed, normed, normed, need_weights=False)[0]
        return tokens + self.mlp(self.norm2(tokens))


class ViT(nn.Module):
    """A vision transformer of four blocks, with a class token and 16 patches."""

    def __init__(self, width=8, classes=CLASSES):
        super().__init__()
        self.patch_embed = nn.Conv2d(3, width, 8, 8)
        self.cls_token = nn.Parameter(torch.randn(1, 1, width))
        self.pos_embed = nn.Parameter(torch.randn(1, 17, width))
        self.blocks = nn.Sequential(*[Block(width) for _ in range(4)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, images):
        patches = self.patch_embed(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(images), -1, -1), patches], dim=1) + self.pos_embed
        return self.head(self.norm(self.blocks(tokens))[:, 0])


def pair(kind=CNN, seed=0, **keywords):
    """A student and a teacher of twice the width, always the same."""
    torch.manual_seed(seed)
    width = 8 if kind is ViT else 4
    return kind(width, **keywords), kind(2 * width, **keywords)


def batch(count=8, classes=CLASSES):
    """Images and class indices, always the same."""
    images = torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    return images, torch.arange(count) % classes
