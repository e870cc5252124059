"""Libraries that a few functions need: each is an extra of this package, and an error names it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

from .errors import MissingLibraryError

#: What mmengine's backends of a visualizer need.
BACKENDS = {'TensorboardVisBackend': 'tensorboard', 'WandbVisBackend': 'wandb', 'MLflowVisBackend': 'mlflow'}


def need_library(library: str, what: str, extra: str | None = None) -> None:
    """Refuse what needs a library that is not installed.

    Args:
        library: The name by which it is imported.
        what: What needs it.
        extra: The extra of this package that brings it; by default of the same name.

    Raises:
        MissingLibraryError: Names all three.
    """
    if find_spec(library) is None:
        raise MissingLibraryError(
            f"{what} needs {library}, which is not installed: pip install 'mmcls_kd[{extra or library}]'"
        )


def check_backends(cfg: Mapping) -> None:
    """Refuse a config whose visualizer has a backend without its library.

    Raises:
        MissingLibraryError: Names the backend, the library and the extra.
    """
    backends = (cfg.get('visualizer') or {}).get('vis_backends') or []
    for backend in [backends] if isinstance(backends, Mapping) else backends:
        kind = str(backend.get('type')).rpartition('.')[-1]  # a scope may stand before it
        if kind in BACKENDS:
            need_library(BACKENDS[kind], kind)
