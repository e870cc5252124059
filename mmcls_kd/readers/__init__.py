"""Data sets of WebDataset shards and of Hugging Face's library, which read, shuffle and resume like folders of images.

Tiny-ImageNet is read as it is downloaded, Glyphs as it is made.
"""

from .glyphs import Glyphs
from .huggingface import HuggingFaceDataset
from .shards import WebDataset
from .tiny_imagenet import TinyImageNet

__all__ = ['Glyphs', 'HuggingFaceDataset', 'TinyImageNet', 'WebDataset']
