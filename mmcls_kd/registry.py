"""Joining of mmengine's registries: importing this module adds this package to those of mmpretrain.

mmengine gives the scope ``mmcls_kd`` to the parts of a config from ``mmcls_kd::...``. Everything registers in mmpretrain's
registries. Without the empty ones below, mmengine would look for these classes in its own registries alone.
"""

import logging

from mmengine.logging import print_log
from mmengine.registry import Registry
from mmpretrain import registry as mmpretrain_registry
from mmpretrain.models.classifiers import HuggingFaceClassifier, TimmClassifier
from mmpretrain.models.heads import MultiLabelClsHead
from mmpretrain.registry import MODELS

from . import dis_losses, distillers, engine, networks, readers
from .backbones.deit3 import DeiT3
from .backbones.mobilenet_v1 import MobileNetV1
from .networks.classifiers import BINARY
from .patches import know_several_labels, prepare_hugging_face, replace_deit3
from .recipe.methods import FINDERS
from .teachers.towers import make_trainable

__all__ = ['DeiT3', 'MobileNetV1', 'distillers', 'engine', 'networks', 'readers']
LOCATIONS = [f'mmpretrain.{part}' for part in ('datasets', 'engine', 'evaluation', 'models', 'visualization')]


class RunLogHandler(logging.Handler):
    """Handler that passes the core's messages on to the log of mmengine's run."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message."""
        print_log(record.getMessage(), 'current', record.levelno)


logging.getLogger('mmcls_kd').addHandler(RunLogHandler())
logging.getLogger('mmcls_kd').setLevel(logging.INFO)
logging.getLogger('mmcls_kd').propagate = False
for loss in dis_losses.LOSSES.values():
    MODELS.register_module(module=loss)
replace_deit3(MODELS, DeiT3)
for classifier in (TimmClassifier, HuggingFaceClassifier):
    know_several_labels(classifier, MultiLabelClsHead, BINARY)
prepare_hugging_face(HuggingFaceClassifier, make_trainable)
FINDERS.insert(0, MODELS.get)
for parent in [value for value in vars(mmpretrain_registry).values() if isinstance(value, Registry)]:
    if parent.scope == 'mmpretrain':  # not mmengine's, which are imported there
        Registry(parent.name, parent=parent, scope='mmcls_kd', locations=[*LOCATIONS, 'mmcls_kd.registry'])
