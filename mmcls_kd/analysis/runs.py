"""The files of a training in its work directory: config, log, checkpoints."""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..configs.reading import read_left_config
from ..distillers.recipe import is_distiller
from ..engine.config import datasets_of
from ..files.checkpoint import read_checkpoint
from ..recipe.methods import MethodList

CHECKPOINT = re.compile(r'(epoch|iter)_(\d+)\.pth')
#: The line of a config that was resumed.
RESUMED = re.compile(r'^resume = True$', re.MULTILINE)
#: Keys of a validation's log that are no metrics.
NO_METRICS = ('data_time', 'time', 'step')
#: End of the name of the top-1 accuracy in a log.
TOP1 = 'accuracy/top1'
MEND = 'name the --work-dir of a training by `python -m mmcls_kd train`'


@dataclass(frozen=True)
class Run:
    """A training, with its name in the report, work directory and config.

    Attributes:
        unit: ``'epoch'`` or ``'iter'``, the unit of its checkpoints.
        checkpoints: Its checkpoints by epoch or iteration, in order.
        training: Its log of training, over resumed parts: ``step`` is the iteration.
        validation: Its log of validation: ``step`` is the epoch or iteration.
        steps_per_unit: Number of iterations an epoch; 1 if iterations are counted.
    """

    name: str
    folder: Path
    cfg: Config
    unit: str
    checkpoints: dict[int, Path]
    training: list[dict[str, Any]]
    validation: list[dict[str, Any]]
    steps_per_unit: float

    @property
    def is_distiller(self) -> bool:
        """Whether a distiller was trained; else a classifier alone."""
        return is_distiller(self.cfg.model)

    @property
    def methods(self) -> list[str]:
        """Names of its config's methods, under which their losses are logged; empty without a distiller."""
        return [str(entry['name']) for entry in MethodList(self.cfg.model.get('distill_cfg')).entries]

    @property
    def last(self) -> int:
        """The epoch or iteration of the last checkpoint."""
        return max(self.checkpoints)

    @property
    def metric(self) -> str | None:
        """Name of the metric of its learning curve: the top-1 accuracy, else the first in its log; None without any."""
        names = [name for record in self.validation for name in record if name not in NO_METRICS]
        return next((name for name in names if name.endswith(TOP1)), next(iter(names), None))

    def accuracies(self) -> list[tuple[int, float]]:
        """Return the :attr:`metric` of validation, in percent, after each epoch or iteration; empty if none was logged."""
        chosen = self.metric
        return [(record['step'], record[chosen]) for record in self.validation if chosen in record]

    def terms(self) -> dict[str, list[tuple[float, float]]]:
        """Return each logged, weighted term of the loss over epochs (or iterations), by name; the task loss first."""
        logged = dict.fromkeys(name for record in self.training for name in record)
        losses = [name for name in logged if 'loss' in name or name in self.methods]
        parts = [name for name in losses if name != 'loss' and not name.startswith('gradient_norm/')] or ['loss']
        shown = {name: 'task loss' if name in ('ori_loss', 'loss') else name for name in parts}
        return {
            shown[name]: [(r['step'] / self.steps_per_unit, r[name]) for r in self.training if name in r]
            for name in sorted(parts, key=lambda name: shown[name] != 'task loss')
        }

    def some_checkpoints(self, most: int) -> dict[int, Path]:
        """Select a number of checkpoints, evenly spread, with the first and the last (or the last alone)."""
        steps = sorted(self.checkpoints)
        if len(steps) > most:
            chosen = [round(i * (len(steps) - 1) / (most - 1)) for i in range(most)] if most > 1 else [len(steps) - 1]
            steps = [steps[i] for i in chosen]
        return {step: self.checkpoints[step] for step in steps}


def read_run(folder: Path, name: str) -> Run:
    """Read a training in its work directory; refuse one without log or checkpoints, and name the remedy."""
    if not folder.is_dir():
        raise FileNotFoundError(f'{folder}: no such folder; {MEND}')
    parts = {path.parent: lines for path in sorted(folder.glob('*/vis_data/scalars.json')) if (lines := read_lines(path))}
    trainings = {place: lines for place, lines in parts.items() if any('loss' in line for line in lines)}
    if not trainings:
        raise FileNotFoundError(f'{folder}: no */vis_data/scalars.json of a training is in it; {MEND}')
    config = [*trainings][-1] / 'config.py'
    if not config.is_file():
        raise FileNotFoundError(f'{config}: no such file, and the config of the training should be there; {MEND}')
    training, validation = joined(of_one_run(trainings))
    cfg = read_left_config(config)
    if 'model' not in cfg:
        raise ValueError(f'{config} has no `model`; {MEND}')
    interval = cfg.get('default_hooks', {}).get('logger', {}).get('interval', 10)  # mmengine's default
    unit, checkpoints = find_checkpoints(folder, last_logged(training, interval))
    return Run(name, folder, cfg, unit, checkpoints, training, validation, steps_per_unit(unit, checkpoints))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read the log of a part of a run; an incomplete last line of a killed run does not count."""
    found = []
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        try:
            found.append(json.loads(line))
        except ValueError as error:
            if number < len(lines):
                raise ValueError(f'{path}: line {number} is no JSON: {error}') from error
    return found


def of_one_run(trainings: Mapping[Path, list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
    """Return the logs of the last run among trainings by their places: from the last one that was started afresh."""
    parts: list[list[dict[str, Any]]] = []
    for place, lines in trainings.items():
        config = place / 'config.py'
        if config.is_file() and not RESUMED.search(config.read_text()):
            parts = []
        parts.append(lines)
    return parts


def joined(parts: Sequence[Sequence[dict[str, Any]]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Join the records of the parts of a run, in order: those of training, and those of validation.

    Records of a later part replace those of earlier ones from its first step on.
    """
    both: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for part in parts:
        training = [record for record in part if 'loss' in record]
        validation = [record for record in part if 'loss' not in record and 'step' in record]
        for kept, new in zip(both, (training, validation), strict=True):
            if new:
                kept[:] = [record for record in kept if record['step'] < new[0]['step']] + new
    return both


def last_logged(training: Sequence[Mapping[str, Any]], interval: int) -> dict[str, int]:
    """Return the last epoch and iteration of a run according to its log, which skips up to ``interval - 1`` iterations.

    A training by iterations logs no epoch: 0.

    Example:
        >>> last_logged([dict(epoch=1, step=50), dict(epoch=2, step=100)], 50)
        {'epoch': 2, 'iter': 149}
    """
    epoch = max((record['epoch'] for record in training if 'epoch' in record), default=0)
    return {'epoch': epoch, 'iter': max(record['step'] for record in training) + interval - 1}


def find_checkpoints(folder: Path, logged: Mapping[str, int]) -> tuple[str, dict[int, Path]]:
    """Find the unit of a run's checkpoints, and each of them by its number, in order.

    Checkpoints after the last ``'epoch'`` and ``'iter'`` in ``logged`` are of an earlier run in the folder, and ignored.
    """
    found: dict[str, dict[int, Path]] = {}
    for path in folder.iterdir():
        match = CHECKPOINT.fullmatch(path.name)
        if match and int(match[2]) <= logged.get(match[1], math.inf):
            found.setdefault(match[1], {})[int(match[2])] = path
    if not found:
        raise FileNotFoundError(f'{folder}: no checkpoint epoch_*.pth or iter_*.pth of what is logged in it; {MEND}')
    unit = 'epoch' if 'epoch' in found else 'iter'
    return unit, dict(sorted(found[unit].items()))


def steps_per_unit(unit: str, checkpoints: Mapping[int, Path]) -> float:
    """Return the number of iterations of an epoch, by the last checkpoint; 1 for iterations, or if it is unknown."""
    meta = read_checkpoint(checkpoints[max(checkpoints)]).get('meta') or {}
    if unit == 'iter' or not meta.get('epoch') or not meta.get('iter'):
        return 1.0
    return meta['iter'] / meta['epoch']


def names_of(folders: Sequence[Path], given: Sequence[str] | None) -> list[str]:
    """Name the runs: as given, else by their folders, with parent folders as far as needed to distinguish them."""
    if given is not None and len(given) != len(folders):
        raise ValueError(f'--names gives {len(given)} names for {len(folders)} work directories')
    whole = [folder.resolve() for folder in folders]
    names = list(given) if given is not None else [folder.name for folder in whole]
    depth = 1
    while given is None and len(set(names)) < len(names) and depth < max(len(folder.parts) for folder in whole):
        depth += 1
        names = ['/'.join(folder.parts[-depth:]) for folder in whole]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f'two runs are called {twice!r}: name each work directory once, or give --names')
    return names


def config_of(run: Run, data_root: str | None) -> Config:
    """Copy a run's config, with another place of the data if given, and with the data preprocessor in its model."""
    cfg = copy.deepcopy(run.cfg)
    for _, dataset in datasets_of(cfg):
        if data_root is not None and ('data_root' in dataset or not {'dataset', 'datasets'} & set(dataset)):
            dataset['data_root'] = data_root
    if cfg.get('data_preprocessor') is not None:
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    return cfg
