"""Reader of a store: it opens and checks the files, and finds records by a sample's place in the epoch."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from io import BytesIO
from itertools import product, starmap
from pathlib import Path
from typing import Any

import numpy as np

from ..files.atomic import atomic_path, sha256
from .records import record_type

MANIFEST, CHECKSUMS, FORMAT = 'manifest.json', 'SHA256SUMS', 2
AGAIN = 'the same `python -m mmcls_kd store` command again makes what is missing or damaged, and that alone'


@dataclass
class Manifest:
    """The contents of a store."""

    views: dict[str, Any]  # their fingerprint, see mmcls_kd.engine.views: a training has to agree in every line
    teacher: dict[str, Any]  # its fingerprint: a training that names a teacher has to agree
    classes: int  # 0 for a teacher without classes
    k: int  # number of stored logits of each view
    processes: int  # number of processes that wrote it: process place % processes holds a sample's records
    rows: int  # number of records of an epoch and process
    shard_rows: int  # number of records of a file; the last file has the rest
    epochs: int = 0  # number of complete epochs
    format: int = FORMAT
    views_each: int = 1  # number of views of each image, 2 for a weak and a strong one; not there in stores of one
    features: dict[str, Any] = field(default_factory=dict)  # sizes of stored features, see .records; not there without any
    facts: dict[str, str] = field(default_factory=dict)  # checksums of files NAME.npy of facts; not there without any

    def write(self, folder: Path) -> None:
        """Write it into a store's folder, whole or not at all."""
        with atomic_path(folder / MANIFEST) as file:
            usual: dict[str, Any] = dict(views_each=1, features={}, facts={})
            content = {key: value for key, value in asdict(self).items() if key not in usual or value != usual[key]}
            file.write_text(json.dumps(content, indent=1) + '\n')

    @property
    def record_type(self) -> np.dtype:
        """Type of a record."""
        return record_type(self.classes, self.k, self.views_each, self.features)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read the manifest of a store."""
        path = folder / MANIFEST
        if not path.is_file():
            raise FileNotFoundError(
                f'teacher_store {folder}: no {MANIFEST} there; `python -m mmcls_kd store CONFIG --epochs N '
                f'--store {folder}` makes a store, or mmcls_kd.teachers.store_logits in plain PyTorch'
            )
        try:
            content = json.loads(path.read_text())
            if content.get('format') != FORMAT:
                raise ValueError(f'its format is {content.get("format")}, and this version reads format {FORMAT}')
            return cls(**content)
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f'{path} is no manifest of a teacher store that can be read: {error}') from error


@dataclass(frozen=True)
class Shard:
    """One file of a store: its epoch, the process that made it, and its number among that process's files of the epoch."""

    epoch: int
    rank: int
    number: int

    @property
    def path(self) -> Path:
        """Its path inside of the store's folder."""
        return Path(f'epoch_{self.epoch}', f'rank_{self.rank}', f'{self.number:05d}.npy')


class TeacherStore:
    """The stored logits and features of a teacher.

    Files are mapped into memory when they are first read; only the last ones stay mapped.

    Args:
        folder: The store's folder.

    Raises:
        FileNotFoundError: If there is no store, or a file of it is missing.
        ValueError: If its manifest cannot be read, no epoch is complete, or a file is cut short.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.manifest = Manifest.read(self.folder)
        self.type = self.manifest.record_type
        if self.manifest.epochs < 1:
            raise ValueError(f'teacher_store {folder}: not one epoch is complete; {AGAIN}')
        self._check_sizes()
        self._open = functools.lru_cache(maxsize=2 * self.manifest.processes)(self._map)

    def shards(self) -> Iterator[Shard]:
        """Iterate over all files of the complete epochs."""
        manifest = self.manifest
        return starmap(Shard, product(*map(range, (manifest.epochs, manifest.processes, shard_count(manifest)))))

    def _check_sizes(self) -> None:
        for shard in self.shards():
            path = self.folder / shard.path
            if not path.is_file():
                raise FileNotFoundError(f'teacher_store {self.folder}: {shard.path} is missing; {AGAIN}')
            least = rows_of(self.manifest, shard) * self.type.itemsize
            if path.stat().st_size <= least:
                raise ValueError(f'teacher_store {self.folder}: {shard.path} is cut short; {AGAIN}')

    def check(self, shards: Iterable[Shard] | None = None) -> None:
        """Compare files, by default all, with their checksums; the first one that differs is an error."""
        chosen = list(self.shards() if shards is None else shards)
        with ThreadPoolExecutor(max_workers=4) as pool:
            for shard, whole in zip(chosen, pool.map(functools.partial(is_whole, self.folder), chosen), strict=True):
                if not whole:
                    raise ValueError(
                        f'teacher_store {self.folder}: {shard.path} is damaged (its SHA-256 is not that in {CHECKSUMS}); '
                        f'{AGAIN}'
                    )

    def fact(self, name: str) -> np.ndarray | None:
        """Read a fact for constructors of losses; None if the store has none of this name.

        Raises:
            ValueError: If its file is missing or damaged.
        """
        if name not in self.manifest.facts:
            return None
        path = fact_path(self.folder, name)
        if not path.is_file() or sha256(path) != self.manifest.facts[name]:
            raise ValueError(f'teacher_store {self.folder}: {path.name} is missing or damaged; {AGAIN}')
        return np.load(path)

    def _map(self, shard: Shard) -> np.ndarray:
        return np.load(self.folder / shard.path, mmap_mode='r')

    def read(self, epoch: int, places: Sequence[int]) -> np.ndarray:
        """Read the records of some samples.

        Args:
            epoch: The epoch, from 0; beyond the stored epochs, they repeat.
            places: Places in the epoch's order over all processes.

        Raises:
            IndexError: If a place was not stored.
        """
        manifest, wanted = self.manifest, np.asarray(places)
        ranks, rows = wanted % manifest.processes, wanted // manifest.processes
        if (outside := (rows >= manifest.rows) | (rows < 0)).any():
            raise IndexError(
                f'teacher_store {self.folder} has {manifest.rows * manifest.processes} records an epoch and none for '
                f'place {int(wanted[outside][0])}'
            )
        numbers = rows // manifest.shard_rows
        records = np.empty(len(wanted), self.type)
        for rank, number in sorted(set(zip(ranks.tolist(), numbers.tolist(), strict=True))):
            here = (ranks == rank) & (numbers == number)
            shard = Shard(epoch % manifest.epochs, rank, number)
            records[here] = self._open(shard)[rows[here] - number * manifest.shard_rows]
        return records


def fact_path(folder: Path, name: str) -> Path:
    """Return the path of a fact's file."""
    return folder / f'{name}.npy'


def save_fact(folder: Path, name: str, value: np.ndarray) -> str:
    """Write the file of a fact, whole or not at all, unless it is there; return its checksum."""
    content, target = BytesIO(), fact_path(folder, name)
    np.save(content, value)
    if not target.is_file() or target.read_bytes() != content.getvalue():
        with atomic_path(target) as path:
            path.write_bytes(content.getvalue())
    return sha256(target)


def shard_count(manifest: Manifest) -> int:
    """Return the number of files of an epoch and process."""
    return -(-manifest.rows // manifest.shard_rows)


def rows_of(manifest: Manifest, shard: Shard) -> int:
    """Return the number of records of a file."""
    return min(manifest.shard_rows, manifest.rows - shard.number * manifest.shard_rows)


def checksums(folder: Path) -> Mapping[str, str]:
    """Read the checksums in one process's folder, by file name."""
    path = folder / CHECKSUMS
    lines = path.read_text().splitlines() if path.is_file() else []
    return {line.split('  ')[1]: line.split('  ')[0] for line in lines if line.count('  ') == 1}


def is_whole(folder: Path, shard: Shard) -> bool:
    """Check that a file of a store exists and matches its checksum."""
    path = folder / shard.path
    return path.is_file() and checksums(path.parent).get(path.name) == sha256(path)


def save(folder: Path, shard: Shard, records: np.ndarray) -> None:
    """Write a file of a store and its checksum, each whole or not at all."""
    path = folder / shard.path
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_suffix('.part')
    with written.open('wb') as file:
        np.save(file, records)
        file.flush()
        os.fsync(file.fileno())
    known = {**checksums(path.parent), path.name: sha256(written)}
    written.replace(path)
    listing = path.parent / f'.{CHECKSUMS}'
    listing.write_text(''.join(f'{digest}  {name}\n' for name, digest in sorted(known.items())))
    listing.replace(path.parent / CHECKSUMS)
