"""Config files: found, read, and formatted once a run."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from keyword import iskeyword
from pathlib import Path
from textwrap import indent
from typing import Any

from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.utils import import_modules_from_strings

from ..files import plain_data
from ..files.paths import TOOLBOX, _found
from ..files.plain_data import read_plain_config, refuse_calls, run_config

#: Line length of a config's text.
LINE = 100


def read_config(path: str) -> Config:
    """Read a config by its path: in the working directory, else in the toolbox, else among mmpretrain's.

    The path is that of a file (of mmpretrain's with or without ``configs/``), or ``mmcls_kd::`` or ``mmpretrain::`` and a
    path. A config, or a file that it inherits from, that is not found is a ``FileNotFoundError``, other errors are
    ``ValueError``.
    """
    if '::' not in path and (found := _found(path)):
        try:
            cfg = run_config(found)
        except FileNotFoundError:
            raise
        except Exception as error:  # a program may raise anything
            raise ValueError(f'config {path} cannot be read: {_reason(error)}') from error
        if found.suffix != '.py' and not plain_data.trusted:
            refuse_calls(cfg._cfg_dict.to_dict(), f'config {path}')
        return cfg
    try:
        name = path if '::' in path else f'mmpretrain::{path.removeprefix("configs/")}'
        return run_config(Config._get_cfg_path(name, '')[0])
    except (FileNotFoundError, ValueError, AssertionError) as error:
        raise FileNotFoundError(
            f'config {path}: neither in the working directory nor in the toolbox ({TOOLBOX}) nor in mmpretrain'
        ) from error


def in_scope(cfg: Config) -> Any:
    """Return a context in which a config's parts are found in the registries, as in a run."""
    return DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain'))


def _reason(error: BaseException) -> str:
    """Describe in a line why a config cannot be read; for a failed import, which module, and why."""
    if isinstance(error, ImportError):
        failed = error.__cause__ or error  # mmengine's, of all that are to be imported, and of one
        if named := re.match(r'Failed to import (\S+)$', str(failed)):
            why = failed.__context__
            mend = 'Is it installed, or its folder in PYTHONPATH?'
            return f'custom_imports: {named[1]} cannot be imported ({type(why).__name__}: {why}). {mend}'
    reason = (str(error).splitlines() or [''])[0]
    return reason if type(error) is ValueError else f'{type(error).__name__}: {reason}'


def read_left_config(path: Path) -> Config:
    """Read the config in the work directory of a training as data; only with ``--trust`` is it run."""
    if plain_data.trusted:
        return read_config(str(path.resolve()))
    cfg = read_plain_config(path)
    try:
        import_modules_from_strings(**cfg.get('custom_imports', dict(imports=[])))
    except ImportError as error:
        raise ValueError(f'config {path} cannot be read: {_reason(error)}') from error
    return cfg


def as_python(value: Any, room: int = LINE) -> str:
    """Return a config's value as Python source: on one line where it fits into ``room``, else one part a line.

    Example:
        >>> print(as_python(dict(type='SGD', lr=0.1, betas=(0.9,)), room=20))
        dict(
            betas=(0.9,),
            lr=0.1,
            type='SGD',
        )
    """
    if isinstance(value, Mapping):
        named = all(isinstance(key, str) and key.isidentifier() and not iskeyword(key) for key in value)
        left, right = ('dict(', ')') if named else ('{', '}')
        parts = [(f'{key}=' if named else f'{key!r}: ', value[key]) for key in sorted(value, key=str)]
    elif isinstance(value, (list, tuple)):
        (left, right), parts = '[]' if isinstance(value, list) else '()', [('', part) for part in value]
    elif isinstance(value, type):
        return value.__name__ if value.__module__ == 'builtins' else f'{value.__module__}.{value.__name__}'
    else:
        return repr(value) if isinstance(value, str) else str(value)
    texts = [f'{start}{as_python(part, room - 4 - len(start))}' for start, part in parts]
    line = f'{left}{", ".join(texts)}{"," * (left == "(" and len(texts) == 1)}{right}'
    if len(line) <= room and '\n' not in line:
        return line
    return '\n'.join([left, *(indent(f'{text},', '    ') for text in texts), right])


class RunConfig(Config):
    """Config of a run, written by :func:`as_python`: mmengine formats its text by yapf, which takes a second."""

    _kept_back = False

    @classmethod
    @contextmanager
    def kept_back(cls) -> Iterator[None]:
        """Keep existing files from being replaced by a config in the ``with`` block."""
        cls._kept_back = True
        try:
            yield
        finally:
            cls._kept_back = False

    def dump(self, file: str | Path | None = None) -> str | None:
        """Write the config as in mmengine, see :meth:`kept_back`."""
        if file is not None and self._kept_back and Path(file).exists():
            return None
        return super().dump(file)

    @property
    def pretty_text(self) -> str:
        """The config as Python source; a value that cannot be written is an error that names its key."""
        lines = []
        for key, value in sorted(self.to_dict().items()):
            lines.append(f'{key} = {as_python(value, LINE - len(key) - 3)}\n')
            try:
                ast.parse(lines[-1])
            except SyntaxError as error:
                raise ValueError(f'config {self.filename}: {key}={repr(value)[:200]} cannot be written as Python') from error
        return ''.join(lines)

    @classmethod
    def of(cls, cfg: Config) -> RunConfig:
        """Convert a config to that of a run."""
        return cls(cfg._cfg_dict, cfg_text=cfg.text, filename=cfg.filename, env_variables=cfg.env_variables)
