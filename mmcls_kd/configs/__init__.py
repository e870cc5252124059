"""Config files: found and read; and the functions that they import, ``offer`` and ``zoo_weights``."""

from __future__ import annotations

from importlib import import_module
from typing import Any

#: Where each name of this module is defined.
HOMES = {
    'configs.benchmark': ('benchmark_pair',),
    'recipe.methods': ('offer',),
    'networks.sources': ('find_network', 'network_cfg', 'zoo_weights'),
    'configs.reading': ('RunConfig', 'read_config', 'read_left_config'),
    'files.paths': ('TOOLBOX', 'find_file'),
}


def __getattr__(name: str) -> Any:
    for home, names in HOMES.items():
        if name in names:
            return getattr(import_module(f'mmcls_kd.{home}'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
