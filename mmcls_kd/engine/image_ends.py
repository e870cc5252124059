"""Image files: their suffixes; lacking ends, which OpenCV may fill up with grey; and kinds that it does not decode."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine.fileio import get
from PIL import Image

from ..files.held_images import is_held
from ..files.listing import files_below

#: Suffixes of image files in a folder of the user's; other files are ignored.
SUFFIXES = ('.jpg', '.jpeg', '.png', '.ppm', '.pgm', '.bmp', '.tif', '.tiff', '.webp', '.gif', '.avif')
#: The first and the last bytes of a complete file, by suffix.
STARTS = {'.jpg': b'\xff\xd8\xff', '.png': b'\x89PNG\r\n\x1a\n'}
ENDS = {'.jpg': b'\xff\xd9', '.jpeg': b'\xff\xd9', '.png': b'IEND\xaeB`\x82'}
#: Suffix of files whose size stands in them.
SIZED = '.webp'


def images_below(folder: Path) -> Iterator[Path]:
    """Iterate over the images in a folder and the folders inside, see :func:`~mmcls_kd.files.listing.files_below`."""
    return (path for path in files_below(folder) if path.suffix.lower() in SUFFIXES)


def image_fault(path: str, content: bytes | None = None) -> str | None:
    """Describe why an image file cannot be read to its end; None if it can.

    Args:
        path: The file.
        content: Its content, if it has been read already.
    """
    try:
        content = get(path) if content is None else content
        with Image.open(io.BytesIO(content)) as image:
            image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = str(error).replace(f': {path!r}', '')
        return 'no image that can be identified' if 'cannot identify image' in reason else reason
    if not content.startswith(STARTS['.png']) or not lacks_end(content):  # a PNG that Pillow does without the end
        return None
    whole = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) is not None
    return None if whole else 'the end of the file is missing'


def lacks_end(content: bytes) -> bool:
    """Check whether an image lacks its format's ending; bytes after the image's end are no fault.

    Example:
        >>> lacks_end(b'GIF89a')
        False
    """
    if _shorter_than_stated(content[:12], len(content)):
        return True
    return any(content.startswith(start) and not content.endswith(ENDS[kind]) for kind, start in STARTS.items())


def _shorter_than_stated(start: bytes, size: int) -> bool:
    """Check by its first 12 bytes whether a WebP is shorter than it says."""
    return start[:4] == b'RIFF' and start[8:] == b'WEBP' and size < int.from_bytes(start[4:8], 'little') + 8


def ends_early(path: str) -> bool:
    """Check whether an image file on this machine lacks the ending of its suffix's format, see :func:`lacks_end`.

    Of an image in a shard or table the format is that of its content: it need not have a suffix.
    """
    if is_held(path):
        return lacks_end(get(path))
    suffix = os.path.splitext(path)[1].lower()  # noqa: PTH122  (here pathlib takes half the time)
    end = ENDS.get(suffix)
    if end is None and suffix != SIZED:
        return False
    with suppress(FileNotFoundError, IsADirectoryError), open(path, 'rb', buffering=0) as file:  # noqa: PTH123
        if end is None:
            return _shorter_than_stated(file.read(12), os.fstat(file.fileno()).st_size)
        file.seek(max(0, file.seek(0, os.SEEK_END) - len(end)))
        return file.read() != end
    return False


def loader_of(pipeline: Any) -> LoadImageFromFile | None:
    """Return the transform by which a pipeline reads image files; None if it begins with one of another kind."""
    first = next(iter(getattr(pipeline, 'transforms', None) or []), None)
    first = getattr(first, 'load', first)  # of LoadAndCrop
    return first if isinstance(first, LoadImageFromFile) else None


def decoding_fault(path: str, load: LoadImageFromFile | None) -> str | None:
    """Describe why a pipeline's own reading gives no image of a file; None if it gives one, or is of an unknown kind.

    OpenCV does not decode some files that Pillow does, such as TIFFs of 32 bits.
    """
    if load is None:
        return None
    try:
        read = load.transform(dict(img_path=path)) is not None
    except AssertionError:  # the decoder returned nothing
        read = False
    except Exception as error:  # the decoder's own
        return f'{type(error).__name__}: {" ".join(str(error).split())}'
    return None if read else f'{load.imdecode_backend} does not decode it'


def cut_short(path: str) -> bool:
    """Check whether a JPEG file, or an image in a shard or table, lacks its end."""
    jpeg = path.lower().endswith(('.jpg', '.jpeg')) or is_held(path)
    return jpeg and ends_early(path) and image_fault(path) is not None
