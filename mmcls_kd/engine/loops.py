"""Training loops that an interruption does not change: they resume anywhere, bit-exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from mmengine.dataset import InfiniteSampler
from mmengine.dist import all_reduce, get_rank
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from mmpretrain.registry import LOOPS
from torch.utils.data import DataLoader

from ..errors import ChoiceError, DivergenceError, NonFiniteLossError, TrainingError, refusals_named
from ..patches import without_reentry
from .data import PlacedSampler, batches_from, reproducible
from .loss_watch import LossWatch
from .models import unwrapped
from .seeds import seed_all
from .termination import sigterm_restored

ON_NONFINITE = ('stop', 'skip')


def images_of(batch: Any) -> list[str]:
    """Name the images of a batch: by their files, else by their numbers in the data set."""
    samples = batch.get('data_samples', []) if isinstance(batch, Mapping) else []
    return [str(s.get('img_path') or f'sample {s.get("sample_idx", "?")}') for s in samples]


class _ResumableLoop:
    """The common part of both loops.

    Args:
        runner: The runner.
        dataloader: Config of the training data.
        on_nonfinite: Treatment of a step whose loss or gradient is NaN or infinite: ``'stop'`` ends the training with an
            error that names the term and the images, ``'skip'`` skips the step, without a change of weights and batch
            statistics.
        max_nonfinite: Number of steps in a row that may be skipped, for unreadable images too.
        on_unreadable: Treatment of unreadable image files: ``'stop'`` or ``'skip'`` (left out of the batch, and counted).
        in_memory: Whether to keep the training images in memory; None for data sets below 512 MiB. See
            :class:`~mmcls_kd.engine.SeededDataset`.
        gradient_norm_interval: Interval, in iterations, of logging each loss term's gradient norm; 0 for never. It costs one
            backward pass a term.
        **kwargs: Keywords of mmengine's loop.

    Raises:
        ChoiceError: If a choice is unknown.
        TrainingError: During training, see ``on_nonfinite`` and ``on_unreadable``.
    """

    # attributes of the other base, mmengine's loop
    runner: Runner
    dataloader: DataLoader
    _iter: int
    _epoch: int
    val_begin: int
    val_interval: int
    _decide_current_val_interval: Callable[[], None]

    def __init__(
        self,
        runner: Runner,
        dataloader: Any,
        on_nonfinite: str = 'stop',
        max_nonfinite: int = 10,
        on_unreadable: str = 'stop',
        in_memory: bool | None = None,
        gradient_norm_interval: int = 0,
        **kwargs: Any,
    ) -> None:
        if on_nonfinite not in ON_NONFINITE:
            raise ChoiceError(f'on_nonfinite={on_nonfinite!r}: choose one of {", ".join(map(repr, ON_NONFINITE))}')
        rank = get_rank()
        self.seed = runner.seed - rank if runner._randomness_cfg.get('diff_rank_seed') else runner.seed
        loader = reproducible(dataloader, self.seed, on_unreadable, in_memory)
        super().__init__(runner, loader, **kwargs)  # type: ignore[call-arg]
        self.on_nonfinite, self.max_nonfinite = on_nonfinite, max_nonfinite
        self.gradient_norm_interval = gradient_norm_interval
        self.left_out_in_row = 0
        self.view_cycle = 0

    def seed_for(self, what: str, cycle: int | None = None) -> None:
        """Seed all generators for this iteration; seeds repeat after ``cycle`` iterations."""
        seed_all(self.seed, what, self._iter % cycle if cycle else self._iter, get_rank())

    def begin(self) -> None:
        """Prepare the first iteration: take over counts of the resumed checkpoint, watch the losses."""
        with refusals_named('a hook refuses to start', TrainingError):
            self.runner.call_hook('before_train')
        if notice := getattr(self.dataloader.dataset, 'notice', None):
            self.runner.logger.info(notice)
        info = self.runner.message_hub
        info.update_info('batches_per_epoch', len(self.dataloader))
        self.left_out_in_row = info.get_info('left_out_in_row', 0)
        store = getattr(unwrapped(self.runner), 'store', None)
        if store is not None and isinstance(self.dataloader.sampler, PlacedSampler):
            self.view_cycle = self.dataloader.sampler.cycle = self._cycle_of(store.manifest.epochs)
        keep_statistics = self.on_nonfinite == 'skip'
        self.watch = LossWatch(unwrapped(self.runner), keep_statistics, self.gradient_norm_interval)
        self.watch.watch_gradients(self.runner.optim_wrapper)

    def _cycle_of(self, stored: int) -> int:
        """Return the number of epochs after which a teacher store's views repeat; a resumed run keeps its first one."""
        info = self.runner.message_hub
        cycle = info.get_info('view_cycle', stored)
        if cycle > stored:
            self.runner.logger.warning(f'the store had {cycle} epochs and has {stored} now: the run is not the one it was')
            cycle = stored
        info.update_info('view_cycle', cycle)
        return cycle

    def validate_after(self, done: int, last: int) -> None:
        """Validate if it is due after ``done`` of ``last`` epochs or iterations, and was not done before an interruption."""
        self._decide_current_val_interval()
        info = self.runner.message_hub
        due = (done % self.val_interval == 0 or done >= last) and done >= max(1, self.val_begin)
        if not due or self.runner.val_loop is None or info.get_info('last_validation', 0) == self._iter:
            return
        info.update_info('last_validation', self._iter)
        self.seed_for('validation')
        self.runner.val_loop.run()

    def train_on(self, batch_idx: int, batch: Any) -> None:
        """Run one iteration."""
        reduced = self.count_unreadable(batch)
        self.seed_for('step', self.view_cycle * len(self.dataloader))
        self.runner.call_hook('before_train_iter', batch_idx=batch_idx, data_batch=batch)
        outputs = None if reduced else self.step(batch)
        if reduced:
            self.pass_over_unreadable()
        self.runner.call_hook('after_train_iter', batch_idx=batch_idx, data_batch=batch, outputs=outputs)
        self._iter += 1

    def step(self, batch: Any) -> dict | None:
        """Run the optimizer step of one batch; returns the values to log, None if the step was skipped."""
        runner = self.runner
        self.watch.before_step(self._iter)
        try:
            with without_reentry():
                outputs = runner.model.train_step(batch, optim_wrapper=runner.optim_wrapper)
        except NonFiniteLossError as error:
            self.leave_out(error, batch)
            return None
        self.count_left_out(0)
        return outputs | self.watch.norms if self.watch.norms else outputs

    def count_left_out(self, in_row: int) -> None:
        """Set the number of steps skipped in a row, for a resumed run too."""
        if in_row != self.left_out_in_row:
            self.left_out_in_row = in_row
            self.runner.message_hub.update_info('left_out_in_row', in_row)

    def leave_out(self, error: NonFiniteLossError, batch: Any) -> None:
        """Continue without the step, or stop."""
        runner, images = self.runner, images_of(batch)
        where = f'epoch {self._epoch + 1}, iteration {self._iter + 1}'
        self.count_left_out(self.left_out_in_row + 1)
        runner.logger.error(f'{error}: NaN or infinite in {where}; the images of the batch: {", ".join(images)}')
        if self.on_nonfinite == 'stop' or self.left_out_in_row > self.max_nonfinite:
            often = f', {self.left_out_in_row} times in a row' if self.on_nonfinite == 'skip' else ''
            some = ', '.join(images[:3]) + (', ...' if len(images) > 3 else '')
            last = runner.message_hub.get_info('last_ckpt', None)
            raise DivergenceError(
                f'{error} became NaN or infinite in {where}{often} (images: {some}; all of them are in the log). '
                f'The last good checkpoint: {last or "none yet"}. Lower the learning rate or the weight of the term, '
                'or set train_cfg.on_nonfinite=skip'
            ) from error
        self.watch.restore_statistics()
        if error.gradient:
            runner.optim_wrapper.zero_grad()
        self.pass_over()

    def pass_over_unreadable(self) -> None:
        """Go on without a step whose images cannot be read, unless too many in a row are such."""
        self.count_left_out(self.left_out_in_row + 1)
        if self.left_out_in_row > self.max_nonfinite:
            raise TrainingError(
                f'unreadable images leave less than two images of a batch, {self.left_out_in_row} times in a row; the log '
                'names them. Mend or remove what `python -m mmcls_kd check-data` names'
            )
        self.pass_over('unreadable images leave less than two images of its batch')

    def pass_over(self, reason: str = '') -> None:
        """Count a step that is left out, and go on with the next one."""
        runner = self.runner
        total = runner.message_hub.get_info('left_out_steps', 0) + 1
        runner.message_hub.update_info('left_out_steps', total)
        runner.logger.warning(f'the step is left out ({total} of them so far){reason and f": {reason}"}')
        if runner.optim_wrapper._accumulative_counts > 1:
            runner.optim_wrapper.initialize_count_status(runner.model, self._iter + 1, runner.max_iters)

    def count_unreadable(self, batch: Any) -> bool:
        """Log the unreadable images of a batch, and their number so far.

        Returns:
            Whether they leave less than two images of it, in some process: batch norms and losses of pairs need two.
        """
        if getattr(self.dataloader.dataset, 'on_unreadable', 'stop') != 'skip' or not isinstance(batch, dict):
            return False
        unreadable = batch.pop('unreadable', [])
        for message in unreadable:
            total = self.runner.message_hub.get_info('unreadable_images', 0) + 1
            self.runner.message_hub.update_info('unreadable_images', total)
            self.runner.logger.warning(f'left out (number {total} in this process): {message}')
        reduced = torch.tensor(float(bool(unreadable) and len(batch['data_samples']) < 2))
        all_reduce(reduced, 'max')
        return bool(reduced)


@LOOPS.register_module()
class ResumableEpochLoop(_ResumableLoop, EpochBasedTrainLoop):
    """mmengine's ``EpochBasedTrainLoop`` that resumes anywhere, in the middle of an epoch too.

    A validation that an interruption prevented is run later. Random numbers: see :mod:`~mmcls_kd.engine.seeds`.
    """

    __doc__ += _ResumableLoop.__doc__.split('\n', 1)[1]  # type: ignore[union-attr]

    @sigterm_restored()
    def run(self) -> Any:
        """Train to the end."""
        self.begin()
        if self._iter == self._epoch * len(self.dataloader):  # not resumed in the middle of an epoch
            self.validate_after(self._epoch, self._max_epochs)
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self.validate_after(self._epoch, self._max_epochs)
        self.runner.call_hook('after_train')
        return self.runner.model

    def run_epoch(self) -> None:
        """Run the rest of an epoch: all of it, unless the run resumes in its middle."""
        self.runner.call_hook('before_train_epoch')
        done = self._iter - self._epoch * len(self.dataloader)
        self.seed_for('epoch')
        self.runner.model.train()
        for batch_idx, batch in enumerate(batches_from(self.dataloader, done), start=done):
            self.train_on(batch_idx, batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1


@LOOPS.register_module()
class ResumableIterLoop(_ResumableLoop, IterBasedTrainLoop):
    """mmengine's ``IterBasedTrainLoop`` that resumes with the next batch.

    A validation that an interruption prevented is run later. Random numbers: see :mod:`~mmcls_kd.engine.seeds`.
    """

    __doc__ += _ResumableLoop.__doc__.split('\n', 1)[1]  # type: ignore[union-attr]

    @sigterm_restored()
    def run(self) -> Any:
        """Train to the end."""
        self.begin()
        self.runner.call_hook('before_train_epoch')
        self.validate_after(self._iter, self._max_iters)
        self.dataloader_iterator = self.batches()
        while self._iter < self._max_iters and not self.stop_training:
            batch = next(self.dataloader_iterator)
            self.runner.model.train()
            self.train_on(self._iter, batch)
            self.validate_after(self._iter, self._max_iters)
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        return self.runner.model

    def batches(self) -> Iterator[Any]:
        """Iterate over all batches from this iteration on, pass after pass."""
        sampler: Any = self.dataloader.batch_sampler.sampler  # type: ignore[union-attr]
        inner = sampler.sampler if isinstance(sampler, PlacedSampler) else sampler
        endless = isinstance(inner, InfiniteSampler)
        passes, done = (0, self._iter) if endless else divmod(self._iter, len(self.dataloader))
        while True:
            if hasattr(sampler, 'set_epoch'):
                sampler.set_epoch(passes)
            self.seed_for('epoch')
            yield from batches_from(self.dataloader, done)
            passes, done = passes + 1, 0
