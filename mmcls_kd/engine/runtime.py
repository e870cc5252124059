"""The process of a run: its preparation, its launcher, and its runner."""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import init_dist, is_distributed
from mmengine.logging import MMLogger
from mmengine.registry import RUNNERS, DefaultScope, Registry
from mmengine.runner import Runner
from mmengine.utils.dl_utils import set_multi_processing
from mmpretrain.engine.hooks import VisualizationHook
from mmpretrain.registry import HOOKS, VISUALIZERS

from ..configs.reading import RunConfig
from ..distillers.recipe import is_distiller
from ..errors import TrainingError, in_one_line, is_outside
from ..networks.classes import data_named
from ..networks.loading import guard_loading
from ..patches import start_faster
from .console import ConsoleRunner, hide_platform_warnings
from .drawing import DrawingHook
from .extras import check_backends
from .labels import has_labels, training_names
from .models import fill_in_classes, unwrapped
from .resumption import count_before_saving

#: Names of torch.distributed's variables in other launchers.
VARIABLES = {
    'slurm': dict(RANK='SLURM_PROCID', WORLD_SIZE='SLURM_NTASKS', LOCAL_RANK='SLURM_LOCALID'),
    'mpi': dict(RANK='OMPI_COMM_WORLD_RANK', WORLD_SIZE='OMPI_COMM_WORLD_SIZE', LOCAL_RANK='OMPI_COMM_WORLD_LOCAL_RANK'),
}


#: glibc's options of ``mallopt``, and the variables by which a user sets them.
MALLOC = {'MALLOC_TRIM_THRESHOLD_': -1, 'MALLOC_MMAP_MAX_': -4}


def start_process(args: argparse.Namespace) -> None:
    """Prepare this process: the launcher's environment, its memory, warnings, and the patches of other libraries.

    Args:
        args: Arguments of :func:`~mmcls_kd.command.arguments.config_parser`.

    Raises:
        ValueError: If the environment is not the launcher's.
    """
    if args.launcher != 'none':
        os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
        take_environment(args.launcher)
    keep_memory()
    hide_platform_warnings()
    start_faster()
    guard_loading(args.trust)


def keep_memory() -> None:
    """Let glibc keep freed memory for the next tensors of a CPU.

    It would give large blocks back to Linux, which fills them with zeros, page by page, when a step needs them again: up to
    a fifth of the step. A user's own setting of :data:`MALLOC` stays.
    """
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None) if sys.platform == 'linux' else None
    if mallopt and not torch.cuda.is_available() and not os.environ.keys() & MALLOC.keys():
        mallopt(MALLOC['MALLOC_TRIM_THRESHOLD_'], -1)  # never
        mallopt(MALLOC['MALLOC_MMAP_MAX_'], 0)  # no blocks outside of the heap


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


def wait_for_new_name(cfg: Config) -> None:
    """Wait, for a second at most, until no earlier run of this process has the name that mmengine will give to this one.

    The name is that of the experiment or the config with the second. By it mmengine keeps logs and curves for as long as the
    process lives: a second run of the name would write them into the folder of the first.
    """
    own = cfg.get('experiment_name') or (Path(cfg.filename).stem if cfg.filename else '')
    while MMLogger.check_instance_created('_'.join(filter(None, (own, time.strftime('%Y%m%d_%H%M%S'))))):
        time.sleep(0.05)


#: Part of mmengine's message for a metric whose name does not tell whether more is better.
NO_RULE = 'Cannot infer the rule for'
SET_RULE = (
    "Beside the metric (save_best of default_hooks.checkpoint, monitor of EarlyStoppingHook) set rule='greater' if more is "
    "better, else rule='less'"
)


def _class_of(kind: Any, registry: Registry) -> Any:
    """Return the class of a config's ``type``, None if it is unknown."""
    return registry.get(kind) if isinstance(kind, str) else kind


def check_runner_type(cfg: Config) -> None:
    """Refuse a runner that does not derive from mmengine's ``Runner``; an unknown name is told when it is built."""
    kind = _class_of(cfg.get('runner_type', 'Runner'), RUNNERS)
    if isinstance(kind, type) and not issubclass(kind, Runner):
        raise ValueError(
            f"runner_type={kind.__name__!r}: only mmengine's Runner, and classes derived from it, are supported: leave "
            'runner_type out'
        )


def set_drawing(cfg: Config) -> None:
    """Set what draws predictions, in place: :class:`.DrawingHook` for mmpretrain's hook, and a visualizer that can."""
    hooks = [*(cfg.get('default_hooks') or {}).values(), *(cfg.get('custom_hooks') or [])]
    drawing = [hook for hook in hooks if hook and hook.get('enable')]
    drawing = [hook for hook in drawing if _class_of(hook.get('type'), HOOKS) in (VisualizationHook, DrawingHook)]
    for hook in drawing:
        hook['type'] = 'mmpretrain.DrawingHook'
    given = cfg.get('visualizer') or dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])
    kind = _class_of(given.get('type'), VISUALIZERS)
    if drawing and isinstance(kind, type) and not hasattr(kind, 'visualize_cls'):
        cfg.visualizer = {**given, 'type': 'UniversalVisualizer'}


def build_runner(cfg: Config) -> Runner:
    """Build mmengine's Runner with a short console, or the one named by ``runner_type``.

    The config of an earlier run stays in the work directory; ``dump_config()`` of the runner replaces it, after the checks.

    Raises:
        ValueError: If a library of a logging backend is not installed, a library refuses a part of the config, or the runner
            is of another kind.
    """
    check_backends(cfg)
    check_runner_type(cfg)
    set_drawing(cfg)
    join_processes(cfg)
    wait_for_new_name(cfg)
    cfg.setdefault('default_scope', 'mmpretrain')
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        dataset = (cfg.get('train_dataloader') or {}).get('dataset')
        names = training_names(dataset) if is_distiller(cfg.model) and has_labels(dataset) else None
    try:
        with RunConfig.kept_back(), data_named(names):
            runner = RUNNERS.build(cfg) if 'runner_type' in cfg else ConsoleRunner.from_cfg(cfg)
    except (OSError, ValueError, TrainingError) as error:
        if NO_RULE not in str(error):
            raise
        raise ValueError(f'{error} {SET_RULE}') from error
    except Exception as error:
        if is_outside(error):
            raise
        text = in_one_line(error)
        raise ValueError(f'the run cannot be built: {"".join(_keys_of(cfg, text))}{text}') from error
    fill_in_classes(unwrapped(runner))
    count_before_saving(runner)
    return runner


def _keys_of(cfg: Any, text: str, path: str = '') -> Iterator[str]:
    """Iterate over the keys of a config whose ``type`` a message quotes."""
    for key, value in cfg.items() if isinstance(cfg, Mapping | Config) else enumerate(cfg):
        here = f'{path}.{key}' if path else str(key)
        if key == 'type' and isinstance(value, str) and repr(value) in text:
            yield f'{here}={value!r}: '
        elif isinstance(value, Mapping | list | tuple):
            yield from _keys_of(value, text, here)
