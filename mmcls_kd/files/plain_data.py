"""Untrusted files, read as data: no loader here calls code that a file names."""

from __future__ import annotations

import ast
import inspect
import pickle
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from traceback import clear_frames
from typing import Any

import numpy as np
import yaml
from mmengine.config import Config
from mmengine.fileio.handlers import PickleHandler, YamlHandler, file_handlers, register_handler
from mmengine.utils import get_object_from_string

try:
    from yaml import CSafeLoader as SafeLoader
except ImportError:  # a PyYAML without libyaml
    from yaml import SafeLoader

#: Advice for a file that needs to run code.
MEND = 'which could run code when it is read. If you trust where the file comes from, say so with --trust'
#: Types of plain data in pickles: containers, and numpy's arrays and numbers, under old and new names.
PLAIN_TYPES: dict[tuple[str, str], type] = {
    ('builtins', of.__name__): of for of in (bytearray, complex, frozenset, range, set, slice)
}
PLAIN_TYPES |= {('__builtin__', name): of for (_, name), of in PLAIN_TYPES.items()}  # as Python 2 called it
PLAIN_TYPES |= {('collections', 'OrderedDict'): OrderedDict, ('numpy', 'ndarray'): np.ndarray, ('numpy', 'dtype'): np.dtype}
NUMPY_FUNCTIONS = (('multiarray', '_reconstruct'), ('multiarray', 'scalar'), ('numeric', '_frombuffer'))
#: Packages whose classes a config may name by their import path, and modules whose functions build networks.
PACKAGES = ('mmcls_kd', 'mmcv', 'mmdet', 'mmengine', 'mmpretrain', 'mmseg', 'timm', 'torch', 'torchvision', 'transformers')
BUILDERS = ('timm.models.', 'torchvision.models.')
#: Keys of a distiller's config that may name another config.
NETWORKS = ('student_cfg', 'teacher_cfg')


class PlainLoader(SafeLoader):
    """Yaml's safe loader, with the tuples that mmengine writes."""


PlainLoader.add_constructor(
    'tag:yaml.org,2002:python/tuple', lambda loader, node: tuple(loader.construct_sequence(node, deep=True))
)


class PlainYaml(YamlHandler):
    """Reader of YAML that builds no objects."""

    def load_from_fileobj(self, file: Any, **kwargs: Any) -> Any:
        """Load YAML as in mmengine, unless a tag builds an object."""
        try:
            return yaml.load(file, **{**kwargs, 'Loader': PlainLoader})
        except yaml.constructor.ConstructorError as error:
            tag = str(error.problem).rsplit("'", 2)[-2].replace('tag:yaml.org,2002:', '!!')
            raise ValueError(f'a YAML file holds {tag} in line {error.problem_mark.line + 1}, {MEND}') from error


class PlainUnpickler(pickle.Unpickler):
    """Unpickler of :data:`PLAIN_TYPES` and types without a name."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the plain type that a name in a pickle stands for."""
        if (module, name) in PLAIN_TYPES:
            return PLAIN_TYPES[module, name]
        if (module.rsplit('.', 1)[-1], name) in NUMPY_FUNCTIONS and module.startswith(('numpy.core.', 'numpy._core.')):
            package = 'numpy._core' if hasattr(np, '_core') else 'numpy.core'
            return getattr(import_module(f'{package}.{module.rsplit(".", 1)[-1]}'), name)
        if module == 'numpy.dtypes' and isinstance(kind := getattr(getattr(np, 'dtypes', None), name, None), type):
            return kind
        if (module, name) == ('_codecs', 'encode'):  # the bytes of old pickles
            return super().find_class(module, name)
        raise ValueError(f'a pickled file holds {module}.{name}, {MEND}')


class PlainPickle(PickleHandler):
    """Reader of pickles of plain data."""

    def load_from_fileobj(self, file: Any, **kwargs: Any) -> Any:
        """Load a pickle as in mmengine, unless it names a type that is not plain data."""
        return PlainUnpickler(file, **kwargs).load()


MMENGINES = {name: file_handlers[name] for name in ('yaml', 'yml', 'pickle', 'pkl')}
#: Default permission for files to run code while they are read: ``--trust`` of the tools.
trusted = False


def guard_files(trust: bool) -> None:
    """Forbid (or allow) code in YAML files and pickles that mmengine reads in this process, such as annotation lists."""
    global trusted
    trusted = trust
    if trust:
        file_handlers.update(MMENGINES)
    else:
        register_handler(['yaml', 'yml'])(PlainYaml)
        register_handler(['pickle', 'pkl'])(PlainPickle)


@contextmanager
def files_guarded() -> Iterator[None]:
    """Apply :func:`guard_files` in the ``with`` block, unless files are trusted."""
    before = dict(file_handlers)
    guard_files(trusted)
    try:
        yield
    finally:
        file_handlers.update(before)


# ---- configs


def run_config(path: str | Path) -> Config:
    """Read a config file as mmengine does, which runs it, see :func:`files_guarded`.

    mmengine runs a copy of the file. Where that raises, it leaves the copy open in its frames; they are cleared, so that it
    is closed at once.
    """
    try:
        with files_guarded():
            return Config.fromfile(path)
    except Exception as error:
        clear_frames(error.__traceback__)
        raise


def read_plain_config(path: Path) -> Config:
    """Read the config in a training's work directory without running it: names and plain values alone."""
    return plain_config(path.read_text(encoding='utf-8'), path)


def plain_config(text: str, path: Path) -> Config:
    """Return the config of a text without running it, see :func:`read_plain_config`; messages name ``path``."""
    values = {}
    try:
        for statement in ast.parse(text).body:
            if not isinstance(statement, ast.Assign) or not isinstance(statement.targets[0], ast.Name):
                raise NotPlainError(statement)
            values[statement.targets[0].id] = _value(statement.value)
    except SyntaxError as error:
        raise ValueError(f'config {path} cannot be read: {error}') from error
    except NotPlainError as error:
        number = error.args[0].lineno
        line = text.splitlines()[number - 1].strip()
        raise ValueError(f'config {path} is a program (line {number}: {line[:60]}), {MEND}') from error
    refuse_calls(values, f'config {path}')
    return Config(values, cfg_text=text, filename=str(path))


class NotPlainError(Exception):
    """A part of a config, a node of its syntax tree, is more than a value."""


def _value(node: ast.expr) -> Any:
    """Return the plain value of an expression; ``dict(a=1)`` and ``inf`` are such, as mmengine writes them."""
    match node:
        case ast.Constant(value=value):
            return value
        case ast.List(elts=parts):
            return [_value(part) for part in parts]
        case ast.Tuple(elts=parts):
            return tuple(_value(part) for part in parts)
        case ast.Set(elts=parts):
            return {_value(part) for part in parts}
        case ast.Dict(keys=keys, values=values) if None not in keys:
            return {_value(key): _value(value) for key, value in zip(keys, values, strict=True)}  # type: ignore[arg-type]
        case ast.UnaryOp(op=ast.USub(), operand=operand) if isinstance(number := _value(operand), (int, float)):
            return -number
        case ast.Name(id='inf' | 'nan' as name):
            return float(name)
        case ast.Call(func=ast.Name(id='dict'), args=args, keywords=keywords) if all(k.arg for k in keywords):
            given = _value(args[0]) if len(args) == 1 else {}
            if len(args) < 2 and isinstance(given, dict):
                return given | {keyword.arg: _value(keyword.value) for keyword in keywords}
    raise NotPlainError(node)


def refuse_calls(content: Any, what: str) -> None:
    """Refuse a config of plain values that names code that would run when it is built; messages call it ``what``.

    mmengine builds a ``type`` that is an import path by calling it, a function too.
    """
    if isinstance(content, Mapping):
        if isinstance(kind := content.get('type'), str) and not _is_known(kind):
            raise ValueError(f'{what} has type={kind!r}, {MEND}')
        for key in NETWORKS:
            if isinstance(path := content.get(key), str) and path.endswith('.py') and '::' not in path:
                raise ValueError(f'{what} has {key}={path!r}, another config and so a program, {MEND}')
        content = list(content.values())
    if isinstance(content, (list, tuple)):
        for part in content:
            refuse_calls(part, what)


def _is_known(kind: str) -> bool:
    """Check that a type is a registered name, a class of :data:`PACKAGES`, or one of :data:`BUILDERS`."""
    package, *inside = kind.split('.')
    if not inside:
        return True
    if package not in PACKAGES:
        return False
    found = get_object_from_string(kind)
    if found is None:  # the scope of a registry and a name in it
        return True
    home = f'{getattr(found, "__module__", "")}.'  # not where another module has imported it from
    return home.startswith(BUILDERS) if not inspect.isclass(found) else home.split('.')[0] in PACKAGES
