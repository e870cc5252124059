"""Estimate a study's GPU hours from the floating point operations of its networks, without any measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import torch
from mmpretrain.registry import MODELS

from ..configs.reading import read_config
from ..networks.cost import count_flops
from ..networks.sources import network_cfg
from ..recipe.methods import VIEWS, parse_method
from .plan import Planner, Run
from .report import table
from .steps import epochs_of

#: Training images and their side, by data set.
DATA = {'ImageNet': (1_281_167, 224), 'CIFAR100': (50_000, 32), 'TinyImageNet': (100_000, 64)}
#: An NVIDIA A100's peak in TF32 by its data sheet, in TFLOP/s, and the share of it that is assumed to be reached.
PEAK, SHARE = 156.0, 0.15
TFLOPS = round(PEAK * SHARE, 1)
#: A backward pass takes about twice the operations of the forward pass: gradients of inputs and of weights.
TRAINING = 3
HEAD = ('pair', 'GFLOP an image: student', 'teacher', 'epochs', 'hours alone', 'hours with teacher', 'runs', 'hours of all')


def estimate(planner: Planner, runs: Sequence[Run], speed: float) -> str:
    """Return the hours of each pair's runs in Markdown, with the assumptions, at a mean speed of a GPU in FLOP/s."""
    rows, total = [], 0.0
    for name in planner.study.pairs:
        models = planner.models[name]
        own = [run for run in runs if run.pair == name and run.weights is None]
        teachers = [teacher_of(run, models) for run in own]
        hours = [training_flops(run, models) / speed / 3600 for run in own]
        networks = own[0].student, next(filter(None, teachers), None)
        flops = [f'{forward_flops(network, data_of(own[0])[1]) / 1e9:.2f}' if network else '' for network in networks]
        alone = [of for of, teacher in zip(hours, teachers, strict=True) if not teacher]
        taught = [of for of, teacher in zip(hours, teachers, strict=True) if teacher]
        each = [_shown(some[0]) if some else '' for some in (alone, taught)]
        rows.append([f'`{name}`', *flops, str(epochs_of(own[0])), *each, str(len(own)), _shown(sum(hours))])
        total += sum(hours)
    rows.append(['all', *[''] * 5, str(sum(run.weights is None for run in runs)), _shown(total)])
    two_views = any(views_of(run) > 1 for run in runs)
    return f'{_assumptions(speed, two_views)}\n\n{table(HEAD, rows)}'


def _shown(hours: float) -> str:
    return f'{hours:,.0f}' if hours >= 10 else f'{hours:.1f}'


def _assumptions(speed: float, two_views: bool) -> str:
    tflops = speed / 1e12
    source = f', {SHARE:.0%} of the {PEAK:g} that the data sheet of an NVIDIA A100 names for TF32' * (tflops == TFLOPS)
    return (
        f'Estimated, not measured: GPU hours at {tflops:g} TFLOP/s in the mean, which is assumed{source}.\n'
        f'A run is images × epochs × ({TRAINING} × forward pass of the student + forward pass of the teacher)'
        f'{", twice that with two views of an image" * two_views}.\n'
        'Left out: the losses and their layers, validation, waiting for images.'
    )


def training_flops(run: Run, models: Mapping[str, Mapping]) -> float:
    """Return the floating point operations of a run's training, with the models of the pair's distillers by config."""
    images, side = data_of(run)
    teacher = teacher_of(run, models)
    an_image = TRAINING * forward_flops(run.student, side) + (forward_flops(teacher, side) if teacher else 0)
    return float(images) * epochs_of(run) * views_of(run) * an_image


def views_of(run: Run) -> int:
    """Return the number of views of each image that the run's methods read: 2 with a strong one, else 1."""
    inputs = [name for method, entry in run.losses.items() for name in parse_method(method, entry).inputs]
    return 2 if any(name.endswith(VIEWS['strong']) for name in inputs) else 1


def teacher_of(run: Run, models: Mapping[str, Mapping]) -> str | None:
    """Return the teacher's config; None for a student alone or a self-distillation."""
    return models.get(run.config, {}).get('teacher_cfg')


def data_of(run: Run) -> tuple[int, int]:
    """Return the number of training images and their side; refuse an unknown data set."""
    if (kind := _data_set(run.student)) not in DATA:
        raise ValueError(f'{run.key}: hours are estimated for {", ".join(DATA)}, and not for {kind}')
    return DATA[kind]


@cache
def _data_set(config: str) -> str:
    return read_config(config).train_dataloader.dataset.type


@cache
def forward_flops(config: str, side: int) -> int:
    """Return the floating point operations of a forward pass of one square image; a multiply-add is two."""
    network = MODELS.build(network_cfg(config)).to('meta')  # shapes alone: nothing is computed
    network.eval()
    return count_flops(network, torch.empty(1, 3, side, side, device='meta'))
