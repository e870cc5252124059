"""A study's tables, made from its raw results alone and put between marks into a document."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

from .records import Record
from .results import Difference, Line, Results
from .statistics import Summary
from .study_file import BASELINE, KD, TEACHER, Published, Study

NOTHING = 'No results yet.'
DIVERGED = 'diverged'
#: What the rows that others are compared with are called.
TITLES = {BASELINE: 'student alone', KD: 'KD', TEACHER: 'teacher'}
#: By how many times more than the student alone a row scatters that is called unstable.
UNSTABLE = 5
#: Of a difference to a published number; what floating point adds is left out.
DIGITS = 4
BLOCK = '<!-- study {name}: {part} -->\n'
END = '<!-- end -->'


def blocks(study: Study, records: Sequence[Record]) -> dict[str, str]:
    """The parts of the report in Markdown, by name.

    They are ``summary``, ``published`` where numbers are, each pair, ``PAIR weights`` with a sweep, each ablation.
    """
    results = Results(study, records)
    made = {'summary': _summary(results)}
    if any(pair.published for pair in study.pairs.values()):
        made['published'] = _published(study)
    for pair in study.pairs:
        made[pair] = _pair(results, pair)
        if study.sweep:
            made[f'{pair} weights'] = _weights(results, pair)
    made |= {name: _ablation(results, name) for name in study.ablations}
    return {name: text or NOTHING for name, text in made.items()}


def places(study: Study) -> str:
    """A document with a title and a place for each part."""
    marks = [f'{start_of(study, part)}{END}\n' for part in blocks(study, [])]
    return '\n'.join([f'# {study.title}\n', *marks])


def put(document: str, study: Study, records: Sequence[Record]) -> str:
    """A document with the parts of the report in their places.

    Args:
        document: Its text. A place is ``<!-- study NAME: PART -->``, then anything, then ``<!-- end -->``.
        study: The study.
        records: Its raw results.

    Raises:
        ValueError: If it has no place, or several, for a part.
    """
    for part, text in blocks(study, records).items():
        document = put_part(document, study, part, text)
    return document


def put_part(document: str, study: Study, part: str, text: str) -> str:
    """A document with one part in its place; otherwise as :func:`put`."""
    start = start_of(study, part)
    place = re.compile(re.escape(start) + r'.*?' + re.escape(END), re.DOTALL)
    if (count := len(place.findall(document))) != 1:
        raise ValueError(f'{study.report} has {count} places for {part!r}, and needs one: {start}{END}')
    before, after = place.split(document)
    return f'{before}{start}\n{text}\n\n{END}{after}'


def start_of(study: Study, part: str) -> str:
    """The mark where a part begins."""
    return BLOCK.format(name=study.name, part=part)


def picture(study: Study, part: str) -> Path:
    """The file of a plot, from the document's folder."""
    return Path('assets', f'study_{study.name}_{part}.svg')


# ---- parts


def _summary(results: Results) -> str:
    records = results.records
    if not records:
        return ''
    seconds = sum(record['seconds'] for record in records)
    lines = [
        f'{len(records)} runs, {seconds / 3600:.1f} hours of one core, seeds {_list(results.study.seeds)}, '
        f'{results.comparisons} comparisons.'
    ]
    for name, key in (('Processor', 'cpu'), ('GPU', 'gpu'), ('Software', 'software'), ('Commit', 'commit')):
        counts = Counter(_shown(record[key]) for record in records if record.get(key))
        if counts:
            lines.append(f'{name}: {"; ".join(_counted(counts))}.')
    return '\n\n'.join(lines)


def _counted(counts: Counter[str]) -> Iterator[str]:
    """Where there are several values, how many runs have each."""
    for value, count in sorted(counts.items()):
        yield value if len(counts) == 1 else f'{value} ({count} runs)'


def _pair(results: Results, pair: str) -> str:
    lines = results.of(pair, 'row')
    if not lines:
        return ''
    head = ['', 'last epoch', 'best epoch', 'minus alone', 'p', 'minus KD', 'p']
    rows = [[_title(line, results.study), mean_cell(line.last), mean_cell(line.best), *_versus(line)] for line in lines]
    if published := results.study.pairs[pair].published:
        head += ['published', 'minus published']
        reached = [_reached(published.get(line.row), line.last.mean if line.last else None) for line in lines]
        rows = [[*row, *cells] for row, cells in zip(rows, reached, strict=True)]
    parts = [_alone(results, pair), table(head, rows), *_said(lines), *_unstable(lines), _notes(lines), _elsewhere(lines)]
    if any(line.against for line in lines):
        title = results.study.pairs[pair].title
        parts.append(f'![{title}: difference to the student alone]({picture(results.study, pair)})')
    return '\n\n'.join(part for part in parts if part)


def _alone(results: Results, pair: str) -> str:
    """Teacher and student alone."""
    teacher, student = results.teacher(pair), results.lines.get((pair, BASELINE))
    if teacher is None or student is None or student.last is None:
        return ''
    gap = teacher - student.last.mean
    said = f'The teacher has {teacher:.2f}, the student alone {student.last.mean:.2f}: {gap:.2f} points between them.'
    if wanted := results.study.pairs[pair].published.get(TEACHER):
        number, difference = _reached(wanted, teacher)
        said += f' Published of the teacher: {number}; minus published: {difference}.'
    return said


def _published(study: Study) -> str:
    """What is to be reached."""
    rows = [
        [f'{pair.title} (`{name}`)', TITLES.get(row, f'`{row}`'), *_reached(one, None)[:1], one.source]
        for name, pair in study.pairs.items()
        for row, one in pair.published.items()
    ]
    return table(['pair', 'row', 'top-1', 'source'], rows)


def _reached(wanted: Published | None, found: float | None) -> list[str]:
    """The cells of a published number and of how far from it an accuracy is; what is not within the tolerance is marked."""
    if wanted is None:
        return ['', '']
    number = f'{wanted.top1:.2f} ± {wanted.tolerance:.2f}'
    if found is None:
        return [number, '']
    difference = found - wanted.top1
    outside = round(abs(difference), DIGITS) > wanted.tolerance
    return [number, f'**{difference:+.2f}, outside**' if outside else f'{difference:+.2f}']


def _weights(results: Results, pair: str) -> str:
    """What the sweep found, and how students do with what it found."""
    factors = results.study.sweep.factors if results.study.sweep else ()
    methods = [key.split('/')[1] for key in results.sweep if key.startswith(f'{pair}/')]
    if not methods:
        return ''
    head = [
        '',
        *(f'validation, × {_factor(f)}' for f in factors),
        'chosen',
        'last epoch',
        'minus alone',
        'p',
        'minus KD',
        'p',
    ]
    rows, shown = [], []
    for method in sorted(methods):
        found, chosen = results.sweep[f'{pair}/{method}'], results.chosen(pair, method)
        name = method if chosen in (None, 1) else f'{method}-x{chosen:.3g}'
        line = results.lines.get((pair, name))
        title = f'`{method}`' if line is None else _title(line, results.study, method)
        cells = [(f'{found[f]:.2f}' if found[f] else DIVERGED) if f in found else '' for f in factors]
        rows.append([title, *cells, '' if chosen is None else f'× {_factor(chosen)}'])
        rows[-1] += [''] * 5 if line is None or chosen in (None, 1) else [mean_cell(line.last), *_versus(line)]
        shown += [line] if line is not None and chosen not in (None, 1) else []
    return '\n\n'.join([table(head, rows), *_said(shown, 'With the weights found')])


def _ablation(results: Results, name: str) -> str:
    ablation = results.study.ablations[name]
    lines = [results.lines.get((ablation.pair, row)) for row in (ablation.against, *ablation.rows)]
    there = [line for line in lines if line is not None]
    if not there:
        return ''
    head = ['', 'last epoch', 'best epoch', f'minus {ablation.against}', 'p']
    rows = []
    for line in there:
        difference = line.against.get(ablation.against) if line.row != ablation.against else None
        rows.append([_title(line, results.study), mean_cell(line.last), mean_cell(line.best), *_difference(difference)])
    return table(head, rows)


def _said(lines: Sequence[Line], before: str = '') -> Iterator[str]:
    """In words which rows differ, and which do not."""
    for other, title in ((BASELINE, 'the student alone'), (KD, 'KD')):
        known = [
            (line.row, line.against[other]) for line in lines if other in line.against and line.against[other].p is not None
        ]
        if not known:
            continue
        better = [row for row, d in known if d.significant and d.found.mean > 0]
        worse = [row for row, d in known if d.significant and d.found.mean < 0]
        neither = [row for row, d in known if not d.significant]
        said = [
            f'{what} {title}: {", ".join(f"`{row}`" for row in rows)}.'
            for what, rows in (('Better than', better), ('Worse than', worse), ('Not told apart from', neither))
            if rows
        ]
        yield ' '.join([f'{before}.' if before else '', *said]).strip()
    for line in lines:
        if line.diverged:
            how = '; '.join(f'seed {seed}: {what}' for seed, what in line.diverged.items())
            others = ': the other seeds are the lucky ones, and are compared with nothing' if line.records else ''
            yield f'`{line.row}` diverged ({how}){others}.'


def _unstable(lines: Sequence[Line]) -> Iterator[str]:
    """Which rows scatter so much more than the student alone that no mean describes them."""
    alone = next((line.last.sd for line in lines if line.row == BASELINE and line.last), None)
    for line in lines:
        if alone and line.last and line.last.sd and line.last.sd > UNSTABLE * alone:
            low, high = min(line.accuracies.values()), max(line.accuracies.values())
            yield f'`{line.row}` is unstable: from {low:.2f} to {high:.2f}. Mean and interval describe no run of it.'


def _notes(lines: Sequence[Line]) -> str:
    """Which hyper-parameters are not the config's."""
    found = [
        f'`{line.row}` has {method}.{key}={value}'
        for line in lines
        for method, keywords in line.changed.items()
        for key, value in keywords.items()
    ]
    return f'Otherwise than published: {", ".join(found)}.' if found else ''


def _elsewhere(lines: Sequence[Line]) -> str:
    """Which rows have results of another processor than the student alone."""
    processors = {line.row: {record.get('cpu') for record in line.records.values()} for line in lines}
    home = processors.get(BASELINE, set())
    others = ', '.join(f'`{row}`' for row, found in processors.items() if home and found - home)
    return others and f'Recorded on another processor than the student alone, in whole or in part: {others}.'


# ---- cells


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; a line or a column ends where a cell does, not where one's text has such a mark."""
    lines = [head, ['---'] * len(head), *rows]
    escaped = [[re.sub(r'\s*\n\s*', ' ', cell).replace('|', '\\|') for cell in cells] for cells in lines]
    return '\n'.join(f'| {" | ".join(cells)} |' for cells in escaped)


def _title(line: Line, study: Study, name: str | None = None) -> str:
    title = f'`{name}`' if name else TITLES.get(line.row, f'`{line.row}`')
    planned = set(study.seeds)
    done = planned & {*line.records, *line.diverged}
    notes = [f'{len(done)} of {len(planned)} seeds'] if done < planned else []
    notes += [f'{len(line.diverged)} diverged'] if line.diverged else []
    return f'{title} ({", ".join(notes)})' if notes else title


def mean_cell(value: Summary | None) -> str:
    """Mean and standard deviation as a cell of a table; None for a row whose every training diverged."""
    if value is None:
        return DIVERGED
    return f'{value.mean:.2f}' + ('' if value.sd is None else f' ± {value.sd:.2f}')


def _versus(line: Line) -> list[str]:
    """The cells of the differences to the student alone and to KD."""
    return [cell for other in (BASELINE, KD) for cell in _difference(line.against.get(other))]


def _difference(difference: Difference | None) -> list[str]:
    if difference is None:
        return ['', '']
    found = difference.found
    interval = '' if found.half is None else f' [{found.mean - found.half:+.2f}, {found.mean + found.half:+.2f}]'
    text = f'{found.mean:+.2f}{interval}'
    return [f'**{text}**' if difference.significant else text, '' if difference.p is None else _p(difference.p)]


def _p(value: float) -> str:
    return '< 0.001' if value < 0.001 else f'{value:.3f}'


def _factor(value: float) -> str:
    return str(Fraction(value).limit_denominator(100))


def _list(values: Sequence[int]) -> str:
    return ', '.join(map(str, values))


def _shown(value: object) -> str:
    return ', '.join(f'{k} {v}' for k, v in value.items()) if isinstance(value, dict) else str(value)
