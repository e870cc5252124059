"""Pre-flight: measurements of teacher, student and loss terms before a training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from rich.console import Console
from rich.text import Text
from torch import Tensor

from ..engine.config import need
from ..engine.data import batches_from
from ..engine.models import unwrapped
from ..files.checkpoint import read_checkpoint
from ..files.showing import table
from ..networks.loading import fetch
from ..networks.weights import stated_accuracy
from ..teachers.inputs import InputAdapter
from ..teachers.stored import StoredTeacher
from .advice import Advice, advise, on_size
from .gradients import TASK, Term, gradient_terms
from .measures import Summary, agreement, divergence, summary
from .outputs import ClassifierReader, Reader, TeacherReader, collect, spread
from .teacher_entropy import softened, temperatures

STORED = (
    'The teacher is a store of its outputs for training images, which does not run on others: its accuracy, agreement, '
    'calibration and entropy are left out.'
)
NONE = 'No method needs a teacher: its measures are left out.'
UNLABELLED = 'The validation images have no labels: accuracy and calibration error are left out.'
NO_TASK = 'The task loss has no gradient (weight 0, or no labels): the weights of the methods are not compared with it.'


@dataclass(frozen=True)
class Look:
    """The results of a pre-flight, on validation images and training batches; closeness to a teacher is None without one.

    Attributes:
        divergence: KL(teacher ‖ student), in nats.
        temps: The temperature of each method that has one.
        softened: The teacher's entropy as the method softens it, see :func:`.teacher_entropy.softened`.
        terms: The gradients of the terms, the task loss's first.
        left_out: Omitted measurements, with reasons.
        stated: The teacher's accuracy in the file of its weights; None if there is none.
    """

    images: int
    classes: int
    networks: dict[str, Summary]
    agreement: float | None
    divergence: float | None
    temps: dict[str, float]
    softened: dict[str, float]
    terms: list[Term]
    batches: int
    advice: list[Advice]
    left_out: list[str] = field(default_factory=list)
    stated: float | None = None


def prepare(cfg: Config) -> None:
    """Change a training's config to that of a pre-flight, in place: quiet, in one process, from the start."""
    need(cfg, 'val_dataloader', 'val_cfg', 'val_evaluator')
    if cfg.launcher != 'none':
        raise ValueError(f'--launcher {cfg.launcher}: a look before training takes one process')
    cfg.resume, cfg.visualizer, cfg.log_level = False, None, 'ERROR'


class ReaderAtSize(TeacherReader):
    """Reader of the logits of a distiller's single teacher on images of another size (height, width)."""

    def __init__(self, distiller: Any, size: tuple[int, int]) -> None:
        super().__init__(distiller)
        self.names = ['logit']
        usual: InputAdapter = distiller.teacher_holder.adapt
        self.adapt = InputAdapter(usual.given, replace(usual.wanted, size=size), usual.channels)

    def __call__(self, inputs: Tensor, samples: Sequence[DataSample]) -> dict[str, Tensor]:
        """Read the logits, see :data:`.outputs.Reader`."""
        teacher: Any = self.teacher
        usual, teacher.adapt = teacher.adapt, self.adapt
        try:
            return super().__call__(inputs, samples)
        finally:
            teacher.adapt = usual


def sizes_to_try(model: Any) -> Mapping[tuple[int, int], str]:
    """Return image sizes to try for a teacher of unknown size, with their names: its library's, and half of it."""
    usual = getattr(getattr(model, 'teacher_holder', None), 'usual_size', None)
    if usual is None:
        return {}
    return {(h, w): f'teacher on {h} × {w}' for h, w in (usual, (usual[0] // 2, usual[1] // 2))}


def readers_of(model: Any) -> tuple[dict[str, Reader], list[str]]:
    """Return the networks of a model to run on validation images, by name, and the reasons for omissions."""
    readers: dict[str, Reader] = {}
    holder = getattr(model, 'teacher_holder', None)
    if holder is not None and not isinstance(holder, StoredTeacher):
        readers['teacher'] = TeacherReader(model)
        left_out = []
    else:
        left_out = [STORED if holder is not None else NONE]
    return {**readers, 'student': ClassifierReader(model)}, left_out


def look(runner: Runner, images: int | None, batches: int, log: Callable[[str], Any] = print) -> Look:
    """Measure the start of a training on validation images, evenly spread (None: all), and on training batches.

    The student gets its start weights.
    """
    model = unwrapped(runner)
    runner._init_model_weights()  # as Runner.train begins
    runner.load_or_resume()
    readers, left_out = readers_of(model)
    sizes = sizes_to_try(model)
    readers |= {name: ReaderAtSize(model, size) for size, name in sizes.items()}
    outputs = collect(readers, spread(runner.val_dataloader, images), model.data_preprocessor, log)
    others = {size: summary(of.logit, of.label).accuracy for size, name in sizes.items() for of in [outputs.pop(name)]}
    terms = gradient_terms(model, _told(runner, batches, log))
    student, teacher = outputs['student'], outputs.get('teacher')
    networks = {name: summary(of.logit, of.label) for name, of in outputs.items()}
    losses = getattr(model, 'distill_losses', {})
    soft = softened(losses, teacher.logit) if teacher else {}
    right = networks['teacher'].accuracy if teacher else None
    unlabelled = math.isnan(networks['student'].accuracy)
    advice = list(advise(terms, right, networks['student'].accuracy, teacher.logit if teacher else None, soft))
    if right is not None:
        advice += on_size(right, others, len(student.label))
    return Look(
        images=len(student.label),
        classes=student.logit.shape[1],
        networks=networks,
        agreement=agreement(teacher.logit, student.logit) if teacher else None,
        divergence=divergence(teacher.logit, student.logit) if teacher else None,
        temps=temperatures(losses),
        softened={name: of.entropy() for name, of in soft.items()},
        terms=terms,
        batches=min(batches, len(runner.train_dataloader)),
        advice=advice,
        left_out=left_out + [UNLABELLED] * unlabelled + ([NO_TASK] if len(terms) > 1 and terms[0].norm == 0 else []),
        stated=stated_in(runner.cfg.model.get('teacher_pretrained')) if teacher and not unlabelled else None,
    )


def stated_in(weights: Any) -> float | None:
    """Return the accuracy that a teacher's file of weights states; None if it states none, or is no single file."""
    return stated_accuracy(read_checkpoint(fetch(weights, 'teacher'))) if weights and isinstance(weights, str) else None


def _told(runner: Runner, batches: int, log: Callable[[str], Any]) -> Iterator[Any]:
    """Iterate over the first training batches, with the progress logged; unreadable images are counted as in training."""
    loader = runner.train_dataloader
    count = min(batches, len(loader))
    for batch in islice(batches_from(loader, 0), count):
        if hasattr(runner.train_loop, 'count_unreadable'):
            runner.train_loop.count_unreadable(batch)
        if len(batch['data_samples']):
            yield batch
    log(f'gradients: {count}/{count} training batches')


def _share(value: float) -> str:
    return f'{100 * value:.2f}%'


def show(found: Look, console: Console) -> None:
    """Print tables and advice."""
    console.print(table(f'On {found.images} validation images', ('', *found.networks), _network_rows(found)))
    if found.agreement is not None:
        console.print(f'Same answer by both: {_share(found.agreement)}; KL(teacher ‖ student): {found.divergence:.3f} nats')
    if found.stated is not None:
        measured = found.networks['teacher'].accuracy
        console.print(f'The teacher’s file states an accuracy of {_share(found.stated)}; measured: {_share(measured)}')
    title = f'Loss terms at the start, over {found.batches} training batches'
    console.print(table(title, ('', 'value', 'gradient', 'of the task’s', 'cosine'), map(_term_row, found.terms)))
    for text in found.left_out:
        console.print(Text(text))
    for one in found.advice:
        console.print(Text.assemble((one.about, 'bold'), f': {one.finding}.\n  → {one.suggestion}'))
    for note in dict.fromkeys(one.note for one in found.advice if one.note):
        console.print(Text(note))
    if not found.advice:
        console.print('Nothing of what was measured looks off.' if found.left_out else 'Nothing looks off.')


def _network_rows(found: Look) -> Iterator[list[str]]:
    networks = found.networks.values()
    labelled = not any(math.isnan(of.accuracy) for of in networks)
    if labelled:
        yield ['accuracy', *(_share(of.accuracy) for of in networks)]
    yield ['mean confidence', *(_share(of.confidence) for of in networks)]
    if labelled:
        yield ['expected calibration error', *(_share(of.calibration_error) for of in networks)]
    yield [f'entropy, nats (at most {math.log(found.classes):.2f})', *(f'{of.entropy:.3f}' for of in networks)]
    for name, then in found.softened.items():
        if then != found.networks['teacher'].entropy:
            yield [f'entropy as {name} softens it (temperature {found.temps[name]:g})', f'{then:.3f}', '']


def _term_row(term: Term) -> list[str]:
    beside = term.name != TASK
    ratio = f'{term.ratio:.3g}' if beside and term.ratio is not None else ''
    cosine = f'{term.cosine:.2f}' if beside and term.cosine is not None else ''
    return [term.name, f'{term.value:.4g}', f'{term.norm:.4g}', ratio, cosine]
