"""Validation of embeddings: nearest neighbours, by labels or by agreement with the teacher, and a linear probe."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmengine.dataset import pseudo_collate
from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel
from mmengine.runner import Runner
from mmpretrain.registry import DATASETS, HOOKS
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from ..errors import check_flag, check_number
from ..features.dry_run import dry_run, evaluating
from ..features.families import default_taps
from ..features.probes import knn_accuracy, knn_agreement, linear_probe_accuracy
from ..features.taps import record
from ..networks.trial import leaves
from ..teachers.several import each_teacher
from .models import unwrapped

#: The metric of :class:`KNNAgreementHook`.
AGREEMENT = 'knn/agreement'


class NeighbourHook(Hook):
    """Base class of the hooks that look for the nearest neighbours of validation images among training images.

    The neighbours are a fixed random subset of the training data, through the pipeline of validation. Each process computes
    all of it. It draws no numbers from the run's generators.

    Args:
        k: Number of neighbours.
        temperature: Temperature of their votes, see :func:`mmcls_kd.features.probes.knn_scores`.
        train_images: Number of training images, drawn once; all where there are fewer.
        seed: Seed of the subset.

    Raises:
        ValueError: If a setting is of another kind or range.
    """

    priority = 'HIGHEST'  # before the hooks that log the metrics
    #: The names of its metrics.
    names: Sequence[str] = ()

    def __init__(self, k: int = 20, temperature: float = 0.07, train_images: int = 5000, seed: int = 0) -> None:
        kind = type(self).__name__
        check_number(f'{kind}: k', k, 1, whole=True)
        check_number(f'{kind}: train_images', train_images, 1, whole=True)
        check_number(f'{kind}: temperature', temperature, 0, above=True)
        check_number(f'{kind}: seed', seed, 0, whole=True)
        self.k, self.temperature, self.train_images, self.seed = k, temperature, train_images, seed
        self._loaders: dict[str, DataLoader] = {}

    def before_run(self, runner: Runner) -> None:
        """Check that there are training data to compare with."""
        if not (runner.cfg.get('train_dataloader') or {}).get('dataset'):
            raise ValueError(
                f'{type(self).__name__}: train_dataloader is missing, whose images are the neighbours: keep it, or drop the '
                'hook'
            )

    def _loaders_of(self, runner: Runner, name: str) -> tuple[DataLoader, DataLoader]:
        """Return the dataloaders of the neighbours and of the images to measure."""
        train = self._loader(runner, 'train_dataloader', name, self.train_images)
        return train, self._loader(runner, name, name, None)

    def _loader(self, runner: Runner, name: str, like: str, most: int | None) -> DataLoader:
        """Return a dataloader of the images of one part of the data, through the pipeline of another."""
        key = f'{name} as {like}'
        if key not in self._loaders:
            cfg, other = copy.deepcopy(dict(runner.cfg[name]['dataset'])), runner.cfg[like]
            pipeline = leaves(other['dataset'])[0]['pipeline']
            for leaf in leaves(cfg):
                leaf['pipeline'] = copy.deepcopy(pipeline)  # type: ignore[index]
            dataset = DATASETS.build(cfg)
            order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(self.seed))
            chosen = range(len(dataset)) if most is None else order[:most].tolist()
            self._loaders[key] = DataLoader(
                Subset(dataset, chosen),
                batch_size=other.get('batch_size', 32),
                num_workers=other.get('num_workers', 0),
                collate_fn=pseudo_collate,
                generator=torch.Generator(),  # else it would draw from the run's
            )
        return self._loaders[key]


@HOOKS.register_module()
class KNNHook(NeighbourHook):
    """Measure the embeddings of a model, or of a distiller's student, in each validation and test.

    The embedding is ``vector``: the output of a network without classes, else the input of its classifier. Each labelled
    image of the training data that is drawn is a neighbour. ``knn/top1``, in per cent, is then a metric like others
    (``save_best='knn/top1'``).

    Args:
        k: Number of neighbours.
        temperature: Temperature of their votes, see :func:`mmcls_kd.features.probes.knn_scores`.
        train_images: Number of training images, drawn once; all where there are fewer.
        linear: Whether to measure a linear probe too, as ``linear/top1``, see
            :func:`mmcls_kd.features.probes.linear_probe_accuracy`.
        seed: Seed of the subset.

    Raises:
        ValueError: If a setting is of another kind or range, or the training data have no labels.
    """

    def __init__(
        self, k: int = 20, temperature: float = 0.07, train_images: int = 5000, linear: bool = False, seed: int = 0
    ) -> None:
        super().__init__(k, temperature, train_images, seed)
        check_flag('KNNHook: linear', linear)
        self.linear = linear
        self.names = ['knn/top1', *(['linear/top1'] if linear else [])]

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Add the accuracies to the metrics of a validation."""
        self._add(runner, 'val_dataloader', metrics)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Add the accuracies to the metrics of a test."""
        self._add(runner, 'test_dataloader', metrics)

    def _add(self, runner: Runner, name: str, metrics: dict[str, float] | None) -> None:
        if metrics is None:
            return
        model = unwrapped(runner)
        if isinstance(model, BaseTTAModel):
            runner.logger.warning('KNNHook: embeddings are not measured with test-time augmentation')
            return
        train, test = self._loaders_of(runner, name)
        given = (*embeddings(model, train), *embeddings(model, test))
        metrics['knn/top1'] = 100 * knn_accuracy(*given, self.k, self.temperature)
        if self.linear:
            metrics['linear/top1'] = 100 * linear_probe_accuracy(*given)

    def teacher_top1(self, runner: Runner, part: str = 'val_dataloader') -> float:
        """Measure the embeddings of a distiller's teacher on the images of a dataloader: as ``knn/top1``.

        Those of several teachers are normalised and joined.
        """
        model = unwrapped(runner)
        embed = teacher_embedding(model.teacher_holder)
        with evaluating(nn.ModuleList(model.teacher_holder.networks)):
            pairs = [_labelled(model, loader, embed) for loader in self._loaders_of(runner, part)]
        return 100 * knn_accuracy(*pairs[0], *pairs[1], self.k, self.temperature)


@HOOKS.register_module()
class KNNAgreementHook(NeighbourHook):
    """Measure how far the student's nearest neighbours agree with the teacher's, in each validation; it needs no labels.

    ``knn/agreement``, in per cent, is :func:`mmcls_kd.features.probes.knn_agreement` of the validation images: with the
    teacher's classes of the neighbours, or their overlap where it has none, or several at once. The embeddings are those of
    :class:`KNNHook`; of several teachers, they are normalised and joined. A training whose validation images have no labels
    gets this hook by itself.

    Args:
        **settings: As of :class:`NeighbourHook`.
    """

    names = (AGREEMENT,)

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._taught: list[tuple[Tensor, Tensor | None]] = []

    def check(self, runner: Runner) -> None:
        """Refuse a training without a teacher that could be asked for the validation images.

        Raises:
            ValueError: Names the key to change.
        """
        if not getattr(getattr(unwrapped(runner), 'teacher_holder', None), 'networks', ()):
            raise ValueError(
                'KNNAgreementHook: there is no teacher to agree with (a stored one knows the training images alone): '
                'leave model.teacher_store out, give val_dataloader images with labels, or set val_cfg, val_dataloader and '
                'val_evaluator to None'
            )

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Add the agreement to the metrics of a validation."""
        if metrics is None:
            return
        model, loaders = unwrapped(runner), self._loaders_of(runner, 'val_dataloader')
        self._taught = self._taught or [taught(model, loader) for loader in loaders]
        (theirs_train, labels), (theirs, _) = self._taught
        embed = student_embedding(model)
        with evaluating(model):
            ours_train, ours = (read_all(model, loader, embed)[0] for loader in loaders)
        value = knn_agreement(ours_train, theirs_train, ours, theirs, labels, self.k, self.temperature)
        metrics[AGREEMENT] = 100 * value


@torch.no_grad()
def taught(model: Any, loader: DataLoader) -> tuple[Tensor, Tensor | None]:
    """Compute the teacher's embeddings, (N, D), and classes, (N,), of all images; None if its classes are not exclusive."""
    holder = model.teacher_holder
    exclusive = holder.num_classes > 1 and not getattr(model, 'multi_label', False)

    def classify(images: Tensor) -> Tensor:
        return holder(images, None, ['logit'])['logit'].argmax(dim=1)

    with evaluating(nn.ModuleList(holder.networks)):
        vectors, _ = read_all(model, loader, teacher_embedding(holder))
        return vectors, read_all(model, loader, classify)[0].long() if exclusive else None


def teacher_embedding(holder: Any) -> Callable[[Tensor], Tensor]:
    """Return the function from images to a teacher's embeddings, else its logits; several teachers' are joined."""
    members = each_teacher(holder)
    names = ['vector' if 'vector' in one.shapes else 'logit' for one in members]

    def embed(images: Tensor) -> Tensor:
        vectors = [one(images, None, [name])[name].float() for one, name in zip(members, names, strict=True)]
        return torch.cat([nn.functional.normalize(vector, dim=1) for vector in vectors], 1)

    return embed


@torch.no_grad()
def embeddings(model: Any, loader: DataLoader) -> tuple[Tensor, Tensor]:
    """Compute the embeddings, (N, D), and the labels, (N,), of all labelled images of a dataloader.

    Args:
        model: A classifier, or a distiller, whose student is run.
        loader: A dataloader of images with labels.

    Raises:
        ValueError: If the model has no embedding, or no image has one label.
    """
    embed = student_embedding(model)
    with evaluating(model):
        return _labelled(model, loader, embed)


def student_embedding(model: Any) -> Callable[[Tensor], Tensor]:
    """Return the function from images to the embeddings of a classifier, or of a distiller's student.

    Raises:
        ValueError: If the network has no embedding.
    """
    network: nn.Module = getattr(model, 'student', model)
    taps = default_taps(network, dry_run(network, 'network', whole=True)) | getattr(model, 'student_taps', {})
    if 'vector' not in taps:
        raise ValueError('KNNHook: no embedding is found in this network: name the module by model.taps.vector_s')
    taps = {'vector': taps['vector']}

    def embed(images: Tensor) -> Tensor:
        with record(network, taps) as seen:
            network(images)
        return seen['vector']

    return embed


@torch.no_grad()
def read_all(model: Any, loader: DataLoader, read: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Compute a function of all images, preprocessed by a model, and the labels, (N,); −1 for none.

    Args:
        model: The model.
        loader: Dataloader of the images.
        read: The function: images, (N, C, H, W), to values, (N, ...).
    """
    values, labels = [], []
    for batch in loader:
        data = model.data_preprocessor(batch, False)
        values.append(read(data['inputs']).float().cpu())
        labels.append(torch.stack([_label(sample) for sample in data['data_samples']]))
    return torch.cat(values), torch.cat(labels)


def _labelled(model: Any, loader: DataLoader, embed: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Compute embeddings and labels of the labelled images, as :func:`embeddings`."""
    vectors, labels = read_all(model, loader, embed)
    if not (labels >= 0).any():
        raise ValueError(f'KNNHook: none of {len(labels)} images has one label, so neighbours have no votes')
    return vectors[labels >= 0], labels[labels >= 0]


def _label(sample: Any) -> Tensor:
    """Return the label of a sample; -1 if it has none, or several."""
    label = None if sample.get('unlabelled', False) else sample.get('gt_label')
    return label.cpu().reshape(()) if label is not None and label.numel() == 1 else torch.tensor(-1)
