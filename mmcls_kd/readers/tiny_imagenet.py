"""Tiny-ImageNet as it is downloaded: training images in class folders, validation images in one folder with a list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmpretrain.datasets import BaseDataset
from mmpretrain.registry import DATASETS

#: The list of the validation images, under ``val``: an image and its class, then a box, in each line.
LIST = 'val_annotations.txt'


@DATASETS.register_module()
class TinyImageNet(BaseDataset):
    """The images of Tiny-ImageNet, ``tiny-imagenet-200`` as it is unpacked.

    The classes are those of ``wnids.txt``, sorted, as the folders of the training images are.

    Args:
        data_root: The folder.
        split: ``'train'`` or ``'val'``.
        **kwargs: Keywords of mmpretrain's ``BaseDataset``.

    Raises:
        ValueError: If the split is another, or the list names an unknown class.
        FileNotFoundError: If ``wnids.txt`` or the list is missing.
    """

    def __init__(self, data_root: str, split: str = 'train', **kwargs: Any) -> None:
        if split not in ('train', 'val'):
            raise ValueError(f"TinyImageNet: split={split!r}: choose 'train' or 'val'; its test images have no labels")
        self.split = split
        classes = _lines(Path(data_root, 'wnids.txt'))
        metainfo = {'classes': sorted(classes), **(kwargs.pop('metainfo', None) or {})}
        super().__init__(ann_file='', metainfo=metainfo, data_root=data_root, data_prefix='', **kwargs)

    def load_data_list(self) -> list[dict]:
        """Return the path and label of each image."""
        root, classes = Path(self.data_root), {name: number for number, name in enumerate(self.CLASSES)}
        if self.split == 'train':
            found = ((path, name) for name in classes for path in sorted((root / 'train' / name / 'images').iterdir()))
            return [dict(img_path=str(path), gt_label=classes[name]) for path, name in found]
        infos = []
        for line in _lines(root / 'val' / LIST):
            image, name, *_ = [*line.split('\t'), '']
            if name not in classes:
                raise ValueError(f'{root / "val" / LIST}: {line!r} names no class of wnids.txt')
            infos.append(dict(img_path=str(root / 'val' / 'images' / image), gt_label=classes[name]))
        return infos


def _lines(path: Path) -> list[str]:
    """Return the lines of a file that has to be there."""
    if not path.is_file():
        raise FileNotFoundError(f'TinyImageNet: {path}: no such file; data_root is the folder tiny-imagenet-200 as unpacked')
    return [line for line in path.read_text(encoding='utf-8').splitlines() if line.strip()]
