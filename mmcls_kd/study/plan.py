"""The runs that follow from a study file, from the configs that it names, and from what a sweep has found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from itertools import takewhile
from typing import Any

from mmengine.config import Config

from ..configs import check_methods, find_file, method_entries, method_name, read_config
from ..errors import close_names
from .study_file import BASELINE, TEACHER, Row, Settings, Study

#: What of a config decides a result. What it says of losses is the run's own.
DECIDING = (
    'model',
    'data_preprocessor',
    'train_dataloader',
    'test_dataloader',
    'train_cfg',
    'optim_wrapper',
    'param_scheduler',
    'custom_hooks',
)


@dataclass(frozen=True)
class Run:
    """One training and the test of its student.

    Attributes:
        kind: ``'teacher'`` (a test alone), ``'row'``, ``'weight'`` (a row with another weight) or ``'ablation'``.
        pair: The pair's name.
        row: The row's name.
        seed: The seed.
        config: What is trained.
        student: The plain config that tests.
        methods: The methods.
        losses: Everything that is said of their losses.
        changed: The part of it that differs from the config.
        shared: Options of training and test.
        options: Options of the training alone.
        stored: As a row's.
        weights: A checkpoint to test, without a training.
        factor: What the loss's weight is multiplied by.
        held_out: Options of a second test, on images of which neither training nor test knows; the sweep chooses by it.
        content: What its files hold, see :func:`content_of`.
    """

    kind: str
    pair: str
    row: str
    seed: int
    config: str
    student: str
    methods: tuple[str, ...] = ()
    losses: Settings = field(default_factory=dict)
    changed: Settings = field(default_factory=dict)
    shared: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    stored: bool = False
    weights: str | None = None
    factor: float = 1.0
    held_out: tuple[str, ...] = ()
    content: str = ''

    @property
    def key(self) -> str:
        """What it is called: PAIR/ROW/seedS."""
        return f'{self.pair}/{self.row}/seed{self.seed}'

    @property
    def digest(self) -> str:
        """A text that changes with anything that is said of the run, but its row's name."""
        said = json.dumps({k: v for k, v in asdict(self).items() if k not in ('kind', 'pair', 'row')}, sort_keys=True)
        return hashlib.blake2b(said.encode(), digest_size=8).hexdigest()


@cache
def content_of(*files: str) -> str:
    """A text that changes with what files hold: of configs what decides a result, of weights everything.

    Args:
        *files: Paths of configs and of weights. An address, or a file that is not there yet, counts by its name alone.
    """
    content = hashlib.blake2b(digest_size=8)
    for path in files:
        content.update(path.encode())
        if path.endswith('.py'):
            cfg = read_config(path)._cfg_dict.to_dict()
            said = {key: cfg.get(key) for key in DECIDING}
            said['model'] = {key: value for key, value in (said['model'] or {}).items() if key != 'distill_cfg'}
            content.update(json.dumps(said, sort_keys=True, default=str).encode())
        else:
            with suppress(FileNotFoundError):
                content.update(find_file(path).read_bytes())
    return content.hexdigest()


@dataclass(frozen=True)
class Offer:
    """A method that a distiller config offers.

    Attributes:
        config: The config's path.
        entry: What the config says of its loss.
        place: Where in the config.
    """

    config: str
    entry: dict[str, Any]
    place: str


def offers_of(models: Mapping[str, Mapping]) -> dict[str, Offer]:
    """The methods that distiller configs offer, by name, in their order.

    Args:
        models: The model of each config, by its path.
    """
    found: dict[str, Offer] = {}
    for path, model in models.items():
        places = [(i, j) for i, group in enumerate(model['distill_cfg']) for j in range(len(group['methods']))]
        for (i, j), entry in zip(places, method_entries(model['distill_cfg']), strict=True):
            said = {
                k: v for k, v in Config(dict(entry))._cfg_dict.to_dict().items() if k not in ('name', 'use_this', '_scope_')
            }
            found.setdefault(method_name(entry), Offer(path, said, f'model.distill_cfg.{i}.methods.{j}'))
    return found


@contextmanager
def _of(what: str) -> Iterator[None]:
    """In the ``with`` block the message of a ``ValueError`` begins with what it is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f'{what}: {error}') from error


def _distiller(path: str) -> Mapping:
    model = read_config(path).get('model') or {}
    if 'distill_cfg' not in model:
        raise ValueError(f'config {path} is no distiller’s: its model has no `distill_cfg`')
    return model


class Planner:
    """Makes a study's runs.

    Args:
        study: The study.

    Raises:
        FileNotFoundError: If a config is missing.
        ValueError: If a config is none, a row has a method that its pair does not offer, or a number is published of a row
            that there is not.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        self.offers: dict[str, dict[str, Offer]] = {}
        self.models: dict[str, dict[str, Mapping]] = {}
        for name, pair in study.pairs.items():
            read_config(pair.student)
            self.models[name] = {path: _distiller(path) for path in pair.distillers}
            self.offers[name] = offers_of(self.models[name])
            if pair.methods is not None:
                with _of(f'pair {name}, methods'):
                    check_methods(pair.methods, list(self.offers[name]))
            for title, row in (*pair.rows.items(), *self._ablations(name)):
                with _of(f'pair {name}, row {title}'):
                    for methods in (row.methods, row.settings):
                        check_methods(list(methods) or list(row.methods), list(self.offers[name]))
            if strange := set(pair.settings) - set(self.offers[name]):
                raise ValueError(f'pair {name}: settings of {sorted(strange)[0]!r}, which no distiller config offers')
            known_rows = [TEACHER, BASELINE, *self.rows(name)]
            for row_name in set(pair.published) - set(known_rows):
                hint = close_names(row_name, known_rows)
                raise ValueError(
                    f'pair {name}, published: there is no row {row_name!r}{hint}; it has {", ".join(known_rows)}'
                )
        for title, ablation in study.ablations.items():
            if ablation.against not in self.rows(ablation.pair):
                known = ', '.join(self.rows(ablation.pair))
                raise ValueError(f'ablations.{title}: pair {ablation.pair} has no row {ablation.against!r}; it has {known}')

    def _ablations(self, pair: str) -> list[tuple[str, Row]]:
        return [item for a in self.study.ablations.values() if a.pair == pair for item in a.rows.items()]

    def rows(self, pair: str) -> dict[str, Row]:
        """A pair's rows with methods by name: each method that is offered and wanted, and those that the study adds."""
        return {name: Row((name,)) for name in self._wanted(pair)} | dict(self.study.pairs[pair].rows)

    def _wanted(self, pair: str) -> dict[str, Offer]:
        """What is offered of the methods that get a row of their own."""
        methods = self.study.pairs[pair].methods
        return {name: offer for name, offer in self.offers[pair].items() if methods is None or name in methods}

    def runs(self, found: Mapping[str, Mapping[float, float]] | None = None) -> list[Run]:
        """All runs that are known by now, in the order in which to run them.

        Args:
            found: What the sweep found: by ``PAIR/METHOD`` the accuracy of each factor.
        """
        runs = [run for pair in self.study.pairs for run in self._teacher(pair)]
        for seed in self.study.seeds:
            for pair in self.study.pairs:
                runs += [self._baseline(pair, seed)]
                runs += [self._row(pair, name, row, seed) for name, row in self.rows(pair).items()]
        runs += [run for pair in self.study.pairs for run in self._sweep(pair)]
        ablated = [(pair, name, row) for pair in self.study.pairs for name, row in self._ablations(pair)]
        runs += [self._run('ablation', *of, seed) for seed in self.study.seeds for of in ablated]
        return runs + self._chosen(found or {})

    def _sweepable(self, pair: str) -> dict[str, float]:
        """The methods whose weight is a number, and it; each is swept with the first pair that offers it."""
        settings = self.study.pairs[pair].settings
        earlier = {
            name for before in takewhile(lambda name: name != pair, self.study.pairs) for name in self._wanted(before)
        }
        weights = {
            name: {**offer.entry, **settings.get(name, {})}.get('loss_weight', 1.0)
            for name, offer in self._wanted(pair).items()
            if name not in earlier
        }
        return {name: weight for name, weight in weights.items() if isinstance(weight, (int, float))}

    def _row(self, pair: str, name: str, row: Row, seed: int) -> Run:
        """With the published weight, which takes part in the sweep."""
        run, sweep = self._run('row', pair, name, row, seed), self.study.sweep
        swept = sweep is not None and seed == sweep.seed and name in self._sweepable(pair)
        return replace(run, held_out=sweep.options) if sweep is not None and swept else run

    def _sweep(self, pair: str) -> list[Run]:
        sweep = self.study.sweep
        if sweep is None:
            return []
        return [
            replace(self._weighted(pair, name, factor, sweep.seed), held_out=sweep.options)
            for name in self._sweepable(pair)
            for factor in sweep.factors
            if factor != 1
        ]

    def _chosen(self, found: Mapping[str, Mapping[float, float]]) -> list[Run]:
        """Where the sweep of a method is complete and another weight than the published one won: its other seeds."""
        if self.study.sweep is None:
            return []
        best = {
            (pair, name): best_factor(found[f'{pair}/{name}'])
            for pair in self.study.pairs
            for name in self._sweepable(pair)
            if set(found.get(f'{pair}/{name}', ())) == set(self.study.sweep.factors)
        }
        return [
            self._weighted(pair, name, factor, seed)
            for seed in self.study.seeds
            for (pair, name), factor in best.items()
            if factor != 1 and seed != self.study.sweep.seed
        ]

    def _weighted(self, pair: str, name: str, factor: float, seed: int) -> Run:
        settings = {name: {'loss_weight': self._sweepable(pair)[name] * factor}}
        run = self._run('weight', pair, f'{name}-x{factor:.3g}', Row((name,), settings=settings), seed)
        return replace(run, factor=factor)

    def _shared(self, pair: str) -> tuple[str, ...]:
        return (*self.study.options, *self.study.pairs[pair].options)

    def _teacher(self, pair: str) -> list[Run]:
        """The test of a pair's teacher, if it is a config with weights."""
        files = self._teacher_files(pair, next(iter(self.models[pair]), ''))
        if len(files) < 2 or not files[0].endswith('.py'):
            return []
        (config, weights), content, shared = files, content_of(*files), self.study.options
        run = Run('teacher', pair, TEACHER, self.study.seeds[0], config, config, shared=shared, weights=weights)
        return [replace(run, content=content)]

    def _teacher_files(self, pair: str, config: str) -> list[str]:
        """Config and weights of the teacher in a distiller's config, as far as they have a name."""
        model = self.models[pair].get(config, {})
        if not model.get('teacher_cfg'):
            return []
        weights = self.study.pairs[pair].teacher or model.get('teacher_pretrained')
        return [given for given in (model['teacher_cfg'], weights) if isinstance(given, str)]

    def _baseline(self, pair: str, seed: int) -> Run:
        student = self.study.pairs[pair].student
        return Run('row', pair, BASELINE, seed, student, student, shared=self._shared(pair), content=content_of(student))

    def _run(self, kind: str, pair: str, name: str, row: Row, seed: int) -> Run:
        offers = self.offers[pair]
        settings: dict[str, dict[str, Any]] = {}
        for given in (self.study.pairs[pair].settings, row.settings):
            for method in set(given) & set(row.methods):
                settings.setdefault(method, {}).update(given[method])
        options = [
            f'{offers[method].place}.{key}={value}' for method, one in sorted(settings.items()) for key, value in one.items()
        ]
        configs = list(dict.fromkeys(offers[method].config for method in row.methods))
        if len(configs) > 1:
            raise ValueError(f'pair {pair}, row {name}: {" and ".join(row.methods)} are of different configs: {configs}')
        teacher = self.study.pairs[pair].teacher
        if teacher and self.models[pair][configs[0]].get('teacher_cfg'):
            options.append(f'model.teacher_pretrained={teacher}')
        return Run(
            kind=kind,
            pair=pair,
            row=name,
            seed=seed,
            config=configs[0],
            student=self.study.pairs[pair].student,
            methods=row.methods,
            losses={method: {**offers[method].entry, **settings.get(method, {})} for method in row.methods},
            changed=settings,
            shared=self._shared(pair),
            options=(*options, *row.options),
            stored=row.stored,
            content=content_of(configs[0], self.study.pairs[pair].student, *self._teacher_files(pair, configs[0])),
        )


def best_factor(accuracies: Mapping[float, float]) -> float:
    """The factor with the highest accuracy; of equal ones that nearest to the published weight, then the smaller."""
    return min(accuracies, key=lambda factor: (-accuracies[factor], max(factor, 1 / factor), factor))


def sweep_results(records: Iterable[Mapping[str, Any]]) -> dict[str, dict[float, float]]:
    """What a study's records say of its sweep: by PAIR/METHOD the accuracy of each factor on held-out images.

    A training that diverged counts as 0.
    """
    found: dict[str, dict[float, float]] = {}
    for record in records:
        if record['held_out']:
            accuracy = record['held_out_accuracy'] or 0.0
            found.setdefault(f'{record["pair"]}/{record["methods"][0]}', {})[record['factor']] = accuracy
    return found
