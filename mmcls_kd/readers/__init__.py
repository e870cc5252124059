"""Data sets of WebDataset shards and of Hugging Face's library, which read, shuffle and resume like folders of images."""

from .huggingface import HuggingFaceDataset
from .shards import WebDataset

__all__ = ['HuggingFaceDataset', 'WebDataset']
