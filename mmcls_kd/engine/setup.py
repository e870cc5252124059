"""Puts what makes a training survive into its config, and finds where an interrupted one goes on."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log

from ..checkpoint import fetch, read_checkpoint
from .checkpoint_hook import last_whole_checkpoint

#: What takes the place of mmengine's own.
INSTEAD = {
    'EpochBasedTrainLoop': 'ResumableEpochLoop',
    'IterBasedTrainLoop': 'ResumableIterLoop',
    'CheckpointHook': 'ResumableCheckpointHook',
}
HOOKS = ('BroadcastBuffersHook', 'TerminationHook')
#: Where the environment says how often the processes were started again: by dist_train.sh, by torchrun itself.
RESTARTS = ('MMCLS_KD_RESTARTS', 'TORCHELASTIC_RESTART_COUNT')
#: Where the environment says when the launcher started, in seconds: a restarted process takes no older checkpoint.
STARTED = 'MMCLS_KD_STARTED'


def make_resumable(cfg: Config) -> None:
    """Put the loops, the checkpoint hook and the other hooks of this package into a config, in place.

    Loops and checkpoint hooks of the user's own stay.
    """
    loop = cfg.train_cfg
    by_epoch = loop.pop('by_epoch', True)
    kind = loop.get('type') or ('EpochBasedTrainLoop' if by_epoch else 'IterBasedTrainLoop')
    loop.type = INSTEAD.get(kind, kind)
    hooks = cfg.setdefault('default_hooks', {})
    checkpoint = hooks.setdefault('checkpoint', dict(type='CheckpointHook', interval=1))
    checkpoint['type'] = INSTEAD.get(checkpoint['type'], checkpoint['type'])
    own = list(cfg.get('custom_hooks') or [])
    cfg.custom_hooks = own + [dict(type=kind) for kind in HOOKS if kind not in [hook.get('type') for hook in own]]


def find_resume_point(cfg: Config) -> None:
    """Settle which checkpoint a run goes on from, and its seed, in place.

    A process that the launcher has restarted goes on from what the run has saved since it was launched. ``resume`` without
    ``load_from`` means the newest whole checkpoint of the work directory; where there is none, the run starts anew, and a
    warning says so.

    Raises:
        FileNotFoundError: If the checkpoint that ``load_from`` names is missing.
        ValueError: If it is damaged, or is no checkpoint of a training.
    """
    restarted = any(int(os.environ.get(name, '0')) > 0 for name in RESTARTS)
    found = last_whole_checkpoint(cfg.work_dir, float(os.environ.get(STARTED, '0'))) if restarted else None
    if found is None and cfg.get('resume'):
        if cfg.get('load_from'):
            path = fetch(cfg.load_from, 'resume')
            found = path, read_checkpoint(path)
        else:
            found = last_whole_checkpoint(cfg.work_dir)
            if found is None:
                print_log(f'nothing to resume in {cfg.work_dir}: the run starts anew', 'current', logging.WARNING)
    cfg.resume = found is not None
    if found is None:
        return
    path, content = found
    meta = content.get('meta') or {}
    if 'optimizer' not in content or not {'epoch', 'iter'} <= set(meta):
        raise ValueError(f'{path} is no checkpoint of a training that could go on: it has weights alone; use load_from')
    cfg.load_from = str(path)
    seed, randomness = meta.get('seed'), dict(cfg.get('randomness') or {})
    if seed is not None:
        if randomness.get('seed') not in (None, seed):
            text = f'the seed is {seed}, as in {Path(path).name}, not {randomness["seed"]}, as in the config'
            print_log(text, 'current', logging.WARNING)
        cfg.randomness = {**randomness, 'seed': seed}
