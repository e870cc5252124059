"""Networks of other libraries by name, for a distiller in plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from torch import nn

from ..errors import close_names, need_library, refusals_named
from .towers import Tower, is_tower, load_tower, make_trainable


def hugging_face(transformers: Any, name: str) -> nn.Module:
    """Load a classifier or an image tower of Hugging Face."""
    if is_tower(transformers, name):
        return Tower(load_tower(transformers, name))
    return make_trainable(transformers.AutoModelForImageClassification.from_pretrained(name))


def load_network(name: str) -> nn.Module:
    """Build a network of a library, with the weights that the library has for it.

    A network that was published without classes (timm's with 0 classes, an image tower of Hugging Face) returns embeddings.

    Args:
        name: ``timm:NAME``, ``torchvision:NAME``, or ``hf:NAME_OR_FOLDER`` (Hugging Face).

    Raises:
        ValueError: If the library is unknown, or cannot build the classifier.
        MissingLibraryError: If it is not installed.
    """
    library, _, model = name.partition(':')
    if library not in LIBRARIES or not model:
        known = ', '.join(f'{known}:NAME' for known in LIBRARIES)
        raise ValueError(f'teacher={name!r}: give a module, or a name such as {known}{close_names(library, LIBRARIES)}')
    module, build = LIBRARIES[library]
    need_library(module, f'teacher={name!r}', extra=library)
    with refusals_named(f'teacher={name!r}'):
        return build(import_module(module), model)


LIBRARIES: dict[str, tuple[str, Callable[[Any, str], nn.Module]]] = {
    'timm': ('timm', lambda timm, name: timm.create_model(name, pretrained=True)),
    'torchvision': ('torchvision', lambda torchvision, name: torchvision.models.get_model(name, weights='DEFAULT')),
    'hf': ('transformers', hugging_face),
}
