"""The fingerprint of a run, and the adaptation of a resumed run whose fingerprint has changed."""

from __future__ import annotations

import logging
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import CheckpointHook, EarlyStoppingHook, EMAHook
from mmengine.logging import print_log
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import Tensor

from ..distillers.recipe import Recipe
from ..errors import TrainingError
from ..files.checkpoint import plain
from .data import plain_datasets, sample_infos
from .models import unwrapped

#: The keys of a config that determine a run.
PARTS = (
    'model',
    'data_preprocessor',
    'train_dataloader',
    'train_cfg',
    'optim_wrapper',
    'param_scheduler',
    'auto_scale_lr',
    'custom_hooks',
)
#: Keys in them that change no result; the number of images determines ``num_samples``.
SILENT = {
    *('num_workers', 'persistent_workers', 'pin_memory', 'prefetch_factor', 'worker_init_fn', 'num_samples', '_scope_'),
    *('serialize_data', 'val_interval', 'val_begin', 'gradient_norm_interval'),
}
#: Number of training images, evenly spread, whose names and labels are compared.
COMPARED_IMAGES = 10_000
#: The keys that determine the optimizer's steps.
RATES = ('optim_wrapper', 'param_scheduler', 'auto_scale_lr')
#: The keys of a schedule's progress; all others in its state are its settings.
POSITION = {'last_step', '_global_step', '_last_value', 'verbose', 'best', 'cooldown_counter', 'num_bad_epochs'}


def fingerprint(pieces: Iterable[bytes]) -> str:
    """Return a checksum of some bytes."""
    value = 0
    for piece in pieces:
        value = zlib.crc32(piece, value)
    return f'{value:08x}'


def bytes_of(tensor: Tensor) -> bytes:
    """Return the bytes of a tensor's numbers."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def images_of_training(dataset: Any) -> dict[str, Any]:
    """Return the number of training images, and a checksum of their names and labels."""

    def pieces() -> Iterator[bytes]:
        for part in plain_datasets(dataset):
            if not hasattr(part, 'get_data_info'):
                continue
            for info in sample_infos(part, -(-len(part) // COMPARED_IMAGES) or 1):
                yield repr((Path(str(info.get('img_path', ''))).name, plain(info.get('gt_label')))).encode()

    return {'training images': len(dataset), 'names and labels of the training images': fingerprint(pieces())}


def weights_of_teachers(model: Any) -> Any:
    """Return a checksum of the teachers' weights; for a store its own; None without a teacher."""
    if (store := getattr(model, 'store', None)) is not None:
        return plain(store.manifest.teacher)
    weights = [parameter for network in getattr(model, 'teachers', ()) for parameter in network.parameters()]
    return fingerprint(map(bytes_of, weights)) if weights else None


def record_of(runner: Runner) -> dict[str, Any]:
    """Return the fingerprint of a run in plain values; a checkpoint has it in its ``meta``."""
    found = {name: plain(runner.cfg[name]) for name in PARTS if runner.cfg.get(name) is not None}
    if 'model' in found:
        found['model'] = Recipe(found['model']).record()
    if 'custom_hooks' in found:
        found['custom_hooks'] = {str(hook.get('type')): hook for hook in found['custom_hooks']}
    return {
        'processes': get_world_size(),
        **images_of_training(runner.train_dataloader.dataset),
        'weights of the teacher': weights_of_teachers(unwrapped(runner)),
        **found,
    }


def _short(value: Any) -> str:
    if isinstance(value, dict) and 'type' in value:
        value = value['type']
    text = 'none' if value is None else str(value)
    return text if len(text) <= 60 else f'{text[:57]}...'


def changes(before: Any, now: Any, name: str = '') -> list[str]:
    """List the settings that differ between two fingerprints, with the old and the new value.

    Example:
        >>> changes({'processes': 2, 'model': {'methods': {}}}, {'processes': 1, 'model': {'methods': {}, 'taps': [1]}})
        ['processes: 2 → 1', 'model.taps: none → [1]']
    """
    if name.rsplit('.', 1)[-1] in SILENT or before == now:
        return []
    if isinstance(before, dict) and isinstance(now, dict) and before.get('type') == now.get('type'):
        return [
            text
            for key in {**before, **now}
            for text in changes(before.get(key), now.get(key), f'{name}.{key}' if name else key)
        ]
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        return [text for i, pair in enumerate(zip(before, now, strict=True)) for text in changes(*pair, f'{name}[{i}]')]
    return [f'{name}: {_short(before)} → {_short(now)}']


def go_on(runner: Runner, checkpoint: dict[str, Any], now: Mapping[str, Any]) -> None:
    """Fit a checkpoint to the run that resumes from it, in place, and log all changes in one warning.

    With another length of epochs, the run resumes at the epoch's start. If lengths, optimizer or schedules have changed,
    learning rates and optimizer settings are those of a run of the present config at this place.

    Args:
        runner: The runner, its loop and optimizer built.
        checkpoint: The checkpoint, with the optimizer's state in this run's order.
        now: Fingerprint of this run.
    """
    meta, hub = checkpoint['meta'], checkpoint.get('message_hub')
    info = hub.get('runtime_info', {}) if isinstance(hub, Mapping) else {}
    changed = changes(meta['run'], dict(now)) if 'run' in meta else []
    _check_memories(runner, changed)
    notes, place = [], meta['iter']
    length = len(runner.train_loop.dataloader)
    if (before := info.get('batches_per_epoch', length)) != length:
        notes.append(_fit_length(runner, meta, info, before, length))
    anew = any(text.startswith(RATES) for text in changed)
    if note := _follow_schedules(runner, checkpoint, anew):
        notes.append(note)
    if 'ema_state_dict' in checkpoint and not any(isinstance(hook, EMAHook) for hook in runner.hooks):
        own = {k.removeprefix('module.'): v for k, v in checkpoint['ema_state_dict'].items() if k.startswith('module.')}
        checkpoint['state_dict'] = own  # where there is an average, these are the weights themselves
        notes.append('the moving average is given up')
    if meta['iter'] == place and not any('accumulative_counts' in text for text in changed):
        restore_gathered(runner, checkpoint)
    if changed or notes:
        text = f'resumed, but no longer the run that it was: {"; ".join(changed + notes)}'
        print_log(text, 'current', logging.WARNING)


def _check_memories(runner: Runner, changed: list[str]) -> None:
    """Refuse other training images if a loss remembers each of them by its number."""
    losses = getattr(unwrapped(runner), 'distill_losses', {})
    remembering = [name for name, loss in losses.items() if 'num_samples' in getattr(loss, 'facts', {}).values()]
    other = [text for text in changed if 'training images' in text.split(':', 1)[0]]
    if remembering and other:
        raise TrainingError(
            f'{remembering[0]} remembers each training image by its number, and these are others ({"; ".join(other)}): '
            'resume with the images of the run, or start from its weights alone (load_from, without --resume)'
        )


def _fit_length(runner: Runner, meta: dict[str, Any], info: dict[str, Any], before: int, length: int) -> str:
    """Resume with another length of epochs: convert counts of old iterations to new ones."""
    text = f'the epoch had {before} batches in each process and has {length} now: the run resumes at '
    if not isinstance(runner.train_loop, EpochBasedTrainLoop):
        return f'{text}iteration {meta["iter"] + 1}'
    for name in {'last_validation', 'saved_after'} & info.keys():
        epochs, rest = divmod(info[name], before)
        info[name] = -1 if rest else epochs * length
    meta['iter'] = meta['epoch'] * length
    return f'{text}the start of epoch {meta["epoch"] + 1}'


def flattened(schedules: Any) -> list[Any]:
    """List all schedules: those of one optimizer are a list, of several a dict of lists."""
    groups = schedules.values() if isinstance(schedules, Mapping) else [schedules or []]
    return [schedule for group in groups for schedule in group]


def _same_schedule(saved: Mapping[str, Any], own: Mapping[str, Any]) -> bool:
    """Check whether two states are of the same schedule; versions of mmengine add settings, other kinds have others."""
    saved, own = (
        {k: v for k, v in state.items() if k not in POSITION and not callable(v) and k != 'anneal_func'}
        for state in (saved, own)
    )
    kind = not (saved.keys() - own.keys() and own.keys() - saved.keys())
    return kind and all(saved[key] == own[key] for key in saved.keys() & own.keys())


def _follow_schedules(runner: Runner, checkpoint: dict[str, Any], anew: bool) -> str | None:
    """Move the schedules of the present config to this place, if they differ from the checkpoint's; returns a message.

    One that follows a metric, whose course is unknown, is refused.
    """
    optimizer, own = checkpoint.get('optimizer', {}), flattened(runner.param_schedulers)
    saved = flattened(checkpoint.get('param_schedulers'))
    other = len(saved) != len(own) or not all(map(_same_schedule, saved, (s.state_dict() for s in own)))
    if 'param_groups' not in optimizer or not (anew or other):
        return None
    if following := [s for s in own if getattr(s, 'need_val_args', False)]:
        if not other:
            return None
        raise TrainingError(
            f'a schedule is another than the checkpoint’s (by param_scheduler, max_epochs or the number of batches), and '
            f'{type(following[0]).__name__} follows a metric, so that its place cannot be found anew: resume with the '
            'schedules and the length that the run had, or start from its weights alone (load_from, without --resume)'
        )
    before = optimizer['param_groups'][0]['lr']
    _step_to(runner, own, checkpoint['meta'])
    built: Any = runner.optim_wrapper
    state = built.state_dict()
    optimizer |= {key: state[key] for key in ('param_groups', 'base_param_settings') if key in state}
    if own:
        schedules: Any = runner.param_schedulers
        states = {k: [s.state_dict() for s in v] for k, v in schedules.items()} if isinstance(schedules, dict) else None
        checkpoint['param_schedulers'] = states or [s.state_dict() for s in own]
    rate = optimizer['param_groups'][0]['lr']
    return None if rate == before else f'the learning rate follows the present schedule: {rate:.4g} instead of {before:.4g}'


def _step_to(runner: Runner, schedules: list[Any], meta: Mapping[str, Any]) -> None:
    """Step new schedules to the place of a checkpoint, in the order of a training."""
    length = len(runner.train_loop.dataloader) if isinstance(runner.train_loop, EpochBasedTrainLoop) else 0
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)  # torch's and mmengine's, of a step before the optimizer's first
        for done in range(1, meta['iter'] + 1):
            ends = length and done % length == 0 and done // length <= meta['epoch']
            for schedule in schedules:
                if not schedule.by_epoch:
                    schedule.step()
            for schedule in schedules if ends else ():
                if schedule.by_epoch:
                    schedule.step()


def gathered_gradients(runner: Runner) -> dict[str, Tensor]:
    """Return the gradients gathered for the optimizer's step, by name; all processes call it at once.

    Several processes have one each; the step needs only their mean.
    """
    wrapper: Any = runner.optim_wrapper
    if getattr(wrapper, '_accumulative_counts', 1) == 1 or wrapper.should_update():
        return {}
    found = {name: p.grad.clone() for name, p in unwrapped(runner).named_parameters() if p.grad is not None}
    for gradient in found.values():
        all_reduce(gradient, 'mean')
    return found


def restore_gathered(runner: Runner, checkpoint: Mapping[str, Any]) -> None:
    """Restore the gathered gradients."""
    if gathered := checkpoint.get('gathered_gradients'):
        for name, parameter in unwrapped(runner).named_parameters():
            if name in gathered:
                parameter.grad = gathered[name].to(parameter)
        print_log('the gradients that were gathered for the next optimizer step are restored', 'current')


def stopping_counts(runner: Runner) -> list[dict[str, float]]:
    """Return the counts of each ``EarlyStoppingHook``."""
    hooks = [hook for hook in runner.hooks if isinstance(hook, EarlyStoppingHook)]
    return [dict(wait_count=int(hook.wait_count), best_score=float(hook.best_score)) for hook in hooks]


def restore_stopping(runner: Runner, counts: list[dict[str, float]]) -> None:
    """Restore the counts of each ``EarlyStoppingHook``; a run that one has stopped stays so."""
    hooks = [hook for hook in runner.hooks if isinstance(hook, EarlyStoppingHook)]
    for hook, count in zip(hooks, counts, strict=False):
        vars(hook).update(count)
        threshold, better = hook.stopping_threshold, hook.rule_map[hook.rule]
        if hook.wait_count >= hook.patience or (threshold is not None and better(hook.best_score, threshold)):
            runner.train_loop.stop_training = True


def count_before_saving(runner: Runner) -> None:
    """Let each ``EarlyStoppingHook`` count a validation before ``CheckpointHook`` saves once more after it."""
    hooks = runner._hooks
    place = next((number for number, hook in enumerate(hooks) if isinstance(hook, CheckpointHook)), len(hooks))
    late = [hook for hook in hooks[place:] if isinstance(hook, EarlyStoppingHook)]
    hooks[:] = [*hooks[:place], *late, *(hook for hook in hooks[place:] if hook not in late)]
