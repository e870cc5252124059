"""The recipe of a distillation: its methods, their weights and schedules, parsed once."""

from .methods import Method, chosen_methods
from .schedules import LossWeight, Progress

__all__ = ['LossWeight', 'Method', 'Progress', 'chosen_methods']
