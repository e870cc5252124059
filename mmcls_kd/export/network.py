"""The exported network: a classifier with its preprocessing, and the metadata of its images and classes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.config import Config, ConfigDict
from mmpretrain.models import ClsDataPreprocessor
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from ..configs.reading import in_scope
from ..engine.config import datasets_of
from ..engine.first_batch import misfits_named
from ..features.embedding import has_classes
from ..files.checkpoint import read_checkpoint
from ..networks.classes import compare_order, names_in
from ..networks.loading import fetch, load_strictly
from ..networks.sources import MissingFolderError, Source, declared_classes, network_cfg
from ..networks.trial import pipeline_images

#: Image shapes (C, H, W) of mmpretrain's data sets that do not read image files.
IN_MEMORY = dict(MNIST=(1, 28, 28), FashionMNIST=(1, 28, 28), Glyphs=(1, 28, 28), CIFAR10=(3, 32, 32), CIFAR100=(3, 32, 32))

#: Remedy for a network whose folder is at another place than in training.
MOVED = (
    'if it was moved, say where it is: `export` takes --cfg-options model.model_name=FOLDER; `predict` and Predictor take a '
    "config of two lines, _base_ = 'CONFIG OF THE WEIGHTS' and model = dict(model_name='FOLDER')"
)


@dataclass(frozen=True)
class ImageFormat:
    """The images of a test pipeline: 3 channels, or 1 of grey images; ``order`` is ``'RGB'``, ``'BGR'`` or ``'grey'``."""

    channels: int
    height: int
    width: int
    order: str

    def random_images(self, count: int, seed: int) -> Tensor:
        """Return smooth images of random colours (count, C, H, W), in whole numbers from 0 to 255.

        Noise of single pixels is unsuitable: all such images are alike after pooling.
        """
        generator = torch.Generator().manual_seed(seed)
        coarse = torch.randint(256, (count, self.channels, 7, 7), generator=generator).float()
        return F.interpolate(coarse, size=(self.height, self.width), mode='bilinear').round()


def tested_dataset(cfg: Config) -> dict:
    """Return the config of a config's test data set, without its wrappers."""
    return next(d for name, d in datasets_of(cfg) if name == 'test_dataloader' and d.get('pipeline') is not None)


def image_format(cfg: Config, size: Sequence[int] | None = None) -> ImageFormat:
    """Find the images of a config's test pipeline, see :func:`~mmcls_kd.networks.trial.pipeline_images`.

    Its data need not exist. ``size`` is (height, width) if the pipeline does not fix it. A data set of the user's that gives
    its images itself gives them in RGB. A pipeline that changes the values of pixels, which is the data preprocessor's task,
    is refused.
    """
    found = pipeline_images(tested_dataset(cfg))
    mean, std = (found.pixels.get(key, ()) for key in ('mean', 'std'))
    if set(mean) != {0.0} or set(std) != {1.0}:
        reason = found.unclear.get('mean', f'it normalises by mean={mean}, std={std}')
        raise ValueError(
            f'the test pipeline: {reason}. An export takes values from 0 to 255 as they are: leave normalisation to the '
            'data_preprocessor of the config'
        )
    fixed = found.pixels.get('size')
    chosen = size or fixed
    if chosen is None:
        raise ValueError('the test pipeline gives images of many sizes; say by --size HEIGHT WIDTH which one to export for')
    height, width = chosen
    if fixed and (height, width) != fixed:
        given = f'the test pipeline of the config gives {fixed[0]} {fixed[1]}'
        raise ValueError(f'--size {height} {width}: {given}; leave the option out')
    order = 'grey' if found.channels == 1 else 'RGB' if found.pixels.get('to_rgb', True) else 'BGR'
    return ImageFormat(found.channels, height, width, order)


def load_classifier(cfg: Config, checkpoint: str) -> Any:
    """Build a config's classifier with weights (of a distiller's checkpoint the student's), in eval mode, on the CPU.

    Raises:
        FileNotFoundError: If it is a folder that is not there; says how to name another.
    """
    try:
        with in_scope(cfg):
            classifier = MODELS.build(network_cfg(cfg))
    except MissingFolderError as error:
        raise FileNotFoundError(f'{error}; {MOVED}') from error
    load_strictly(classifier, checkpoint, 'student')
    classifier.eval()
    return classifier


class Deployable(nn.Module):
    """A network of raw images: float32 (N, C, H, W), RGB or grey, from 0 to 255. It returns logits (N, classes).

    A network without classes returns embeddings (N, D).

    It repeats its data preprocessor without moving tensors between devices, which a trace would keep.

    Args:
        classifier: Any classifier of mmpretrain's kind, in eval mode; its ``mode='tensor'`` returns the logits.
        images: The images of its test pipeline.

    Attributes:
        order: Order of the network's channels.
        output: Name of its output, ``'logits'`` or ``'embedding'``.
        width: Number of logits, or of the embedding's components.

    Raises:
        ValueError: If it does not run on such images, or its data preprocessor is of an unknown kind.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, classifier: Any, images: ImageFormat) -> None:
        super().__init__()
        preprocessor = classifier.data_preprocessor
        if type(preprocessor) is not ClsDataPreprocessor or preprocessor.pad_size_divisor > 1:
            raise ValueError(
                f'the data preprocessor {type(preprocessor).__name__} cannot be exported: it has to be ClsDataPreprocessor, '
                'without pad_size_divisor'
            )
        self.classifier, self.images = classifier, images
        normalises = preprocessor._enable_normalize
        self.register_buffer('mean', preprocessor.mean.float().clone() if normalises else torch.zeros(1, 1, 1))
        self.register_buffer('std', preprocessor.std.float().clone() if normalises else torch.ones(1, 1, 1))
        self.order = images.order
        if images.channels == 3:
            self.order = 'BGR' if (images.order == 'BGR') != preprocessor.to_rgb else 'RGB'
        with misfits_named('the classifier'):
            logits = self.tested_logits(images.random_images(1, seed=0))
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            raise ValueError(f"{type(classifier).__name__} gives no logits (N, classes) by mode='tensor'")
        self.output = 'logits' if has_classes(classifier, logits) else 'embedding'
        self.width = logits.shape[1]
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of raw images."""
        if self.order == 'BGR':
            images = images.flip(1)
        return self.classifier((images - self.mean) / self.std, mode='tensor')

    @torch.no_grad()
    def tested_logits(self, images: Tensor) -> Tensor:
        """Return the logits of testing: by the classifier's own data preprocessor, channels in the pipeline's order.

        Images are as in :meth:`forward`, in whole numbers.
        """
        piped = images.flip(1) if self.images.order == 'BGR' else images
        batch = self.classifier.data_preprocessor(dict(inputs=piped.to(torch.uint8)), training=False)
        return self.classifier(batch['inputs'], mode='tensor')


def class_names(cfg: Config, checkpoint: Mapping, num_classes: int) -> list[str] | None:
    """Return the class names of the checkpoint, else of the data set; None if there are none, or another number of them.

    Where both name the same classes in another order, it is refused.
    """
    known = names_in(checkpoint.get('meta'))
    data = Source(ConfigDict(), classes=declared_classes(tested_dataset(cfg))).class_names
    compare_order(known, [dict(enumerate(data))] if data else [], 'the checkpoint', refuse=True)
    names = known or data
    return names if names and len(names) == num_classes else None


def metadata_of(cfg: Config, checkpoint: str, network: Deployable) -> dict[str, Any]:
    """Collect the metadata that users of the network need, in values for JSON."""
    images, num_classes = network.images, network.width if network.output == 'logits' else 0
    return dict(
        classes=class_names(cfg, read_checkpoint(fetch(checkpoint, 'student')), num_classes) if num_classes else None,
        num_classes=num_classes,
        output=network.output,
        output_shape=[network.width],
        input_shape=[images.channels, images.height, images.width],
        input_order='grey' if images.channels == 1 else 'RGB',
        input_range=[0, 255],
        mean=network.mean.flatten().tolist(),
        std=network.std.flatten().tolist(),
        mean_std_order=network.order,
        test_pipeline=json.loads(json.dumps(tested_dataset(cfg)['pipeline'], default=str)),
        config=Path(str(cfg.filename)).name,
        checkpoint=Path(checkpoint).name,
    )
