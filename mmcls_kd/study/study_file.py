"""A study file: what is compared, read and checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from mmengine.config import Config, ConfigDict

from ..configs import find_file
from ..errors import close_names
from ..plain_data import files_guarded

#: The rows that every other one of a pair is compared with, and the teacher alone.
BASELINE, KD, TEACHER = 'baseline', 'kd', 'teacher'
#: A name becomes a folder and a part of a key.
NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9_+.=-]*')

Settings = Mapping[str, Mapping[str, Any]]
T = TypeVar('T')


@dataclass(frozen=True)
class Row:
    """One way to train a student.

    Attributes:
        methods: The methods.
        options: Further options of the training, as ``--cfg-options`` takes them.
        settings: Keywords of losses in the place of the config's, by method.
        stored: Whether the teacher's logits are stored first, and the store takes the teacher's place.
    """

    methods: tuple[str, ...]
    options: tuple[str, ...] = ()
    settings: Settings = field(default_factory=dict)
    stored: bool = False


@dataclass(frozen=True)
class Published:
    """An accuracy that a row is to reach.

    Attributes:
        top1: In percent.
        tolerance: By how many points a mean may differ.
        source: Who published it, and where.
    """

    top1: float
    tolerance: float
    source: str


@dataclass(frozen=True)
class Pair:
    """A teacher and a student.

    The student alone and every method that a distiller config offers have a row without being told.

    Attributes:
        title: For the report.
        student: The student's plain config.
        distillers: Distiller configs; where several offer a method, the first counts.
        options: Options of every training and test.
        settings: As a row's, for all rows.
        rows: Further rows by name.
        methods: Of the offered methods those that get a row; None for all.
        teacher: Checkpoint of the teacher, in the place of the distiller configs' own.
        published: By row, the student alone and the teacher among them, what is to be reached.
    """

    title: str
    student: str
    distillers: tuple[str, ...]
    options: tuple[str, ...] = ()
    settings: Settings = field(default_factory=dict)
    rows: Mapping[str, Row] = field(default_factory=dict)
    methods: tuple[str, ...] | None = None
    teacher: str | None = None
    published: Mapping[str, Published] = field(default_factory=dict)


@dataclass(frozen=True)
class Ablation:
    """Rows that differ from one of a pair's in one thing.

    Attributes:
        title: For the report.
        pair: The pair's name.
        against: The row's name.
        rows: The others, by name.
    """

    title: str
    pair: str
    against: str
    rows: Mapping[str, Row]


@dataclass(frozen=True)
class Sweep:
    """A search for each method's weight, with the first pair that offers the method.

    Attributes:
        factors: What the weight is multiplied by; 1 is the published one.
        options: Options that put the test on images that are held out: neither trained on nor those of the test.
        seed: Of its runs, one of the study's.
    """

    factors: tuple[float, ...]
    options: tuple[str, ...]
    seed: int = 0


@dataclass(frozen=True)
class Study:
    """A study file.

    Attributes:
        path: The file.
        title: For the report.
        seeds: Of every row.
        report: The document that shows the results.
        pairs: By name.
        options: Options of every training and test: the budget.
        ablations: By name.
        sweep: None for none.
    """

    path: Path
    title: str
    seeds: tuple[int, ...]
    report: Path
    pairs: Mapping[str, Pair]
    options: tuple[str, ...] = ()
    ablations: Mapping[str, Ablation] = field(default_factory=dict)
    sweep: Sweep | None = None

    @property
    def name(self) -> str:
        """What it is called: as its file."""
        return self.path.stem

    @property
    def results(self) -> Path:
        """The file of its raw results."""
        return self.path.parent / 'results' / f'{self.name}.jsonl'


def read_study(path: str | Path) -> Study:
    """A study by its path, a Python file as mmengine's configs are.

    It holds ``title``, ``seeds``, ``report`` (a path from the file's folder), ``pairs``, and where wanted ``options``,
    ``ablations`` and ``sweep``: dicts with the attributes of :class:`Pair`, :class:`Row`, :class:`Published`,
    :class:`Ablation` and :class:`Sweep`. Names that begin with an underscore are the file's own.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read, or something in it cannot be; names it.
    """
    found = find_file(path)
    try:
        with files_guarded():
            content = Config.fromfile(found)._cfg_dict.to_dict()
        content = {k: v for k, v in content.items() if not k.startswith('_')}
    except Exception as error:  # a program may raise anything
        raise ValueError(f'study {path} cannot be read: {type(error).__name__}: {error}') from error
    try:
        content['report'] = (found.parent / _text(content.get('report', ''), 'report')).resolve()
        study = _study(dict(content, path=found))
        _check(study)
    except ValueError as error:
        raise ValueError(f'study {path}: {error}') from error
    return study


# ---- from dicts


def _made(kind: type[T], given: Any, what: str) -> dict[str, Any]:
    """The keywords of a class that a dict has to be.

    Raises:
        ValueError: If it is none, has an unknown key or lacks one.
    """
    if not isinstance(given, Mapping):
        raise ValueError(f'{what} has to be a dict, but is {given!r}')
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    for key in given:
        if key not in known:
            raise ValueError(f'{what}: unknown key {key!r}{close_names(str(key), known)}; there are {", ".join(known)}')
    for name, one in known.items():
        if name not in given and one.default is MISSING and one.default_factory is MISSING:
            raise ValueError(f'{what} has no {name!r}')
    return dict(given)


def _study(given: dict) -> Study:
    made = _made(Study, given, 'the file')
    made['title'] = _text(made['title'], 'title')
    made['seeds'] = tuple(_seed(seed, 'seeds') for seed in _list(made['seeds'], 'seeds'))
    if not made['seeds'] or len(set(made['seeds'])) < len(made['seeds']):
        raise ValueError(f'seeds: each of {list(made["seeds"])} has to stand there once, and there has to be one')
    made['pairs'] = {name: _pair(pair, f'pairs.{name}') for name, pair in _named(made['pairs'], 'pairs')}
    made['options'] = _options(made.get('options', ()), 'options')
    ablations = _named(made.get('ablations', {}), 'ablations')
    made['ablations'] = {name: _ablation(ablation, f'ablations.{name}') for name, ablation in ablations}
    if made.get('sweep') is not None:
        made['sweep'] = _sweep(made['sweep'])
    return Study(**made)


def _pair(given: Any, what: str) -> Pair:
    made = _made(Pair, given, what)
    for key in ('title', 'student'):
        made[key] = _text(made[key], f'{what}.{key}')
    made['distillers'] = tuple(_text(path, f'{what}.distillers') for path in _list(made['distillers'], f'{what}.distillers'))
    made['options'] = _options(made.get('options', ()), f'{what}.options')
    made['settings'] = _settings(made.get('settings', {}), f'{what}.settings')
    made['rows'] = _rows(made.get('rows', {}), f'{what}.rows')
    if made.get('methods') is not None:
        made['methods'] = tuple(_text(method, f'{what}.methods') for method in _list(made['methods'], f'{what}.methods'))
    if made.get('teacher') is not None:
        made['teacher'] = _text(made['teacher'], f'{what}.teacher')
    published = _named(made.get('published', {}), f'{what}.published')
    made['published'] = {row: _published(one, f'{what}.published.{row}') for row, one in published}
    return Pair(**made)


def _published(given: Any, what: str) -> Published:
    made = _made(Published, given, what)
    for key in ('top1', 'tolerance'):
        value = made[key]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 100:
            raise ValueError(f'{what}.{key} has to be a number of percent above 0, at most 100, but is {value!r}')
    made['source'] = _text(made['source'], f'{what}.source')
    return Published(**made)


def _ablation(given: Any, what: str) -> Ablation:
    made = _made(Ablation, given, what)
    for key in ('title', 'pair', 'against'):
        made[key] = _text(made[key], f'{what}.{key}')
    made['rows'] = _rows(made['rows'], f'{what}.rows')
    return Ablation(**made)


def _sweep(given: Any) -> Sweep:
    made = _made(Sweep, given, 'sweep')
    factors = _list(made['factors'], 'sweep.factors')
    if any(isinstance(f, bool) or not isinstance(f, (int, float)) or not f > 0 for f in factors) or 1 not in factors:
        raise ValueError(f'sweep.factors has to be a list of positive numbers with 1 among them, but is {factors!r}')
    made['factors'] = tuple(sorted({float(factor) for factor in factors}))
    made['options'] = _options(made['options'], 'sweep.options')
    made['seed'] = _seed(made.get('seed', 0), 'sweep.seed')
    return Sweep(**made)


def _rows(given: Any, what: str) -> dict[str, Row]:
    rows = {}
    for name, one in _named(given, what):
        made = _made(Row, one, f'{what}.{name}')
        made['methods'] = tuple(
            _text(method, f'{what}.{name}.methods') for method in _list(made['methods'], f'{what}.{name}')
        )
        made['options'] = _options(made.get('options', ()), f'{what}.{name}.options')
        made['settings'] = _settings(made.get('settings', {}), f'{what}.{name}.settings')
        rows[name] = Row(**made)
    return rows


def _settings(given: Any, what: str) -> Settings:
    if not isinstance(given, Mapping) or not all(isinstance(value, Mapping) for value in given.values()):
        raise ValueError(f'{what} has to be a dict of dicts, keywords of losses by method, but is {given!r}')
    return {str(method): dict(keywords) for method, keywords in given.items()}


def _named(given: Any, what: str) -> list[tuple[str, Any]]:
    """The items of a dict whose keys are names."""
    if not isinstance(given, (dict, ConfigDict)):
        raise ValueError(f'{what} has to be a dict by name, but is {given!r}')
    for name in given:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ValueError(f'{what}: {name!r} becomes a folder: letters, digits and _+.=- alone, please')
    return list(given.items())


def _options(given: Any, what: str) -> tuple[str, ...]:
    options = tuple(_text(option, what) for option in _list(given, what))
    for option in options:
        if '=' not in option:
            raise ValueError(f'{what}: {option!r} is not of the form KEY=VALUE')
    return options


def _list(given: Any, what: str) -> list:
    if not isinstance(given, (list, tuple)):
        raise ValueError(f'{what} has to be a list, but is {given!r}')
    return list(given)


def _text(given: Any, what: str) -> str:
    if not isinstance(given, str) or not given:
        raise ValueError(f'{what} has to be a text, but is {given!r}')
    return given


def _seed(given: Any, what: str) -> int:
    if isinstance(given, bool) or not isinstance(given, int) or given < 0:
        raise ValueError(f'{what}: a seed is a whole number from 0, not {given!r}')
    return given


def _check(study: Study) -> None:
    """Refuse names that are not there, or stand for two things, and a sweep without the published weight."""
    if study.sweep and study.sweep.seed not in study.seeds:
        raise ValueError(
            f'sweep.seed is {study.sweep.seed}, but has to be one of seeds, {list(study.seeds)}: the rows of that seed have '
            'the published weight'
        )
    for name, ablation in study.ablations.items():
        if ablation.pair not in study.pairs:
            hint = close_names(ablation.pair, study.pairs)
            raise ValueError(
                f'ablations.{name}: there is no pair {ablation.pair!r}{hint}; there are {", ".join(study.pairs)}'
            )
    for name, pair in study.pairs.items():
        ablated = [row for ablation in study.ablations.values() if ablation.pair == name for row in ablation.rows]
        rows = [BASELINE, TEACHER, *pair.rows, *ablated]
        if twice := [row for row in rows if rows.count(row) > 1]:
            raise ValueError(f'pair {name}: two rows have the name {twice[0]!r}')
