"""The config of a training from its file and the command line, shared by train and related commands."""

from __future__ import annotations

import argparse

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import IterBasedTrainLoop
from mmpretrain.registry import DATASETS, LOOPS

from ..errors import refusals_named
from ..networks.trial import pipeline_images
from ..recipe.methods import chosen_methods, follow_methods, loss_class, method_entries, select_methods
from .data import images_in
from .extras import check_backends
from .runtime import (
    complete_dataloaders,
    inline_networks,
    is_distiller,
    load_config,
    make_self_contained,
    merge_options,
    need,
)
from .setup import make_resumable


def take_precision(cfg: Config, device: str | None = None) -> None:
    """Set mixed precision for the optimizer wrapper, in place: CUDA's, or bfloat16 on a CPU.

    Args:
        cfg: Config of a training.
        device: Device of the training; None for CUDA if available.
    """
    if torch.device(device).type == 'cuda' if device else torch.cuda.is_available():
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    else:
        cfg.optim_wrapper.type = 'CPUAmpOptimWrapper'


def training_config(args: argparse.Namespace) -> Config:
    """Build the config of a training from file and command line, with defaults filled in.

    Args:
        args: Arguments of :func:`~mmcls_kd.command.arguments.training_parser`; ``resume``, ``auto_scale_lr`` and
            ``no_validate`` are optional.

    Raises:
        FileNotFoundError: If there is no such config.
        ValueError: If it is not one of a training, a method is unknown, or a method counts epochs in a training without
            them.
    """
    cfg = load_config(args)
    need(cfg, 'model', 'train_dataloader', 'train_cfg', 'optim_wrapper')
    inline_networks(cfg)  # so that options reach into them
    if 'methods' in cfg and is_distiller(cfg.model):
        follow_methods(cfg.model, cfg.methods)
    if args.amp:
        take_precision(cfg)
    if resume := getattr(args, 'resume', None):
        cfg.resume = True
        cfg.load_from = None if resume == 'auto' else resume
    if getattr(args, 'auto_scale_lr', False):
        if not cfg.get('auto_scale_lr'):
            raise ValueError('--auto-scale-lr: the config has no auto_scale_lr = dict(base_batch_size=...)')
        cfg.auto_scale_lr.enable = True
    merge_options(cfg, args.cfg_options)
    if getattr(args, 'no_validate', False):
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    methods = args.methods or (args.cfg_options or {}).get('methods')
    if methods is not None:
        select_methods(cfg.model, [methods] if isinstance(methods, str) else methods)
        cfg.methods = methods
    if is_distiller(cfg.model):
        take_images(cfg)
    complete_dataloaders(cfg, not args.no_pin_memory, not args.no_persistent_workers)
    make_resumable(cfg)
    check_schedules(cfg)
    make_self_contained(cfg)
    check_backends(cfg)
    return cfg


def take_images(cfg: Config) -> None:
    """Set a distiller's facts about the training pipeline's images, in place, unless the config has them.

    Args:
        cfg: Config of a training.
    """
    if 'pipeline_pixels' in cfg.model:
        return
    found = pipeline_images(cfg.train_dataloader.dataset)
    if 'to_rgb' in found.pixels:
        cfg.model.setdefault('rgb_images', found.pixels['to_rgb'])
    said = {key: list(found.pixels[key]) for key in ('mean', 'std') if set(found.pixels.get(key, ())) - {0.0, 1.0}}
    if 'size' in found.pixels:
        said['size'] = list(found.pixels['size'])
    if said or found.unclear:
        cfg.model.pipeline_pixels = {**said, **({'unclear': found.unclear} if found.unclear else {})}


def check_schedules(cfg: Config) -> None:
    """Refuse methods that change from epoch to epoch in a training by iterations, which stays in its first epoch.

    Args:
        cfg: Config of a training with a known loop.

    Raises:
        ValueError: Names the method, and the key to set.
    """
    kind = cfg.train_cfg.type
    loop = kind if isinstance(kind, type) else LOOPS.get(kind)
    if not is_distiller(cfg.model) or not (isinstance(loop, type) and issubclass(loop, IterBasedTrainLoop)):
        return
    for method in chosen_methods(cfg.model.get('distill_cfg') or []):
        if method.weight.by_epoch and not method.weight.fixed:
            raise ValueError(
                f'{method.name}: its loss_weight changes with the epochs, which a training by iterations does not count: '
                'give warmup and decay in iterations, and by_epoch=False in loss_weight'
            )
        if method.curriculum is not None:
            raise ValueError(
                f'{method.name}: its curriculum is counted in epochs, which a training by iterations does not count: train '
                'by epochs (train_cfg: by_epoch=True, max_epochs), or leave curriculum out'
            )


def count_samples(cfg: Config) -> None:
    """Set a distiller's number of training images, in place, if one of its methods needs it.

    Args:
        cfg: Config of a training with existing data.

    Raises:
        ValueError: If the data set cannot be built.
    """
    if not is_distiller(cfg.model) or cfg.model.get('num_samples') is not None:
        return
    active = [e for e in method_entries(cfg.model.get('distill_cfg') or []) if e.get('use_this', True)]
    if not any('num_samples' in getattr(loss_class(entry), 'facts', {}).values() for entry in active):
        return
    scope = DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain'))
    with scope, refusals_named('train_dataloader.dataset'):
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
        dataset.full_init()
    cfg.model.num_samples = images_in(dataset)
