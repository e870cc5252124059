"""CLIP and SigLIP as classifiers of mmpretrain, by the names of the classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmpretrain.registry import MODELS

from ..teachers.image_text import parse_model
from ..teachers.zero_shot import NUMBER, TEMPLATES, read_classes, read_templates, zero_shot_classifier
from .classes import data_names
from .classifiers import ModuleClassifier


@MODELS.register_module()
class ZeroShotClassifier(ModuleClassifier):
    """A network for images and texts as a classifier, by the names of the classes.

    Args:
        model: ``hf:FOLDER_OR_NAME`` (transformers), ``open_clip:FOLDER``, or ``open_clip:ARCHITECTURE/TAG_OR_FILE``.
        classes: Names of the classes in the order of the labels, or a file with one a line; None for those of the data.
        templates: ``'openai80'``, a file with one template a line, one, or a list; ``{}`` stands for the class's name.
        cache: Folder of computed text features; True for one in torch's cache, False for none.
        loss: Config of the classification loss.
        train_cfg: Batch augmentation.
        data_preprocessor: Data preprocessor of the batch.
        init_cfg: As in mmengine.

    Raises:
        ValueError: As :func:`~mmcls_kd.teachers.zero_shot.zero_shot_classifier`; or if no names of classes are known.
    """

    def __init__(
        self,
        model: str,
        classes: str | Sequence[str] | None = None,
        templates: str | Sequence[str] = 'openai80',
        cache: str | bool = True,
        loss: Mapping | None = None,
        train_cfg: Mapping | None = None,
        data_preprocessor: Mapping | None = None,
        init_cfg: Mapping | None = None,
    ) -> None:
        network = zero_shot_classifier(model, names_of_data() if classes is None else classes, templates, cache)
        super().__init__(network, loss, train_cfg, data_preprocessor, init_cfg)
        self.library, _, self.model_name = model.partition(':')

    @property
    def classes(self) -> list[str]:
        """Names of the classes."""
        return self.model.classes


def names_of_data() -> list[str]:
    """Return the class names of the data that a network is built for, in the form that is not numbers if there are two."""
    known = data_names() or ()
    forms = [[names[label] for label in sorted(names)] for names in known if sorted(names) == [*range(len(names))]]
    if not forms:
        raise ValueError(
            'classes: the names of the data’s classes are not known: give classes=[...] in the order of the labels, or a '
            'file with one name a line'
        )
    return next((form for form in forms if not all(map(NUMBER.fullmatch, form))), forms[0])


def settle(cfg: Any) -> None:
    """Make a classifier's config independent of files and of the working directory, in place, and refuse what is missing."""
    cfg.model = ':'.join(parse_model(cfg.get('model')))
    if cfg.get('classes') is not None:
        cfg.classes = read_classes(cfg.classes)
    if not isinstance(templates := cfg.get('templates', 'openai80'), str) or templates not in TEMPLATES:
        cfg.templates = read_templates(templates)
