"""mmcls_kd: knowledge distillation for image classification, in plain PyTorch or on MMEngine and mmpretrain.

Importing the package loads nothing else. Where mmengine and mmpretrain are imported too, before or after, the losses,
networks and distillers of this package are in their registries, and mmengine reads configs by ``mmcls_kd::PATH``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

__version__ = '0.2.0'
#: The names for users, and their modules.
NAMES = {
    'Distiller': 'distiller',
    'TeacherSpec': 'teachers.specs',
    'StoredTeacher': 'teachers',
    'DistillLoss': 'dis_losses',
    'distill': 'command.from_folder.runs',  # with mmengine and mmpretrain, as the next
    'Predictor': 'command.from_folder.predictor',
    'EmbeddingNetwork': 'features.embedding',
    'knn_accuracy': 'features.probes',
    'linear_probe_accuracy': 'features.probes',
    'with_linear_head': 'features.probes',
}
#: Modules under their names in earlier versions; a module may have been divided.
MOVED = {
    'losses': ('dis_losses',),
    'amp': ('engine.amp',),
    'checkpoint': (
        'files.checkpoint',
        'files.atomic',
        'networks.loading',
        'networks.transfer',
        'networks.weights',
    ),
    'distillers.default_taps': ('features.families',),
    'distillers.fast_network': ('teachers.fast',),
    'distillers.flow': ('features.flow',),
    'distillers.forms': ('features.layouts',),
    'distillers.schedules': ('recipe.schedules',),
    'distillers.stored_teacher': ('distillers.teacher',),
    'distillers.survey': ('features.dry_run',),
    'distillers.taps': ('features.taps',),
    'distillers.wrappers': ('recipe.wrappers',),
    'labels': ('engine.labels',),
    'locks': ('files.locks',),
    'networks.labels': ('engine.labels',),
    'networks.resizing': ('teachers.resizing',),
    'plain_data': ('files.plain_data',),
    'runtime': ('engine.runtime', 'engine.config', 'command.arguments', 'command.exits'),
    'teacher_store.records': ('teachers.records',),
    'teacher_store.images': ('engine.image_files',),
    'teacher_store.store': ('teachers.store',),
    'teacher_store.views': ('engine.views',),
    'training': ('engine.config', 'command.arguments'),
}
#: Names in them that changed.
RENAMED = {
    'Survey': 'DryRun',
    'alone': 'locked',
    'survey': 'dry_run',
    'twin': 'shared_copy',
}

__all__ = [
    'DistillLoss',
    'Distiller',
    'EmbeddingNetwork',
    'Predictor',
    'StoredTeacher',
    'TeacherSpec',
    '__version__',
    'distill',
    'knn_accuracy',
    'linear_probe_accuracy',
    'with_linear_head',
]


def __getattr__(name: str) -> Any:
    if name in NAMES:
        return getattr(import_module(f'{__name__}.{NAMES[name]}'), name)
    try:
        return import_module(f'{__name__}.{name}')
    except ModuleNotFoundError as error:
        if error.name != f'{__name__}.{name}':
            raise
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}') from error


class _Finder(MetaPathFinder):
    """Finder of :data:`MOVED` modules; it joins mmengine and mmpretrain as soon as they are imported."""

    def find_spec(self, fullname: str, *_: Any) -> ModuleSpec | None:
        """Return the spec of a moved module."""
        moved = MOVED.get(fullname.removeprefix(f'{__name__}.')) if fullname.startswith(f'{__name__}.') else None
        if moved:
            return ModuleSpec(fullname, _Moved(moved))
        if fullname in JOINS and (spec := self._found_by_others(fullname)) and spec.loader:
            execute = spec.loader.exec_module

            def execute_and_join(module: ModuleType) -> None:
                execute(module)
                _join(module)

            spec.loader.exec_module = execute_and_join  # type: ignore[method-assign]
            return spec
        return None

    def _found_by_others(self, fullname: str) -> ModuleSpec | None:
        sys.meta_path.remove(self)
        try:
            return find_spec(fullname)
        finally:
            sys.meta_path.insert(0, self)


class _Moved(Loader):
    """Loader of a module under its earlier name: its attributes are those of the modules that replace it."""

    def __init__(self, homes: Sequence[str]) -> None:
        self.homes = homes

    def exec_module(self, module: ModuleType) -> None:
        """Look up attributes in the new modules on access."""

        def lookup(name: str) -> Any:
            if not name.startswith('__'):
                for home in self.homes:
                    found = import_module(f'{__name__}.{home}')
                    if hasattr(found, known := RENAMED.get(name, name)):
                        return getattr(found, known)
            raise AttributeError(f'module {module.__name__!r} has no attribute {name!r}')

        module.__getattr__ = lookup  # type: ignore[method-assign]


#: Modules of other libraries, and the function of :mod:`mmcls_kd.patches` to call when they are imported.
JOINS = {
    'mmcv': 'ignore_missing_operator',
    'mmengine.config.utils': 'join_configs',
    'mmpretrain.registry': 'join_registries',
}


def _join(module: ModuleType) -> None:
    getattr(import_module(f'{__name__}.patches'), JOINS[module.__name__])(module)


sys.meta_path.insert(0, _Finder())
for _name in JOINS:
    if _name in sys.modules:
        _join(sys.modules[_name])
