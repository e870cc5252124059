"""The console of a run: the messages that a person can use; all others are in the log file only."""

from __future__ import annotations

import logging
import re
import time
import warnings
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from mmengine.logging import MMLogger
from mmengine.runner import BaseLoop, Runner
from mmpretrain.registry import RUNNERS

#: Records of more lines (versions, config, hooks) are shown by their first line.
MOST_LINES = 4
#: Beginnings of warnings of the packages below that their users cannot act on.
PLATFORM_WARNINGS = (
    'Fail to import ``MultiScaleDeformableAttention``',
    'The given NumPy array is not writable',
    "__array__ implementation doesn't accept a copy keyword",
    'The `use_layer_scale` in `MultiheadAttention`',
    'pkg_resources is deprecated',
)
#: Those that are logged.
PLATFORM_RECORDS = re.compile(r'"(FileClient" will be deprecated|HardDiskBackend" is the alias)')


def hide_platform_warnings() -> None:
    """Ignore :data:`PLATFORM_WARNINGS` in this process, for programs; a library leaves the filters to its user."""
    for start in PLATFORM_WARNINGS:
        warnings.filterwarnings('ignore', message=re.escape(start))


def is_of_use(record: logging.LogRecord) -> bool:
    """Check that a record is none of :data:`PLATFORM_RECORDS`."""
    return not PLATFORM_RECORDS.match(record.getMessage())


class ConsoleFormatter(logging.Formatter):
    """Formatter that shows the first line of a long record, and its log file; warnings and errors stay whole."""

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
    """mmengine's Runner with a readable console, see :class:`ConsoleFormatter`, and small images in memory."""

    def build_logger(self, log_level: int | str = 'INFO', log_file: str | None = None, **kwargs: Any) -> MMLogger:
        """Build mmengine's logger; its file has all records unchanged."""
        logger = super().build_logger(log_level, log_file, **kwargs)
        files = [handler.baseFilename for handler in logger.handlers if isinstance(handler, logging.FileHandler)]
        for handler in logger.handlers:
            if handler.formatter and not isinstance(handler, logging.FileHandler):
                handler.addFilter(is_of_use)
                handler.setFormatter(ConsoleFormatter(handler.formatter, files[0] if files else 'no file'))
        return logger

    def build_val_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build mmengine's loop, whose images are kept in memory where :func:`.kept.keep_images` does so."""
        return _keeping(super().build_val_loop, loop)

    def build_test_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build mmengine's loop, whose images are kept in memory where :func:`.kept.keep_images` does so."""
        return _keeping(super().build_test_loop, loop)


def _keeping(build: Callable[[Any], BaseLoop], loop: BaseLoop | dict) -> BaseLoop:
    """Build a loop whose images are kept in memory; ``in_memory`` in its config says whether."""
    from .kept import keep_images

    settings = dict(loop) if isinstance(loop, Mapping) else {}
    in_memory = settings.pop('in_memory', None)
    built = build(settings if isinstance(loop, Mapping) else loop)
    keep_images(getattr(built, 'dataloader', None), in_memory)
    return built


#: Interval of progress messages, in s.
TELL_EVERY = 10


class Progress:
    """Progress messages of this process, every few seconds."""

    def __init__(self, log: Callable[[str], Any], total: int, what: tuple[str, str] = ('teacher', 'views')) -> None:
        self.log, self.total, self.done, self.what = log, total, 0, what
        self.start = self.told = time.monotonic()

    def add(self, count: int) -> None:
        """Add finished items."""
        self.done += count
        now = time.monotonic()
        if now - self.told < TELL_EVERY and self.done < self.total:
            return
        self.told = now
        speed = self.done / max(now - self.start, 1e-9)
        left = timedelta(seconds=round(max(0, self.total - self.done) / speed))
        who, things = self.what
        self.log(f'{who}: {self.done}/{self.total} {things}, {speed:.0f} a second, time left {left}')
