"""Outputs of networks for the images of a data set: each runs once, and logits, labels and features are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmpretrain.structures import DataSample
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from ..dis_losses.common import hard_label
from ..distillers.labels import batch_label, labelled, without_unknown
from ..distillers.recipe import TeacherHolder
from ..engine.console import Progress
from ..features.dry_run import dry_run, evaluating, scores
from ..features.families import default_taps
from ..features.taps import record
from ..networks.heads import is_multi_label


@dataclass(frozen=True)
class Outputs:
    """Logits of a network (N, C), labels (N,), −1 for none, and inputs of its classifier (N, D), None if unknown."""

    logit: Tensor
    label: Tensor
    vector: Tensor | None = None


#: Function that runs a network on preprocessed images, and returns ``logit`` and, if available, ``vector``.
Reader = Callable[[Tensor, Sequence[DataSample]], dict[str, Tensor]]


def need_classes(role: str, count: int) -> None:
    """Refuse a network without classes."""
    if not count:
        raise ValueError(f'this command compares class scores, and the {role} has no classes: KNNHook measures embeddings')


class ClassifierReader:
    """Reader of a classifier, or of a distiller's student, in eval mode."""

    def __init__(self, model: Any) -> None:
        if is_multi_label(getattr(model, 'student', model)):
            raise ValueError(
                'the analysis measures classifiers of one label an image by their softmax, and this head is multi-label or '
                'has one logit: `python -m mmcls_kd test` gives the metrics of its config'
            )
        self.model = model
        self.network: nn.Module = getattr(model, 'student', model)
        found = dry_run(self.network, 'network')
        self.num_classes = getattr(model, 'num_classes', found.num_classes)
        need_classes('network', self.num_classes)
        taps = default_taps(self.network, found) | getattr(model, 'student_taps', {})
        self.taps = {name: tap for name, tap in taps.items() if name == 'vector'}

    def __call__(self, inputs: Tensor, samples: Sequence[DataSample]) -> dict[str, Tensor]:  # noqa: ARG002
        """Read the outputs, see :data:`Reader`."""
        with evaluating(self.model), record(self.network, self.taps) as seen:
            logit = scores(self.model(inputs, mode='tensor'))
        return {'logit': logit, **seen}


class TeacherReader:
    """Reader of a distiller's teacher, or of several as one, in eval mode, whatever its mode in training."""

    def __init__(self, distiller: Any) -> None:
        self.distiller = distiller
        self.teacher: TeacherHolder = distiller.teacher_holder
        need_classes('teacher', self.teacher.num_classes)
        shapes = self.teacher.shapes
        self.names = [n for n in ('logit', 'vector') if n in shapes and isinstance(shapes[n][0], int)]  # no several vectors

    def __call__(self, inputs: Tensor, samples: Sequence[DataSample]) -> dict[str, Tensor]:
        """Read the outputs, see :data:`Reader`."""
        modes = nn.ModuleList(self.teacher.networks)
        with evaluating(modes):
            return self.teacher(self.distiller.arrange(inputs), samples, self.names)


def spread(loader: DataLoader, images: int | None) -> DataLoader:
    """Return a loader of a number of images (None: all) in their order, evenly spread, as data may be sorted by class."""
    dataset: Any = loader.dataset
    wanted = len(dataset) if images is None else min(images, len(dataset))
    places = torch.linspace(0, len(dataset) - 1, wanted).round().long().tolist()
    batch_size = loader.batch_size or getattr(loader.batch_sampler, 'batch_size', 32)
    return DataLoader(
        Subset(dataset, places),
        batch_size=batch_size,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        worker_init_fn=loader.worker_init_fn,
    )


def class_labels(samples: Sequence[DataSample]) -> Tensor:
    """Return the class of each sample, (N,); −1 for a sample without a label."""
    known = labelled(samples)  # gives a number to those that have none
    return without_unknown(hard_label(batch_label(samples)), known)


@torch.no_grad()
def collect(
    readers: Mapping[str, Reader], loader: DataLoader, preprocess: nn.Module, log: Callable[[str], Any] = print
) -> dict[str, Outputs]:
    """Run networks, which share a data preprocessor, once over a loader's images; return the outputs of each, on the CPU.

    Logits that are not finite are refused.
    """
    found: dict[str, dict[str, list[Tensor]]] = {name: {} for name in readers}
    labels = []
    progress = Progress(log, len(loader.dataset), (' and '.join(readers), 'images'))  # type: ignore[arg-type]
    for batch in loader:
        data = preprocess(batch, False)
        samples = data['data_samples']
        labels.append(class_labels(samples).cpu())
        for name, reader in readers.items():
            for tensor_name, tensor in reader(data['inputs'], samples).items():
                found[name].setdefault(tensor_name, []).append(tensor.float().cpu())
        progress.add(len(samples))
    joined = {name: {key: torch.cat(parts) for key, parts in of.items()} for name, of in found.items()}
    if broken := [name for name, of in joined.items() if not of['logit'].isfinite().all()]:
        raise ValueError(f'{broken[0]}: gives logits that are NaN or infinite; are these the right weights?')
    return {name: Outputs(label=torch.cat(labels), **of) for name, of in joined.items()}
