"""Plan the runs that follow from a study file, from the configs that it names, and from what its sweep has found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from mmengine.config import Config

from ..errors import close_names, refusals_named
from ..recipe.methods import Method, MethodList, check_methods, method_name, parse_method
from .contents import content_of, forget_files, known_config
from .sharing import features_read, shared_store
from .study_file import BASELINE, TEACHER, Row, Settings, Study


@dataclass(frozen=True)
class Run:
    """One training of a pair's row with a seed, and the test of its student.

    Attributes:
        kind: ``'teacher'`` (a test alone), ``'row'``, ``'weight'`` (a row with another loss weight) or ``'ablation'``.
        config: Config of the training.
        student: Plain config of the test.
        losses: All keywords of the methods' losses, by method.
        changed: The keywords that differ from the config.
        shared: Options of training and test.
        options: Options of the training alone.
        placed: Options that set ``changed``; where a method stands in its config decides nothing.
        stored: Whether the teacher's outputs are stored first, for this run alone.
        weights: A checkpoint to test, without a training.
        factor: Multiple of the loss weight.
        held_out: Options of a second test, on held-out images; the sweep chooses by it.
        content: Digest of its files, see :func:`.contents.content_of`.
        shared_store: Name of the stored teacher that it shares with other runs; empty for none.
        stored_features: Features that the store holds beside the logits: those that any of the runs that share it reads.
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
    placed: tuple[str, ...] = ()
    stored: bool = False
    weights: str | None = None
    factor: float = 1.0
    held_out: tuple[str, ...] = ()
    content: str = ''
    shared_store: str = ''
    stored_features: tuple[str, ...] = ()

    @property
    def store_name(self) -> str:
        """Name of the folder of the stored teacher that it shares; empty for none."""
        return '+'.join([self.shared_store, *self.stored_features])

    @property
    def key(self) -> str:
        """Name of the run: PAIR/ROW/seedS."""
        return f'{self.pair}/{self.row}/seed{self.seed}'

    @property
    def digest(self) -> str:
        """Digest of all settings; kind, names, place, :attr:`stored_features` and the empty name of a store do not count."""
        ignored = ('kind', 'pair', 'row', 'placed', 'stored_features', *([] if self.shared_store else ['shared_store']))
        said = json.dumps({k: v for k, v in asdict(self).items() if k not in ignored}, sort_keys=True)
        return hashlib.blake2b(said.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Offer:
    """A method that a distiller config offers: the config's path, keywords of the loss, and its key in the config."""

    config: str
    entry: dict[str, Any]
    place: str


def offers_of(models: Mapping[str, Mapping]) -> dict[str, Offer]:
    """Return the methods that distiller configs offer, by name, in their order; ``models`` are by the configs' paths."""
    found: dict[str, Offer] = {}
    for path, model in models.items():
        places = [(i, j) for i, group in enumerate(model['distill_cfg']) for j in range(len(group['methods']))]
        for (i, j), entry in zip(places, MethodList(model['distill_cfg']).entries, strict=True):
            plain = Config(dict(entry))._cfg_dict.to_dict()
            keywords = {k: v for k, v in plain.items() if k not in ('name', 'use_this', '_scope_')}
            found.setdefault(method_name(entry), Offer(path, keywords, f'model.distill_cfg.{i}.methods.{j}'))
    return found


def _distiller(path: str) -> Mapping:
    model = known_config(path).get('model') or {}
    if 'distill_cfg' not in model:
        raise ValueError(f'config {path} is no distiller’s: its model has no `distill_cfg`')
    return model


class Planner:
    """Plans a study's runs; refuses configs, rows and published numbers that do not go together."""

    def __init__(self, study: Study) -> None:
        self.study = study
        forget_files()
        self.models = {name: {path: _distiller(path) for path in pair.distillers} for name, pair in study.pairs.items()}
        self.offers = {name: offers_of(models) for name, models in self.models.items()}
        for name in study.pairs:
            self._check(name)
        for title, ablation in study.ablations.items():
            if ablation.against not in (known := self.rows(ablation.pair)):
                raise ValueError(
                    f'ablations.{title}: pair {ablation.pair} has no row {ablation.against!r}; it has {", ".join(known)}'
                )

    def _check(self, name: str) -> None:
        pair, offers = self.study.pairs[name], list(self.offers[name])
        known_config(pair.student)
        if pair.methods is not None:
            with refusals_named(f'pair {name}, methods'):
                check_methods(pair.methods, offers)
        for title, row in (*pair.rows.items(), *self._ablations(name)):
            with refusals_named(f'pair {name}, row {title}'):
                for methods in (row.methods, row.settings):
                    check_methods(list(methods) or list(row.methods), offers)
        if strange := sorted(set(pair.settings) - set(offers)):
            raise ValueError(f'pair {name}: settings of {strange[0]!r}, which no distiller config offers')
        known = [TEACHER, BASELINE, *self.rows(name)]
        for row_name in set(pair.published) - set(known):
            hint = close_names(row_name, known)
            raise ValueError(f'pair {name}, published: there is no row {row_name!r}{hint}; it has {", ".join(known)}')

    def _ablations(self, pair: str) -> list[tuple[str, Row]]:
        return [item for a in self.study.ablations.values() if a.pair == pair for item in a.rows.items()]

    def rows(self, pair: str) -> dict[str, Row]:
        """Return a pair's rows by name: one for each offered method that the pair wants, and the study's own."""
        return {name: Row(methods=(name,)) for name in self._wanted(pair)} | dict(self.study.pairs[pair].rows)

    def _wanted(self, pair: str) -> dict[str, Offer]:
        """Return the offers of methods that get a row of their own."""
        methods = self.study.pairs[pair].methods
        return {name: offer for name, offer in self.offers[pair].items() if methods is None or name in methods}

    def runs(self, found: Mapping[str, Mapping[float, float]] | None = None) -> list[Run]:
        """Return all runs that are known by now, in the order of running.

        ``found`` has the results of the sweep: by ``PAIR/METHOD`` the accuracy of each factor.
        """
        pairs, seeds = self.study.pairs, self.study.seeds
        runs = [run for pair in pairs for run in self._teacher(pair)]
        for seed in seeds:
            for pair in pairs:
                runs += [self._baseline(pair, seed)]
                runs += [self._row(pair, name, row, seed) for name, row in self.rows(pair).items()]
        ablated = [(pair, name, row) for pair in pairs for name, row in self._ablations(pair)]
        ablations = [self._run('ablation', *of, seed) for seed in seeds for of in ablated]
        return with_features_of_all([*runs, *self._sweep(), *ablations, *self._chosen(found or {})])

    def _sweepable(self, pair: str) -> dict[str, float]:
        """Return the numeric weights of the methods that are swept with this pair: the first that offers them."""
        pairs, settings = list(self.study.pairs), self.study.pairs[pair].settings
        earlier = {name for before in pairs[: pairs.index(pair)] for name in self._wanted(before)}
        weights = {
            name: {**offer.entry, **settings.get(name, {})}.get('loss_weight', 1.0)
            for name, offer in self._wanted(pair).items()
            if name not in earlier
        }
        return {name: weight for name, weight in weights.items() if isinstance(weight, (int, float))}

    def _row(self, pair: str, name: str, row: Row, seed: int) -> Run:
        """Return the run with the published weight, which takes part in the sweep."""
        run, sweep = self._run('row', pair, name, row, seed), self.study.sweep
        swept = sweep is not None and seed == sweep.seed and name in self._sweepable(pair)
        return replace(run, held_out=sweep.options) if sweep is not None and swept else run

    def _sweep(self) -> Iterator[Run]:
        if sweep := self.study.sweep:
            for pair in self.study.pairs:
                for name in self._sweepable(pair):
                    for factor in sweep.factors:
                        if factor != 1:
                            yield replace(self._weighted(pair, name, factor, sweep.seed), held_out=sweep.options)

    def _chosen(self, found: Mapping[str, Mapping[float, float]]) -> Iterator[Run]:
        """Plan the other seeds of each weight that won a complete sweep against the published one."""
        if (sweep := self.study.sweep) is None:
            return
        swept = [(pair, name) for pair in self.study.pairs for name in self._sweepable(pair)]
        whole = [(pair, name) for pair, name in swept if set(found.get(f'{pair}/{name}', ())) == set(sweep.factors)]
        for seed in self.study.seeds:
            for pair, name in whole:
                if (factor := best_factor(found[f'{pair}/{name}'])) != 1 and seed != sweep.seed:
                    yield self._weighted(pair, name, factor, seed)

    def _weighted(self, pair: str, name: str, factor: float, seed: int) -> Run:
        row = Row(methods=(name,), settings={name: {'loss_weight': self._sweepable(pair)[name] * factor}})
        return replace(self._run('weight', pair, f'{name}-x{factor:.3g}', row, seed), factor=factor)

    def _shared(self, pair: str) -> tuple[str, ...]:
        return (*self.study.options, *self.study.pairs[pair].options)

    def _teacher(self, pair: str) -> Iterator[Run]:
        """Plan the test of a pair's teacher if it is a config with weights."""
        files = self._teacher_files(pair, next(iter(self.models[pair]), ''))
        if len(files) == 2 and files[0].endswith('.py'):
            run = Run('teacher', pair, TEACHER, self.study.seeds[0], files[0], files[0], shared=self.study.options)
            yield replace(run, weights=files[1], content=content_of(*files))

    def _teacher_files(self, pair: str, config: str) -> list[str]:
        """Return config and weights of the teacher in a distiller's config, as far as they are names."""
        model = self.models[pair].get(config, {})
        if not model.get('teacher_cfg'):
            return []
        weights = self.study.pairs[pair].teacher or model.get('teacher_pretrained')
        return [given for given in (model['teacher_cfg'], weights) if isinstance(given, str)]

    def _baseline(self, pair: str, seed: int) -> Run:
        student = self.study.pairs[pair].student
        return Run('row', pair, BASELINE, seed, student, student, shared=self._shared(pair), content=content_of(student))

    def _run(self, kind: str, pair: str, name: str, row: Row, seed: int) -> Run:
        offers, student = self.offers[pair], self.study.pairs[pair].student
        settings: dict[str, dict[str, Any]] = {}
        for given in (self.study.pairs[pair].settings, row.settings):
            for method in set(given) & set(row.methods):
                settings.setdefault(method, {}).update(given[method])
        configs = list(dict.fromkeys(offers[method].config for method in row.methods))
        if len(configs) > 1:
            raise ValueError(f'pair {pair}, row {name}: {" and ".join(row.methods)} are of different configs: {configs}')
        placed = [
            f'{offers[method].place}.{key}={value}' for method, one in sorted(settings.items()) for key, value in one.items()
        ]
        teacher = self.study.pairs[pair].teacher
        has_teacher = self.models[pair][configs[0]].get('teacher_cfg')
        options = [f'model.teacher_pretrained={teacher}'] if teacher and has_teacher else []
        run = Run(
            *(kind, pair, name, seed, configs[0], student),
            methods=row.methods,
            losses={method: {**offers[method].entry, **settings.get(method, {})} for method in row.methods},
            changed=settings,
            shared=self._shared(pair),
            options=(*options, *row.options),
            placed=tuple(placed),
            stored=row.stored,
            content=content_of(configs[0], student, *self._teacher_files(pair, configs[0])),
        )
        if row.stored:
            return replace(run, stored_features=features_read(_methods(run)))
        return self._sharing(run) if self.study.shared_teacher else run

    def _sharing(self, run: Run) -> Run:
        """Return a run with the stored teacher that it shares, if it can."""
        content = content_of(*self._teacher_files(run.pair, run.config))
        maps = self.study.shared_teacher == 'maps'
        name, features = shared_store(run.config, (*run.shared, *run.options), run.seed, _methods(run), content, maps)
        return replace(run, shared_store=name, stored_features=features)


def _methods(run: Run) -> list[Method]:
    return [parse_method(f'loss_{name}', entry) for name, entry in run.losses.items()]


def with_features_of_all(runs: Sequence[Run]) -> list[Run]:
    """Return runs, each with the features that any run reads of the stored teacher that they share."""
    read: dict[str, set[str]] = {}
    for run in runs:
        read.setdefault(run.shared_store, set()).update(run.stored_features)
    return [replace(run, stored_features=tuple(sorted(read[run.shared_store]))) if run.shared_store else run for run in runs]


def best_factor(accuracies: Mapping[float, float]) -> float:
    """Return the factor with the highest accuracy; of equal ones the nearest to the published weight, then the smaller."""
    return min(accuracies, key=lambda factor: (-accuracies[factor], max(factor, 1 / factor), factor))


def sweep_results(records: Iterable[Mapping[str, Any]]) -> dict[str, dict[float, float]]:
    """Return the sweep's results: by PAIR/METHOD the accuracy of each factor on held-out images; 0 if it diverged."""
    found: dict[str, dict[float, float]] = {}
    for record in records:
        if record['held_out']:
            accuracy = record['held_out_accuracy'] or 0.0
            found.setdefault(f'{record["pair"]}/{record["methods"][0]}', {})[record['factor']] = accuracy
    return found
