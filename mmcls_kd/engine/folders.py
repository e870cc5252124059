"""Folders of data: complete, and of the split that the config names."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from pathlib import Path

from mmengine.config import Config
from mmpretrain.datasets.utils import check_md5
from mmpretrain.registry import DATASETS
from torch.utils.data import Dataset

from .config import datasets_of

#: The layout of a data set under its ``data_root``, and the command that fetches it.
LAYOUTS = {
    'ImageNet': 'train/CLASS/*.JPEG and val/CLASS/*.JPEG, or train/*, val/* with meta/train.txt and meta/val.txt',
    'CustomDataset': 'a folder of images for each class, or an annotation file (`ann_file`)',
    'WebDataset': 'tar shards (shards=..., by default *.tar) with an image and a label for each sample',
    'HuggingFaceDataset': 'parquet files, or a folder that load_dataset or load_from_disk takes',
    'TinyImageNet': 'wnids.txt, train/CLASS/images/*.JPEG, val/images/*.JPEG, val/val_annotations.txt, as unpacked',
    'UnlabelledImages': 'images, in folders of any depth, or a list of their paths (`ann_file`)',
    'FashionMNIST': 'train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte; '
    'python tools/fetch_fashion_mnist.py puts them there',
    'Glyphs': 'glyphs.json and files as FashionMNIST; python tools/make_glyphs.py makes them',
    'CIFAR100': 'cifar-100-python/{train,test,meta} (mmpretrain downloads it where there is a network)',
}
SELF_FETCHING = ('CIFAR10', 'CIFAR100', 'MNIST')
#: The data sets in files as MNIST's, and what gets a file of theirs.
IDX_SETS = {
    'FashionMNIST': 'python tools/fetch_fashion_mnist.py fetches it',
    'Glyphs': 'python tools/make_glyphs.py makes it',
}
#: Their files and the number of dimensions of each array.
IDX_FILES = {
    f'{split}-{kind}-ubyte': int(kind[-1]) for split in ('train', 't10k') for kind in ('images-idx3', 'labels-idx1')
}


def check_data_folders(cfg: Config, loaders: tuple[str, ...], contents: bool = True) -> None:
    """Refuse a data set of a run's dataloaders whose folder is missing, or whose split is not the one that it names.

    With ``contents``, files of Fashion-MNIST or Glyphs that are missing, truncated or different are refused, too.
    """
    for loader, dataset in datasets_of(cfg):
        kind, root = dataset.get('type'), dataset.get('data_root')
        if loader not in loaders:
            continue
        refuse_streams(loader, dataset)
        refuse_other_split(loader, dataset)
        if not isinstance(root, str) or '://' in root:
            continue
        if kind in SELF_FETCHING:
            check_published(kind, Path(root, dataset.get('data_prefix') or ''))
            continue
        folders = [root, *(str(Path(root, part)) for part in [dataset.get('split')] if kind == 'ImageNet' and part)]
        for folder in folders:
            if root and not Path(folder).is_dir():
                layout = f'; expected in {root}: {LAYOUTS[kind]}' if kind in LAYOUTS else ''
                raise FileNotFoundError(f'{loader}: the data set folder {folder} does not exist{layout}')
        if contents and (mend := IDX_SETS.get(str(kind))):
            for name, dimensions in IDX_FILES.items():
                check_idx_file(Path(root, name), dimensions, mend)


def refuse_streams(loader: str, dataset: Mapping) -> None:
    """Refuse a data set that cannot be read by number, such as an ``IterableDataset``."""
    given = dataset.get('type')
    kind = DATASETS.get(given) if isinstance(given, str) else given
    if not isinstance(kind, type):
        return
    inherited = Dataset.__getitem__  # which raises
    if not hasattr(kind, '__len__') or getattr(kind, '__getitem__', inherited) is inherited:
        raise ValueError(
            f'{loader}: {kind.__name__} is not supported: a data set needs `__getitem__` and `__len__`, so that each image '
            'can be read by its number'
        )


def refuse_other_split(loader: str, dataset: Mapping) -> None:
    """Refuse a data set that reads another split than it names: mmpretrain's MNIST and FashionMNIST follow ``test_mode``."""
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
    """Refuse files of a data set that mmpretrain would overwrite: it fetches all anew if one is not as published."""
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


def check_idx_file(path: Path, dimensions: int, mend: str) -> None:
    """Refuse a file of an array of bytes that is missing, truncated or something else; ``mend`` says what gets one."""
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file; {mend}')
    with path.open('rb') as file:
        header = file.read(4 + 4 * dimensions)
    if header[:4] != bytes([0, 0, 8, dimensions]) or len(header) < 4 + 4 * dimensions:
        raise ValueError(f'{path}: no file of an array of bytes with {dimensions} dimensions; move it away, then {mend}')
    size = len(header) + math.prod(struct.unpack_from(f'>{dimensions}I', header, 4))
    if path.stat().st_size != size:
        raise ValueError(f'{path}: {path.stat().st_size} bytes long, and should be {size}; move it away, then {mend}')
