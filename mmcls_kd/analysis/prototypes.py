"""Prototypes of the classes: the mean input of the teacher's classifier, over training images of each class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch import Tensor

from ..dis_losses.wkd_logit import class_cost
from ..distillers.recipe import Recipe
from ..distillers.teacher import Teacher
from ..engine.console import Progress
from ..engine.data import batches_from
from ..engine.first_batch import first_images, misfits_named
from ..engine.labels import ways_of
from ..engine.models import unwrapped
from ..engine.unlabelled import all_unlabelled, labelled_datasets
from ..errors import TrainingError
from ..files.atomic import save_atomically
from .outputs import class_labels


def prepare(cfg: Config) -> None:
    """Change a training's config to one that runs the teacher alone, in eval mode, in place.

    The methods are ignored: one of them may need the prototypes.

    Raises:
        ValueError: If the model is no distiller, or several processes are set.
    """
    if not (recipe := Recipe.of(cfg)):
        raise ValueError(f'{cfg.filename} trains no distiller, so it has no teacher')
    if cfg.launcher != 'none':
        raise ValueError(f'--launcher {cfg.launcher}: prototypes are made in one process')
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.train_dataloader.drop_last = False
    recipe.keep_teacher_alone()


class Prototypes:
    """Sums of the teacher's vectors, class by class, over training images in the order of the first epoch (None: all).

    A runner without a single teacher with such vectors is refused, and a class without an image.
    """

    def __init__(self, runner: Runner, loader: Any, images: int | None = None) -> None:
        self.runner, self.model = runner, unwrapped(runner)
        teacher = self.model.teacher_holder
        if not isinstance(teacher, Teacher):
            raise ValueError('prototypes are of one teacher, and model.teacher_cfg names several')
        if 'vector' not in teacher.shapes:
            raise ValueError(
                'nothing is known to go into this teacher’s classifier: name the module that returns it, '
                'model.taps=dict(vector_t=PATH)'
            )
        self.teacher = teacher
        self.loader = loader
        self.wanted = len(self.loader.dataset) if images is None else images
        self._check_images()
        with misfits_named('the teacher'), torch.compiler.set_stance('force_eager'):  # nothing is compiled for two images
            width = self._vectors(first_images(self.loader))[0].shape[1]
        self.sums = torch.zeros(self.model.num_classes, width, dtype=torch.float64)
        self.counts = torch.zeros(self.model.num_classes, dtype=torch.long)

    def _check_images(self) -> None:
        classes, there = self.model.num_classes, len(self.loader.dataset)
        if not classes <= self.wanted <= there:
            raise ValueError(f'--images {self.wanted}: choose from {classes}, the number of classes, to {there}, of images')
        if all_unlabelled(self.loader.dataset):
            raise ValueError('the training images have no labels, and prototypes are of classes: name labelled images')
        parts = list(labelled_datasets(self.loader.dataset))
        if all(hasattr(part, 'get_gt_labels') for part in parts):
            found = np.concatenate([np.asarray(part.get_gt_labels()) for part in parts])
            self._refuse_missing(np.bincount(found, minlength=classes), ValueError, 'the training data have')

    def _refuse_missing(self, counts: Any, error: type[Exception], who: str, mend: str = '') -> None:
        if missing := [str(i) for i, count in enumerate(counts) if count == 0]:
            more = ', ...' if len(missing) > 5 else ''
            raise error(f'{who} no image of {len(missing)} classes ({", ".join(missing[:5])}{more}){mend}')

    @torch.no_grad()
    def _vectors(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Return the teacher's vectors for a batch of the dataloader, (N, D), and each image's class, (N,); −1 for none."""
        data = self.model.data_preprocessor(batch, training=False)  # no mixup, no CutMix
        samples = data['data_samples']
        vectors = self.teacher(self.model.arrange(data['inputs']), samples, ['vector'])['vector']
        return vectors.double().cpu(), class_labels(samples).cpu()

    def add_all(self) -> None:
        """Run the teacher over the images; one that cannot be read, or a class without any, is an error.

        Images without a label are of no class.
        """
        progress, left = Progress(self.runner.logger.info, self.wanted), self.wanted
        for batch in batches_from(self.loader, 0):
            if hasattr(self.runner.train_loop, 'count_unreadable'):
                self.runner.train_loop.count_unreadable(batch)
            if not batch['data_samples']:
                continue
            vectors, classes = (found[:left] for found in self._vectors(batch))
            known = classes >= 0
            self.sums.index_add_(0, classes[known], vectors[known])
            self.counts += torch.bincount(classes[known], minlength=len(self.counts))
            progress.add(len(classes))
            left -= len(classes)
            if left == 0:
                break
        self._refuse_missing(self.counts, TrainingError, f'{self.wanted} images have', ': take more (--images)')

    @property
    def means(self) -> Tensor:
        """The prototypes, (C, D)."""
        return self.sums / self.counts[:, None]

    def write_cost(self, path: Path) -> None:
        """Write the costs of moving probability between the classes (:func:`~mmcls_kd.dis_losses.wkd_logit.class_cost`)."""
        cost = class_cost(self.means)
        if not cost.isfinite().all():
            raise TrainingError('the teacher gives vectors that are not finite, so the classes have no prototypes')
        names = ways_of(self.loader.dataset)
        save_atomically(dict(cost=cost, images=self.counts, classes=list(names[0].values()) if names else None), path)
        self.runner.logger.info(
            f'{path} has the cost for {len(cost)} classes, of {int(self.counts.min())} to {int(self.counts.max())} images '
            f'each: set cost={str(path)!r} of WKDLogitLoss'
        )
