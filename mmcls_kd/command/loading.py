"""Import the libraries under a command."""

from __future__ import annotations

import gc
import sys
from contextlib import redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from io import StringIO
from types import ModuleType
from typing import Any


def load_libraries() -> None:
    """Import torch, MMEngine, mmpretrain and the modules that join them, unless that has been done.

    A fifth of the time would be spent in search of garbage, of which there is none; what is imported is left out of later
    searches too. mmpretrain prints which library it does not find; that is not shown.
    """
    if 'mmcls_kd.registry' in sys.modules:
        return
    gc.disable()
    try:
        import_when_used('albumentations')  # mmpretrain imports it, few runs use it, and it asks the network for its version
        with redirect_stdout(StringIO()):
            import_module('mmcls_kd.registry')
            import_module('mmcls_kd.checks.training')
    finally:
        gc.freeze()
        gc.enable()


def import_when_used(name: str) -> None:
    """Let a module be imported when an attribute of it is first used; one that is not installed stays unknown."""
    if name in sys.modules or (spec := find_spec(name)) is None:
        return

    def load(attribute: str) -> Any:
        if sys.modules.get(name) is later:
            del sys.modules[name]
        return getattr(import_module(name), attribute)

    sys.modules[name] = later = ModuleType(name)
    vars(later).update(__spec__=spec, __file__=spec.origin, __getattr__=load)
