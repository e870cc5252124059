"""Comparison of several trainings: each run's student on the same images, and its teacher."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.device import get_device
from mmengine.runner import Runner
from mmpretrain.registry import MODELS
from torch.utils.data import DataLoader

from ..configs.reading import in_scope
from ..distillers.recipe import Recipe
from ..engine.config import complete_dataloaders, student_only
from ..engine.data import plain_datasets
from ..engine.folders import check_data_folders
from ..engine.labels import ways_of
from ..engine.unlabelled import lacks_labels
from ..errors import listed
from ..networks.classes import compare_order, data_named, names_in
from ..networks.loading import load_strictly
from .measures import accuracy, agreement, correlation_distance, divergence, summary
from .outputs import ClassifierReader, Outputs, TeacherReader, collect, spread
from .runs import TOP1, Run, config_of

#: Keys that identify a run's teacher.
TEACHER_KEYS = ('teacher_cfg', 'teacher_pretrained', 'teacher_classes', 'teacher_pixels', 'teacher_weights')
TEACHER = 'teacher'


@dataclass(frozen=True)
class Point:
    """A checkpoint of a run: its epoch or iteration, and measures; closeness to the teacher is None without one."""

    step: int
    accuracy: float
    agreement: float | None
    divergence: float | None


@dataclass(frozen=True)
class Row:
    """A network in numbers, see :mod:`.measures`; ``step`` and ``teacher`` are None for a teacher itself."""

    name: str
    step: int | None
    teacher: str | None
    accuracy: float
    confidence: float
    calibration_error: float
    entropy: float
    agreement: float | None = None
    divergence: float | None = None
    correlation_distance: float | None = None


@dataclass
class Comparison:
    """The content of the report.

    Attributes:
        outputs: Outputs of each network by name: the teachers first, then the last checkpoint of each run.
        teacher_of: The name of each run's teacher; empty without one.
        history: Checkpoints of each run, in order.
        notes: Notes for the reader.
    """

    runs: list[Run]
    outputs: dict[str, Outputs] = field(default_factory=dict)
    teacher_of: dict[str, str] = field(default_factory=dict)
    history: dict[str, list[Point]] = field(default_factory=dict)
    class_names: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def unit(self) -> str:
        """The unit of training: epochs or iterations."""
        return self.runs[0].unit

    @property
    def teachers(self) -> list[str]:
        """The names of the teachers."""
        return list(dict.fromkeys(self.teacher_of.values()))

    @property
    def images(self) -> int:
        """Number of images of the comparison."""
        return len(next(iter(self.outputs.values())).label)

    @property
    def reference(self) -> str | None:
        """The network that the others are compared with class by class; None if there is none.

        The first run without a teacher, else the first; of one run its teacher.
        """
        if len(self.runs) > 1:
            return next((run.name for run in self.runs if not run.is_distiller), self.runs[0].name)
        return self.teacher_of.get(self.runs[0].name)

    def rows(self) -> list[Row]:
        """Return the measures of each network."""
        steps = {run.name: run.last for run in self.runs}
        return [self._row(name, of, steps.get(name)) for name, of in self.outputs.items()]

    def _row(self, name: str, outputs: Outputs, step: int | None) -> Row:
        numbers = asdict(summary(outputs.logit, outputs.label))
        teacher = self.teacher_of.get(name)
        if teacher is None:
            return Row(name, step, None, **numbers)
        pair = self.outputs[teacher].logit, outputs.logit
        numbers |= dict(agreement=agreement(*pair), divergence=divergence(*pair))
        return Row(name, step, teacher, **numbers, correlation_distance=correlation_distance(*pair))

    def as_dict(self) -> dict[str, Any]:
        """Return its numbers, for JSON."""
        return dict(images=self.images, networks=self.rows(), history=self.history, notes=self.notes)


def labels_of(loader: DataLoader) -> np.ndarray | None:
    """Return the class of each image of a loader; None if the data set has them only in its samples."""
    dataset: Any = loader.dataset
    parts = list(plain_datasets(dataset.dataset))
    if not all(hasattr(part, 'get_gt_labels') for part in parts):
        return None
    labels = np.concatenate([np.asarray(part.get_gt_labels()) for part in parts])
    return labels[dataset.indices] if len(labels) == len(dataset.dataset) else None


class Entrant:
    """A run ready for the comparison: its student is built, its last checkpoint fits, its images exist.

    Its loader has a number of validation images, evenly spread, or all; ``data_root`` overrides the config's own.
    """

    def __init__(self, run: Run, data_root: str | None, images: int | None) -> None:
        self.run, self.cfg = run, config_of(run, data_root)
        there = [key for key in ('val_dataloader', 'test_dataloader') if self.cfg.get(key)]
        if not there:
            raise ValueError(f'{run.folder}: its config has no val_dataloader and no test_dataloader, so no images')
        name = next((key for key in there if not lacks_labels(self.cfg[key].get('dataset'))), None)
        if name is None:
            raise ValueError(
                f'{run.folder}: the images of its {" and ".join(there)} have no labels, and the report is about accuracy: '
                'put a test_dataloader with labels into the config.py beside its log'
            )
        self.tested = name == 'test_dataloader'
        check_data_folders(self.cfg, (name,))
        complete_dataloaders(self.cfg, pin_memory=False, persistent_workers=False)
        with in_scope(self.cfg):
            self.loader = spread(Runner.build_dataloader(copy.deepcopy(self.cfg[name]), seed=0), images)
            cfg = copy.deepcopy(self.cfg)
            student_only(cfg)
            self.student = MODELS.build(cfg.model).to(get_device())
        self.student.eval()
        self.names = ways_of(self.loader.dataset)
        self.load(run.checkpoints[run.last])
        self.reader = ClassifierReader(self.student)

    def load(self, path: Path) -> None:
        """Load a checkpoint's weights into the student."""
        meta = load_strictly(self.student, str(path), self.run.name)
        compare_order(names_in(meta), self.names, str(path), refuse=True)

    def outputs(self, path: Path, log: Callable[[str], Any]) -> Outputs:
        """Return the student's outputs with a checkpoint's weights."""
        self.load(path)
        name = f'{self.run.name}, {path.stem}'
        return collect({name: self.reader}, self.loader, self.student.data_preprocessor, log)[name]

    @property
    def teacher_key(self) -> str | None:
        """Identifier of its teacher; None without one."""
        model = self.cfg.model
        return repr([model.get(key) for key in TEACHER_KEYS]) if model.get('teacher_cfg') is not None else None

    def distiller(self) -> Any:
        """Build a distiller with its teacher, with any method."""
        model = copy.deepcopy(self.cfg.model)
        Recipe(model).keep_teacher_alone()
        model.update(student_pretrained=None, compile=False)
        try:
            with in_scope(self.cfg), data_named(self.names):
                return MODELS.build(model).to(get_device()).eval()
        except (FileNotFoundError, ValueError) as error:
            raise type(error)(f'{self.run.folder}: {error}; --no-teacher leaves it out') from error


def enter(
    runs: Sequence[Run], data_root: str | None = None, images: int | None = None, with_teacher: bool = True
) -> tuple[list[Entrant], dict[str, Any]]:
    """Prepare runs, and refuse those that cannot be compared, before any work.

    Return the runs, and the distillers with the different teachers, by :attr:`Entrant.teacher_key`.
    """
    entrants = [Entrant(run, data_root, images) for run in runs]
    first = entrants[0]
    for entrant in entrants[1:]:
        classes = [e.reader.num_classes for e in (first, entrant)]
        where = f'{first.run.folder} and {entrant.run.folder}'
        if classes[0] != classes[1]:
            raise ValueError(f'{where} have {classes[0]} and {classes[1]} classes, and can’t be compared')
        if first.run.unit != entrant.run.unit:
            raise ValueError(f'{where}: one has checkpoints by epochs, the other by iterations, and can’t be compared')
        labels = [labels_of(e.loader) for e in (first, entrant)]
        if labels[0] is not None and labels[1] is not None and not np.array_equal(labels[0], labels[1]):
            raise ValueError(f'{where} validate on other images, by their labels: give runs of the same data')
    owners: dict[str, Entrant] = {}
    for entrant in entrants:
        if entrant.teacher_key is not None and with_teacher:
            owners.setdefault(entrant.teacher_key, entrant)
    return entrants, {key: owner.distiller() for key, owner in owners.items()}


def compare(
    entrants: Sequence[Entrant], distillers: Mapping[str, Any], checkpoints: int, log: Callable[[str], Any] = print
) -> Comparison:
    """Run teachers and students over the images, with at most a number of checkpoints of each run."""
    found = Comparison([entrant.run for entrant in entrants])
    owners = {key: next(e for e in entrants if e.teacher_key == key) for key in distillers}
    names = teacher_names([owner.run.name for owner in owners.values()], [run.name for run in found.runs])
    named = dict(zip(distillers, names, strict=True))
    for key, distiller in distillers.items():
        owner = owners[key]
        reader = {named[key]: TeacherReader(distiller)}
        found.outputs |= collect(reader, owner.loader, distiller.data_preprocessor, log)
    for entrant in entrants:
        if named:
            found.teacher_of[entrant.run.name] = named.get(str(entrant.teacher_key), next(iter(named.values())))
        found.history[entrant.run.name] = list(_follow(entrant, found, checkpoints, log))
    found.class_names = _class_names(entrants[0])
    found.notes = list(notes_on(found, checkpoints))
    if tested := [entrant.run.name for entrant in entrants if entrant.tested]:
        found.notes.append(f'{listed(tested)}: the images are those of the test, as validation has none with labels.')
    return found


def teacher_names(owners: Sequence[str], runs: Sequence[str]) -> list[str]:
    """Name the teachers by the first run of each, with names that no run has.

    Example:
        >>> teacher_names(['kd'], ['kd', 'alone']), teacher_names(['teacher', 'kd'], ['teacher', 'kd', 'teacher of kd'])
        (['teacher'], ['teacher of teacher', 'teacher of kd network'])
    """
    names: list[str] = []
    for owner in owners:
        name = TEACHER if len(owners) == 1 else f'{TEACHER} of {owner}'
        while name in (*runs, *names):
            name += ' network'
        names.append(name)
    return names


def _follow(entrant: Entrant, found: Comparison, checkpoints: int, log: Callable[[str], Any]) -> Iterator[Point]:
    """Measure a run's checkpoints, and keep the outputs of the last one."""
    run = entrant.run
    teacher = found.outputs.get(found.teacher_of.get(run.name, ''))
    for step, path in run.some_checkpoints(checkpoints).items():
        of = entrant.outputs(path, log)
        if teacher is not None and not torch.equal(teacher.label, of.label):
            raise ValueError(f'{run.folder}: its images are not those that the teacher saw: give runs of the same data')
        alike = None if teacher is None else agreement(teacher.logit, of.logit)
        apart = None if teacher is None else divergence(teacher.logit, of.logit)
        yield Point(step, accuracy(of.logit, of.label), alike, apart)
    found.outputs[run.name] = of


def _class_names(entrant: Entrant) -> list[str]:
    dataset: Any = entrant.loader.dataset
    names = getattr(dataset.dataset, 'metainfo', {}).get('classes') or ()
    count = entrant.reader.num_classes
    return [str(name) for name in names] if len(names) == count else [str(i) for i in range(count)]


def notes_on(found: Comparison, checkpoints: int) -> Iterator[str]:
    """Iterate over the notes for the reader of a comparison that shows at most a number of checkpoints of a run."""
    if not found.teachers:
        yield 'There is no teacher: agreement, divergence and its own figures are left out.'
    borrowed = [run for run in found.runs if found.teachers and run.cfg.model.get('teacher_cfg') is None]
    for stored, past in ((False, 'had no teacher in training'), (True, 'learnt from a store of a teacher’s outputs')):
        names = [run.name for run in borrowed if (run.cfg.model.get('teacher_store') is not None) is stored]
        if names:
            verb = 'is' if len(names) == 1 else 'are'
            yield f'{" and ".join(names)} {past}, and {verb} compared with {found.teachers[0]}.'
    for run in found.runs:
        if not run.accuracies():
            yield f'{run.name} logged no validation, so it has no learning curve.'
        elif not str(run.metric).endswith(TOP1):
            yield f'{run.name} logged no top-1 accuracy in validation: its learning curve is that of {run.metric}.'
        if len(run.checkpoints) == 1:
            yield (
                f'{run.name} kept one checkpoint, so it is one point over training: '
                'default_hooks.checkpoint.max_keep_ckpts says how many a run keeps.'
            )
        elif len(run.checkpoints) > checkpoints:
            yield f'Of {run.name}, {checkpoints} of its {len(run.checkpoints)} checkpoints are shown.'
