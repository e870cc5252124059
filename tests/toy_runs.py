"""Trains a small network on a few numbers in this process, through mmengine's runner: a run takes tenths of a second."""

import itertools

import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmpretrain.registry import DATASETS, MODELS
from mmpretrain.structures import DataSample
from torch import nn

import mmcls_kd  # noqa: F401  (registers loops and hooks)

NUMBERS = itertools.count()


@DATASETS.register_module()
class ToyData:
    """Numbers, and what is to be told of them."""

    metainfo = {}

    def __init__(self, size=12, first=0):
        self.size, self.first = size, first

    def __len__(self):
        return self.size

    def get_data_info(self, index):
        return dict(img_path=f'{self.first + index}.png', gt_label=index % 2)

    def __getitem__(self, index):
        x = torch.sin(torch.arange(4.0) + int(index))
        sample = DataSample(metainfo=dict(sample_idx=int(index)))
        sample.set_field(x.sum(), 'target')
        return dict(inputs=x, data_samples=sample)


@MODELS.register_module()
class ToyModel(BaseModel):
    """Two linear layers; its gradient can be made NaN, with a loss that is none."""

    def __init__(self, nan_gradient_at=(), nan_at=()):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
        self.nan_gradient_at, self.nan_at = nan_gradient_at, nan_at

    def forward(self, inputs, data_samples, mode='loss'):
        error = self.layers(torch.stack(inputs)).squeeze(1) - torch.stack([sample.target for sample in data_samples])
        loss = error.square().mean()
        iteration = MessageHub.get_current_instance().get_info('iter', 0)
        if iteration in self.nan_gradient_at:
            loss = loss + (error - error.detach()).square().sum().sqrt()
        if iteration in self.nan_at:
            loss = loss * float('nan')
        return dict(loss=loss)


def toy_config(work_dir, **changes):
    """The config of a run of four epochs with three batches each; keys with dots reach into it."""
    cfg = Config(
        dict(
            model=dict(type='ToyModel'),
            work_dir=str(work_dir),
            default_scope='mmpretrain',
            log_level='WARNING',
            experiment_name=f'toy{next(NUMBERS)}',  # mmengine keeps logs by name for as long as the process lives
            train_dataloader=dict(
                batch_size=4, dataset=dict(type='ToyData'), sampler=dict(type='DefaultSampler', shuffle=True), num_workers=0
            ),
            train_cfg=dict(type='ResumableEpochLoop', max_epochs=4),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
            param_scheduler=dict(type='CosineAnnealingLR', by_epoch=True, convert_to_iter_based=True, T_max=4),
            default_hooks=dict(checkpoint=dict(type='ResumableCheckpointHook', interval=1)),
            randomness=dict(seed=0),
        )
    )
    cfg.merge_from_dict({k: v for k, v in changes.items() if k not in cfg})
    for name in changes.keys() & cfg.keys():
        cfg[name] = changes[name]
    return cfg


def toy_runner(work_dir, resume=None, **changes):
    """The runner of such a run; from a checkpoint on, if one is given."""
    cfg = toy_config(work_dir, **changes)
    if resume is not None:
        cfg.load_from, cfg.resume = str(resume), True
    return Runner.from_cfg(cfg)


def toy_run(work_dir, resume=None, **changes):
    """Train so; returns the runner."""
    runner = toy_runner(work_dir, resume, **changes)
    runner.train()
    return runner


def rates(runner):
    """The learning rate of each iteration."""
    return runner.message_hub.get_scalar('train/lr').data[0].tolist()
