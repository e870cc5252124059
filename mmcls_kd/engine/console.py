"""What a run shows on the screen: what somebody watching can use; everything is in the log file."""

from __future__ import annotations

import logging
import re
import warnings
from typing import Any

from mmengine.logging import MMLogger
from mmengine.runner import Runner
from mmpretrain.registry import RUNNERS

#: Records of more lines (versions, config, hooks) are shown by their first line.
MOST_LINES = 4
#: Warnings of the packages below that their users can do nothing about, by how they begin.
PLATFORM_WARNINGS = (
    'Fail to import ``MultiScaleDeformableAttention``',
    'The given NumPy array is not writable',
    "__array__ implementation doesn't accept a copy keyword",
    'The `use_layer_scale` in `MultiheadAttention`',
    'pkg_resources is deprecated',
)
#: The same where they are logged.
PLATFORM_RECORDS = re.compile(r'"(FileClient" will be deprecated|HardDiskBackend" is the alias)')


def hide_platform_warnings() -> None:
    """Ignore :data:`PLATFORM_WARNINGS` in this process, for programs; a library leaves the filters to its user."""
    for start in PLATFORM_WARNINGS:
        warnings.filterwarnings('ignore', message=re.escape(start))


def is_of_use(record: logging.LogRecord) -> bool:
    """Return whether a record is none of :data:`PLATFORM_RECORDS`."""
    return not PLATFORM_RECORDS.match(record.getMessage())


class ConsoleFormatter(logging.Formatter):
    """Shows a record of many lines by its first one; warnings and errors stay whole.

    Args:
        formatter: What lays out a record.
        log_file: Where the record is in full.
    """

    def __init__(self, formatter: logging.Formatter, log_file: str) -> None:
        super().__init__()
        self.formatter, self.log_file = formatter, log_file

    def format(self, record: logging.LogRecord) -> str:
        """Return the text to show."""
        lines = [line for line in record.getMessage().splitlines() if line.strip('- ')]
        if record.levelno < logging.WARNING and len(lines) > MOST_LINES:
            short = dict(msg=f'{lines[0].rstrip(": ")}: {len(lines) - 1} lines in {self.log_file}', args=())
            record = logging.makeLogRecord({**record.__dict__, **short})
        return self.formatter.format(record)


@RUNNERS.register_module()
class ConsoleRunner(Runner):
    """Mmengine's Runner with a console that a person can read, see :class:`ConsoleFormatter`."""

    def build_logger(self, log_level: int | str = 'INFO', log_file: str | None = None, **kwargs: Any) -> MMLogger:
        """Build mmengine's logger; its file has all records as they are."""
        logger = super().build_logger(log_level, log_file, **kwargs)
        files = [handler.baseFilename for handler in logger.handlers if isinstance(handler, logging.FileHandler)]
        for handler in logger.handlers:
            if handler.formatter and not isinstance(handler, logging.FileHandler):
                handler.addFilter(is_of_use)
                handler.setFormatter(ConsoleFormatter(handler.formatter, files[0] if files else 'no file'))
        return logger
