"""The distiller in MMEngine: a student, a frozen teacher, and the losses between them."""

from .classification import ClassificationDistiller
from .simkd_classifier import SimKDClassifier

__all__ = ['ClassificationDistiller', 'SimKDClassifier']
