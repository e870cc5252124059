"""Networks of any library as classifiers: found by name, built, with their input preprocessing and class names."""

from .classifiers import ModuleClassifier, TorchvisionClassifier
from .heads import BinaryClsHead
from .towers import BackboneNetwork, HuggingFaceTower, LinearHeadClassifier
from .zero_shot import ZeroShotClassifier

__all__ = [
    'BackboneNetwork',
    'BinaryClsHead',
    'HuggingFaceTower',
    'LinearHeadClassifier',
    'ModuleClassifier',
    'TorchvisionClassifier',
    'ZeroShotClassifier',
]
