"""Checks before training starts: data, labels, checkpoints, optimizer and a first batch."""

from __future__ import annotations

import copy
import inspect
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from mmengine.dataset import InfiniteSampler
from mmengine.dist import all_gather_object
from mmengine.logging import print_log
from mmengine.optim.scheduler.param_scheduler import INF
from mmengine.runner import Runner, ValLoop
from mmpretrain.datasets import BaseDataset
from mmpretrain.evaluation import Accuracy, ConfusionMatrix, MultiLabelMetric, SingleLabelMetric
from mmpretrain.registry import LOOPS, OPTIMIZERS
from torch import nn
from torch.utils.data import DataLoader, Dataset

from ..engine.config import datasets_of
from ..engine.data import plain_datasets, sample_infos
from ..engine.first_batch import check_first_batch, first_images, without_a_trace
from ..engine.folders import LAYOUTS
from ..engine.knn_hook import KNNAgreementHook
from ..engine.labels import check_names, ways_of
from ..engine.loss_watch import value_of
from ..engine.models import classes_of, unwrapped
from ..engine.optimizer_state import match_by_name
from ..engine.rates import scale_rates
from ..engine.resumption import flattened
from ..engine.unlabelled import all_unlabelled, has_unlabelled, labelled_datasets
from ..engine.views import check_store
from ..errors import ChoiceError, TrainingError, close_names, in_one_line, listed, refusals_named, registered
from ..files.checkpoint import read_start
from ..files.packed_list import PackedList
from ..networks.classes import compare_order, names_in
from ..networks.loading import fetch
from ..networks.weights import student_weights, weights_of
from ..recipe.labels import check_unlabelled
from ..recipe.wrappers import CurriculumTemperature
from .features import check_features
from .images import check_images


def labels_of(dataset: Any, name: str, several: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return all labels of a data set of mmpretrain's kind, and the sample of each; ``several`` permits several a sample."""
    first = dataset.get_data_info(0)
    if first.get('gt_label') is None and first.get('gt_score') is None:
        raise ValueError(
            f'{name}: the samples have no label (`gt_label`, only {", ".join(map(str, first))}): set with_label=True in a '
            'CustomDataset, or name an annotation file with labels; to train on images without labels, set '
            "type='UnlabelledImages'"
        )
    if first.get('gt_label') is None:  # scores, which the network's head compares with its classes
        return np.empty(0, int), np.empty(0, int)
    if np.ndim(first['gt_label']) == 0:
        if type(dataset).get_gt_labels is not BaseDataset.get_gt_labels:
            labels = np.asarray(dataset.get_gt_labels())
        elif isinstance(packed := getattr(dataset, 'data_list', None), PackedList) and packed.labels is not None:
            labels = packed.labels
        else:
            labels = np.asarray([info['gt_label'] for info in sample_infos(dataset)])
        return labels, np.arange(len(labels))
    if not several:
        raise ValueError(
            f'{name}: the samples have several labels each ({type(dataset).__name__}, the first {first["gt_label"]}), and '
            'the student’s head is for one label an image: give it a multi-label head, such as '
            "head=dict(type='MultiLabelLinearClsHead'), or a data set with one class for each image"
        )
    each = [np.asarray(info['gt_label'], dtype=int) for info in sample_infos(dataset)]
    if twice := [i for i, labels in enumerate(each) if len(set(labels.tolist())) < len(labels)]:
        raise ValueError(  # mmpretrain would count it, and its loss goes below 0
            f'{name}: {len(twice)} samples name a label twice; the first is sample {twice[0]}: {each[twice[0]].tolist()}'
        )
    return np.concatenate(each), np.repeat(np.arange(len(each)), list(map(len, each)))


def check_labels(dataset: Dataset, num_classes: int, name: str, several: bool = False) -> None:
    """Refuse labels outside of the network's classes; every label is checked. Data sets of other kinds pass."""
    for plain in labelled_datasets(dataset):
        if not hasattr(plain, 'get_gt_labels') or not len(plain):
            continue
        labels, samples = labels_of(plain, name, several)
        wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
        if len(wrong):
            sample = int(samples[wrong[0]])
            raise ValueError(
                f'{name}: {len(wrong)} of {len(labels)} labels are outside of the network’s {num_classes} classes '
                f'(0 to {num_classes - 1}); the first is {labels[wrong[0]]}, of sample {sample} '
                f'({plain.get_data_info(sample).get("img_path", "an image without a file")})'
            )


def check_unlabelled_data(model: Any, loader: DataLoader, name: str, agreement: bool = False) -> None:
    """Refuse images without labels where they would teach nothing, or something wrong: see the messages.

    Args:
        model: The model.
        loader: A dataloader.
        name: Its name.
        agreement: Whether validation is the agreement with the teacher, which needs no labels.
    """
    if not has_unlabelled(loader.dataset) or (agreement and name == 'val_dataloader' and all_unlabelled(loader.dataset)):
        return
    if name != 'train_dataloader' or not hasattr(model, 'student'):
        what = 'a training without a teacher needs' if name == 'train_dataloader' else 'the metrics need'
        raise ValueError(f'{name}: images without labels, and {what} a label for each: give it a labelled data set')
    with refusals_named(name):
        check_unlabelled(model.inputs, model.label)
    if not all_unlabelled(loader.dataset) and getattr(model.data_preprocessor, 'batch_augments', None):
        raise ValueError(
            f'{name}: mixup or CutMix would mix labelled images with unlabelled ones, and the label would be wrong: leave '
            'batch augmentation (model.train_cfg, or batch_augments) out, or train on the unlabelled images alone'
        )


def check_batches(runner: Runner, loaders: Mapping[str, DataLoader]) -> None:
    """Refuse a training without a step, or a validation without a batch; see also :func:`check_batch_of_one`.

    All processes raise, if one of them has no batch, or in training if their numbers of batches differ.
    """
    for name, loader in loaders.items():
        if is_endless(loader):
            continue
        counts = all_gather_object(len(loader))
        images, processes = len(loader.dataset), f' in {len(counts)} processes' * (len(counts) > 1)  # type: ignore[arg-type]
        if min(counts) == 0:
            mend = (
                f'set {name}.drop_last=False, or a batch_size below {loader.batch_size}'
                if loader.drop_last
                else 'add images'
            )
            raise ValueError(
                f'{name}: not one batch in an epoch, of {images} images{processes}, batch_size={loader.batch_size} and '
                f'drop_last={loader.drop_last}: {mend}'
            )
        if name == 'train_dataloader' and len(set(counts)) > 1:
            raise ValueError(
                f'{name}: processes would wait for one another, as they have {counts} batches in an epoch: leave '
                f'sampler.round_up=False out, or set drop_last=True'
            )
    if 'train_dataloader' in loaders and one_image_somewhere(loaders['train_dataloader']):
        check_batch_of_one(runner)


def is_endless(loader: DataLoader) -> bool:
    """Check whether a dataloader never ends: its batches are always full."""
    sampler: Any = getattr(loader.batch_sampler, 'sampler', loader.sampler)
    return isinstance(getattr(sampler, 'sampler', sampler), InfiniteSampler)


def one_image_somewhere(loader: DataLoader) -> bool:
    """Check whether some process gets a batch of one image from a dataloader."""
    size = loader.batch_size or 0
    last = 0 if size == 0 or loader.drop_last or is_endless(loader) else len(loader.sampler) % size  # type: ignore[arg-type]
    return any(all_gather_object(size == 1 or last == 1))


def check_batch_of_one(runner: Runner) -> None:
    """Train on one image, without gradients and without side effects, if an epoch has such a batch.

    Batch statistics of one value, and losses of pairs of images, are undefined there.
    """
    model, loader = unwrapped(runner), runner.train_dataloader
    what = 'batches' if loader.batch_size == 1 else 'the last batch of an epoch'
    mend = (
        'set train_dataloader.drop_last=True, or another batch_size' if loader.batch_size != 1 else 'set a larger batch_size'
    )
    with without_a_trace(model, training=True):
        try:
            batch = first_images(loader, 1)
            losses = model(**model.data_preprocessor(batch, training=True), mode='loss')
        except TrainingError:
            raise
        except (RuntimeError, LookupError, AttributeError, TypeError, ValueError) as error:
            raise ValueError(f'{what} would be one image, which does not go through the model ({error}): {mend}') from error
    bad = [name for name, value in losses.items() if 'loss' in name and not value_of(value).isfinite()]
    if bad and runner.cfg.train_cfg.get('on_nonfinite') != 'skip':
        raise ValueError(f'{what} would be one image, of which {", ".join(bad)} is NaN or infinite: {mend}')


def check_top_k(metrics: Iterable[Any], num_classes: int, name: str) -> None:
    """Refuse a top-k accuracy with a k above the number of classes; ``name`` is that of the metrics' evaluator."""
    for metric in metrics:
        top = getattr(metric, 'topk', None) if isinstance(metric, (Accuracy, MultiLabelMetric)) else None
        wanted = [top] if isinstance(top, int) else list(top or ())
        if wanted and max(wanted) > num_classes:
            fit = tuple(k for k in wanted if k <= num_classes) or (1,)
            raise ValueError(
                f'{name}: {type(metric).__name__} with topk={top}, but there are {num_classes} classes: set '
                f'{name}.topk={fit[0] if isinstance(top, int) else str(fit).replace(" ", "")}'
            )


def check_one_label(metrics: Iterable[Any], dataset: Dataset, name: str) -> None:
    """Refuse metrics of one label an image where a sample has several, none, or scores; ``name`` is that of their evaluator.

    They join the labels of all samples, and compare the i-th label with the i-th prediction.
    """
    single = [m for m in metrics if isinstance(m, (Accuracy, SingleLabelMetric, ConfusionMatrix))]
    for plain in labelled_datasets(dataset) if single else ():
        if not hasattr(plain, 'get_gt_labels') or not len(plain) or np.ndim(plain.get_data_info(0).get('gt_label', ())) == 0:
            continue
        labels = (info.get('gt_label', ()) for info in sample_infos(plain))
        if other := next((pair for pair in enumerate(labels) if len(pair[1]) != 1), None):
            raise ValueError(
                f'{name}: {type(single[0]).__name__} is for one label an image, and sample {other[0]} has {list(other[1])} '
                f"({type(plain).__name__}): set {name}=[dict(type='MultiLabelMetric'), dict(type='AveragePrecision')]"
                f'{", without --metrics" if name == "test_evaluator" else ""}'
            )


def check_optimizer(runner: Runner, checkpoint: Mapping | None) -> None:
    """Build the optimizer and its schedules once, and drop them: the runner builds its own when training starts.

    The optimizer in the checkpoint of a resumed run has to fit.
    """
    given, schedules = runner.optim_wrapper, runner.param_schedulers
    if not isinstance(given, dict):
        return
    kind = (given.get('optimizer') or {}).get('type')
    if isinstance(kind, str) and OPTIMIZERS.get(kind) is None:
        close = close_names(kind, registered('optimizer'))
        raise ValueError(f'optim_wrapper.optimizer: there is no optimizer {kind!r}{close}')
    try:
        runner.optim_wrapper = runner.build_optim_wrapper(copy.deepcopy(given))
        if schedules is not None:
            check_cycles(runner.build_param_scheduler(copy.deepcopy(schedules)), runner.max_iters)
    except Exception as error:
        if 'end should be larger than begin' in str(error):
            raise ValueError(too_short(runner.cfg.train_cfg, error)) from error
        raise ValueError(
            f'the optimizer or its schedules cannot be built ({in_one_line(error)}): '
            f'optim_wrapper={dict(given)}, param_scheduler={schedules}'
        ) from error
    else:
        for text in idle_keys(unwrapped(runner), given.get('paramwise_cfg') or {}):
            runner.logger.warning(text)
        if checkpoint and 'optimizer' in checkpoint:
            match_by_name(dict(checkpoint), unwrapped(runner), runner.optim_wrapper)
    finally:
        runner.optim_wrapper = given


def idle_keys(model: nn.Module, settings: Mapping) -> Iterator[str]:
    """Tell of the keys of ``paramwise_cfg.custom_keys`` that no parameter has in its name, which mmengine passes over.

    Those that begin with a dot are for some networks of a kind (``.cls_token``).
    """
    names = [name for name, _ in model.named_parameters()]
    modules = {name.rsplit('.', depth)[0] for name in names for depth in range(1, name.count('.') + 1)}
    for key in settings.get('custom_keys') or {}:
        if not key.startswith('.') and not any(key in name for name in names):
            yield (
                f'optim_wrapper.paramwise_cfg.custom_keys: no parameter has {key!r} in its name, so it changes nothing'
                f'{close_names(key, modules)}'
            )


def too_short(train_cfg: Mapping, error: Exception) -> str:
    """Return the message for a schedule without a step, from mmengine's error."""
    key, unit = ('max_iters', 'iteration') if 'max_iters' in train_cfg else ('max_epochs', 'epoch')
    return (
        f'param_scheduler: {in_one_line(error)}: a schedule ends before it begins: train_cfg.{key}={train_cfg.get(key)} '
        f'leaves no {unit} after the warm-up; train longer or shorten the warm-up'
    )


def check_cycles(schedules: Any, steps: int) -> None:
    """Refuse a cycle that ends before the training's last iteration; warn of one that is cut off by the training's end.

    mmengine's schedules are in a list or a dict of lists.
    """
    for schedule in flattened(schedules):
        if schedule.by_epoch or (total := getattr(schedule, 'total_steps', steps)) == steps:
            continue
        text = f'{type(schedule).__name__} has total_steps={total}, and the training has {steps} iterations'
        if total < min(steps, schedule.end):
            raise ValueError(f'{text}: leave total_steps out, and it has as many')
        if total < INF - schedule.begin:
            print_log(f'{text}: its cycle is cut off; without total_steps it has as many', 'current', logging.WARNING)


def check_phases(runner: Runner) -> None:
    """Refuse a loss whose first phase is as long as the training; warn of schedules that the training's end cuts off."""
    model, epochs, steps = unwrapped(runner), runner.max_epochs, runner.max_iters
    for name, loss in getattr(model, 'distill_losses', {}).items():
        if (first := max(getattr(part, 'first_phase', 0) for part in loss.modules())) >= steps:
            raise ValueError(
                f'{name}: in its first {first} steps the student learns nothing from it, and the training has {steps}: '
                f'shorten that phase, for FTLoss by paraphraser_steps={steps // 4}'
            )
        weight = model.loss_weights[name]
        unit, total = ('epoch', epochs) if weight.by_epoch else ('iteration', steps)
        cut = [f'loss_weight changes until {unit} {weight.settled}'] * (not weight.fixed and weight.settled > total)
        curricula = [part.epochs for part in loss.modules() if isinstance(part, CurriculumTemperature)]
        cut += [f'curriculum has {number} epochs' for number in curricula if number > epochs]
        for text in cut:
            end = f', with {weight.at(total):g} for {weight.value:g}' if 'weight' in text else ''
            runner.logger.warning(f'{name}: its {text}, and the training ends after {unit} {total}{end}')


def check_loop_keys(loop_cfg: Mapping, key: str, text: str) -> None:
    """Refuse the config of a loop, at ``key``, if the message of a TypeError says that the loop does not take its keys."""
    kind = loop_cfg.get('type', ValLoop)
    classes = inspect.getmro(kind if isinstance(kind, type) else LOOPS.get(kind))[:-1]
    kinds = [k for k in classes if '__init__' in vars(k)]
    if not any(f'{k.__name__}.__init__()' in text for k in kinds):
        return
    unknown = re.search(r"unexpected keyword argument '(\w+)'", text)
    known = {name for k in kinds for name in inspect.signature(k).parameters}
    close = close_names(unknown[1], known - {'runner', 'dataloader', 'evaluator', 'kwargs'}) if unknown else ''
    raise ValueError(f'{key}: {text}{close}')


def load_data(runner: Runner) -> dict[str, Any]:
    """Load the dataloaders of a training, by name; a message names the data set and its expected layout."""
    loaders = {}
    for name, key in (('train_dataloader', 'train_cfg'), ('val_dataloader', 'val_cfg')):
        try:
            if name == 'train_dataloader' or runner.val_loop is not None:
                loaders[name] = getattr(runner, name)
        except ChoiceError:
            raise
        except Exception as error:
            if isinstance(error, TypeError):
                check_loop_keys(runner.cfg[key], key, str(error))
            parts = [dataset for loader, dataset in datasets_of(runner.cfg) if loader == name]
            named = [
                ', '.join(f'{k}={part[k]!r}' for k in ('type', 'data_root', 'ann_file') if part.get(k)) for part in parts
            ]
            layouts = {f'{k} expects in its data_root: {LAYOUTS[k]}' for part in parts if (k := part.get('type')) in LAYOUTS}
            raise ValueError(
                '; '.join([f'{name}: the data could not be loaded ({in_one_line(error)})', *named, *sorted(layouts)])
                + '. `python -m mmcls_kd check-data` checks all of them'
            ) from error
    return loaders


def check_start(student: nn.Module, source: str, checkpoint: Mapping) -> None:
    """Refuse a ``load_from`` or ``--resume`` file with another student; mmengine would load the parts that fit."""
    whole = weights_of(checkpoint)
    weights = {k.removeprefix('student.'): v for k, v in whole.items() if k.startswith('student.')}
    if not weights or any(k.startswith('predictor.') for k in whole):  # of SimKD, transferred
        raise ValueError(
            f'load_from {source} has no student weights (`student.*`); to start the student from weights of its own, '
            'set model.student_pretrained instead'
        )
    own = {k: tuple(v.shape) for k, v in student.state_dict().items()}
    other = sorted(own.items() ^ {(k, tuple(v.shape)) for k, v in weights.items()})
    if other:
        raise ValueError(
            f'load_from {source} holds another student: {other[0][0]} and {len(other) - 1} more differ: set '
            'model.student_cfg to the network of that file'
        )


def check_some_fit(network: nn.Module, source: str, checkpoint: Mapping) -> None:
    """Refuse a ``load_from`` file without weights of the network; mmengine would train it from random weights."""
    weights, own = weights_of(checkpoint), network.state_dict()
    if own.keys() & weights.keys():
        return
    of_training = '`python -m mmcls_kd transfer` makes a file of the student alone'
    mend = of_training if student_weights(weights) else 'is it of another network?'
    there = listed([*weights], 2) or 'none'
    raise ValueError(f'load_from {source} has no weights of this network ({listed([*own], 2)}), but {there}: {mend}')


def check_resumed(model: nn.Module, source: str, checkpoint: Mapping) -> None:
    """Refuse a ``--resume`` file with weights of another shape; mmengine would skip them."""
    saved = weights_of(checkpoint)
    for name, value in model.state_dict().items():
        if name in saved and saved[name].shape != value.shape:
            raise ValueError(
                f'{source} holds {name} of shape {tuple(saved[name].shape)}, and this run has {tuple(value.shape)}: '
                'resume with the settings and images that the run had, or start from its weights alone (load_from, without '
                '--resume)'
            )


def check_data(runner: Runner, loaders: Mapping[str, DataLoader]) -> None:
    """Check labels, class names, metrics and images of the data of a run, whose dataloaders are given by name."""
    model = unwrapped(runner)
    inner = getattr(model, 'module', model)  # the model that test-time augmentation wraps
    num_classes, several = classes_of(inner), getattr(inner, 'multi_label', not hasattr(inner, 'student'))
    loops = dict(val_dataloader=('val_loop', 'val_evaluator'), test_dataloader=('test_loop', 'test_evaluator'))
    for text in check_names({name: list(plain_datasets(loader.dataset)) for name, loader in loaders.items()}):
        runner.logger.warning(text)
    agreement = any(isinstance(hook, KNNAgreementHook) for hook in runner.hooks)
    for name, loader in loaders.items():
        check_unlabelled_data(inner, loader, name, agreement)
        if num_classes:
            check_labels(loader.dataset, num_classes, name, several)
        if name in loops and num_classes is not None:
            loop, evaluator = loops[name]
            metrics = getattr(runner, loop).evaluator.metrics
            check_one_label(metrics, loader.dataset, evaluator)
            if metrics and not num_classes:
                raise ValueError(
                    f'{evaluator}: {type(metrics[0]).__name__} needs predictions, and the student has no classes: set '
                    f"{evaluator}=[] and add dict(type='KNNHook') to custom_hooks, which measures embeddings"
                )
            check_top_k(metrics, num_classes, evaluator)
    with without_a_trace(model):
        for name, loader in loaders.items():
            check_images(loader, name, readable=name != 'train_dataloader')


def check_training(runner: Runner) -> None:
    """Run all checks that need the built runner: data and labels, the file to start from, the optimizer, the first batch.

    ``auto_scale_lr`` is applied before the check of the optimizer, see :func:`~mmcls_kd.engine.rates.scale_rates`.
    """
    model = unwrapped(runner)
    loaders = load_data(runner)
    check_data(runner, loaders)
    source, checkpoint = runner.cfg.get('load_from'), None
    if source:
        checkpoint = read_start(fetch(source, 'load_from'))
        if hasattr(model, 'student'):
            check_start(model.student, source, checkpoint)
        else:
            check_some_fit(model, source, checkpoint)
        if runner.cfg.get('resume'):
            check_resumed(model, source, checkpoint)
        known, data = names_in(checkpoint.get('meta')), ways_of(loaders['train_dataloader'].dataset)
        compare_order(known, data, source, refuse=bool(runner.cfg.get('resume')))
    check_batches(runner, loaders)
    check_phases(runner)
    scale_rates(runner)
    check_optimizer(runner, checkpoint if runner.cfg.get('resume') else None)
    check_store(runner)
    check_first_batch(runner)
    check_features(runner)
