"""Data sets of images without labels, alone or mixed with labelled ones in a given ratio."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.dataset import BaseDataset, ConcatDataset, RepeatDataset
from mmpretrain.datasets import CustomDataset
from mmpretrain.registry import DATASETS

from ..distillers.labels import without_label
from ..errors import check_number, check_text
from ..networks.sources import kind_of
from .data import plain_datasets

#: The least and the largest ratio of :class:`MixedDataset`; beyond, one part of the images would count for nothing.
RATIOS = (0.001, 1000)


def _built(dataset: Any, name: str) -> BaseDataset:
    """Build a data set from its config; it may be built already."""
    if isinstance(dataset, BaseDataset):
        return dataset
    if not isinstance(dataset, Mapping) or 'type' not in dataset:
        raise ValueError(
            f'{name}: {dataset!r} is no config of a data set, such as dict(type="UnlabelledImages", data_root=...)'
        )
    return DATASETS.build(dict(dataset))


def _unlabelled(sample: Any) -> Any:
    """Mark a sample of a data set as one without a label."""
    if isinstance(sample, dict) and 'data_samples' in sample:
        without_label(sample['data_samples'])
    return sample


@DATASETS.register_module()
class UnlabelledImages(CustomDataset):
    """The images in a folder, at any depth, or in a list of paths; whatever the names of their folders, none has a label.

    A distiller leaves such samples out of the task loss. Methods that need a label refuse them, unless ``model.label`` is
    ``'teacher'``.

    Args:
        **keywords: ``data_root``, ``data_prefix``, ``ann_file`` (a file with one path a line) and others of mmpretrain's
            ``CustomDataset``, but for ``with_label``.
    """

    def __init__(self, **keywords: Any) -> None:
        if keywords.pop('with_label', False):
            raise ValueError(
                "UnlabelledImages: with_label=True: it has no labels; a data set with labels is 'CustomDataset'"
            )
        for key in ('data_root', 'ann_file'):
            check_text(f'UnlabelledImages: {key}', keywords.get(key) or None, optional=True)
        super().__init__(with_label=False, **keywords)

    def prepare_data(self, idx: int) -> Any:
        """Return a sample of the pipeline, marked as one without a label."""
        return _unlabelled(super().prepare_data(idx))


@DATASETS.register_module()
class WithoutLabels(RepeatDataset):
    """A labelled data set whose labels are left aside.

    Args:
        dataset: Its config.
    """

    def __init__(self, dataset: Mapping[str, Any] | BaseDataset) -> None:
        super().__init__(_built(dataset, 'WithoutLabels: dataset'), times=1)

    def __getitem__(self, idx: int) -> Any:
        """Return a sample, marked as one without a label."""
        return _unlabelled(super().__getitem__(idx))


@DATASETS.register_module()
class MixedDataset(ConcatDataset):
    """Labelled and unlabelled images: an epoch has each of both, the fewer ones several times to come near the ratio.

    Args:
        datasets: Two configs: the labelled data set, and one of those of this module.
        ratio: Number of unlabelled images for each labelled one in an epoch; the samplers mix them. What is reached is the
            nearest ratio with whole repetitions of one of the two.

    Raises:
        ValueError: If the data sets are others, or the ratio is out of :data:`RATIOS`.
    """

    def __init__(self, datasets: Sequence[Mapping[str, Any]], ratio: float = 1.0) -> None:
        if not isinstance(datasets, (list, tuple)) or len(datasets) != 2:
            count = len(datasets) if isinstance(datasets, (list, tuple)) else repr(datasets)
            raise ValueError(f'MixedDataset: datasets=[labelled, unlabelled], two configs, not {count}')
        check_number('MixedDataset (unlabelled images for each labelled one): ratio', ratio, *RATIOS)
        labelled, unlabelled = (_built(one, 'MixedDataset: datasets') for one in datasets)
        if has_unlabelled(labelled) or not all_unlabelled(unlabelled):
            raise ValueError(
                'MixedDataset: datasets=[labelled, unlabelled]: the first has to have labels, and the second to be of type '
                'UnlabelledImages or WithoutLabels'
            )
        if not (len(labelled) and len(unlabelled)):
            raise ValueError(f'MixedDataset: {len(labelled)} labelled and {len(unlabelled)} unlabelled images: none to mix')
        times = len(unlabelled) / (ratio * len(labelled))
        counts = (max(1, round(times)), max(1, round(1 / times)))
        parts = [
            dict(type='RepeatDataset', dataset=one if isinstance(one, BaseDataset) else dict(cfg), times=count)
            for one, cfg, count in zip((labelled, unlabelled), datasets, counts, strict=True)
        ]
        super().__init__(parts, ignore_keys=sorted({*labelled.metainfo, *unlabelled.metainfo}))


def unlabelled_parts(dataset: Any) -> Iterator[bool]:
    """Iterate over the data sets inside of wrappers, and whether each has no labels."""
    if isinstance(dataset, (UnlabelledImages, WithoutLabels)):
        yield True
    elif inner := getattr(dataset, 'datasets', None) or [d for d in [getattr(dataset, 'dataset', None)] if d is not None]:
        for part in inner:
            yield from unlabelled_parts(part)
    else:
        yield False


def has_unlabelled(dataset: Any) -> bool:
    """Check whether a data set has images without labels."""
    return any(unlabelled_parts(dataset))


def all_unlabelled(dataset: Any) -> bool:
    """Check whether all images of a data set are without labels."""
    return all(unlabelled_parts(dataset))


def lacks_labels(cfg: Any) -> bool:
    """Check whether all images of a data set's config are without labels."""
    if not isinstance(cfg, Mapping):
        return False
    if kind_of(cfg) in ('UnlabelledImages', 'WithoutLabels'):
        return True
    inner = cfg.get('datasets') or [cfg.get('dataset')]
    return bool(inner) and all(map(lacks_labels, inner))


def labelled_datasets(dataset: Any) -> Iterator[Any]:
    """Iterate over the data sets inside of wrappers that have labels, used or not."""
    return (plain for plain in plain_datasets(dataset) if not isinstance(plain, UnlabelledImages))
