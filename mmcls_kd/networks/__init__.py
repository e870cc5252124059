"""Networks of any library as classifiers: found by name, built, with their input preprocessing and class names."""

from .classifiers import ModuleClassifier, TorchvisionClassifier

__all__ = ['ModuleClassifier', 'TorchvisionClassifier']
