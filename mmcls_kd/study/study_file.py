"""Read and check a study file: the pairs, rows, seeds and budget of a comparison."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, ValidationError, model_validator

from ..errors import close_names
from ..files.paths import find_file
from ..files.plain_data import run_config

#: The student alone and KD, with which every other row of a pair is compared; and the row of the teacher alone.
BASELINE, KD, TEACHER = 'baseline', 'kd', 'teacher'
#: The best epoch's accuracy minus the last one's, in points: the mean of 40 published logs of the CIFAR-100 benchmark.
BEST_MINUS_LAST = 0.3
#: A name becomes a folder and a part of a key.
NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9_+.=-]*')
#: The expected value in words, by pydantic's type of error.
EXPECTED = {
    **dict.fromkeys(('string_type', 'string_too_short', 'path_type', 'is_instance_of'), 'a text'),
    **dict.fromkeys(('tuple_type', 'list_type'), 'a list'),
    **dict.fromkeys(('dict_type', 'model_type', 'mapping_type'), 'a dict'),
    **dict.fromkeys(('int_type', 'greater_than_equal'), 'a whole number from 0'),
    **dict.fromkeys(('float_type', 'greater_than', 'less_than_equal'), 'a number of percent above 0, at most 100'),
    'bool_type': 'True or False',
}


def _name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError(f'{name!r} becomes a folder: use letters, digits and _+.=- alone')
    return name


def _option(option: str) -> str:
    if '=' not in option:
        raise ValueError(f'{option!r} is not of the form KEY=VALUE')
    return option


def _seeds(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f'each of {list(seeds)} has to stand there once, and there has to be one')
    return seeds


def _factors(factors: tuple[Any, ...]) -> tuple[float, ...]:
    if any(isinstance(f, bool) or not isinstance(f, (int, float)) or not f > 0 for f in factors) or 1 not in factors:
        raise ValueError(f'needs a list of positive numbers with 1 among them, not {list(factors)!r}')
    return tuple(sorted({float(factor) for factor in factors}))


Text = Annotated[str, Field(min_length=1)]
Name = Annotated[Text, AfterValidator(_name)]
Options = tuple[Annotated[Text, AfterValidator(_option)], ...]
Seed = Annotated[int, Strict(), Field(ge=0)]
Percent = Annotated[float, Strict(), Field(gt=0, le=100)]
Settings = dict[str, dict[str, Any]]


class Part(BaseModel):
    """Part of a study file; unknown keys are refused with close names."""

    model_config = ConfigDict(frozen=True)

    @model_validator(mode='before')
    @classmethod
    def _check_keys(cls, given: Any) -> Any:
        for key in given if isinstance(given, Mapping) else ():
            if key not in cls.model_fields:
                hint = close_names(str(key), cls.model_fields)
                raise ValueError(f'unknown key {key!r}{hint}; there are {", ".join(cls.model_fields)}')
        return given


class Row(Part):
    """One way to train a student.

    Attributes:
        methods: The methods.
        options: Further options of the training, as ``--cfg-options`` takes them.
        settings: Keywords of losses that override the config's, by method.
        stored: Whether the teacher's outputs that its methods read are stored first, and read in training.
    """

    methods: tuple[Text, ...]
    options: Options = ()
    settings: Settings = {}
    stored: Annotated[bool, Strict()] = False


class Published(Part):
    """Published accuracy of a row.

    Attributes:
        top1: In percent.
        tolerance: Largest difference of the row's mean, in points.
        source: Author and place of the publication.
        epoch: ``'last'``, or ``'best'`` on the test images, ``'unknown'`` where the source does not say; None for a study in
            which it does not matter.
    """

    top1: Percent
    tolerance: Percent
    source: Text
    epoch: Literal['last', 'best', 'unknown'] | None = None

    @property
    def of_last_epoch(self) -> float:
        """The number to compare a last epoch with: one of the best epoch is lowered by :data:`BEST_MINUS_LAST`."""
        return self.top1 - BEST_MINUS_LAST * (self.epoch == 'best')


class Pair(Part):
    """A teacher and a student.

    The student alone and every method that a distiller config offers are rows without being listed.

    Attributes:
        title: For the report.
        student: The student's plain config.
        distillers: Distiller configs; where several offer a method, the first counts.
        options: Options of every training and test.
        settings: As a row's, for all rows.
        rows: Further rows by name.
        methods: Offered methods that get a row; None for all.
        teacher: Checkpoint of the teacher; overrides that of the distiller configs.
        published: Published accuracies by row; the student alone and the teacher are rows too.
    """

    title: Text
    student: Text
    distillers: tuple[Text, ...]
    options: Options = ()
    settings: Settings = {}
    rows: dict[Name, Row] = {}
    methods: tuple[Text, ...] | None = None
    teacher: Text | None = None
    published: dict[Name, Published] = {}


class Ablation(Part):
    """Rows that differ from one row of a pair in one thing.

    Attributes:
        title: For the report.
        pair: The pair's name.
        against: The row's name.
        rows: The other rows, by name.
    """

    title: Text
    pair: Text
    against: Text
    rows: dict[Name, Row]


class Sweep(Part):
    """Search for each method's loss weight, with the first pair that offers the method.

    Attributes:
        factors: Multiples of the weight; 1 is the published one.
        options: Options that test on held-out images: images of neither the training nor the test.
        seed: Seed of its runs, one of the study's.
    """

    factors: Annotated[tuple[Any, ...], AfterValidator(_factors)]
    options: Options
    seed: Seed = 0


class Study(Part):
    """A study file.

    Attributes:
        path: The file.
        title: For the report.
        seeds: Seeds of every row.
        report: The document that shows the results.
        pairs: By name.
        options: Options of every training and test: the budget.
        ablations: By name.
        sweep: None for none.
        shared_teacher: Whether rows of the same views whose methods need no more of their teacher than a store holds share a
            stored one. It is made by the first of them and removed after the last; its outputs are rounded to float16.
            ``'maps'`` stores maps and tokens, too, for the rows that read them.
        compared_with: Another study file, for a table of the rows that both have, of pairs of one name; None for none.
    """

    path: Path
    title: Text
    seeds: Annotated[tuple[Seed, ...], AfterValidator(_seeds)]
    report: Annotated[Path, Strict()]
    pairs: dict[Name, Pair]
    options: Options = ()
    ablations: dict[Name, Ablation] = {}
    sweep: Sweep | None = None
    shared_teacher: Literal[True, False, 'maps'] = False
    compared_with: Annotated[Path, Strict()] | None = None

    @property
    def name(self) -> str:
        """Name of the study: the file's stem."""
        return self.path.stem

    @property
    def results(self) -> Path:
        """File of the raw results."""
        return self.path.parent / 'results' / f'{self.name}.jsonl'

    @model_validator(mode='after')
    def _check(self) -> Study:
        """Refuse unknown pairs, ambiguous names, and a sweep without the published weight."""
        if self.sweep and self.sweep.seed not in self.seeds:
            raise ValueError(
                f'sweep.seed is {self.sweep.seed}, but has to be one of seeds, {list(self.seeds)}: the rows of that seed '
                'have the published weight'
            )
        for name, ablation in self.ablations.items():
            if ablation.pair not in self.pairs:
                hint = close_names(ablation.pair, self.pairs)
                raise ValueError(
                    f'ablations.{name}: there is no pair {ablation.pair!r}{hint}; there are {", ".join(self.pairs)}'
                )
        for name, pair in self.pairs.items():
            ablated = [row for ablation in self.ablations.values() if ablation.pair == name for row in ablation.rows]
            rows = [BASELINE, TEACHER, *pair.rows, *ablated]
            if twice := [row for row in rows if rows.count(row) > 1]:
                raise ValueError(f'pair {name}: two rows have the name {twice[0]!r}')
        return self


def read_study(path: str | Path) -> Study:
    """Read a study file, which is Python, as mmengine's configs; refuse a wrong value, and name its key.

    It assigns the attributes of :class:`Study` but ``path``; ``report`` and ``compared_with`` are paths from the file's
    folder, and the parts are dicts with the attributes of the classes above. Names that begin with an underscore are the
    file's own.
    """
    found = find_file(path)
    try:
        content = run_config(found)._cfg_dict.to_dict()
    except Exception as error:  # a program may raise anything
        raise ValueError(f'study {path} cannot be read: {type(error).__name__}: {error}') from error
    content = {key: value for key, value in content.items() if not key.startswith('_')} | {'path': found}
    for key in ('report', 'compared_with'):
        if isinstance(given := content.get(key), str) and given:
            content[key] = (found.parent / given).resolve()
    try:
        return Study.model_validate(content)
    except ValidationError as error:
        raise ValueError(f'study {path}: {_in_words(error)}') from error


def _in_words(error: ValidationError) -> str:
    """Return the first error in one line: key, value, remedy."""
    first = error.errors()[0]
    place, kind, given = [str(part) for part in first['loc'] if part != '[key]'], first['type'], first['input']
    if kind == 'missing':
        return f'{".".join(place[:-1]) or "the file"} has no {place[-1]!r}'
    if kind == 'value_error':
        return ': '.join([*filter(None, ['.'.join(place)]), str(first['ctx']['error'])])
    expected = EXPECTED.get(kind) or (first['ctx']['expected'] if kind == 'literal_error' else None)
    return f'{".".join(place)} has to be {expected}, but is {given!r}' if expected else f'{".".join(place)}: {first["msg"]}'
