"""WebDataset shards with random access, by an index of their samples."""

from __future__ import annotations

import glob
import json
import os
import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
from mmengine.logging import print_log
from mmpretrain.registry import DATASETS

from ..errors import check_text, listed, need_library, texts
from ..files.atomic import atomic_path
from ..files.held_images import held
from .base import HeldDataset

#: Extensions of images.
IMAGES = ('jpg', 'jpeg', 'png', 'webp', 'bmp', 'ppm', 'pgm', 'tif', 'tiff')
#: Files in a shard that are no samples, by WebDataset's rule.
META = re.compile(r'__[^/]*__($|/)')


class ShardIndex(NamedTuple):
    """The samples of some shards, in their order: an array for each column.

    Attributes:
        shard: Number of the shard.
        name: Key and extension of the image.
        offset: Place of the image's first byte.
        size: Number of its bytes.
        label: The label in JSON; empty without one.
    """

    shard: np.ndarray
    name: np.ndarray
    offset: np.ndarray
    size: np.ndarray
    label: np.ndarray


def files_in(shard: Path) -> Iterator[dict[str, Any]]:
    """Iterate over the files in a tar archive, in the form of WebDataset's, with (offset, size) as data.

    Raises:
        ValueError: If it is no tar archive, or ends early.
    """
    try:
        with tarfile.open(shard, 'r:') as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # tarfile would keep all of them
                if member.isreg() and not META.match(member.name):
                    yield dict(fname=member.name, data=(member.offset_data, member.size), __url__=str(shard))
            end = tar.offset
    except tarfile.TarError as error:
        packed = shard.suffix in ('.gz', '.tgz', '.bz2', '.xz', '.zst')
        mend = 'unpack it: a compressed shard has no random access' if packed else 'fetch or write it anew'
        early = 'the shard ends early' if 'unexpected end' in str(error) else 'not a tar archive that can be read'
        raise ValueError(f'{shard}: {early} ({error}); {mend}') from error
    with shard.open('rb') as file:  # tarfile takes a header that is cut or damaged for the end
        file.seek(end)
        if file.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
            raise ValueError(
                f'{shard}: the shard ends early, or is damaged, at byte {end:,} of {shard.stat().st_size:,} (no end mark of '
                'a tar archive); fetch or write it anew'
            )


def samples_in(shard: Path, image: Sequence[str], label: str | None) -> Iterator[tuple[str, int, int, str]]:
    """Iterate over the samples of a shard, grouped by WebDataset itself: all columns of :class:`ShardIndex` but the shard.

    Args:
        shard: The shard.
        image: Extensions of the image, of which a sample has one.
        label: Extension of the label, with a field after a colon for JSON; None for no label.

    Raises:
        ValueError: If a sample has no image or label, or the shard is damaged; names both.
    """
    from webdataset.tariterators import group_by_keys

    extension, _, field = (label or '').partition(':')
    with shard.open('rb') as file:
        try:
            for sample in group_by_keys(files_in(shard)):
                kinds = [kind for kind in sample if not kind.startswith('__')]
                where = f'{shard}: sample {sample["__key__"]!r}'
                found = next((kind for kind in image if kind in sample), None)
                if found is None:
                    raise ValueError(f'{where} has no image ({listed(list(image))}), but {listed(kinds)}: set image=...')
                if label and extension not in sample:
                    raise ValueError(
                        f"{where} has no label {extension!r}, but {listed(kinds)}: set label=... ('json:FIELD' for a field) "
                        'or with_label=False'
                    )
                offset, size = sample[found]
                text = os.pread(file.fileno(), sample[extension][1], sample[extension][0]) if label else b''
                yield f'{sample["__key__"]}.{found}', offset, size, _label(text, field, where) if label else ''
        except ValueError as error:
            raise error if str(shard) in str(error.args[0]) else ValueError(f'{shard}: {error.args[0]}') from error


def _label(content: bytes, field: str, where: str) -> str:
    """Return a label in JSON: the text of a file, or a field of a JSON file."""
    try:
        text = content.decode().strip()
        if not field:
            return json.dumps(text)
        return json.dumps(json.loads(text)[field])
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f'{where}: the label cannot be read ({error})') from error
    except (KeyError, TypeError) as error:
        raise ValueError(f'{where}: the JSON of the label has no field {field!r}') from error


def build_index(shards: Sequence[Path], image: Sequence[str], label: str | None) -> ShardIndex:
    """Build the index of some shards; only headers and labels are read.

    Raises:
        ValueError: As :func:`samples_in`.
    """
    rows = [(n, *sample) for n, shard in enumerate(shards) for sample in samples_in(shard, image, label)]
    columns: Any = zip(*rows, strict=True) if rows else ((), (), (), (), ())
    shard, name, offset, size, labels = columns
    shard, offset, size = (np.array(column, np.int64) for column in (shard, offset, size))
    return ShardIndex(shard, np.array(name, str), offset, size, np.array(labels, str))


def read_index(path: Path, state: str) -> ShardIndex | None:
    """Read an index file; None if there is none, or it is of other or changed shards."""
    try:
        with path.open('rb') as opened, np.load(opened, allow_pickle=False) as file:
            return ShardIndex(*(file[column] for column in ShardIndex._fields)) if str(file['state']) == state else None
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error):
        return None


@DATASETS.register_module()
class WebDataset(HeldDataset):
    """A data set of WebDataset shards with random access.

    An index of the samples (shard, offset, size, label) is built once and kept in a file. With it, shards are read as a
    folder of images is: in any order, by any number of processes and workers, each sample once.

    Args:
        shards: Shards in ``data_root``/``data_prefix``: a pattern with ``*`` or WebDataset's braces
            (``'train-{000..015}.tar'``), or a list.
        image: Extension of the image; of several, a sample has one.
        label: Extension of the label: text, a class number or name. ``'json:FIELD'`` is a field of a JSON file: a number, a
            name or a one-hot list.
        index_dir: Folder of the index file; by default that of the shards.
        **kwargs: Keywords of :class:`.base.HeldDataset`: ``data_root``, ``data_prefix``, ``classes``, ``with_label``, ...

    Raises:
        FileNotFoundError: If there is no such shard.
        ValueError: If a shard or sample is faulty; names both.
    """

    def __init__(
        self,
        shards: str | Sequence[str] = '*.tar',
        image: str | Sequence[str] = IMAGES,
        label: str = 'cls',
        index_dir: str | None = None,
        **kwargs: Any,
    ) -> None:
        need_library('webdataset', 'the data set WebDataset')
        self.shards, self.image = texts('WebDataset: shards', shards), texts('WebDataset: image', image)
        check_text('WebDataset: label', label)
        check_text('WebDataset: index_dir', index_dir, optional=True)
        self.label, self.index_dir = label, index_dir
        super().__init__(**kwargs)

    def find_shards(self) -> list[Path]:
        """Return the shards' files.

        Raises:
            FileNotFoundError: If a pattern has none.
            ValueError: If one is no file on this machine, or stands there twice.
        """
        from webdataset.shardlists import expand_urls

        found: list[Path] = []
        for pattern in (url for given in self.shards for url in expand_urls(given)):
            if '://' in pattern or pattern.startswith('pipe:'):
                raise ValueError(f'the shard {pattern} is no file: random access needs files on a disk; fetch them first')
            path = Path(self.img_prefix or '', pattern).expanduser()
            files = [path] if path.is_file() else [Path(name) for name in sorted(glob.glob(str(path)))]  # noqa: PTH207
            if not files:
                raise FileNotFoundError(f'{path}: there is no such shard')
            found += files
        if twice := [str(path) for i, path in enumerate(found) if path in found[:i]]:
            raise ValueError(f'shards={self.shards}: the shard {twice[0]} stands there twice')
        return found

    def index(self, shards: Sequence[Path]) -> ShardIndex:
        """Return the index of shards, from its file if that is up to date."""
        label = self.label if self.with_label else None
        facts = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in shards]
        state = json.dumps([facts, self.image, label])
        folder = shards[0].parent
        names = [str(path) if self.index_dir else os.path.relpath(path, folder) for path in shards]
        number = zlib.crc32(json.dumps([names, self.image, label]).encode())
        path = Path(self.index_dir or folder, f'.mmcls_kd_index_{number:08x}.npz')
        if (known := read_index(path, state)) is not None:
            return known
        built = build_index(shards, self.image, label)
        self._keep(path, state, built)
        return built

    @staticmethod
    def _keep(path: Path, state: str, index: ShardIndex) -> None:
        try:
            with atomic_path(path) as unfinished, unfinished.open('wb') as file:
                columns: dict[str, Any] = index._asdict()
                np.savez_compressed(file, state=np.array(state), **columns)
        except OSError as error:
            print_log(f'the index of the shards is not kept ({error}): set index_dir to a folder of yours', 'current')

    def load_data_list(self) -> list[dict]:
        """Return the facts of all samples."""
        shards = self.container_files = self.find_shards()
        index = self.index(shards)

        def place(i: int) -> str:
            return f'{shards[index.shard[i]]}: sample {str(index.name[i]).rpartition(".")[0]!r}'

        columns = zip(*(column.tolist() for column in index[:4]), strict=True)
        images = [held('webdataset', str(shards[shard]), f'{at}+{size}', name) for shard, name, at, size in columns]
        labels = [json.loads(label) for label in index.label.tolist()] if self.with_label else []
        if ':' not in self.label and all(re.fullmatch(r'-?\d+', label) for label in labels):
            labels = [int(label) for label in labels]
        return self.infos(images, labels, None, place)
