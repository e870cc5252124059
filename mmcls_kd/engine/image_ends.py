"""Image files: their suffixes, and lacking ends, as after an interrupted copy; OpenCV may fill such up with grey."""

from __future__ import annotations

import io
import os
from contextlib import suppress

import cv2
import numpy as np
from mmengine.fileio import get
from PIL import Image

from ..files.held_images import is_held

#: Suffixes of image files in a folder of the user's; other files are ignored.
SUFFIXES = ('.jpg', '.jpeg', '.png', '.ppm', '.pgm', '.bmp', '.tif', '.tiff', '.webp', '.gif', '.avif')
#: The first and the last bytes of a complete file, by suffix.
STARTS = {'.jpg': b'\xff\xd8\xff', '.png': b'\x89PNG\r\n\x1a\n'}
ENDS = {'.jpg': b'\xff\xd9', '.jpeg': b'\xff\xd9', '.png': b'IEND\xaeB`\x82'}


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
    return any(content.startswith(start) and not content.endswith(ENDS[kind]) for kind, start in STARTS.items())


def ends_early(path: str) -> bool:
    """Check whether an image file on this machine lacks the ending of its suffix's format, see :func:`lacks_end`.

    Of an image in a shard or table the format is that of its content: it need not have a suffix.
    """
    if is_held(path):
        return lacks_end(get(path))
    end = ENDS.get(os.path.splitext(path)[1].lower())  # noqa: PTH122  (here pathlib takes half the time)
    if end is None:
        return False
    with suppress(FileNotFoundError, IsADirectoryError), open(path, 'rb', buffering=0) as file:  # noqa: PTH123
        file.seek(max(0, file.seek(0, os.SEEK_END) - len(end)))
        return file.read() != end
    return False


def cut_short(path: str) -> bool:
    """Check whether a JPEG file, or an image in a shard or table, lacks its end."""
    jpeg = path.lower().endswith(('.jpg', '.jpeg')) or is_held(path)
    return jpeg and ends_early(path) and image_fault(path) is not None
