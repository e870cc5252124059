"""A look at teacher, student and loss terms before a training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import nn

from ..distillers.stored_teacher import StoredTeacher
from ..engine.data import batches_from
from ..engine.models import unwrapped
from ..runtime import need
from .advice import Advice, advise
from .gradients import TASK, Term, gradient_terms
from .measures import accuracy, agreement, calibration, divergence, entropy
from .outputs import ClassifierReader, Outputs, Reader, TeacherReader, collect, spread

STORED = (
    'The teacher is a store of logits of training images, which does not run on validation images: its accuracy, agreement, '
    'calibration and entropy are left out.'
)
NONE = 'No method asks for a teacher: what is measured of one is left out.'


@dataclass(frozen=True)
class NetworkLook:
    """A network on the validation images; shares from 0 to 1, entropies in nats.

    Attributes:
        accuracy: Share of right answers.
        confidence: Mean of the largest probability.
        calibration_error: How far confidence and accuracy are apart, see :class:`.measures.Calibration`.
        entropy: Mean entropy of the probabilities at temperature 1.
    """

    accuracy: float
    confidence: float
    calibration_error: float
    entropy: float

    @classmethod
    def of(cls, outputs: Outputs) -> NetworkLook:
        """That of a network's outputs."""
        found = calibration(outputs.logit, outputs.label)
        right = accuracy(outputs.logit, outputs.label)
        return cls(right, found.confidence, found.error, entropy(outputs.logit))


@dataclass(frozen=True)
class Look:
    """What was seen before a training.

    Attributes:
        images: On how many validation images.
        classes: How many classes there are.
        networks: The networks, by name.
        agreement: Share of images for which teacher and student name the same class; None without a teacher.
        divergence: KL(teacher ‖ student), in nats; likewise.
        temps: The temperature of each method that has one.
        softened: The teacher's entropy at that temperature, by method.
        terms: The gradients of the terms, the task loss's first.
        batches: On how many training batches.
        advice: What looks off.
        left_out: What was not measured, and why.
    """

    images: int
    classes: int
    networks: dict[str, NetworkLook]
    agreement: float | None
    divergence: float | None
    temps: dict[str, float]
    softened: dict[str, float]
    terms: list[Term]
    batches: int
    advice: list[Advice]
    left_out: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values, for JSON; numbers that are not finite as None."""
        return _plain(asdict(self))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(of) for key, of in value.items()}
    if isinstance(value, list):
        return [_plain(of) for of in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def prepare(cfg: Config) -> None:
    """Make a training's config one for a look: quiet, in one process, from the start, logging nowhere else, in place.

    Raises:
        ValueError: If it has no validation data, or several processes are asked for.
    """
    need(cfg, 'val_dataloader', 'val_cfg', 'val_evaluator')
    if cfg.launcher != 'none':
        raise ValueError(f'--launcher {cfg.launcher}: a look before training takes one process')
    cfg.resume, cfg.visualizer, cfg.log_level = False, None, 'ERROR'


def temperatures(losses: Mapping[str, nn.Module]) -> dict[str, float]:
    """The temperature of each loss that has one, by name; of a learnt one that which it starts from."""
    found = {name: getattr(loss, 'temp', None) for name, loss in losses.items()}
    return {name: float(torch.as_tensor(temp).detach()) for name, temp in found.items() if temp is not None}


def readers_of(model: Any) -> tuple[dict[str, Reader], list[str]]:
    """What can be run of a distiller or classifier on validation images, by name, and what is left out.

    Args:
        model: The model.
    """
    readers: dict[str, Reader] = {}
    holder = getattr(model, 'teacher_holder', None)
    if holder is not None and not isinstance(holder, StoredTeacher):
        readers['teacher'] = TeacherReader(model)
        left_out = []
    else:
        left_out = [STORED if holder is not None else NONE]
    return {**readers, 'student': ClassifierReader(model)}, left_out


def look(runner: Runner, images: int | None, batches: int, log: Callable[[str], Any] = print) -> Look:
    """Look at what a training would begin with.

    Args:
        runner: Of the training, as it is built; the student gets the weights that it starts from.
        images: How many validation images to use, evenly spread; None for all.
        batches: How many training batches to measure gradients on.
        log: Takes lines that say how far it is.
    """
    model = unwrapped(runner)
    runner._init_model_weights()  # as Runner.train begins
    runner.load_or_resume()
    readers, left_out = readers_of(model)
    outputs = collect(readers, spread(runner.val_dataloader, images), model.data_preprocessor, log)
    terms = gradient_terms(model, _told(runner, batches, log))
    student, teacher = outputs['student'], outputs.get('teacher')
    networks = {name: NetworkLook.of(of) for name, of in outputs.items()}
    temps = temperatures(getattr(model, 'distill_losses', {}))
    right = networks['teacher'].accuracy if teacher else None
    advice = advise(terms, right, networks['student'].accuracy, teacher.logit if teacher else None, temps)
    return Look(
        images=len(student.label),
        classes=student.logit.shape[1],
        networks=networks,
        agreement=agreement(teacher.logit, student.logit) if teacher else None,
        divergence=divergence(teacher.logit, student.logit) if teacher else None,
        temps=temps,
        softened={name: entropy(teacher.logit, temp) for name, temp in temps.items()} if teacher else {},
        terms=terms,
        batches=min(batches, len(runner.train_dataloader)),
        advice=list(advice),
        left_out=left_out,
    )


def _told(runner: Runner, batches: int, log: Callable[[str], Any]) -> Iterator[Any]:
    """The first training batches; those that can't be read are counted as in training."""
    loader = runner.train_dataloader
    count = min(batches, len(loader))
    for number, batch in enumerate(islice(batches_from(loader, 0), count), 1):
        if hasattr(runner.train_loop, 'count_unreadable'):
            runner.train_loop.count_unreadable(batch)
        yield batch
        if number == count:
            log(f'gradients: {number}/{count} training batches')


def _share(value: float) -> str:
    return f'{100 * value:.2f}%'


def show(found: Look, console: Console) -> None:
    """Print tables and advice."""
    most = math.log(found.classes)
    table = _table(f'On {found.images} validation images', '', *found.networks)
    rows = {
        'accuracy': [_share(of.accuracy) for of in found.networks.values()],
        'mean confidence': [_share(of.confidence) for of in found.networks.values()],
        'expected calibration error': [_share(of.calibration_error) for of in found.networks.values()],
        f'entropy, nats (at most {most:.2f})': [f'{of.entropy:.3f}' for of in found.networks.values()],
    }
    for name, entropy_then in found.softened.items():
        if found.temps[name] != 1:
            rows[f'entropy at the temperature of {name}, {found.temps[name]:g}'] = [f'{entropy_then:.3f}', '']
    for name, cells in rows.items():
        table.add_row(name, *cells)
    console.print(table)
    if found.agreement is not None:
        console.print(f'Same answer by both: {_share(found.agreement)}; KL(teacher ‖ student): {found.divergence:.3f} nats')
    table = _table(
        f'Loss terms at the start, over {found.batches} training batches', '', 'value', 'gradient', 'of the task’s', 'cosine'
    )
    for term in found.terms:
        ratio = '' if term.ratio is None or term.name == TASK else f'{term.ratio:.3g}'
        cosine = '' if term.cosine is None or term.name == TASK else f'{term.cosine:.2f}'
        table.add_row(term.name, f'{term.value:.4g}', f'{term.norm:.4g}', ratio, cosine)
    console.print(table)
    for text in found.left_out:
        console.print(text)
    for one in found.advice:
        console.print(f'[bold]{escape(one.about)}[/bold]: {escape(one.finding)}.\n  → {escape(one.suggestion)}')
    if not found.advice:
        console.print('Nothing looks off.')


def _table(title: str, *columns: str) -> Table:
    table = Table(*columns, title=title, title_justify='left')
    for column in table.columns[1:]:
        column.justify = 'right'
    return table
