"""Import the libraries under a command."""

from __future__ import annotations

import gc
import sys
from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO

from ..patches import import_when_used


def load_libraries() -> None:
    """Import torch, MMEngine, mmpretrain and the modules that join them, unless that has been done.

    A fifth of the time would be spent in search of garbage, of which there is none; what is imported is left out of later
    searches too. mmpretrain prints which library it does not find; that is not shown.
    """
    if 'mmcls_kd.registry' in sys.modules:
        return
    gc.disable()
    try:
        import_when_used('albumentations')
        with redirect_stdout(StringIO()):
            import_module('mmcls_kd.registry')
            import_module('mmcls_kd.checks.training')
    finally:
        gc.freeze()
        gc.enable()
