"""Tiny networks, batches and distillers that the tests share."""

import copy

import numpy as np
import torch
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

import mmcls_kd  # noqa: F401  (registers)
from mmcls_kd.teachers.store import Manifest, Shard, save

CLASSES = 10


def resnet(width=4, classes=CLASSES, **classifier):
    """A ResNet-18 for 32 × 32 images whose last stage has 8 × width channels."""
    return dict(
        type='ImageClassifier',
        backbone=dict(type='ResNet_CIFAR', depth=18, stem_channels=width, base_channels=width, strides=(2, 2, 2, 1)),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=classes, in_channels=8 * width, loss=dict(type='CrossEntropyLoss')),
        **classifier,
    )


def vit(width=16, kind='VisionTransformer', classes=CLASSES, **classifier):
    """A vision transformer of four blocks, with 16 patches in a 32 × 32 image."""
    arch = dict(embed_dims=width, num_layers=4, num_heads=2, feedforward_channels=2 * width)
    return dict(
        type='ImageClassifier',
        backbone=dict(type=kind, arch=arch, img_size=32, patch_size=8),
        head=dict(
            type='VisionTransformerClsHead', num_classes=classes, in_channels=width, loss=dict(type='CrossEntropyLoss')
        ),
        **classifier,
    )


def method(kind, name=None, **keywords):
    """One group of a ``distill_cfg``."""
    return dict(methods=[dict(type=kind, name=name or f'loss_{kind.removesuffix("Loss").lower()}', **keywords)])


def build(*methods, student=None, teacher=None, **keywords):
    """A distiller of tiny networks with the given groups of methods; the teacher has random weights."""
    keywords.setdefault('teacher_pretrained', False)
    cfg = dict(
        type='ClassificationDistiller',
        teacher_cfg=copy.deepcopy(teacher or resnet(8)),
        student_cfg=copy.deepcopy(student or resnet(4)),
        distill_cfg=list(methods),
        **keywords,
    )
    return MODELS.build(cfg)


def samples(count=4, classes=CLASSES, soft=False):
    """Data samples with labels 0, 1, 2, ..., and as scores 0.7 of it and 0.3 of the next class."""
    result = []
    for i in range(count):
        sample = DataSample(metainfo=dict(sample_idx=i)).set_gt_label(i % classes)
        if soft:
            score = torch.zeros(classes)
            score[i % classes], score[(i + 1) % classes] = 0.7, 0.3
            sample.set_gt_score(score)
        result.append(sample)
    return result


def images(count=4, size=32, seed=0):
    """Random images, already normalised."""
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def batch(count=4, size=32, classes=CLASSES):
    """A batch as a dataloader gives it: raw images and samples."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
    return dict(inputs=inputs, data_samples=samples(count, classes))


def store_of_logits(folder):
    """A teacher store of eight views' logits, all zero."""
    manifest = Manifest({}, {}, 10, 10, 1, 8, 8, epochs=1)
    save(folder, Shard(0, 0, 0), np.zeros(8, manifest.record_type))
    manifest.write(folder)
