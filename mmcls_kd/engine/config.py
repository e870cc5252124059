"""The config of a run: from its file and the command line, with defaults filled in."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.registry import DefaultScope
from mmengine.runner import IterBasedTrainLoop, Runner
from mmpretrain.registry import DATASETS, LOOPS

from ..configs.reading import RunConfig, read_config
from ..distillers.recipe import Recipe
from ..errors import close_names, refusals_named
from ..files.paths import absolute
from ..networks.sources import kind_of
from .data import images_in
from .extras import check_backends
from .knn_hook import AGREEMENT
from .runtime import start_process
from .unlabelled import lacks_labels

#: Top-level keys of a config that are no parameters of mmengine's runner.
OWN_KEYS = (
    *('methods', 'tta_model', 'tta_pipeline', 'custom_imports'),
    *('model_wrapper_cfg', 'find_unused_parameters', 'sync_bn'),
    *('compile', 'activation_checkpointing', 'efficient_conv_bn_eval', 'fake_quant'),
)
DATALOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
#: Replacements of mmengine's own hooks and loops.
INSTEAD = {
    'EpochBasedTrainLoop': 'ResumableEpochLoop',
    'IterBasedTrainLoop': 'ResumableIterLoop',
    'CheckpointHook': 'ResumableCheckpointHook',
}
HOOKS = ('SameStartHook', 'BroadcastBuffersHook', 'TerminationHook')
#: Required keys of a dataloader, each with an example.
NEEDED_OF_LOADERS = {
    'dataset': "dict(type='CustomDataset', data_root='...')",
    'sampler': "dict(type='DefaultSampler', shuffle=True)",
}


def load_config(args: argparse.Namespace, *keys: str) -> Config:
    """Prepare this process, and load the config of a run, with the options common to all commands.

    ``work_dir`` is the command line's, else the config's, else ``work_dirs/`` and the name of the config file.

    Args:
        args: Arguments of :func:`~mmcls_kd.command.arguments.config_parser`.
        *keys: Keys that the config has to have.

    Raises:
        FileNotFoundError: If there is no such config.
        ValueError: If it has the form of the original toolbox's older branch, it lacks a key, or the environment is not the
            launcher's.
    """
    start_process(args)
    cfg = RunConfig.of(read_config(args.config))
    if 'distiller' in cfg:
        raise ValueError(
            f"{args.config} is of the original toolbox's older branch (`distiller = dict(...)`), which is not supported: "
            "put its methods into model = dict(type='ClassificationDistiller', distill_cfg=[...])"
        )
    need(cfg, *keys)
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or str(Path('work_dirs') / Path(args.config).stem)
    return cfg


def need(cfg: Config, *keys: str) -> None:
    """Refuse a config that lacks a key.

    Raises:
        ValueError: Names the config and the key.
    """
    for key in keys:
        if cfg.get(key) is None:
            raise ValueError(f'config {cfg.filename} has no `{key}`')


def check_loops(cfg: Config) -> None:
    """Refuse a config that has some parts of a validation or a test, and lacks others.

    Raises:
        ValueError: Names them.
    """
    for loop, name in (('val', 'validation'), ('test', 'test')):
        keys = [f'{loop}_dataloader', f'{loop}_cfg', f'{loop}_evaluator']
        lacking = [key for key in keys if cfg.get(key) is None]
        if lacking and (given := [key for key in keys if key not in lacking]):
            raise ValueError(
                f'config {cfg.filename} has {" and ".join(given)}, but no {" and no ".join(lacking)}: give all three, or '
                f'set all to None for a training without {name}'
            )


def merge_options(cfg: Config, options: Mapping[str, Any] | None) -> None:
    """Merge ``--cfg-options`` into a config, in place.

    Args:
        cfg: The config.
        options: Values by their keys, such as ``train_cfg.max_epochs``; None for none.

    Raises:
        ValueError: If the config has no such top-level key, but one of a close name; or if a value is the text of a dict.
    """
    if not options:
        return
    for key, value in options.items():
        for text in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(text, str) and re.match(r"""dict\(|\{\s*['"]""", text):
                raise ValueError(
                    f'--cfg-options {key}: {text} is read as text, not as a dict; set its keys one by one ({key}.type=...), '
                    'or a list of dicts in a config file'
                )
    known = {*cfg, *inspect.signature(Runner).parameters, *OWN_KEYS}
    for name in [key.partition('.')[0] for key in options]:
        if name not in known and (close := close_names(name, cfg)):
            raise ValueError(f'--cfg-options: the config has no {name!r}{close}')
    cfg.merge_from_dict(options)


def _check_method_options(cfg: Config, options: Mapping[str, Any] | None) -> None:
    """Refuse options for a method that is not in use, and name the places of those that are."""
    places = {
        f'model.distill_cfg.{i}.methods.{j}.': entry
        for i, group in enumerate(cfg.model.get('distill_cfg') or ())
        for j, entry in enumerate(group['methods'])
    }
    used = [f'{entry["name"]} is {place[:-1]}' for place, entry in places.items() if entry.get('use_this', True)]
    for key, place in product(options or (), places):
        entry = places[place]
        if key.startswith(place) and key != f'{place}use_this' and not entry.get('use_this', True):
            raise ValueError(
                f'--cfg-options {key}: {entry["name"]} is not in use, so nothing would change; {", ".join(used)}'
            )


def training_config(args: argparse.Namespace) -> Config:
    """Build the config of a training from file and command line, with defaults filled in.

    Args:
        args: Arguments of :func:`~mmcls_kd.command.arguments.training_parser`; ``resume``, ``auto_scale_lr`` and
            ``no_validate`` are optional.

    Raises:
        FileNotFoundError: If there is no such config.
        ValueError: If it is not one of a training, parts of a validation or test are missing, a method is unknown, or a
            method counts epochs in a training without them.
    """
    cfg = load_config(args, 'model', 'train_dataloader', 'train_cfg', 'optim_wrapper')
    if recipe := Recipe.of(cfg):
        recipe.inline_networks()  # so that options reach into them
        if 'methods' in cfg:
            recipe.methods.follow(cfg.methods)
    take_switches(cfg, args)
    merge_options(cfg, args.cfg_options)
    if (cfg.optim_wrapper or {}).get('type') == 'AmpOptimWrapper' and get_device() == 'cpu':
        take_precision(cfg, 'cpu')
        print_log('AmpOptimWrapper needs a GPU: CPUAmpOptimWrapper, with bfloat16, takes its place', 'current')
    if getattr(args, 'no_validate', False):
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    check_loops(cfg)
    methods = args.methods or (args.cfg_options or {}).get('methods')
    if recipe := Recipe.of(cfg):
        if methods is not None:
            cfg.methods = methods
            recipe.methods.select([methods] if isinstance(methods, str) else methods)
        _check_method_options(cfg, args.cfg_options)
        recipe.complete(cfg.train_dataloader.get('dataset', {}))
        validate_by_agreement(cfg)
    elif methods is not None:
        raise ValueError('methods can be chosen for a distiller config only: this model has no `distill_cfg`')
    complete_dataloaders(cfg, not args.no_pin_memory, not args.no_persistent_workers)
    make_resumable(cfg)
    if recipe:
        check_schedules(recipe, cfg.train_cfg.type)
    make_paths_absolute(cfg)
    check_backends(cfg)
    return cfg


def take_switches(cfg: Config, args: argparse.Namespace) -> None:
    """Apply ``--amp``, ``--resume`` and ``--auto-scale-lr`` to the config of a training, in place.

    Raises:
        ValueError: If the config does not say for which batch size its learning rate is.
    """
    if args.amp:
        take_precision(cfg)
    if resume := getattr(args, 'resume', None):
        cfg.resume = True
        cfg.load_from = None if resume == 'auto' else resume
    if getattr(args, 'auto_scale_lr', False):
        if not cfg.get('auto_scale_lr'):
            raise ValueError('--auto-scale-lr: the config has no auto_scale_lr = dict(base_batch_size=...)')
        cfg.auto_scale_lr.enable = True


def take_precision(cfg: Config, device: str | None = None) -> None:
    """Set mixed precision for the optimizer wrapper, in place: CUDA's, or bfloat16 on a CPU.

    Args:
        cfg: Config of a training.
        device: Device of the training; None for CUDA if available.

    Raises:
        ValueError: If the wrapper is DOT's, which has none.
    """
    if cfg.optim_wrapper.get('type') == 'DOTWrapper':
        raise ValueError(
            'mixed precision takes another optim_wrapper than DOTWrapper: train without --amp, or with another optimizer'
        )
    if torch.device(device).type == 'cuda' if device else torch.cuda.is_available():
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    else:
        cfg.optim_wrapper.type = 'CPUAmpOptimWrapper'
        for key in ('loss_scale', 'dtype', 'use_fsdp'):
            cfg.optim_wrapper.pop(key, None)


def complete_dataloaders(cfg: Config, pin_memory: bool, persistent_workers: bool) -> None:
    """Fill in missing keys of dataloaders as mmpretrain's tools do, within the limits of this machine.

    Raises:
        ValueError: If one has no data set or sampler.
    """
    for name in DATALOADERS:
        if (loader := cfg.get(name)) is None:
            continue
        for key, example in NEEDED_OF_LOADERS.items():
            if key not in loader:
                raise ValueError(f'{name} has no {key!r} (it has {", ".join(loader)}): give it one, such as {key}={example}')
        loader.setdefault('collate_fn', dict(type='default_collate'))
        loader['pin_memory'] = pin_memory and torch.cuda.is_available() and loader.get('pin_memory', True)
        workers = loader.get('num_workers', 0) > 0
        loader['persistent_workers'] = persistent_workers and workers and loader.get('persistent_workers', True)


def make_resumable(cfg: Config) -> None:
    """Put the loops, the checkpoint hook and the other hooks of this package into a config, in place.

    Loops and checkpoint hooks of the user's own stay. The key ``fake_quant`` becomes a ``FakeQuantHook``.

    Raises:
        ValueError: If ``fake_quant`` is neither True nor a dict.
    """
    loop = cfg.train_cfg
    by_epoch = loop.pop('by_epoch', True)
    kind = loop.get('type') or ('EpochBasedTrainLoop' if by_epoch else 'IterBasedTrainLoop')
    loop.type = INSTEAD.get(kind, kind)
    hooks = cfg.get('default_hooks') or {}
    checkpoint = dict(hooks.get('checkpoint') or dict(type='CheckpointHook', interval=1))
    checkpoint['type'] = INSTEAD.get(checkpoint['type'], checkpoint['type'])
    cfg.default_hooks = {**hooks, 'checkpoint': checkpoint}
    logger = hooks.get('logger', {})
    if counts_iterations(kind) and logger is not None:  # else mmengine logs each validation as that of step 0
        cfg.default_hooks['logger'] = {'type': 'LoggerHook', 'log_metric_by_epoch': False, **logger}
    own = list(cfg.get('custom_hooks') or [])
    if (given := cfg.pop('fake_quant', None)) and 'FakeQuantHook' not in [hook.get('type') for hook in own]:
        if given is not True and not isinstance(given, Mapping):
            raise ValueError(f'fake_quant={given!r}: set True, or dict(start_epoch=2) to begin after two epochs')
        own.append(dict(type='FakeQuantHook', **({} if given is True else given)))
    cfg.custom_hooks = own + [dict(type=kind) for kind in HOOKS if kind not in [hook.get('type') for hook in own]]


def validate_by_agreement(cfg: Config) -> None:
    """Validate a distiller by its agreement with the teacher, in place, where the validation images have no labels.

    ``val_evaluator`` is emptied, a ``KNNAgreementHook`` added, and the best checkpoint kept by its metric unless
    ``save_best`` names another.
    """
    if not lacks_labels((cfg.get('val_dataloader') or {}).get('dataset')):
        return
    cfg.val_evaluator, cfg.val_cfg = [], cfg.get('val_cfg') or {}
    hooks = list(cfg.get('custom_hooks') or [])
    if 'KNNAgreementHook' not in [hook.get('type') for hook in hooks]:
        cfg.custom_hooks = [*hooks, dict(type='KNNAgreementHook')]
    defaults = cfg.get('default_hooks') or {}
    checkpoint = dict(defaults.get('checkpoint') or dict(type='CheckpointHook', interval=1))
    if checkpoint.get('save_best') in (None, 'auto'):
        checkpoint |= dict(save_best=AGREEMENT, rule='greater')
        cfg.default_hooks = {**defaults, 'checkpoint': checkpoint}
    print_log(
        f'val_dataloader has no labels: validation is the agreement of nearest neighbours with the teacher ({AGREEMENT}, in '
        f'per cent), and {checkpoint["save_best"]} decides on the best checkpoint',
        'current',
    )


def check_schedules(recipe: Recipe, kind: Any) -> None:
    """Refuse methods that change from epoch to epoch in a training by iterations, which stays in its first epoch.

    Args:
        recipe: The recipe of a training.
        kind: Its training loop: a class, or its name.

    Raises:
        ValueError: Names the method, and the key to set.
    """
    if not counts_iterations(kind):
        return
    for method in recipe.methods.parsed():
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


def counts_iterations(kind: Any) -> bool:
    """Check whether a training loop, a class or its name, counts iterations, and no epochs."""
    loop = kind if isinstance(kind, type) else LOOPS.get(kind)
    return isinstance(loop, type) and issubclass(loop, IterBasedTrainLoop)


def datasets_of(cfg: Config) -> Iterator[tuple[str, dict]]:
    """Iterate over each data set config of a run and the name of its dataloader, also inside of wrappers, in their order."""
    for name in DATALOADERS:
        pending = [(cfg.get(name) or {}).get('dataset')]
        while pending:
            dataset = pending.pop()
            if isinstance(dataset, dict):
                yield name, dataset
                pending += reversed([dataset.get('dataset'), *dataset.get('datasets', [])])


def make_paths_absolute(cfg: Config) -> None:
    """Make the paths of existing files and folders absolute, in place.

    So the config in the work directory runs again from any directory.
    """
    for _, dataset in datasets_of(cfg):
        root = dataset.get('data_root')
        if isinstance(root, str) and Path(root).is_dir():
            dataset['data_root'] = str(Path(root).resolve())
    if cfg.get('load_from') is not None:
        cfg.load_from = absolute(cfg.load_from)


def student_only(cfg: Config) -> None:
    """Replace a distiller by the student, in place, for testing without a teacher's weights."""
    if recipe := Recipe.of(cfg):
        if 'methods' in cfg:
            recipe.methods.follow(cfg.methods)
        given = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor')
        cfg.model = recipe.deployed()
        cfg.model['data_preprocessor'] = given or cfg.model.get('data_preprocessor')
    if kind_of(cfg.model) == 'LinearHeadClassifier':
        cfg.model.pop('pretrained', None)  # the checkpoint has them, and the file of the backbone may be gone


def count_samples(cfg: Config) -> None:
    """Set a distiller's number of training images, and of those of a batch, in place, if one of its methods needs it.

    Args:
        cfg: Config of a training with existing data.

    Raises:
        ValueError: If the data set cannot be built.
    """
    recipe = Recipe.of(cfg)
    if recipe is None:
        return
    if cfg.model.get('batch_size') is None and recipe.methods.need('batch_size'):
        cfg.model.batch_size = cfg.train_dataloader.get('batch_size')
    if cfg.model.get('num_samples') is not None or not recipe.methods.need('num_samples'):
        return
    scope = DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain'))
    with scope, refusals_named('train_dataloader.dataset'):
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
        dataset.full_init()
    cfg.model.num_samples = images_in(dataset)
