"""Glyphs, images of letters and digits in many fonts, as ``tools/make_glyphs.py`` makes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmpretrain.datasets import MNIST
from mmpretrain.registry import DATASETS

#: The file with the class names and families, beside four files as MNIST's.
ABOUT = 'glyphs.json'
#: The command that makes the files.
MAKE_IT = 'python tools/make_glyphs.py'


@DATASETS.register_module()
class Glyphs(MNIST):
    """The images of Glyphs: 28 × 28, grey, 100 classes; no font family is in both splits.

    Args:
        data_root: The folder.
        split: ``'train'`` or ``'test'``; the latter needs ``test_mode=True``, as mmpretrain's MNIST does.
        **kwargs: Keywords of mmpretrain's ``BaseDataset``.

    Raises:
        ValueError: If the split is another.
        FileNotFoundError: If a file is missing.
    """

    def __init__(self, data_root: str, split: str = 'train', **kwargs: Any) -> None:
        if split not in ('train', 'test'):
            raise ValueError(f"Glyphs: split={split!r}: choose 'train' or 'test'")
        if not (about := Path(data_root, ABOUT)).is_file():
            raise FileNotFoundError(f'{about}: no such file; {MAKE_IT} makes it')
        classes = json.loads(about.read_text(encoding='utf-8'))['classes']
        metainfo = {'classes': classes, **(kwargs.pop('metainfo', None) or {})}
        super().__init__(data_root=data_root, split=split, metainfo=metainfo, download=False, **kwargs)

    def _check_exists(self) -> bool:
        """Refuse missing files; mmpretrain would say to fetch MNIST's."""
        names = [name.removesuffix('.gz') for name, _ in self.train_list + self.test_list]
        for path in (Path(self.data_prefix['root'], name) for name in names):
            if not path.is_file():
                raise FileNotFoundError(f'{path}: no such file; {MAKE_IT} makes it')
        return True
