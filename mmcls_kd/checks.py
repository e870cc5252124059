"""Checks before training starts: the data are there, the labels fit the classes, and one batch goes through."""

from __future__ import annotations

import copy
import logging
import math
import random
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import get_dist_info
from mmengine.logging import print_log
from mmengine.optim.scheduler.param_scheduler import INF
from mmengine.runner import Runner
from mmpretrain.datasets.utils import check_md5
from mmpretrain.registry import DATASETS
from torch import nn
from torch.utils.data import DataLoader, Dataset

from .checkpoint import fetch, read_checkpoint, student_weights, weights_of
from .engine.data import SampleIndex, plain_datasets
from .engine.models import unwrapped
from .engine.optimizer_state import match_by_name
from .engine.rates import scale_rates
from .engine.resumption import flattened
from .errors import ChoiceError, TrainingError
from .networks.weights import listed
from .runtime import datasets_of
from .teacher_store.views import check_store

#: The layout that a data set expects under its ``data_root``, and what fetches it.
LAYOUTS = {
    'ImageNet': 'train/CLASS/*.JPEG and val/CLASS/*.JPEG, or train/*, val/* with meta/train.txt and meta/val.txt',
    'CustomDataset': 'a folder of images for each class, or an annotation file (`ann_file`)',
    'FashionMNIST': 'train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte; '
    'python tools/fetch_fashion_mnist.py puts them there',
    'CIFAR100': 'cifar-100-python/{train,test,meta} (mmpretrain downloads it where there is a network)',
}
SELF_FETCHING = ('CIFAR10', 'CIFAR100', 'MNIST')
#: Fashion-MNIST's files and how many dimensions each one's array has.
IDX_FILES = {
    f'{split}-{kind}-ubyte': int(kind[-1]) for split in ('train', 't10k') for kind in ('images-idx3', 'labels-idx1')
}


def check_data_folders(cfg: Config, loaders: tuple[str, ...]) -> None:
    """Refuse a data set whose folder is missing, or that reads another split than it names.

    Args:
        cfg: Config of the run.
        loaders: The dataloaders that the run will use.

    Raises:
        FileNotFoundError: Names the folder, the expected layout and, where there is one, the command that fetches it.
        ValueError: As :func:`check_published`.
        ValueError: See :func:`refuse_other_split`.
    """
    for loader, dataset in datasets_of(cfg):
        kind, root = dataset.get('type'), dataset.get('data_root')
        if loader in loaders:
            refuse_other_split(loader, dataset)
        if loader not in loaders or not isinstance(root, str) or '://' in root:
            continue
        if kind in SELF_FETCHING:
            check_published(kind, Path(root, dataset.get('data_prefix') or ''))
            continue
        folders = [root, *(str(Path(root, part)) for part in [dataset.get('split')] if kind == 'ImageNet' and part)]
        for folder in folders:
            if root and not Path(folder).is_dir():
                layout = f'; expected in {root}: {LAYOUTS[kind]}' if kind in LAYOUTS else ''
                raise FileNotFoundError(f'{loader}: the data set folder {folder} does not exist{layout}')


def refuse_other_split(loader: str, dataset: Mapping) -> None:
    """Refuse a data set that reads another split than it names: mmpretrain's MNIST and FashionMNIST go by ``test_mode``.

    Args:
        loader: The dataloader, for the message.
        dataset: Config of its data set.

    Raises:
        ValueError: Names both keys, and which to set.
    """
    from mmpretrain.datasets import MNIST  # prints a line of its own where it is imported first

    kind = dataset.get('type')
    kind = DATASETS.get(kind) if isinstance(kind, str) else kind
    if not (isinstance(kind, type) and issubclass(kind, MNIST)) or 'split' not in dataset:
        return
    split, test_mode = dataset['split'], bool(dataset.get('test_mode', False))
    if split in ('train', 'test') and (split == 'test') != test_mode:
        raise ValueError(
            f'{loader}: {kind.__name__}(split={split!r}, test_mode={test_mode}) reads the '
            f'{"test" if test_mode else "training"} images, as mmpretrain goes by test_mode: set test_mode={not test_mode}'
        )


def check_published(kind: str, root: Path) -> None:
    """Refuse files of a data set that mmpretrain would overwrite: it fetches all of them anew where one is not as published.

    Args:
        kind: The data set, one of :data:`SELF_FETCHING`.
        root: Its folder.

    Raises:
        ValueError: Names the file.
    """
    data = object.__new__(DATASETS.get(kind))  # made, it would fetch
    data.data_prefix = dict(root=str(root))
    mend = f'mmpretrain would fetch all of {kind} and overwrite what is there: move that away, or name another data_root'
    if kind == 'MNIST':
        files = {root / name.removesuffix('.gz') for name, _ in data.train_list + data.test_list}
        if (missing := sorted(file for file in files if not file.is_file())) and len(missing) < len(files):
            raise ValueError(f'{missing[0]}: no such file, but others are there; {mend}')
    elif not data._check_integrity():
        for name, md5 in data.train_list + data.test_list:
            path = root / data.base_folder / name
            if path.is_file() and md5 and not check_md5(str(path), md5):
                raise ValueError(f'{path}: there, but by MD5 not as published; {mend}')


def check_idx_files(cfg: Config, loaders: tuple[str, ...]) -> None:
    """Refuse files of Fashion-MNIST that are missing, cut short or other than they should be.

    Args:
        cfg: Config of the run.
        loaders: The dataloaders that the run will use.

    Raises:
        FileNotFoundError: Names the file.
        ValueError: Likewise.
    """
    sets = [d for name, d in datasets_of(cfg) if name in loaders and d.get('type') == 'FashionMNIST']
    roots = {d['data_root'] for d in sets if isinstance(d.get('data_root'), str) and '://' not in d['data_root']}
    fetch_it = 'python tools/fetch_fashion_mnist.py fetches it'
    mend = f'move it away, then {fetch_it}'
    for path, dimensions in ((Path(root, name), n) for root in sorted(roots) for name, n in IDX_FILES.items()):
        if not path.is_file():
            raise FileNotFoundError(f'{path}: no such file; {fetch_it}')
        with path.open('rb') as file:
            header = file.read(4 + 4 * dimensions)
        if header[:4] != bytes([0, 0, 8, dimensions]) or len(header) < 4 + 4 * dimensions:
            raise ValueError(f'{path}: no file of an array of bytes with {dimensions} dimensions; {mend}')
        size = len(header) + math.prod(struct.unpack_from(f'>{dimensions}I', header, 4))
        if path.stat().st_size != size:
            raise ValueError(f'{path}: {path.stat().st_size} bytes long, and should be {size}; {mend}')


def check_labels(dataset: Dataset, num_classes: int, name: str) -> None:
    """Refuse labels outside of the classes; looks at every one.

    Args:
        dataset: The data set, of mmpretrain's kind (others have nothing to look at and pass).
        num_classes: How many classes the network tells apart.
        name: What to call it in the message.

    Raises:
        ValueError: Names the first label and the sample that has it.
    """
    for plain in plain_datasets(dataset):
        if not hasattr(plain, 'get_gt_labels'):
            continue
        labels = np.asarray(plain.get_gt_labels())
        wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
        if len(wrong):
            info = plain.get_data_info(int(wrong[0]))
            raise ValueError(
                f'{name}: {len(wrong)} of {len(labels)} labels are outside of the network’s {num_classes} classes '
                f'(0 to {num_classes - 1}); the first is {labels[wrong[0]]}, of sample {wrong[0]} '
                f'({info.get("img_path", "an image without a file")})'
            )


def first_images(loader: DataLoader) -> Any:
    """A batch of two images, made as in training but for their order: no sampler is touched, some can be read only once."""
    rank, world_size = get_dist_info()
    size = len(loader.dataset)  # type: ignore[arg-type]
    indices = [SampleIndex(k % size, 0, (rank + k * world_size) % size) for k in range(2)]
    return loader.collate_fn([loader.dataset[index] for index in indices])


@contextmanager
def uncompiled() -> Iterator[None]:
    """Run what is compiled as it is, so that nothing is compiled for two images."""
    stance = getattr(torch.compiler, 'set_stance', None)  # since torch 2.6
    with stance('force_eager') if stance else nullcontext():
        yield


@contextmanager
def misfits_named(what: str) -> Iterator[None]:
    """Turn what goes wrong when a first batch does not fit into a ``ValueError`` that says so."""
    try:
        yield
    except TrainingError:
        raise  # says all that is to be said
    except (RuntimeError, LookupError, AttributeError, TypeError) as error:
        raise ValueError(f'a first batch does not go through {what}: {type(error).__name__}: {error}') from error


def check_first_batch(runner: Runner) -> None:
    """Run two training images through the model's losses, without gradient and without a trace.

    What does not fit (channels, sizes, numbers of classes) fails here, before anything is trained. Random states and batch
    statistics are afterwards what they were (but for a teacher in train mode, which does not use them).

    Raises:
        ValueError: Whatever went wrong.
        TrainingError: If an image cannot be read, or a loss is not finite.
    """
    model = unwrapped(runner)
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    loader = runner.train_dataloader
    numpy_state, python_state = np.random.get_state(), random.getstate()
    training = model.training
    try:
        with misfits_named('the model'), torch.random.fork_rng(devices), torch.no_grad(), uncompiled():
            model.eval()
            batch = first_images(loader)
            model(**model.data_preprocessor(batch, training=True), mode='loss')
    finally:
        model.train(training)
        np.random.set_state(numpy_state)
        random.setstate(python_state)


def check_optimizer(runner: Runner, checkpoint: Mapping | None) -> None:
    """Build the optimizer and its schedules once, and throw them away: the runner builds its own when training starts.

    Args:
        runner: The runner.
        checkpoint: What the run goes on from, whose optimizer has to fit; None if it does not go on.

    Raises:
        ValueError: If they cannot be built, or the checkpoint's optimizer is another.
    """
    given, schedules = runner.optim_wrapper, runner.param_schedulers
    if not isinstance(given, dict):
        return
    try:
        runner.optim_wrapper = runner.build_optim_wrapper(copy.deepcopy(given))
        if schedules is not None:
            check_cycles(runner.build_param_scheduler(copy.deepcopy(schedules)), runner.max_iters)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f'the optimizer or its schedules cannot be built ({type(error).__name__}: {error}): '
            f'optim_wrapper={dict(given)}, param_scheduler={schedules}'
        ) from error
    else:
        if checkpoint and 'optimizer' in checkpoint:
            match_by_name(dict(checkpoint), unwrapped(runner), runner.optim_wrapper)
    finally:
        runner.optim_wrapper = given


def check_cycles(schedules: Any, steps: int) -> None:
    """Refuse a cycle that ends before the training; say so if it is cut off by the training's end.

    Args:
        schedules: Schedules as mmengine builds them, in a list or a dict of lists.
        steps: How many iterations the training has.

    Raises:
        ValueError: Names both numbers.
    """
    for schedule in flattened(schedules):
        if schedule.by_epoch or (total := getattr(schedule, 'total_steps', steps)) == steps:
            continue
        text = f'{type(schedule).__name__} has total_steps={total}, and the training has {steps} iterations'
        if total < min(steps, schedule.end):
            raise ValueError(f'{text}: leave total_steps out, and it has as many')
        if total < INF - schedule.begin:
            print_log(f'{text}: its cycle is cut off; without total_steps it has as many', 'current', logging.WARNING)


def load_data(runner: Runner) -> dict[str, Any]:
    """The dataloaders of a training, by name.

    Raises:
        ChoiceError: As the training loop.
        ValueError: If the data cannot be loaded; names the data set and says which layout is expected.
    """
    loaders = {}
    for name in ('train_dataloader', 'val_dataloader'):
        try:
            if name == 'train_dataloader' or runner.val_loop is not None:
                loaders[name] = getattr(runner, name)
        except ChoiceError:
            raise
        except (OSError, AssertionError, RuntimeError, ValueError) as error:
            parts = [dataset for loader, dataset in datasets_of(runner.cfg) if loader == name]
            named = [
                ', '.join(f'{k}={part[k]!r}' for k in ('type', 'data_root', 'ann_file') if part.get(k)) for part in parts
            ]
            layouts = {f'{k} expects in its data_root: {LAYOUTS[k]}' for part in parts if (k := part.get('type')) in LAYOUTS}
            raise ValueError(
                '; '.join([f'{name}: the data could not be loaded ({error})', *named, *sorted(layouts)])
                + '. tools/check_data.py looks through all of them'
            ) from error
    return loaders


def check_start(student: nn.Module, source: str, checkpoint: Mapping) -> None:
    """Refuse a ``load_from`` or ``--resume`` file whose student is another; mmengine would train on with what fits.

    Args:
        student: The student.
        source: What to call the file.
        checkpoint: What it holds.

    Raises:
        ValueError: If it has no student, or another one; names the keys.
    """
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
        raise ValueError(f'load_from {source} holds another student: {other[0][0]} and {len(other) - 1} more differ')


def check_some_fit(network: nn.Module, source: str, checkpoint: Mapping) -> None:
    """Refuse a ``load_from`` file of which nothing fits a network; mmengine would train it from random weights.

    Args:
        network: The network.
        source: What to call the file.
        checkpoint: What it holds.

    Raises:
        ValueError: If it has none of the network's weights; says which it has.
    """
    weights, own = weights_of(checkpoint), network.state_dict()
    if own.keys() & weights.keys():
        return
    mend = 'pth_transfer.py makes a file of the student alone' if student_weights(weights) else 'is it of another network?'
    there = listed([*weights], 2) or 'none'
    raise ValueError(f'load_from {source} has no weights of this network ({listed([*own], 2)}), but {there}: {mend}')


def check_resumed(model: nn.Module, source: str, checkpoint: Mapping) -> None:
    """Refuse a ``--resume`` file that has weights of another shape anywhere; mmengine would leave them out and go on.

    Args:
        model: The model.
        source: What to call the file.
        checkpoint: What it holds.

    Raises:
        ValueError: Names the first of them, and both shapes.
    """
    saved = weights_of(checkpoint)
    for name, value in model.state_dict().items():
        if name in saved and saved[name].shape != value.shape:
            raise ValueError(
                f'{source} holds {name} of shape {tuple(saved[name].shape)}, and this run has {tuple(value.shape)}: '
                'resume with the settings and images that the run had, or start from its weights alone (load_from, without '
                '--resume)'
            )


def check_training(runner: Runner) -> None:
    """All checks that need the built runner: data and labels, the file to start from, the optimizer, the first batch.

    Before the optimizer is checked, ``auto_scale_lr`` is heeded, see :func:`~mmcls_kd.engine.rates.scale_rates`.

    Raises:
        FileNotFoundError: If there is no file to start from.
        ValueError: If the data cannot be loaded (says which layout is expected), or a check fails.
    """
    model = unwrapped(runner)
    num_classes = getattr(model, 'num_classes', getattr(getattr(model, 'head', None), 'num_classes', None))
    loaders = load_data(runner)
    if num_classes is not None:
        for name, loader in loaders.items():
            check_labels(loader.dataset, num_classes, name)
    source, checkpoint = runner.cfg.get('load_from'), None
    if source:
        checkpoint = read_checkpoint(fetch(source, 'load_from'))
        if hasattr(model, 'student'):
            check_start(model.student, source, checkpoint)
        else:
            check_some_fit(model, source, checkpoint)
        if runner.cfg.get('resume'):
            check_resumed(model, source, checkpoint)
    scale_rates(runner)
    check_optimizer(runner, checkpoint if runner.cfg.get('resume') else None)
    check_store(runner)
    check_first_batch(runner)
