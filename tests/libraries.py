"""Tiny networks of other libraries than mmpretrain, and files of them, made here."""

import contextlib
import io

import torch
from torch import nn

SIZE, CLASSES = 32, 10


def timm_resnet(**keywords):
    """A ResNet of timm."""
    return dict(type='TimmClassifier', model_name='test_resnet', num_classes=CLASSES, **keywords)


def timm_vit(**keywords):
    """A vision transformer of timm."""
    sizes = dict(img_size=SIZE, patch_size=8, embed_dim=16, depth=2, num_heads=2)
    return dict(type='TimmClassifier', model_name='test_vit', num_classes=CLASSES, **sizes, **keywords)


def torchvision_vit(**keywords):
    """A vision transformer of torchvision, by its import path."""
    sizes = dict(image_size=SIZE, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32)
    return dict(type='torchvision.models.VisionTransformer', num_classes=CLASSES, **sizes, **keywords)


def torchvision_cnn(**keywords):
    """One of torchvision's smallest classifiers."""
    return dict(type='TorchvisionClassifier', model_name='shufflenet_v2_x0_5', num_classes=CLASSES, **keywords)


def hugging_face(folder, processor=None, labels=None, size=SIZE, patch_size=8, seed=0, **save):
    """A folder with a vision transformer as Hugging Face saves it; returns the network."""
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(seed)
    sizes = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    names = dict(id2label=dict(enumerate(labels))) if labels else dict(num_labels=CLASSES)
    network = ViTForImageClassification(ViTConfig(**sizes, image_size=size, patch_size=patch_size, **names)).eval()
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
        network.save_pretrained(folder, **save)
    if processor:
        processor.save_pretrained(folder)
    return network


class Plain(nn.Module):
    """A classifier of nobody's library, given by its import path."""

    def __init__(self, width=8, classes=CLASSES):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.fc = nn.Linear(width, classes)

    def forward(self, images):
        return self.fc(self.stem(images).relu().mean(dim=(2, 3)))


class SelfMade(Plain):
    """One with an ``init_weights`` of its own, which mmengine would call."""

    def init_weights(self):
        """Forget everything."""
        for parameter in self.parameters():
            nn.init.zeros_(parameter)


def make_plain(width=4):
    """A function that makes a network."""
    return Plain(width)


class Answer(nn.Module):
    """A network that returns what is no tensor of scores."""

    def forward(self, images):
        return {'scores': images.mean(dim=(2, 3))}
