"""Backbones that mmpretrain lacks (MobileNetV1) or has wrong (DeiT3), and the networks of the CIFAR-100 benchmark.

Importing the package loads nothing else: the benchmark's networks need torch alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

#: The backbones for mmpretrain, and their modules.
BACKBONES = {'DeiT3': 'deit3', 'MobileNetV1': 'mobilenet_v1'}

__all__ = ['DeiT3', 'MobileNetV1']


def __getattr__(name: str) -> Any:
    if name in BACKBONES:
        return getattr(import_module(f'{__name__}.{BACKBONES[name]}'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
