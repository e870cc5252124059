"""Networks of any library as classifiers: found by name, built, with their input preprocessing and class names."""

from .classifiers import ModuleClassifier, TorchvisionClassifier
from .zero_shot import ZeroShotClassifier

__all__ = ['ModuleClassifier', 'TorchvisionClassifier', 'ZeroShotClassifier']
