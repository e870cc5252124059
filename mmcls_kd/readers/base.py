"""The common part of the readers: a data set of mmpretrain's whose images are inside of larger files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmpretrain.datasets import BaseDataset

from ..errors import check_flag
from ..networks.classes import Names
from .labels import Place, numbered


class HeldDataset(BaseDataset):
    """A data set whose samples are images inside of larger files, each with a URI as its ``img_path``.

    Args:
        with_label: Whether the samples have labels.
        lazy_init: Whether to read no list yet.
        **kwargs: Keywords of mmpretrain's ``BaseDataset``.

    Attributes:
        label_names: Class names that stand in the data, by label; empty if the labels are numbers.
        container_files: The files with the images.
    """

    def __init__(self, with_label: bool = True, lazy_init: bool = False, **kwargs: Any) -> None:
        check_flag(f'{type(self).__name__}: with_label', with_label)
        self.with_label = with_label
        self.label_names: Names = {}
        self.container_files: list[Path] = []
        super().__init__(ann_file='', lazy_init=True, **kwargs)
        if not lazy_init:
            self.full_init()

    def infos(self, images: Sequence[str], labels: Sequence[Any], names: Sequence[str] | None, place: Place) -> list[dict]:
        """Return the facts of all samples, and note their class names.

        Args:
            images: URI of each image.
            labels: Label of each, as it stands in the data; ignored without labels.
            names: Class names that belong to labels that are numbers, if the data have them.
            place: Describes a sample's place.

        Raises:
            ValueError: If there is no sample, or a label is wrong; names the sample.
        """
        if not images:
            raise ValueError(f'{self.img_prefix or type(self).__name__}: no sample in it')
        if not self.with_label:
            return [dict(img_path=image) for image in images]
        classes = self._metainfo.get('classes')
        if names is not None and classes is not None and list(names) != list(classes):
            labels = [names[label] if label is not None and 0 <= label < len(names) else None for label in labels]
            names = None
        numbers, self.label_names = numbered(labels, names or classes, place)
        if names is not None:
            self.label_names = dict(enumerate(names))
        if classes is None and self.label_names:
            self._metainfo['classes'] = tuple(self.label_names.values())
        return [dict(img_path=image, gt_label=number) for image, number in zip(images, numbers, strict=True)]

    def extra_repr(self) -> list[str]:
        """Return further lines of the description."""
        return [f'Files with the images: \t{len(self.container_files)}']
