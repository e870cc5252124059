"""Features: tensors read inside of a network, found by a dry run, named by taps."""

from .dry_run import DryRun
from .families import default_taps
from .taps import Tap, given_taps, record

__all__ = ['DryRun', 'Tap', 'default_taps', 'given_taps', 'record']
