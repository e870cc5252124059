"""Backbones that mmpretrain lacks (MobileNetV1) or has wrong (DeiT3)."""

from .deit3 import DeiT3
from .mobilenet_v1 import MobileNetV1

__all__ = ['DeiT3', 'MobileNetV1']
