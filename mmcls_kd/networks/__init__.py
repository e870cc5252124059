"""Networks of any library as classifiers: found by name, built, with their input preprocessing and class names."""

from .classifiers import ModuleClassifier, TorchvisionClassifier
from .towers import BackboneNetwork, HuggingFaceTower, LinearHeadClassifier
from .zero_shot import ZeroShotClassifier

__all__ = [
    'BackboneNetwork',
    'HuggingFaceTower',
    'LinearHeadClassifier',
    'ModuleClassifier',
    'TorchvisionClassifier',
    'ZeroShotClassifier',
]
