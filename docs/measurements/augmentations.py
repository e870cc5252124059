"""Measure a training's dataloader on 10,000 random images of CIFAR's size: image by image, and from memory.

python docs/measurements/augmentations.py
"""

import warnings
from statistics import median
from time import process_time

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmpretrain.registry import DATASETS

from mmcls_kd.engine.data import batches_from, reproducible

IMAGES, BATCH, ROUNDS = 10_000, 128, 5
CROP = [dict(type='RandomCrop', crop_size=32, padding=4), dict(type='RandomFlip', prob=0.5)]
COLOURS = dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4)
TIMM = dict(type='RandAugment', policies='timm_increasing', num_policies=2, magnitude_level=9, magnitude_std=0.5)
PIPELINES = {
    'crop, flip': CROP,
    '… `RandomErasing`': [*CROP, dict(type='RandomErasing')],
    "… `RandomErasing(mode='rand')`": [*CROP, dict(type='RandomErasing', mode='rand')],
    '… `ColorJitter` without hue': [*CROP, COLOURS],
    '… `ColorJitter` with hue': [*CROP, dict(COLOURS, hue=0.1)],
    '… `RandAugment`': [*CROP, TIMM],
    '… `AutoAugment`': [*CROP, dict(type='AutoAugment', policies='imagenet')],
    '`RandomResizedCrop`, flip': [dict(type='RandomResizedCrop', scale=32), CROP[1]],
    'two views': [dict(type='TwoViews', weak=CROP)],
    "… `ColorJitter(backend='cv2')`": [*CROP, dict(COLOURS, backend='cv2')],
}


@DATASETS.register_module()
class RandomImages(BaseDataset):
    """Images of random pixels."""

    def load_data_list(self):
        """Make the images."""
        images = np.random.RandomState(0).randint(0, 256, (IMAGES, 32, 32, 3)).astype(np.uint8)
        return [dict(img=image, gt_label=number % 10) for number, image in enumerate(images)]


def build(pipeline, in_memory):
    """Build a dataloader."""
    cfg = dict(
        batch_size=BATCH,
        num_workers=0,
        persistent_workers=False,
        collate_fn=dict(type='default_collate'),
        dataset=dict(type='RandomImages', pipeline=[*pipeline, dict(type='PackInputs')]),
        sampler=dict(type='DefaultSampler', shuffle=True),
    )
    return Runner.build_dataloader(reproducible(cfg, 0, in_memory=in_memory), seed=0)


def speed(loader):
    """Return the images of a pass by seconds of processor time."""
    start = process_time()
    images = sum(len(batch['data_samples']) for batch in batches_from(loader, 0))
    return images / (process_time() - start)


if __name__ == '__main__':
    warnings.simplefilter('ignore')
    torch.set_num_threads(1)
    init_default_scope('mmpretrain')
    print('| transforms | image by image | in memory | ratio |\n| --- | --- | --- | --- |')
    for name, pipeline in PIPELINES.items():
        loaders = [build(pipeline, in_memory) for in_memory in (False, True)]
        speed(loaders[1])  # reads the images
        alone, kept = map(median, zip(*([speed(loader) for loader in loaders] for _ in range(ROUNDS)), strict=True))
        print(f'| {name} | {alone:,.0f} | {kept:,.0f} | {kept / alone:.1f} × |', flush=True)
