"""Networks of any library as classifiers: found by name, built, their images and classes understood."""

from .classifiers import ModuleClassifier, TorchvisionClassifier

__all__ = ['ModuleClassifier', 'TorchvisionClassifier']
