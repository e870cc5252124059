"""The recipe of a distillation: its methods, their weights and schedules, parsed once."""

from .methods import Method, MethodList
from .schedules import LossWeight, Progress

__all__ = ['LossWeight', 'Method', 'MethodList', 'Progress']
