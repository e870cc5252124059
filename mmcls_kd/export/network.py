"""What is exported: a classifier together with its preprocessing, and what is to be known of its images and classes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config, ConfigDict
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from mmpretrain.models import ClsDataPreprocessor
from mmpretrain.registry import MODELS, TRANSFORMS
from PIL import Image
from torch import Tensor, nn

from ..engine.first_batch import misfits_named
from ..engine.runtime import datasets_of
from ..files.checkpoint import read_checkpoint
from ..networks.classes import compare_order, names_in
from ..networks.loading import fetch, load_strictly
from ..networks.sources import Source, declared_classes, network_cfg

#: The image shapes (C, H, W) of mmpretrain's data sets that do not read image files.
IN_MEMORY = dict(MNIST=(1, 28, 28), FashionMNIST=(1, 28, 28), CIFAR10=(3, 32, 32), CIFAR100=(3, 32, 32))
#: Shapes of image files, among others.
FILES = ((3, 480, 640), (3, 500, 375))
#: A colour by the orders in which a pipeline may give its channels, and its grey.
COLOURS = dict(RGB=(200, 120, 40), BGR=(40, 120, 200), grey=(135,))


def in_scope(cfg: Config) -> Any:
    """A context in which a config's parts are found in the registries, as in a run."""
    return DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain'))


@dataclass(frozen=True)
class ImageFormat:
    """The images that a test pipeline gives.

    Attributes:
        channels: 3, or 1 for grey images.
        height: In pixels.
        width: In pixels.
        order: ``'RGB'``, ``'BGR'`` or ``'grey'``.
    """

    channels: int
    height: int
    width: int
    order: str

    def random_images(self, count: int, seed: int) -> Tensor:
        """Smooth images of random colours (count, C, H, W), in whole numbers from 0 to 255.

        Noise of single pixels would not do: after pooling all images of noise are alike.
        """
        generator = torch.Generator().manual_seed(seed)
        coarse = torch.randint(256, (count, self.channels, 7, 7), generator=generator).float()
        return F.interpolate(coarse, size=(self.height, self.width), mode='bilinear').round()


def tested_dataset(cfg: Config) -> dict:
    """The config of the data set that a config tests on, out of its wrappers."""
    return next(d for name, d in datasets_of(cfg) if name == 'test_dataloader' and d.get('pipeline') is not None)


def through_pipeline(pipeline: Sequence[Mapping], channels: int, height: int, width: int) -> Tensor:
    """What a test pipeline makes of an image of one colour, see :data:`COLOURS`: (C, H, W).

    Args:
        pipeline: Configs of the transforms. One that reads a file finds a PNG, another an array in RGB or grey.
        channels: Of the image, 3 or 1.
        height: Of the image.
        width: Of the image.
    """
    image = np.full((height, width, 3), COLOURS['RGB'], dtype=np.uint8)
    array = image if channels == 3 else np.full((height, width), COLOURS['grey'][0], dtype=np.uint8)
    with TemporaryDirectory() as folder:
        path = Path(folder, 'image.png')
        Image.fromarray(image).save(path)
        shape = (height, width)
        sample = dict(img_path=str(path), img=array, img_shape=shape, ori_shape=shape, gt_label=0, sample_idx=0)
        return Compose([TRANSFORMS.build(transform) for transform in pipeline])(sample)['inputs']


def image_format(cfg: Config, size: Sequence[int] | None = None) -> ImageFormat:
    """The images that a config's test pipeline gives, found by sending images of one colour through it.

    Args:
        cfg: A config with a ``test_dataloader``; its data need not be there.
        size: (height, width) where the pipeline does not fix it.

    Raises:
        ValueError: If the pipeline fixes no size and none is given, if it fixes another one, or if it changes the values
            of pixels, which is for the data preprocessor to do.
    """
    dataset = tested_dataset(cfg)
    shapes = [IN_MEMORY[dataset['type']]] if dataset['type'] in IN_MEMORY else FILES
    with misfits_named('the test pipeline'), in_scope(cfg):
        outputs = [through_pipeline(dataset['pipeline'], *shape) for shape in shapes]
    sizes = {tuple(output.shape[-2:]) for output in outputs}
    if len(sizes) > 1 and size is None:
        raise ValueError('the test pipeline gives images of many sizes; say by --size HEIGHT WIDTH which one to export for')
    height, width = size or next(iter(sizes))
    if len(sizes) == 1 and (height, width) not in sizes:
        fixed = ' '.join(map(str, next(iter(sizes))))
        raise ValueError(f'--size {height} {width}: the test pipeline of the config gives {fixed}; leave the option out')
    middle = outputs[0].float().flatten(1).median(dim=1).values
    for order, colour in COLOURS.items():
        if len(colour) == len(middle) and (middle - torch.tensor(colour)).abs().max() <= 2:
            return ImageFormat(len(colour), height, width, order)
    raise ValueError(
        f'the test pipeline makes {[round(value, 3) for value in middle.tolist()]} of the colour {COLOURS["RGB"]}. An '
        'export takes values from 0 to 255 as they are: leave normalisation to the data_preprocessor of the config'
    )


def load_classifier(cfg: Config, checkpoint: str) -> Any:
    """The classifier of a plain config with weights, in eval mode, on the CPU.

    Args:
        cfg: The config.
        checkpoint: Path or address of the weights; of a distiller's checkpoint the student is taken.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If they do not fit; names the keys.
    """
    with in_scope(cfg):
        classifier = MODELS.build(network_cfg(cfg))
    load_strictly(classifier, checkpoint, 'student')
    return classifier.eval()


class Deployable(nn.Module):
    """A classifier that takes raw images: float32 (N, C, H, W), RGB or grey, from 0 to 255. It gives logits (N, classes).

    What its data preprocessor does is done here without moving tensors between devices, which a trace would keep.

    Args:
        classifier: Any of mmpretrain's kind, in eval mode; its ``mode='tensor'`` gives the logits.
        images: What its test pipeline gives.

    Attributes:
        order: In which order the network takes its channels.
        num_classes: How many classes there are.

    Raises:
        ValueError: If images of that kind do not go through it, or its data preprocessor is of an unknown kind.
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
        self.num_classes = logits.shape[1]
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """The logits of raw images."""
        if self.order == 'BGR':
            images = images.flip(1)
        return self.classifier((images - self.mean) / self.std, mode='tensor')

    @torch.no_grad()
    def tested_logits(self, images: Tensor) -> Tensor:
        """The logits that testing computes: by the classifier's own data preprocessor, channels in the pipeline's order.

        Args:
            images: As for :meth:`forward`, in whole numbers.
        """
        piped = images.flip(1) if self.images.order == 'BGR' else images
        batch = self.classifier.data_preprocessor(dict(inputs=piped.to(torch.uint8)), training=False)
        return self.classifier(batch['inputs'], mode='tensor')


def class_names(cfg: Config, checkpoint: Mapping, num_classes: int) -> list[str] | None:
    """The names of the classes: the checkpoint's, else the data set's; None where there are none, or not as many.

    Raises:
        ValueError: If both name the same classes in another order.
    """
    known = names_in(checkpoint.get('meta'))
    data = Source(ConfigDict(), classes=declared_classes(tested_dataset(cfg))).class_names
    compare_order(known, [dict(enumerate(data))] if data else [], 'the checkpoint', refuse=True)
    names = known or data
    return names if names and len(names) == num_classes else None


def metadata_of(cfg: Config, checkpoint: str, network: Deployable) -> dict[str, Any]:
    """What the one who runs the network has to know, in values that JSON can hold.

    Args:
        cfg: The plain config.
        checkpoint: Path or address of the weights.
        network: What is exported.
    """
    images = network.images
    return dict(
        classes=class_names(cfg, read_checkpoint(fetch(checkpoint, 'student')), network.num_classes),
        num_classes=network.num_classes,
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
