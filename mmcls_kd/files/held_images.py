"""Images inside of larger files, read by URI with mmengine's file backends: tar shards, and the rows of tables.

A URI names file, place and image, ``webdataset:///data/train-000.tar#1536+2048/0001.jpg`` (offset and size in bytes) or
``huggingface:///data/train[train]#12/0001.jpg`` (row). Every reader of image files takes it, ``LoadImageFromFile`` too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from mmengine.fileio import register_backend
from mmengine.fileio.backends import BaseStorageBackend

#: Parts of a URI: scheme, file or table, offset or row, size, image.
URI = re.compile(r'(webdataset|huggingface)://(.+?)#(\d+)(?:\+(\d+))?/(.*)', re.DOTALL)
#: The tables of this process: functions from a row to the bytes of its image.
TABLES: dict[str, Callable[[int], bytes]] = {}


def is_held(path: Any) -> bool:
    """Check whether a path is the URI of an image inside of a larger file."""
    return URI.fullmatch(str(path)) is not None


def held(scheme: str, place: str, where: str, name: str) -> str:
    """Return an image's URI.

    Args:
        scheme: ``'webdataset'`` or ``'huggingface'``.
        place: The shard or table.
        where: Offset and size, or row.
        name: Name of the image, for messages.

    Example:
        >>> held('webdataset', '/data/train-000.tar', '1536+2048', '0001.jpg')
        'webdataset:///data/train-000.tar#1536+2048/0001.jpg'
    """
    return f'{scheme}://{place}#{where}/{name}'.replace('://', '\0', 1).replace('://', ':/').replace('\0', '://')


class _ReadingBackend(BaseStorageBackend):
    def get_text(self, filepath: Any, encoding: str = 'utf-8') -> str:
        """Return an image's bytes as text."""
        return self.get(filepath).decode(encoding)


class ShardBackend(_ReadingBackend):
    """File backend of images in tar shards."""

    def get(self, filepath: Any) -> bytes:
        """Return an image's bytes.

        Raises:
            OSError: If the shard has become shorter.
        """
        _, shard, offset, size, _ = parts_of(filepath)
        with open(shard, 'rb', buffering=0) as file:  # noqa: PTH123  (faster, and as short)
            file.seek(offset)
            content = file.read(size)
        if len(content) < size:
            raise OSError(f'the shard {shard} ends early')
        return content


class TableBackend(_ReadingBackend):
    """File backend of images in tables that are open in this process."""

    def get(self, filepath: Any) -> bytes:
        """Return an image's bytes.

        Raises:
            FileNotFoundError: If the table is not open.
        """
        _, table, row, _, _ = parts_of(filepath)
        if table not in TABLES:
            raise FileNotFoundError(f'{filepath}: no data set of this process has loaded {table}')
        return TABLES[table](row)


def parts_of(path: Any) -> tuple[str, str, int, int, str]:
    """Return the parts of a URI, see :data:`URI`.

    Raises:
        ValueError: If it is none.
    """
    if (found := URI.fullmatch(str(path))) is None:
        raise ValueError(f'{path}: not the URI of an image in a shard or table')
    scheme, place, where, size, name = found.groups()
    return scheme, place, int(where), int(size or 0), name


register_backend('webdataset', ShardBackend, force=True, prefixes='webdataset')
register_backend('huggingface', TableBackend, force=True, prefixes='huggingface')
