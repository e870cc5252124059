"""Data sets of Hugging Face's library ``datasets``: parquet files, its own folders, and what it fetches by name."""

from __future__ import annotations

import glob
import json
import re
import sys
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from mmpretrain.registry import DATASETS

from ..errors import check_text, close_names, in_one_line, listed, need_library
from ..files.held_images import TABLES, held
from .base import HeldDataset

#: Number of rows that are looked at together.
ROWS = 10_000
#: Words in names of folders by which the library tells the splits of a folder of images, at any depth.
SPLITS = dict(
    train=('train', 'training'),
    validation=('validation', 'valid', 'val', 'dev'),
    test=('test', 'testing', 'eval', 'evaluation'),
)
#: Keywords of ``load_dataset`` that do not change the rows.
IMMATERIAL = ('cache_dir', 'keep_in_memory', 'num_proc', 'token')


def check_parquet(path: Path, whole: bool = False) -> Any:
    """Return the schema of a parquet file, and refuse one that cannot be read.

    Args:
        path: The file.
        whole: Whether all values are read, not only the description at its end.

    Raises:
        ValueError: Names the file.
    """
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for group in range(file.num_row_groups if whole else 0):
                file.read_row_group(group)
            return file.schema_arrow
    except (OSError, ValueError) as error:
        raise ValueError(
            f'{path}: not a parquet file that can be read ({in_one_line(error)}); fetch or write it anew'
        ) from error


def check_names(schemas: Mapping[Path, Any], label: str) -> None:
    """Refuse parquet files that number their classes differently; the library would take the first's names for all.

    Args:
        schemas: The files and their schemas.
        label: Column of the label.

    Raises:
        ValueError: Names two files and their class names.
    """
    from datasets import Features

    first: tuple[Path, Any] | None = None
    for path, schema in schemas.items():
        names = getattr(Features.from_arrow_schema(schema).get(label), 'names', None)
        first = first or (path, names)
        if names != first[1]:
            raise ValueError(
                f'{path}: its label numbers stand for {listed(names or ["no names"], 3)}, those of {first[0].name} for '
                f'{listed(first[1] or ["no names"], 3)}: write both with the same ClassLabel, or name one by path=...'
            )


def split_of(name: str) -> str | None:
    """Return the split that a word in a folder's name stands for; None if there is none."""
    words = {*re.split('[^a-z]+', name.lower())}
    return next((split for split, known in SPLITS.items() if words & {*known}), None)


def check_splits(folder: Path, paths: Iterable[str]) -> None:
    """Refuse rows of a folder of images that are of several splits: the library takes a class named as a split for one.

    Args:
        folder: The folder.
        paths: Path of each row's image.

    Raises:
        ValueError: Names the folders that the rows are of, and the class.
    """
    inside = {Path(path).relative_to(folder).parts[:-1] for path in paths if Path(path).is_relative_to(folder)}
    tops = sorted({parts[0] for parts in inside if parts})
    if len({*map(split_of, tops)}) > 1:
        classes = sorted({name for _, *names in filter(None, inside) for name in names if split_of(name)})
        raise ValueError(
            f'{folder}: its rows are of {listed(tops)}, as datasets takes the folder {listed(classes or tops)} for a split: '
            "name the files, for example load_options=dict(data_files={'train': 'train/**'}) with split='train'"
        )


@DATASETS.register_module()
class HuggingFaceDataset(HeldDataset):
    """A data set of Hugging Face's library ``datasets``, with random access.

    Args:
        path: Parquet file, pattern or folder of such files, folder of ``save_to_disk``, any folder or name that
            ``load_dataset`` takes; below ``data_root``/``data_prefix`` if these are given.
        split: The split; by default the only one.
        name: Name of the configuration, for ``load_dataset``.
        image: Column of the image: the library's ``Image``, bytes, or paths.
        label: Column of the label: the library's ``ClassLabel``, numbers, class names, or one-hot lists.
        load_options: Further keywords of ``load_dataset``, such as ``revision``.
        **kwargs: Keywords of :class:`.base.HeldDataset`: ``data_root``, ``data_prefix``, ``classes``, ``with_label``, ...

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be loaded, or a row is faulty; names the file or row.
    """

    def __init__(
        self,
        path: str = '',
        split: str | None = None,
        name: str | None = None,
        image: str = 'image',
        label: str = 'label',
        load_options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        need_library('datasets', 'the data set HuggingFaceDataset')
        for key, value, optional in (
            ('path', path or None, bool(kwargs.get('data_root') or kwargs.get('data_prefix'))),
            *(('split', split, True), ('name', name, True), ('image', image, False), ('label', label, False)),
        ):
            check_text(f'HuggingFaceDataset: {key}', value, optional)
        if load_options is not None and not isinstance(load_options, Mapping):
            raise ValueError(f'HuggingFaceDataset: load_options={load_options!r}: give a dict of keywords of load_dataset')
        self.path, self.split, self.name, self.load_options = path, split, name, dict(load_options or {})
        self.image, self.label = image, label
        self._images: Any = None
        super().__init__(**kwargs)

    @property
    def place(self) -> str:
        """The folder, file, pattern or name."""
        prefix = self.img_prefix
        return str(Path(prefix, self.path).expanduser()) if prefix else self.path

    @property
    def table(self) -> str:
        """Name of the data set in URIs of its images."""
        material = {key: value for key, value in self.load_options.items() if key not in IMMATERIAL}
        options = json.dumps([self.name, self.image, material], default=str)
        more = f'{zlib.crc32(options.encode()):08x}' if self.name or material or self.image != 'image' else ''
        chosen = ','.join(filter(None, (self.split, more)))
        return f'{self.place}[{chosen}]' if chosen else self.place

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._open()

    def _open(self) -> None:
        if self._images is not None:
            TABLES[self.table] = self.image_bytes

    def image_bytes(self, row: int) -> bytes:
        """Return the bytes of a row's image."""
        value = self._images[row][self.image][0].as_py()
        return value['bytes'] if isinstance(value, dict) else value

    def _parquet_files(self) -> list[Path]:
        """Return the parquet files that are meant, if it is some."""
        path = Path(self.place)
        if path.is_dir():
            return sorted(path.rglob('*.parquet'))
        return [Path(name) for name in sorted(glob.glob(self.place))] if path.suffix == '.parquet' else []  # noqa: PTH207

    def load(self) -> Any:
        """Load the split.

        Raises:
            FileNotFoundError: If there is no such parquet file.
            ValueError: If it cannot be loaded.
        """
        import datasets

        files = self._parquet_files()
        schemas = {file: check_parquet(file) for file in files}
        if self.with_label and self.name is None:
            check_names(schemas, self.label)
        if not files and self.place.endswith('.parquet'):
            raise FileNotFoundError(f'{self.place}: there is no such parquet file')
        if not sys.stderr.isatty():
            datasets.disable_progress_bars()
        try:
            found = self._loaded(files)
        except Exception as error:  # of the library, its readers and its network
            for file in files:
                check_parquet(file, whole=True)
            raise ValueError(f'{self.place}: datasets cannot load it ({in_one_line(error)})') from error
        if isinstance(found, datasets.DatasetDict):
            found = self._one_split(found)
        self.container_files = files or [Path(file['filename']) for file in found.cache_files]
        return found

    def _one_split(self, found: Mapping[str, Any]) -> Any:
        splits = list(found)
        if self.split is None and len(splits) > 1:
            raise ValueError(f'{self.place} has the splits {listed(splits)}: set split=...')
        if (split := self.split or splits[0]) not in splits:
            raise ValueError(f'{self.place} has no split {split!r} ({listed(splits)}){close_names(split, splits)}')
        return found[split]

    def _loaded(self, files: Sequence[Path]) -> Any:
        import datasets

        path = Path(self.place)
        if any((path / name).is_file() for name in ('state.json', 'dataset_dict.json')):
            return datasets.load_from_disk(self.place)
        options = dict(name=self.name, split=self.split, **self.load_options)
        if files and not path.is_dir():
            return datasets.load_dataset('parquet', data_files=[str(file) for file in files], **options)
        return datasets.load_dataset(self.place, **options)

    def _check_columns(self, columns: Sequence[str]) -> None:
        for key in ('image', 'label') if self.with_label else ('image',):
            if (column := getattr(self, key)) not in columns:
                raise ValueError(
                    f'{self.table}: no column {column!r}, but {listed(list(columns))}: set {key}=...'
                    f'{close_names(column, columns)}'
                )

    def _image(self, row: int, value: Any) -> str:
        """Return the path or URI of a row's image."""
        content, path = (value.get('bytes'), value.get('path')) if isinstance(value, dict) else (value, None)
        if isinstance(content, str):
            content, path = None, content
        if content is None and path is None:
            raise ValueError(f'{self.table}: row {row} has no image in its column {self.image!r}')
        return str(path) if content is None else held('huggingface', self.table, str(row), PurePath(path or str(row)).name)

    def _paths(self) -> list[str]:
        """Return the path or URI of each row's image; bytes are not copied."""
        import pyarrow.compute as pc

        paths: list[str] = []
        values: list[Any]
        for start in range(0, len(self._images), ROWS):
            column = self._images[start : start + ROWS][self.image]
            kind = column.type
            if str(kind).startswith('struct'):
                here = pc.is_valid(pc.struct_field(column, 'bytes')).to_pylist()
                has_names = kind.get_field_index('path') >= 0
                named = pc.struct_field(column, 'path').to_pylist() if has_names else [None] * len(here)
                values = [dict(bytes=b'' if there else None, path=path) for there, path in zip(here, named, strict=True)]
            elif 'binary' in str(kind):
                values = [b'' if there else None for there in pc.is_valid(column).to_pylist()]
            else:
                values = column.to_pylist()
            paths += [self._image(row, value) for row, value in enumerate(values, start)]
        return paths

    def load_data_list(self) -> list[dict]:
        """Return the facts of all rows."""
        from datasets import ClassLabel

        found = self.load()
        self._check_columns(found.column_names)
        self._images = found.select_columns([self.image]).with_format('arrow')
        self._open()
        paths, labels, names = self._paths(), [], None
        several = self.split == 'all' or '+' in (self.split or '')
        if not several and (folder := Path(self.place)).is_dir() and 'data_files' not in self.load_options:
            check_splits(folder, paths)
        if self.with_label:
            feature = found.features[self.label]
            labels = found.select_columns([self.label]).with_format('arrow')[:][self.label].to_pylist()
            if isinstance(feature, ClassLabel):
                names = feature.names
                labels = [None if label == -1 else label for label in labels]  # the library's mark of hidden labels
        return self.infos(paths, labels, names, lambda i: f'{self.table}: row {i}')
