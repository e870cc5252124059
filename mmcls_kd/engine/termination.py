"""Termination on request (SIGTERM, a scheduler's notice): the run saves its state first, in all processes at once."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from mmengine.dist import all_gather_object, is_distributed
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import TerminationError, TrainingError, on_sigterm
from .checkpoint_hook import ResumableCheckpointHook
from .models import unwrapped
from .resumption import bytes_of, fingerprint


@contextmanager
def sigterm_restored() -> Iterator[None]:
    """Restore the handler of SIGTERM after a training, however it ends.

    Several processes keep that of the training: a launcher sends them the signal when another one has failed, too.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is not before and not is_distributed():
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


@HOOKS.register_module()
class TerminationHook(Hook):
    """On SIGTERM: finish the iteration, save ``terminated.pth``, raise :class:`TerminationError`.

    Several processes agree on the iteration, so that all save the same state, also on a request to one of them. During
    validation, one process ends at once if the state before it is saved; several end after it.

    Args:
        interval: Interval, in iterations, of agreement between several processes; a single process checks in each.
    """

    priority = 'LOWEST'  # after the checkpoint that is due anyway

    def __init__(self, interval: int = 5) -> None:
        self.interval = interval
        self.asked = False
        self._group: Any = None

    def before_train(self, runner: Runner) -> None:
        """Install the handler of SIGTERM; the training loop restores the one before it."""
        on_sigterm(self.note)
        if is_distributed():
            seconds = runner.cfg.get('env_cfg', {}).get('dist_cfg', {}).get('timeout')
            timeout = None if seconds is None else timedelta(seconds=seconds)
            self._group = dist.new_group(backend='gloo', timeout=timeout)  # agrees without waiting for a device

    def note(self) -> None:
        """Remember a request to end."""
        self.asked = True

    def after_train(self, runner: Runner) -> None:  # noqa: ARG002
        """Leave the group in order: its threads must not outlive the training."""
        if self._group is not None:
            dist.barrier(self._group)
            dist.destroy_process_group(self._group)
            self._group = None

    def after_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """End here on a request to any process."""
        if (self._group is not None and (runner.iter + 1) % self.interval) or not self._agreed():
            return
        hook = next(h for h in runner.hooks if isinstance(h, ResumableCheckpointHook))
        done = runner.message_hub.get_info('saved_after', -1) == runner.iter + 1
        saved = str(hook.last_ckpt) if done else hook.save_terminated(runner)
        if self._group is not None:  # the first process has written it before another is gone
            with suppress(RuntimeError):  # which may be gone itself before this one hears of it
                dist.barrier(self._group)
        self._end(saved)

    def before_val_epoch(self, runner: Runner) -> None:
        """End here on a request to any process, if the state is saved."""
        if runner.message_hub.get_info('saved_after', -1) == runner.iter and self._agreed():
            self._end(runner.message_hub.get_info('last_ckpt'))

    def after_val_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """End here if this is the only process; several agree only before validation and in training."""
        if self._group is None:
            self.before_val_epoch(runner)

    def _agreed(self) -> bool:
        """Check whether any process was requested to end."""
        if self._group is None:
            return self.asked
        flag = torch.tensor(int(self.asked))
        dist.all_reduce(flag, dist.ReduceOp.MAX, group=self._group)
        return bool(flag)

    def _end(self, saved: str) -> None:
        raise TerminationError(f'asked to end: the state is saved in {saved}; --resume continues from there')


def state_of(network: nn.Module) -> str:
    """Return a checksum of a network's weights and buffers."""
    tensors = ((name, value) for name, value in sorted(network.state_dict().items()) if isinstance(value, Tensor))
    return fingerprint(piece for name, value in tensors for piece in (name.encode(), bytes_of(value)))


@HOOKS.register_module()
class SameStartHook(Hook):
    """Refusal of processes that would average gradients of different weights, before the first iteration.

    Machines may have different files at the same paths: checkpoint, start weights, the teacher's weights, the data.
    """

    def before_train(self, runner: Runner) -> None:
        """Compare each process with the first one."""
        if not isinstance(runner.model, DistributedDataParallel):  # others may have a part of the weights in each process
            return
        model = unwrapped(runner)
        start = {
            'the number of batches in an epoch': len(runner.train_dataloader),
            'the seed': getattr(runner.train_loop, 'seed', None),
            'the epoch and iteration': (runner.epoch, runner.iter),
            'the weights (load_from, student_pretrained)': state_of(model),
            'the teacher (teacher_pretrained)': [state_of(network) for network in getattr(model, 'teachers', [])],
        }
        starts = all_gather_object((socket.gethostname(), start))
        for rank, (host, other) in enumerate(starts):
            for what, value in starts[0][1].items():
                if other[what] != value:
                    raise TrainingError(
                        f'{what} of process {rank} ({host}) differ from the first one’s: give all machines the same files '
                        'and options'
                    )


@HOOKS.register_module()
class BroadcastBuffersHook(Hook):
    """Broadcast of the first process's batch statistics before validation.

    They differ between processes, and a checkpoint has the first one's. So the validated statistics are the saved ones, and
    a resumed run validates the same.
    """

    priority = 'LOW'  # after EMAHook has put the averaged weights in

    def before_val_epoch(self, runner: Runner) -> None:
        """Broadcast the statistics."""
        if not is_distributed():
            return
        for buffer in unwrapped(runner).buffers():
            dist.broadcast(buffer, 0)
