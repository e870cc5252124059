"""Drawings of predictions: mmpretrain's, in the colours of the images, and a file each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import get_rank, get_world_size
from mmengine.fileio import join_path
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmpretrain.engine.hooks import VisualizationHook
from mmpretrain.registry import HOOKS
from mmpretrain.structures import DataSample
from torch import Tensor
from torch.utils.data import DataLoader

from .models import unwrapped


def as_levels(image: Tensor, reverse: bool) -> np.ndarray:
    """Return an image as levels from 0 to 255 in the order R, G, B, (H, W, C), uint8.

    Args:
        image: The image, (C, H, W); its range becomes that of the levels if it has other numbers than these.
        reverse: Whether its channels are in the order B, G, R: the data preprocessor reverses them (``to_rgb``).
    """
    levels = image.permute(1, 2, 0).cpu().float()
    if image.is_floating_point() and (levels.min() < 0 or levels.max() <= 1 or levels.max() > 255):
        levels = (levels - levels.min()) / (levels.max() - levels.min()).clamp(min=1e-12) * 255
    drawn = levels.round().numpy().astype(np.uint8)
    return np.ascontiguousarray(drawn[..., ::-1]) if reverse and drawn.shape[2] == 3 else drawn


@HOOKS.register_module()
class DrawingHook(VisualizationHook):
    """mmpretrain's ``VisualizationHook`` with the images' own colours, and a file for each of them.

    A file has the number of the image in the data set and the image's name: ``7_cat.jpg_0.png``, 0 being the epoch of a
    training. Up to 1.3.6 mmpretrain's hook draws an image of a data set in the order in which OpenCV reads it, red for blue,
    writes images of one name (``cats/1.jpg`` and ``dogs/1.jpg``) to one file, as well as those of all processes, and gives
    those of a last smaller batch the numbers of others. Its arguments are those of this hook.
    """

    def after_val_iter(  # noqa: D102
        self, runner: Runner, batch_idx: int, data_batch: dict, outputs: Sequence[DataSample]
    ) -> None:
        step = runner.epoch if isinstance(runner.train_loop, EpochBasedTrainLoop) else runner.iter
        self._draw(runner, runner.val_dataloader, batch_idx, data_batch, outputs, step)

    def after_test_iter(  # noqa: D102
        self, runner: Runner, batch_idx: int, data_batch: dict, outputs: Sequence[DataSample]
    ) -> None:
        self._draw(runner, runner.test_dataloader, batch_idx, data_batch, outputs, 0)

    def _draw(
        self,
        runner: Runner,
        loader: DataLoader,
        batch_idx: int,
        batch: dict[str, Any],
        samples: Sequence[DataSample],
        step: int,
    ) -> None:
        """Draw every n-th image of the data set that is in a batch."""
        if not self.enable:
            return
        images = batch['inputs']
        if not (isinstance(images[0], Tensor) and images[0].dim() == 3):
            images = images[-1]  # views of test-time augmentation; the last of the command's is not mirrored
        model = unwrapped(runner)
        preprocessor = getattr(model, 'module', model).data_preprocessor
        reverse = any(getattr(preprocessor, name, False) for name in ('to_rgb', '_channel_conversion'))
        first = batch_idx * (loader.batch_size or len(samples))
        for place, (image, sample) in enumerate(zip(images, samples, strict=True)):
            number = (first + place) * get_world_size() + get_rank()
            if number % self.interval or number >= len(loader.dataset):  # type: ignore[arg-type]  # those beyond fill up the last batch
                continue
            name = f'{number}_{Path(sample.img_path).name}' if 'img_path' in sample else str(number)
            if self.out_dir is not None:
                self.draw_args['out_file'] = join_path(self.out_dir, f'{name}_{step}.png')
            self._visualizer.visualize_cls(as_levels(image, reverse), sample, step=step, name=name, **self.draw_args)
