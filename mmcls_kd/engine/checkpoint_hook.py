"""Checkpoints written whole or not at all, found again after an interruption."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.fileio import register_backend
from mmengine.fileio.backends import LocalBackend
from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from ..errors import DivergenceError, TrainingError
from ..files.atomic import atomic_path
from ..files.checkpoint import read_start
from .loss_watch import not_finite
from .models import models_own_names, share_memories, unwrapped
from .optimizer_state import match_by_name, parameter_names
from .resumption import gathered_gradients, go_on, record_of, restore_stopping, stopping_counts

#: File with the name of the last checkpoint, in the work directory; mmengine's name for it.
POINTER = 'last_checkpoint'
#: The checkpoint of a run that ended on request; the next regular one replaces it.
TERMINATED = 'terminated.pth'
#: Environment variable that identifies the launch; dist_train.sh sets it.
LAUNCH = 'MMCLS_KD_LAUNCH'


@register_backend('atomic', force=True)
class AtomicBackend(LocalBackend):
    """mmengine's storage on a local disk, whose files are written whole or not at all."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write a file under another name first, which replaces the file once all of it is on the disk."""
        with atomic_path(Path(filepath)) as unfinished:
            unfinished.write_bytes(obj)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Write a text file as :meth:`put` does."""
        self.put(obj.encode(encoding), filepath)


def launch_id() -> str | None:
    """Return an identifier that all processes of a launch share, restarted ones too; None without a launcher."""
    if LAUNCH in os.environ:
        return os.environ[LAUNCH]
    launcher = Path(f'/proc/{os.getppid()}/stat')
    if 'TORCHELASTIC_RUN_ID' not in os.environ or not launcher.is_file():
        return None
    started = launcher.read_text().rpartition(')')[2].split()[19]  # in ticks since the machine started
    return f'{os.getppid()}-{started}'


def candidates(work_dir: Path) -> Iterator[Path]:
    """Iterate over checkpoints of a work directory: that of ``last_checkpoint``, those numbered before it, then the others.

    The directory may have been moved, so the name is looked up in it first; and the times of files may have changed.
    """
    pointer, named = work_dir / POINTER, None
    if pointer.is_file() and (name := pointer.read_text(errors='replace').strip()):
        named = work_dir / Path(name).name
        yield named if named.is_file() else Path(name)
    others = [p for p in work_dir.glob('*.pth') if p != named and p.stem.split('_')[0] in ('epoch', 'iter', 'terminated')]
    kind, last = _numbered(named) if named else ('', -1)

    def newness(path: Path) -> tuple[int, float]:
        own, number = _numbered(path)
        return number if own == kind and number < last else -1, path.stat().st_mtime

    yield from sorted(others, key=newness, reverse=True)


def _numbered(path: Path) -> tuple[str, int]:
    """Split a checkpoint's name: ``epoch_3.pth`` is ('epoch', 3)."""
    kind, _, number = path.stem.partition('_')
    return kind, int(number) if number.isdecimal() else -1


def last_whole_checkpoint(work_dir: str | Path, launch: str | None = None) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest complete checkpoint of a work directory, and its content; None if there is none.

    A warning names each that is skipped.

    Args:
        work_dir: The work directory.
        launch: Skip checkpoints of other launches, see :func:`launch_id`.
    """
    for path in candidates(Path(work_dir)):
        try:
            content = read_start(path)
            if launch is not None and (content.get('meta') or {}).get('launch') != launch:
                continue
            if 'optimizer' in content:
                return path, content
            reason = 'it has no state of an optimizer'
        except (OSError, ValueError) as error:
            reason = str(error)
        print_log(f'{path.name} is passed over: {reason}', 'current', logging.WARNING)
    return None


def _save_once(checkpoint: dict[str, Any], buffers: Mapping[str, Any]) -> None:
    """Store a buffer that the moving average shares with the model (the memories of CRD) once."""
    for name, value in checkpoint.get('ema_state_dict', {}).items():
        own = name.removeprefix('module.')
        shared = checkpoint['state_dict'].get(own)
        if own in buffers and shared is not None and shared.data_ptr() == buffers[own].data_ptr():
            checkpoint['state_dict'][own] = value


@HOOKS.register_module()
class ResumableCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, with a complete checkpoint on disk at any time.

    A file is complete before it gets its name, an outdated one is removed only after its successor is there, and the
    optimizer's state is kept by parameter name (:mod:`~mmcls_kd.engine.optimizer_state`). A checkpoint also holds gathered
    gradients before the optimizer's step, the counts of ``EarlyStoppingHook``, and the run's fingerprint
    (:mod:`~mmcls_kd.engine.resumption`).

    Args:
        backend_args: As in mmengine; local files are written atomically if None.
        **kwargs: As in mmengine.

    Raises:
        TrainingError: If a checkpoint cannot be written; names the reason and the last complete one.
        DivergenceError: If the weights are NaN or infinite; then nothing is written.
    """

    def __init__(self, *, backend_args: dict | None = None, **kwargs: Any) -> None:
        super().__init__(backend_args=backend_args or dict(backend='atomic'), **kwargs)
        self.last_ckpt: str | None = None
        self._record: dict[str, Any] | None = None
        self._gathered: dict[str, Any] = {}

    def before_run(self, runner: Runner) -> None:
        """Let a moving average, which exists by now, share the buffers that are not averaged, and have the model's names."""
        for hook in runner.hooks:
            if isinstance(hook, EMAHook) and hasattr(hook, 'ema_model'):  # one of lower priority comes later
                share_memories(unwrapped(runner), hook.ema_model)
                hook.ema_model._register_state_dict_hook(models_own_names)

    def before_train(self, runner: Runner) -> None:
        """Prepare as in mmengine; and remove files that an interruption left incomplete."""
        super().before_train(runner)
        if is_main_process() and self.backend_args == dict(backend='atomic'):
            for unfinished in Path(self.out_dir).glob('.*.unfinished'):
                unfinished.unlink(missing_ok=True)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add what a resumed run needs: names of the parameters, gradients, counts, the fingerprint."""
        model = unwrapped(runner)
        if 'optimizer' in checkpoint:
            optimizer = runner.optim_wrapper.optimizer
            checkpoint['optimizer_names'] = parameter_names(model, optimizer)
            checkpoint['optimizer_type'] = type(optimizer).__name__
            checkpoint['gathered_gradients'] = {name: gradient.cpu() for name, gradient in self._gathered.items()}
        checkpoint['early_stopping'] = stopping_counts(runner)
        checkpoint['meta']['run'] = self._record_of(runner)
        _save_once(checkpoint, dict(model.named_buffers()))

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Fit a checkpoint to the run that resumes from it, and log the changes."""
        if runner._resume and 'optimizer' in checkpoint:
            match_by_name(checkpoint, unwrapped(runner), runner.optim_wrapper)
            go_on(runner, checkpoint, self._record_of(runner))
            restore_stopping(runner, checkpoint.get('early_stopping') or [])

    def _record_of(self, runner: Runner) -> dict[str, Any]:
        self._record = self._record or record_of(runner)
        return self._record

    def save_terminated(self, runner: Runner) -> str:
        """Save the state between two iterations, for a run that ends on request; returns the file's path."""
        meta = dict(epoch=runner.epoch, iter=runner.iter + 1)
        return self._save(runner, TERMINATED, meta)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        """Save, then remove outdated files; mmengine uses the other order."""
        outdated = [TERMINATED]
        if self.max_keep_ckpts > 0:
            kept = [s for s in self.keep_ckpt_ids if s != step] + [step]
            outdated += [self.filename_tmpl.format(s) for s in kept[: -self.max_keep_ckpts]]
            self.keep_ckpt_ids.clear()
            self.keep_ckpt_ids.extend(kept[-self.max_keep_ckpts :])
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        self._save(runner, self.filename_tmpl.format(step), meta)
        for name in outdated if is_main_process() else ():
            path = self.file_backend.join_path(self.out_dir, name)
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)

    def _save(self, runner: Runner, name: str, meta: dict) -> str:
        if bad := not_finite(dict(unwrapped(runner).named_parameters())):
            raise DivergenceError(
                f'the weights became NaN or infinite ({bad[0]} and {len(bad) - 1} more) and are not saved. The last good '
                f'checkpoint: {self.last_ckpt or "none of this run"}. Lower the learning rate'
            )
        self._gathered = gathered_gradients(runner)
        before, self.last_ckpt = self.last_ckpt, self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        try:
            runner.save_checkpoint(
                self.out_dir,
                name,
                self.file_client_args,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                meta={**meta, 'launch': launch_id()},
                by_epoch=self.by_epoch,
                backend_args=self.backend_args,
                **self.args,
            )
            if is_main_process():
                self.file_backend.put_text(self.last_ckpt, str(Path(runner.work_dir, POINTER)))
        except OSError as error:
            raise TrainingError(
                f'the checkpoint {self.last_ckpt} cannot be written ({error.strerror or error}); the last whole one: '
                f'{before or "none of this run"}. Make room and go on with --resume'
            ) from error
        runner.message_hub.update_info('saved_after', meta['iter'])
        return self.last_ckpt
