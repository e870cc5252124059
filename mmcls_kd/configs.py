"""Config files: where they are found, what they hold, and how a distiller config offers its methods."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from keyword import iskeyword
from pathlib import Path
from textwrap import indent
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.config import config as mmengine_config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.utils import import_modules_from_strings
from mmpretrain.apis.model import ModelHub
from mmpretrain.registry import MODELS

from . import plain_data
from .errors import close_names
from .networks.sources import Source, read_source
from .plain_data import files_guarded, read_plain_config, refuse_calls

PACKAGE = Path(__file__).resolve().parent
CONFIGS = PACKAGE / '.mim' / 'configs'
#: The folder that holds ``configs/``: inside the installed package, or the checkout around it, which links to it there.
TOOLBOX = CONFIGS.resolve().parent if CONFIGS.is_dir() else PACKAGE.parent
#: How long the lines of a config's text are.
LINE = 100
MODULE2PACKAGE['mmcls_kd'] = 'mmcls_kd'  # so that mmengine finds `mmcls_kd::...`
_from_index = mmengine_config._get_external_cfg_path


def _external_path(package: str, name: str) -> str:
    """Return the file of `mmpretrain::NAME` at its place; for it mmengine reads 85 metafiles before it looks there."""
    path = Path(package, '.mim', 'configs', name)
    return str(path) if path.is_file() else _from_index(package, name)


mmengine_config._get_external_cfg_path = _external_path


def _found(path: str | Path) -> Path | None:
    candidates = [root / Path(path).expanduser() for root in (Path(), TOOLBOX)]
    return next((c.resolve() for c in candidates if c.is_file()), None)


def find_file(path: str | Path) -> Path:
    """A file by its path: in the working directory, else in the toolbox.

    Raises:
        FileNotFoundError: If it is in neither.
    """
    if (found := _found(path)) is None:
        raise FileNotFoundError(f'{path}: no such file, neither in the working directory nor in the toolbox ({TOOLBOX})')
    return found


def read_config(path: str) -> Config:
    """A config by its path: in the working directory, else in the toolbox, else among mmpretrain's.

    Args:
        path: Path of a file (of mmpretrain's with or without ``configs/``), or ``mmcls_kd::`` or ``mmpretrain::`` and a
            path.

    Raises:
        FileNotFoundError: If no such config, or a file that it inherits from, is found.
        ValueError: If it is no Python that runs, or a module that it imports is not found.
    """
    if '::' not in path and (found := _found(path)):
        try:
            with files_guarded():
                cfg = Config.fromfile(found)
        except FileNotFoundError:
            raise
        except Exception as error:  # a program may raise anything
            raise ValueError(f'config {path} cannot be read: {_reason(error)}') from error
        if found.suffix != '.py' and not plain_data.trusted:
            refuse_calls(cfg._cfg_dict.to_dict(), f'config {path}')
        return cfg
    try:
        name = path if '::' in path else f'mmpretrain::{path.removeprefix("configs/")}'
        return Config.fromfile(Config._get_cfg_path(name, '')[0])
    except (FileNotFoundError, ValueError, AssertionError) as error:
        raise FileNotFoundError(
            f'config {path}: neither in the working directory nor in the toolbox ({TOOLBOX}) nor in mmpretrain'
        ) from error


def _reason(error: BaseException) -> str:
    """Why a config cannot be read, in a line; of modules that it imports which one, and why."""
    if isinstance(error, ImportError):
        failed = error.__cause__ or error  # mmengine's, of all that are to be imported, and of one
        if named := re.match(r'Failed to import (\S+)$', str(failed)):
            why = failed.__context__
            mend = 'Is it installed, or its folder in PYTHONPATH?'
            return f'custom_imports: {named[1]} cannot be imported ({type(why).__name__}: {why}). {mend}'
    reason = (str(error).splitlines() or [''])[0]
    return reason if type(error) is ValueError else f'{type(error).__name__}: {reason}'


def read_left_config(path: Path) -> Config:
    """The config that a training has left in its work directory, as data: only with ``--trust`` is it run.

    Args:
        path: The file.

    Raises:
        ValueError: If it is no plain config, see :func:`~.plain_data.read_plain_config`, or cannot be read.
    """
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
    """Config of a run, written by :func:`as_python`: mmengine lays its text out by yapf, which takes a second."""

    _kept_back = False

    @classmethod
    @contextmanager
    def kept_back(cls) -> Iterator[None]:
        """In the ``with`` block no config takes the place of an existing file."""
        cls._kept_back = True
        try:
            yield
        finally:
            cls._kept_back = False

    def dump(self, file: str | Path | None = None) -> str | None:
        """As in mmengine, see :meth:`kept_back`."""
        if file is not None and self._kept_back and Path(file).exists():
            return None
        return super().dump(file)

    @property
    def pretty_text(self) -> str:
        """The config as Python source.

        Raises:
            ValueError: If a value cannot be written; names its key.
        """
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
        """The same config, as a run's."""
        return cls(cfg._cfg_dict, cfg_text=cfg.text, filename=cfg.filename, env_variables=cfg.env_variables)


def find_network(source: str | Mapping) -> Source:
    """A network and what is known of it, by whatever a config may give: see :func:`~.networks.sources.read_source`."""
    return read_source(source, read_config)


def network_cfg(source: str | Mapping) -> ConfigDict:
    """What builds a network, a classifier's config with its data preprocessor, see :func:`find_network`.

    Args:
        source: Path of a config (see :func:`read_config`), a name, a whole config, or a ``model`` dict itself.

    Raises:
        FileNotFoundError: If no config is found at that path.
        ValueError: If the config has no ``model``.
    """
    return find_network(source).cfg


def method_name(entry: Mapping) -> str:
    """The name of a method on the command line: that of its loss without ``loss_``."""
    return str(entry['name']).removeprefix('loss_')


def loss_class(entry: Mapping) -> Any:
    """The class that makes a method's loss, given by itself or by its registered name; None for an unknown name."""
    kind = entry['type']
    return MODELS.get(kind) if isinstance(kind, str) else kind


def method_entries(distill_cfg: Sequence[Mapping]) -> Iterator[Mapping]:
    """Each method of a ``distill_cfg``: a list of ``dict(methods=[dict(type, name, use_this, ...), ...])``.

    Raises:
        ValueError: If it has another form, or an entry lacks ``type`` or ``name``.
    """
    for group in distill_cfg:
        if not isinstance(group, Mapping) or not isinstance(group.get('methods'), Sequence):
            raise ValueError(f'distill_cfg is a list of dict(methods=[dict(type=..., name=...), ...]), but holds {group!r}')
        for entry in group['methods']:
            if 'type' not in entry or 'name' not in entry:
                raise ValueError(f'a method in distill_cfg needs `type` and `name`, but one is {dict(entry)!r}')
            yield entry


def check_methods(wanted: Sequence[str], offered: Sequence[str]) -> None:
    """Refuse methods that are not offered, or none at all.

    Raises:
        ValueError: Lists what is offered.
    """
    offers = f'this config offers: {", ".join(offered)}'
    if not wanted:
        raise ValueError(f'no distillation method is chosen; {offers}')
    for name in wanted:
        if name not in offered:
            raise ValueError(f'unknown method {name!r}{close_names(name, offered)}; {offers}')


def offer(base: Mapping[str, Mapping], methods: Sequence[str], **settings: Mapping[str, Any]) -> list[dict]:
    """The ``distill_cfg`` of a distiller config: every method of ``base``, the chosen ones switched on.

    Args:
        base: Keywords of each loss by method name, as a file under ``configs/_base_/methods/`` holds them.
        methods: The methods to switch on.
        **settings: Keywords that a pair adds to a method or has otherwise, e.g. ``mgd=dict(student_channels=512, ...)``.

    Raises:
        ValueError: If a method is chosen or set that ``base`` does not have, or none is chosen.
    """
    check_methods(methods, list(base))
    if settings:
        check_methods(list(settings), list(base))
    return [
        dict(methods=[dict(name=f'loss_{name}', use_this=name in methods, **{**keywords, **settings.get(name, {})})])
        for name, keywords in base.items()
    ]


def select_methods(model: Mapping, methods: Sequence[str]) -> None:
    """Switch the methods of a distiller's config on or off, in place: exactly ``methods`` are on afterwards.

    Raises:
        ValueError: If the config is not a distiller's, a method is not offered, or none is chosen.
    """
    if 'distill_cfg' not in model:
        raise ValueError('methods can be chosen for a distiller config only: this model has no `distill_cfg`')
    entries = list(method_entries(model['distill_cfg']))
    check_methods(methods, [method_name(entry) for entry in entries])
    for entry in entries:
        entry['use_this'] = method_name(entry) in methods  # type: ignore[index]


def follow_methods(model: Mapping, methods: Sequence[str]) -> None:
    """Let a config's ``methods`` decide, in place, as a config that inherits from a distiller's may set them anew.

    Where the config has put a ``distill_cfg`` of its own in the place of the inherited one, the inherited ``methods`` mean
    nothing there, and that ``distill_cfg`` decides.

    Raises:
        ValueError: As :func:`select_methods`.
    """
    offered = [method_name(entry) for entry in method_entries(model['distill_cfg'])]
    if not methods or any(name in offered or close_names(name, offered) for name in methods):
        select_methods(model, methods)


def zoo_weights(name: str) -> str:
    """The address of a model's weights in mmpretrain's model index, e.g. of ``resnet34_8xb32_in1k``.

    Raises:
        ValueError: If mmpretrain does not know the model, or has no weights for it.
    """
    weights = ModelHub.get(name).weights
    if not weights:
        raise ValueError(f'mmpretrain has no weights for {name}')
    return weights
