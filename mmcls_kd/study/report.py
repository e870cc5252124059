"""Make a study's tables from its raw results, and put them between marks into a document."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import pandas as pd

from .records import Record, read_records
from .results import Line, Results
from .statistics import Comparison, Summary
from .study_file import BASELINE, BEST_MINUS_LAST, KD, TEACHER, Published, Study, read_study

NOTHING = 'No results yet.'
DIVERGED = 'diverged'
#: Titles of the rows that others are compared with.
TITLES = {BASELINE: 'student alone', KD: 'KD', TEACHER: 'teacher'}
#: A row is unstable if its standard deviation is this multiple of the student's alone.
UNSTABLE = 5
#: Of a difference to a published number; the noise of floating point is beyond them.
DIGITS = 4
BLOCK = '<!-- study {name}: {part} -->\n'
END = '<!-- end -->'


def blocks(study: Study, records: Sequence[Record]) -> dict[str, str]:
    """Return the parts of the report in Markdown, by name.

    They are ``summary``, ``published`` where numbers are, each pair, ``PAIR weights`` with a sweep, ``PAIR compared`` with
    another study that has this pair, each ablation.
    """
    results = Results(study, records)
    other = read_study(study.compared_with) if study.compared_with else None
    others = Results(other, read_records(other.results)) if other else None
    made = {'summary': _summary(results)}
    if any(pair.published for pair in study.pairs.values()):
        made['published'] = _published(study)
    for pair in study.pairs:
        made[pair] = _pair(results, pair)
        if study.sweep:
            made[f'{pair} weights'] = _weights(results, pair)
        if others and pair in others.study.pairs:
            made[f'{pair} compared'] = _compared(results, others, pair)
    made |= {name: _ablation(results, name) for name in study.ablations}
    return {name: text or NOTHING for name, text in made.items()}


def places(study: Study) -> str:
    """Return a document with a title and a place for each part."""
    marks = [f'{start_of(study, part)}{END}\n' for part in blocks(study, [])]
    return '\n'.join([f'# {study.title}\n', *marks])


def put(document: str, study: Study, records: Sequence[Record]) -> str:
    """Return a document with the parts of the report, each from ``<!-- study NAME: PART -->`` to ``<!-- end -->``."""
    for part, text in blocks(study, records).items():
        document = put_part(document, study, part, text)
    return document


def put_part(document: str, study: Study, part: str, text: str) -> str:
    """Return a document with one part in its place; refuse one without such a place, or with several."""
    start = start_of(study, part)
    place = re.compile(re.escape(start) + r'.*?' + re.escape(END), re.DOTALL)
    if (count := len(place.findall(document))) != 1:
        raise ValueError(f'{study.report} has {count} places for {part!r}, and needs one: {start}{END}')
    before, after = place.split(document)
    return f'{before}{start}\n{text}\n\n{END}{after}'


def start_of(study: Study, part: str) -> str:
    """Return the mark where a part begins."""
    return BLOCK.format(name=study.name, part=part)


def drawn(results: Results, pair: str) -> list[Line]:
    """Return the rows of a pair that its plot shows: those that several seeds compare with the student alone."""
    every = [line for kind in ('row', 'weight') for line in results.of(pair, kind)]
    return [line for line in every if BASELINE in line.against and line.against[BASELINE].p is not None]


def picture(study: Study, part: str) -> Path:
    """Return the file of a plot, from the document's folder."""
    return Path('assets', f'study_{study.name}_{part}.svg')


# ---- parts


def _summary(results: Results) -> str:
    if not results.records:
        return ''
    table = pd.DataFrame(results.records)
    lines = [
        f'{len(table)} runs, {table.seconds.sum() / 3600:.1f} hours of one core, '
        f'seeds {", ".join(map(str, results.study.seeds))}, {results.comparisons} comparisons.'
    ]
    for name, key in (('Processor', 'cpu'), ('GPU', 'gpu'), ('Software', 'software'), ('Commit', 'commit')):
        if key in table and len(counts := table[key].dropna().map(_shown).value_counts().sort_index()):
            each = [f'{value} ({count} runs)' for value, count in counts.items()] if len(counts) > 1 else counts.index
            lines.append(f'{name}: {"; ".join(each)}.')
    return '\n\n'.join(lines)


def _pair(results: Results, pair: str) -> str:
    lines, study = results.of(pair, 'row'), results.study.pairs[pair]
    if not lines:
        return ''
    head = ['', 'last epoch', 'best epoch', 'minus alone', 'p', 'minus KD', 'p']
    rows = [[_title(line, results.study), mean_cell(line.last), mean_cell(line.best), *_versus(line)] for line in lines]
    if study.published:
        head += ['published', 'minus published']
        reached = [_reached(study.published.get(line.row), line.last.mean if line.last else None) for line in lines]
        rows = [[*row, *cells] for row, cells in zip(rows, reached, strict=True)]
    if rules := _rules(study.published.values()):
        head += ['its epoch', 'source']
        found = [study.published.get(line.row) for line in lines]
        rows = [[*row, *((of.epoch or '', of.source) if of else ('', ''))] for row, of in zip(rows, found, strict=True)]
    parts = [
        _alone(results, pair),
        table(head, rows),
        *_said(lines),
        *_unstable(lines),
        _notes(lines),
        _elsewhere(lines),
        _stored(lines),
        rules,
    ]
    if drawn(results, pair):
        parts.append(f'![{study.title}: difference to the student alone]({picture(results.study, pair)})')
    return '\n\n'.join(part for part in parts if part)


def _alone(results: Results, pair: str) -> str:
    """Compare the teacher with the student alone."""
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
    """List the published numbers."""
    named = [(f'{p.title} (`{name}`)', *item) for name, p in study.pairs.items() for item in p.published.items()]
    rules = _rules([one for *_, one in named])
    rows = [
        [title, TITLES.get(row, f'`{row}`'), *_reached(one, None)[:1], *([one.epoch or ''] if rules else []), one.source]
        for title, row, one in named
    ]
    head = ['pair', 'row', 'top-1', *(['its epoch'] if rules else []), 'source']
    return '\n\n'.join(filter(None, [table(head, rows), rules]))


def _rules(published: Iterable[Published]) -> str:
    """Say how numbers of the best epoch are compared; empty where no number states its epoch."""
    if not any(one.epoch for one in published):
        return ''
    return (
        f'The runs count by their last epoch. A published number of the best epoch on the test images is lowered by '
        f'{BEST_MINUS_LAST:.2f} before it is compared, the mean of best minus last in published logs of this benchmark; one '
        'whose source does not say which epoch it is of is compared as it is.'
    )


def _reached(wanted: Published | None, found: float | None) -> list[str]:
    """Return the cells of a published number and of the difference to it; one beyond the tolerance is marked."""
    if wanted is None:
        return ['', '']
    lowered = f' − {BEST_MINUS_LAST:.2f}' * (wanted.epoch == 'best')
    number = f'{wanted.top1:.2f}{lowered} ± {wanted.tolerance:.2f}'
    if found is None:
        return [number, '']
    difference = found - wanted.of_last_epoch
    outside = round(abs(difference), DIGITS) > wanted.tolerance
    return [number, f'**{difference:+.2f}, outside**' if outside else f'{difference:+.2f}']


def _weights(results: Results, pair: str) -> str:
    """Show the sweep, and the rows with the weights that it found."""
    factors = results.study.sweep.factors if results.study.sweep else ()
    methods = sorted(key.split('/')[1] for key in results.sweep if key.startswith(f'{pair}/'))
    if not methods:
        return ''
    head = ['', *(f'validation, × {_factor(f)}' for f in factors), 'chosen', 'last epoch', 'minus alone', 'p', 'minus KD']
    rows, shown = [], []
    for method in methods:
        found, chosen = results.sweep[f'{pair}/{method}'], results.chosen(pair, method)
        published = chosen in (None, 1)
        line = results.lines.get((pair, method if published else f'{method}-x{chosen:.3g}'))
        title = f'`{method}`' if line is None else _title(line, results.study, method)
        cells = [(f'{found[f]:.2f}' if found[f] else DIVERGED) if f in found else '' for f in factors]
        rows.append([title, *cells, '' if chosen is None else f'× {_factor(chosen)}'])
        if line is None or published:
            rows[-1] += [''] * 5
        else:
            rows[-1] += [mean_cell(line.last), *_versus(line)]
            shown.append(line)
    return '\n\n'.join([table([*head, 'p'], rows), *_said(shown, 'With the weights found. ')])


def _compared(here: Results, there: Results, pair: str) -> str:
    """Show the differences to the student alone, and the places by them, of the rows that two studies have."""
    sides = [{line.row: line for line in found.of(pair, 'row') if BASELINE in line.against} for found in (there, here)]
    rows = [row for row in sides[1] if row in sides[0]]
    if not rows:
        return ''
    found = {side: [lines[row].against[BASELINE].mean for row in rows] for side, lines in enumerate(sides)}
    means = pd.DataFrame(found, rows).round(DIGITS)
    ranks = means.rank(ascending=False, method='min').astype(int)
    cells = [
        [
            TITLES.get(row, f'`{row}`'),
            *(_counted(lines[row], found) for lines, found in zip(sides, (there, here), strict=True)),
            *map(str, ranks.loc[row]),
        ]
        for row in means.sort_values(1, ascending=False).index
    ]
    head = ['', *(f'minus alone, {found.study.title}' for found in (there, here)), 'place there', 'place here']
    parts = [table(head, cells)]
    if len(rows) > 2:
        correlation = means[0].corr(means[1], method='spearman')
        parts.append(f'Rank correlation of the {len(rows)} rows (Spearman): {correlation:.2f}.')
    return '\n\n'.join(parts)


def _counted(line: Line, results: Results) -> str:
    """Make the cell of a difference to the student alone, with the number of seeds where some are missing."""
    text, _ = _difference(line.against[BASELINE])
    found = len(line.accuracies.keys() & results.lines[line.pair, BASELINE].accuracies.keys())
    planned = len(results.study.seeds)
    return text if found == planned else f'{text} ({found} of {planned} seeds)'


def _ablation(results: Results, name: str) -> str:
    ablation = results.study.ablations[name]
    found = [results.lines.get((ablation.pair, row)) for row in (ablation.against, *ablation.rows)]
    lines = [line for line in found if line is not None]
    rows = [
        [
            *(_title(line, results.study), mean_cell(line.last), mean_cell(line.best)),
            *_difference(line.against.get(ablation.against) if line.row != ablation.against else None),
        ]
        for line in lines
    ]
    return table(['', 'last epoch', 'best epoch', f'minus {ablation.against}', 'p'], rows) if lines else ''


def _said(lines: Sequence[Line], before: str = '') -> Iterator[str]:
    """Say which rows differ significantly, which do not, and which diverged."""
    for other, title in ((BASELINE, 'the student alone'), (KD, 'KD')):
        known = {line.row: line.against[other] for line in lines if other in line.against}
        known = {row: difference for row, difference in known.items() if difference.p is not None}
        groups = (
            ('Better than', [row for row, d in known.items() if d.significant and d.mean > 0]),
            ('Worse than', [row for row, d in known.items() if d.significant and d.mean < 0]),
            ('Not told apart from', [row for row, d in known.items() if not d.significant]),
        )
        said = [f'{verdict} {title}: {", ".join(f"`{row}`" for row in rows)}.' for verdict, rows in groups if rows]
        if known:
            yield f'{before}{" ".join(said)}'
    for line in lines:
        if line.diverged:
            how = '; '.join(f'seed {seed}: {message}' for seed, message in line.diverged.items())
            others = ': remaining seeds are survivors; no comparison is made' if line.accuracies else ''
            yield f'`{line.row}` diverged ({how}){others}.'


def _unstable(lines: Sequence[Line]) -> Iterator[str]:
    """Name the rows that scatter so much more than the student alone that no mean describes them."""
    alone = next((line.last.sd for line in lines if line.row == BASELINE and line.last), None)
    for line in lines:
        if alone and line.last and line.last.sd and line.last.sd > UNSTABLE * alone:
            low, high = min(line.accuracies.values()), max(line.accuracies.values())
            yield f'`{line.row}` is unstable: from {low:.2f} to {high:.2f}. Mean and interval describe no run of it.'


def _notes(lines: Sequence[Line]) -> str:
    """Name the hyper-parameters that differ from the config's."""
    found = [
        f'`{line.row}` has {method}.{key}={value}'
        for line in lines
        for method, keywords in line.changed.items()
        for key, value in keywords.items()
    ]
    return f'Otherwise than published: {", ".join(found)}.' if found else ''


def _elsewhere(lines: Sequence[Line]) -> str:
    """Name the rows that have results of another processor than the student alone."""
    processors = {line.row: set(line.records[line.records.diverged.isna()].get('cpu', ())) for line in lines}
    home = processors.get(BASELINE, set())
    others = ', '.join(f'`{row}`' for row, found in processors.items() if home and found - home)
    return others and f'Recorded on another processor than the student alone, in whole or in part: {others}.'


def _stored(lines: Sequence[Line]) -> str:
    """Name the rows whose teacher was stored for several of them."""
    rows = [
        line.row for line in lines if any(isinstance(name, str) and name for name in line.records.get('shared_store', ()))
    ]
    named = ', '.join(f'`{row}`' for row in rows)
    return named and f'With a stored teacher, which the rows of a seed share; its outputs are rounded to float16: {named}.'


# ---- cells


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Make a table in Markdown; marks within a cell's text do not end the cell or the line."""
    lines = [head, ['---'] * len(head), *rows]
    escaped = [[re.sub(r'\s*\n\s*', ' ', cell).replace('|', '\\|') for cell in cells] for cells in lines]
    return '\n'.join(f'| {" | ".join(cells)} |' for cells in escaped)


def _title(line: Line, study: Study, name: str | None = None) -> str:
    title = f'`{name}`' if name else TITLES.get(line.row, f'`{line.row}`')
    planned = set(study.seeds)
    done = planned & set(line.records.index)
    notes = [f'{len(done)} of {len(planned)} seeds'] if done < planned else []
    notes += [f'{len(line.diverged)} diverged'] if line.diverged else []
    return f'{title} ({", ".join(notes)})' if notes else title


def mean_cell(value: Summary | None) -> str:
    """Make the cell of a mean and a standard deviation; None for a row whose every training diverged."""
    if value is None:
        return DIVERGED
    return f'{value.mean:.2f}' + ('' if value.sd is None else f' ± {value.sd:.2f}')


def _versus(line: Line) -> list[str]:
    """Make the cells of the differences to the student alone and to KD."""
    return [cell for other in (BASELINE, KD) for cell in _difference(line.against.get(other))]


def _difference(difference: Comparison | None) -> list[str]:
    if difference is None:
        return ['', '']
    text, p = difference_cell(difference), difference.p
    return [f'**{text}**' if difference.significant else text, '' if p is None else '< 0.001' if p < 0.001 else f'{p:.3f}']


def difference_cell(found: Comparison) -> str:
    """Make the cell of a mean difference and its interval."""
    interval = '' if found.half is None else f' [{found.mean - found.half:+.2f}, {found.mean + found.half:+.2f}]'
    return f'{found.mean:+.2f}{interval}'


def _factor(value: float) -> str:
    return str(Fraction(value).limit_denominator(100))


def _shown(value: object) -> str:
    return ', '.join(f'{k} {v}' for k, v in value.items()) if isinstance(value, dict) else str(value)
