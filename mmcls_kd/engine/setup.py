"""The checkpoint from which a training resumes, found by the first process for all."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import all_gather_object, broadcast_object_list, is_distributed, is_main_process
from mmengine.logging import print_log

from ..files.atomic import sha256
from ..files.checkpoint import read_start
from ..networks.loading import fetch
from .checkpoint_hook import last_whole_checkpoint, launch_id

#: Environment variables with the number of restarts: by dist_train.sh, by torchrun itself.
RESTARTS = ('MMCLS_KD_RESTARTS', 'TORCHELASTIC_RESTART_COUNT')


def decided_by_first(decide: Callable[[], Any]) -> Any:
    """Call a function in the first process alone; return its result, or raise its error, in all processes."""
    outcome: list[Any] = [None, None]
    if is_main_process():
        try:
            outcome[0] = decide()
        except (OSError, ValueError) as error:
            outcome[1] = error
    broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def find_resume_point(cfg: Config) -> None:
    """Find the checkpoint to resume from, and its seed, in place: the first process decides for all.

    A restarted process resumes from checkpoints since its launch. ``resume`` without ``load_from`` means the newest complete
    checkpoint of the work directory; without one, the run starts anew, with a warning.
    """
    if cfg.get('resume') and '://' in (cfg.get('load_from') or ''):
        cfg.load_from = str(fetch(cfg.load_from, 'resume'))  # on each machine
    found = decided_by_first(lambda: _resume_point(cfg))
    cfg.resume = found is not None
    if found is None:
        return
    path, digest, seed = found
    cfg.load_from = str(path if digest is None else _of_all(path, digest, cfg.work_dir))
    randomness = dict(cfg.get('randomness') or {})
    if seed is not None:
        if randomness.get('seed') not in (None, seed):
            text = f'the seed is {seed}, as in {Path(path).name}, not {randomness["seed"]}, as in the config'
            print_log(text, 'current', logging.WARNING)
        cfg.randomness = {**randomness, 'seed': seed}


def _resume_point(cfg: Config) -> tuple[Path, str | None, int | None] | None:
    """Return the checkpoint to resume from, its checksum if other processes need it, and its seed; None to start anew."""
    restarted = any(int(os.environ.get(name, '0')) > 0 for name in RESTARTS)
    found = last_whole_checkpoint(cfg.work_dir, launch_id()) if restarted else None
    if found is None and cfg.get('resume'):
        if cfg.get('load_from'):
            path = fetch(cfg.load_from, 'resume')
            found = path, read_start(path)
        else:
            found = last_whole_checkpoint(cfg.work_dir)
            if found is None:
                print_log(f'nothing to resume in {cfg.work_dir}: the run starts anew', 'current', logging.WARNING)
    if found is None:
        return None
    path, content = found
    meta = content.get('meta') or {}
    if 'optimizer' not in content or not {'epoch', 'iter'} <= set(meta):
        raise ValueError(f'{path} is no checkpoint of a training that could go on: it has weights alone; use load_from')
    return path.absolute(), sha256(path) if is_distributed() else None, meta.get('seed')


def _of_all(path: Path, digest: str, work_dir: str) -> Path:
    """Find this process's copy of the checkpoint to resume from: at the first's path, or in its own work directory.

    If one process has none, all raise a ``ValueError``.
    """
    places = dict.fromkeys([path, Path(work_dir, path.name).absolute()])
    found = next((place for place in places if place.is_file() and sha256(place) == digest), None)
    lacking = [host for host in all_gather_object(None if found else socket.gethostname()) if host]
    if lacking:
        raise ValueError(
            f'the first process resumes from {path}, and {len(lacking)} others ({lacking[0]}) do not have this file: give '
            'all machines one work directory on a disk that they share, or copy the file into the work directory of each'
        )
    assert found is not None
    return found
