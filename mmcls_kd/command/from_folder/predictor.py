"""Inference from a saved student: classes with probabilities, by the preprocessing of testing."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmpretrain.registry import TRANSFORMS

import mmcls_kd.registry  # noqa: F401  (networks by name)

from ...configs.reading import in_scope, read_config
from ...engine.config import student_only
from ...engine.image_ends import SUFFIXES, image_fault, images_below
from ...export import load_classifier
from ...export.network import IN_MEMORY, tested_dataset
from ...features.dry_run import scores
from ...files.checkpoint import read_checkpoint
from ...files.plain_data import plain_config
from ...networks.classes import names_in
from ...networks.heads import probabilities
from ...networks.loading import fetch
from ...networks.sources import find_network
from ...networks.towers import lacks_classes


class UndecodedImageError(ValueError):
    """An image file cannot be decoded; the message names it."""


class Predictor:
    """Classify images by a student.

    Args:
        student: Its weights: ``student.pth``, or a checkpoint of a training.
        config: Path of its config, or of its distiller's; None for the one in the metadata of the weights, else the only
            config in their folder.

    Attributes:
        classes: Names of the classes, by label, from the weights or the config's data set; None if unknown.
        classifier: The classifier, in eval mode.

    Raises:
        FileNotFoundError: If weights or config are missing.
        ValueError: If the weights do not fit the config, or the weights' folder has several configs.

    Example::

        predictor = Predictor('work_dirs/flowers-resnet18/student.pth')
        print(predictor('image.jpg')[0])  # the class and its probability: ('daisy', 0.98)
    """

    def __init__(self, student: str | Path, config: str | Path | None = None) -> None:
        meta = read_checkpoint(fetch(str(student), 'student')).get('meta')
        meta = meta if isinstance(meta, Mapping) else {}
        cfg = read_config(str(config)) if config is not None else _own_config(Path(student), meta)
        student_only(cfg)
        self._lacks_classes = lacks_classes(cfg.model)
        self.classifier: Any = load_classifier(cfg, str(student))
        with in_scope(cfg):
            self.pipeline = Compose([TRANSFORMS.build(step) for step in _steps(tested_dataset(cfg))])
        self.classes = names_in(meta) or find_network(cfg).class_names

    @torch.no_grad()
    def __call__(self, image: str | PathLike) -> list[tuple[str, float]]:
        """Return all classes, or labels, with their probabilities, the likeliest first.

        Args:
            image: Path of an image file.

        Raises:
            FileNotFoundError: If there is no such file.
            TypeError: If it is no path, but an image in memory or several paths.
            UndecodedImageError: If it cannot be decoded, a ValueError.
            ValueError: If the student has no classes.
        """
        if not isinstance(image, (str, PathLike)):
            raise TypeError(
                f'image: a {type(image).__name__}, and a Predictor takes the path of one image file: call it for each path; '
                'write an image in memory to a PNG file first'
            )
        if self._lacks_classes:
            raise ValueError('the student has no classes to predict: train it with a head (train --data ... --then linear)')
        if not Path(image).is_file():
            kind = 'a folder, and a Predictor takes one image' if Path(image).is_dir() else 'no such file'
            raise FileNotFoundError(f'image {image}: {kind}')
        try:
            sample = self.pipeline(dict(img_path=str(image)))
        except Exception as error:
            fault = image_fault(str(image)) or 'OpenCV does not decode it'
            raise UndecodedImageError(f'image {image} cannot be read: {fault}') from error
        data = self.classifier.data_preprocessor(pseudo_collate([sample]), False)
        logit = scores(self.classifier(data['inputs'], mode='tensor'))
        probability = probabilities(self.classifier, logit)[0]
        names = (
            self.classes if self.classes and len(self.classes) == len(probability) else [*map(str, range(len(probability)))]
        )
        return sorted(zip(names, probability.tolist(), strict=True), key=lambda pair: -pair[1])


def images_at(place: str) -> list[str]:
    """Return the images in a folder and those inside, in the order of their names; of another path itself.

    Raises:
        FileNotFoundError: If a folder has no image.
    """
    if not Path(place).is_dir():
        return [place]
    found = sorted(map(str, images_below(Path(place))))
    if not found:
        raise FileNotFoundError(f'{place}: there is no image in it or below it ({", ".join(SUFFIXES)})')
    return found


def _steps(dataset: Mapping[str, Any]) -> list[Any]:
    """Return the test pipeline of a data set's config, for image files; for MNIST's kind, grey and of its size."""
    steps = list(dataset['pipeline'])
    if str(steps[0]['type']).rsplit('.', 1)[-1].startswith('Load'):
        return steps
    channels, height, width = IN_MEMORY.get(dataset['type'], (3, 0, 0))
    if channels != 1:
        raise ValueError(
            f'the test pipeline of {dataset["type"]} begins with {steps[0]["type"]}, which reads no image file: put '
            "dict(type='LoadImageFromFile') before it in test_dataloader.dataset.pipeline of the config"
        )
    return [dict(type='LoadImageFromFile', color_type='grayscale'), dict(type='Resize', scale=(width, height)), *steps]


def _own_config(student: Path, meta: Mapping[str, Any]) -> Config:
    """Return the config in the metadata of weights, else the only one beside them."""
    if isinstance(text := meta.get('cfg'), str) and 'model' in text:
        return plain_config(text, student)
    found = sorted(student.parent.glob('*.py'))
    if len(found) != 1:
        raise ValueError(
            f'{student} has no config in it, and its folder has {len(found) or "none"}: name it before the weights '
            '(predict CONFIG WEIGHTS IMAGE)'
        )
    return read_config(str(found[0]))
