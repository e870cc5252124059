"""Joins mmengine's registries: importing this module adds all of this package to those of mmpretrain.

mmengine gives the scope ``mmcls_kd`` to whatever a config takes from ``mmcls_kd::...``. Everything registers in mmpretrain's
registries. Without the empty ones below them, mmengine would look for the classes of such a config in its own alone.
"""

import logging

from mmengine.logging import print_log
from mmengine.registry import Registry
from mmpretrain import registry as mmpretrain_registry
from mmpretrain.registry import MODELS

from . import backbones, dis_losses, distillers, engine, networks
from .recipe.methods import FINDERS

__all__ = ['backbones', 'distillers', 'engine', 'networks']
LOCATIONS = [f'mmpretrain.{part}' for part in ('datasets', 'engine', 'evaluation', 'models', 'visualization')]


class RunLogHandler(logging.Handler):
    """Passes the messages of the core on to the log of mmengine's run."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message."""
        print_log(record.getMessage(), 'current', record.levelno)


logging.getLogger('mmcls_kd').addHandler(RunLogHandler())
logging.getLogger('mmcls_kd').setLevel(logging.INFO)
logging.getLogger('mmcls_kd').propagate = False
for loss in dis_losses.LOSSES.values():
    MODELS.register_module(module=loss)
FINDERS.insert(0, MODELS.get)
for parent in [value for value in vars(mmpretrain_registry).values() if isinstance(value, Registry)]:
    if parent.scope == 'mmpretrain':  # not mmengine's, which are imported there
        Registry(parent.name, parent=parent, scope='mmcls_kd', locations=[*LOCATIONS, 'mmcls_kd.registry'])
