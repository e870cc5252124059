"""Shared parts of runs: the config made ready to run, and processes on CPU-only machines."""

from __future__ import annotations

import argparse
import fcntl
import inspect
import os
import socket
import struct
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import init_dist, is_distributed
from mmengine.registry import RUNNERS, DefaultScope
from mmengine.runner import Runner
from mmengine.utils.dl_utils import set_multi_processing

from ..configs.reading import RunConfig, read_config
from ..distillers.assembly import deployed_cfg
from ..errors import MissingLibraryError, TrainingError, close_names, in_one_line, is_outside, refusals_named
from ..files.paths import find_file
from ..networks.classes import data_named
from ..networks.loading import guard_loading
from ..networks.sources import find_network
from ..patches import start_faster
from ..recipe.methods import follow_methods, loss_class, method_entries
from .console import ConsoleRunner, hide_platform_warnings
from .extras import check_backends
from .labels import training_names

#: Top-level keys of a config that are no parameters of mmengine's runner.
OWN_KEYS = (
    *('methods', 'tta_model', 'tta_pipeline', 'custom_imports'),
    *('model_wrapper_cfg', 'find_unused_parameters', 'sync_bn'),
    *('compile', 'activation_checkpointing', 'efficient_conv_bn_eval'),
)
DATALOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def student_only(cfg: Config) -> None:
    """Replace the distiller by the student, in place, for testing without a teacher's weights."""
    distiller = cfg.model
    if 'methods' in cfg:
        follow_methods(distiller, cfg.methods)
    model = deployed_cfg(distiller)
    model['data_preprocessor'] = (
        distiller.get('data_preprocessor') or cfg.get('data_preprocessor') or model.get('data_preprocessor')
    )
    cfg.model = model


def load_config(args: argparse.Namespace) -> Config:
    """Load the config of a run, with the options common to all commands.

    ``work_dir`` is the command line's, else the config's, else ``work_dirs/`` and the name of the config file.

    Raises:
        FileNotFoundError: If there is no such config.
        ValueError: If it has the form of the original toolbox's older branch, or the environment is not the launcher's.
    """
    guard_loading(args.trust)
    start_faster()
    hide_platform_warnings()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    if args.launcher != 'none':
        take_environment(args.launcher)
    cfg = RunConfig.of(read_config(args.config))
    if 'distiller' in cfg:
        raise ValueError(
            f"{args.config} is of the original toolbox's older branch (`distiller = dict(...)`), which is not supported: "
            "put its methods into model = dict(type='ClassificationDistiller', distill_cfg=[...])"
        )
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or str(Path('work_dirs') / Path(args.config).stem)
    return cfg


def merge_options(cfg: Config, options: Mapping[str, Any] | None) -> None:
    """Merge ``--cfg-options`` into a config, in place.

    Args:
        cfg: The config.
        options: Values by their keys, such as ``train_cfg.max_epochs``; None for none.

    Raises:
        ValueError: If the config has no such top-level key, but one of a close name.
    """
    if not options:
        return
    known = {*cfg, *inspect.signature(Runner).parameters, *OWN_KEYS}
    for name in [key.partition('.')[0] for key in options]:
        if name not in known and (close := close_names(name, cfg)):
            raise ValueError(f'--cfg-options: the config has no {name!r}{close}')
    cfg.merge_from_dict(options)


def need(cfg: Config, *keys: str) -> None:
    """Refuse a config that lacks a key.

    Raises:
        ValueError: Names the config and the key.
    """
    for key in keys:
        if cfg.get(key) is None:
            raise ValueError(f'config {cfg.filename} has no `{key}`')


#: Required keys of a dataloader, each with an example.
NEEDED_OF_LOADERS = {
    'dataset': "dict(type='CustomDataset', data_root='...')",
    'sampler': "dict(type='DefaultSampler', shuffle=True)",
}


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


def is_distiller(model: dict) -> bool:
    """Check whether a ``model`` config is a distiller's, or that of a derived class."""
    return 'student_cfg' in model


def datasets_of(cfg: Config) -> Iterator[tuple[str, dict]]:
    """Iterate over each data set config of a run and the name of its dataloader, also inside of wrappers."""
    for name in DATALOADERS:
        pending = [(cfg.get(name) or {}).get('dataset')]
        while pending:
            dataset = pending.pop()
            if isinstance(dataset, dict):
                yield name, dataset
                pending += [dataset.get('dataset'), *dataset.get('datasets', [])]


def inline_networks(cfg: Config) -> None:
    """Replace a distiller's student and teachers by their whole configs, in place.

    A missing config stays a path, which the distiller refuses if it needs it.
    """
    if not is_distiller(cfg.model):
        return
    for key in ('student_cfg', 'teacher_cfg'):
        with refusals_named(f'model.{key}'):
            if isinstance(networks := cfg.model.get(key), (list, tuple)):
                cfg.model[key] = [in_full(network) for network in networks]
            elif networks is not None:
                cfg.model[key] = in_full(networks)


def in_full(network: str | dict) -> str | dict:
    """Return a network's whole config for its path or name, or that itself if config or library are missing."""
    try:
        return find_network(network).in_full
    except (FileNotFoundError, MissingLibraryError):
        return network


def make_self_contained(cfg: Config) -> None:
    """Replace networks by their whole configs and make the paths of existing files absolute, in place.

    So the config in the work directory runs again without any other config file, and from any directory.
    """
    inline_networks(cfg)
    for holder, key in ((cfg.model, 'student_pretrained'), (cfg.model, 'teacher_pretrained'), (cfg, 'load_from')):
        value = holder.get(key)
        if isinstance(value, (list, tuple)):
            holder[key] = [absolute(one) for one in value]
        elif value is not None:
            holder[key] = absolute(value)
    for entry in method_entries(cfg.model.get('distill_cfg') or []):
        for keyword in getattr(loss_class(entry), 'files', {}):
            if keyword in entry:
                entry[keyword] = absolute(entry[keyword])  # type: ignore[index]
    for _, dataset in datasets_of(cfg):
        root = dataset.get('data_root')
        if isinstance(root, str) and Path(root).is_dir():
            dataset['data_root'] = str(Path(root).resolve())


def absolute(path: Any) -> Any:
    """Return the absolute path of a file or folder; a missing one is returned as it is, for its reader to refuse."""
    if not isinstance(path, str) or '://' in path:
        return path
    if Path(path).expanduser().is_dir():
        return str(Path(path).expanduser().resolve())
    with suppress(FileNotFoundError):
        return str(find_file(path))
    return path


#: Names of torch.distributed's variables in other launchers.
VARIABLES = {
    'slurm': dict(RANK='SLURM_PROCID', WORLD_SIZE='SLURM_NTASKS', LOCAL_RANK='SLURM_LOCALID'),
    'mpi': dict(RANK='OMPI_COMM_WORLD_RANK', WORLD_SIZE='OMPI_COMM_WORLD_SIZE', LOCAL_RANK='OMPI_COMM_WORLD_LOCAL_RANK'),
}


def _variable(name: str, launcher: str) -> str:
    if name not in os.environ:
        raise ValueError(f'--launcher {launcher}: the environment variable {name} is not set; did that launcher start this?')
    return os.environ[name]


def take_environment(launcher: str) -> None:
    """Set torch.distributed's variables from the launcher's, and check them.

    Raises:
        ValueError: If one is missing or invalid; names it.
    """
    if launcher == 'slurm':
        nodes = ['scontrol', 'show', 'hostnames', _variable('SLURM_NODELIST', launcher)]
        done = subprocess.run(nodes, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ValueError(f'--launcher slurm: `{" ".join(nodes)}` failed: {done.stderr.strip()}')
        os.environ.setdefault('MASTER_ADDR', [*done.stdout.split(), socket.gethostname()][0])
    for name, theirs in VARIABLES.get(launcher, {}).items():
        os.environ[name] = _variable(theirs, launcher)
    if launcher in VARIABLES:
        os.environ.setdefault('MASTER_PORT', '29500')
    _variable('MASTER_ADDR', launcher)
    for name, least in dict(MASTER_PORT=1, WORLD_SIZE=1, RANK=0, LOCAL_RANK=0).items():
        text = _variable(name, launcher)
        if not text.isdecimal() or not least <= int(text) <= 65535:
            raise ValueError(f'--launcher {launcher}: {name}={text!r} must be a number from {least} to 65535')
    rank, world_size = os.environ['RANK'], os.environ['WORLD_SIZE']
    if int(rank) >= int(world_size):
        raise ValueError(
            f'--launcher {launcher}: RANK={rank!r} does not fit WORLD_SIZE={world_size!r}: ranks are counted from 0, so the '
            'last is one less than the number of processes'
        )


def interface_towards(host: str) -> str | None:
    """Return the network interface by which this machine reaches another; None if unknown."""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, 9))
        own = socket.inet_aton(probe.getsockname()[0])
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # an interface without an address
                answer = fcntl.ioctl(probe.fileno(), 0x8915, struct.pack('256s', name.encode()))  # SIOCGIFADDR
                if answer[20:24] == own:
                    return name
    return None


def join_processes(cfg: Config) -> None:
    """Join the launched processes, as mmengine's runner would later, or over gloo without CUDA; in place."""
    if cfg.launcher == 'none':
        return
    if not torch.cuda.is_available():
        cfg.model_wrapper_cfg = dict(
            type='MMDistributedDataParallel',
            device_ids=None,
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        )
    if is_distributed():
        return
    if torch.cuda.is_available():
        environment = cfg.get('env_cfg') or {}
        set_multi_processing(**environment.get('mp_cfg', {}), distributed=True)
        init_dist(cfg.launcher, **environment.get('dist_cfg', {}))
    else:
        _join_over_gloo(cfg)


def _join_over_gloo(cfg: Config) -> None:
    """Join over gloo; mmengine's launchers need CUDA."""
    if 'GLOO_SOCKET_IFNAME' not in os.environ and (interface := interface_towards(os.environ['MASTER_ADDR'])):
        os.environ['GLOO_SOCKET_IFNAME'] = interface  # gloo itself may take the loopback
    seconds = cfg.get('env_cfg', {}).get('dist_cfg', {}).get('timeout')
    try:
        torch.distributed.init_process_group('gloo', timeout=None if seconds is None else timedelta(seconds=seconds))
    except RuntimeError as error:  # torch's DistError; gloo has no error of its own
        own = {name: os.environ[name] for name in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT')}
        raise ConnectionError(
            f'process {own["RANK"]} of {own["WORLD_SIZE"]} cannot join the others at {own["MASTER_ADDR"]}:'
            f'{own["MASTER_PORT"]}: {str(error).splitlines()[0]}. All have to be started at the same time, with the same '
            'address and with a free port (PORT=... for dist_train.sh)'
        ) from error


def build_runner(cfg: Config) -> Runner:
    """Build mmengine's Runner with a short console, or the one named by ``runner_type``.

    The config of an earlier run stays in the work directory; ``dump_config()`` of the runner replaces it, after the checks.

    Raises:
        ValueError: If a library of a logging backend is not installed, or a library refuses a part of the config.
    """
    check_backends(cfg)
    join_processes(cfg)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')):
        names = training_names((cfg.get('train_dataloader') or {}).get('dataset')) if is_distiller(cfg.model) else []
    try:
        with RunConfig.kept_back(), data_named(names):
            return RUNNERS.build(cfg) if 'runner_type' in cfg else ConsoleRunner.from_cfg(cfg)
    except (OSError, ValueError, TrainingError):
        raise
    except Exception as error:
        if is_outside(error):
            raise
        text = in_one_line(error)
        raise ValueError(f'the run cannot be built: {"".join(_keys_of(cfg, text))}{text}') from error


def _keys_of(cfg: Any, text: str, path: str = '') -> Iterator[str]:
    """Iterate over the keys of a config whose ``type`` a message quotes."""
    for key, value in cfg.items() if isinstance(cfg, Mapping | Config) else enumerate(cfg):
        here = f'{path}.{key}' if path else str(key)
        if key == 'type' and isinstance(value, str) and repr(value) in text:
            yield f'{here}={value!r}: '
        elif isinstance(value, Mapping | list | tuple):
            yield from _keys_of(value, text, here)
