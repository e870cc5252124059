"""The report as one self-contained page of HTML: figures inside, no script, no external address."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path

from ..files.atomic import atomic_path
from .compare import Comparison, Row
from .figures import FIGURES, MOST_CLASSES, TSNE_IMAGES, UNITS, chosen_classes
from .measures import BINS

STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 1120px; background: #fff; color: #1c1c1c;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .5rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .4rem; border-top: 1px solid #ddd; padding-top: 1.2rem; }
p, li { max-width: 75ch; }
figure { margin: 1rem 0 0; }
img { max-width: 100%; height: auto; display: block; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .93rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid #e3e3e3; white-space: nowrap; }
th { border-bottom: 2px solid #999; vertical-align: bottom; white-space: normal; }
th:first-child, td:first-child { text-align: left; }
"""
#: Each number of the table: its heading, its name in a row, its digits and its factor.
NUMBERS = (
    ('accuracy (%)', 'accuracy', 2, 100),
    ('mean confidence (%)', 'confidence', 2, 100),
    ('calibration error (%)', 'calibration_error', 2, 100),
    ('entropy (nats)', 'entropy', 3, 1),
    ('same answer as teacher (%)', 'agreement', 2, 100),
    ('KL(teacher ‖ student) (nats)', 'divergence', 3, 1),
    ('distance in correlation', 'correlation_distance', 3, 1),
)
COLUMNS = ('network', 'checkpoint', *(heading for heading, *_ in NUMBERS))


def texts(found: Comparison) -> dict[str, str]:
    """Return the explanation of each figure, by name."""
    unit, count = UNITS[found.unit], len(found.class_names)
    some = f' Of {count} classes ten are shown.' if chosen_classes(count) != list(range(count)) else ''
    below = ' Below each run is student minus teacher: the paler, the closer to the teacher.'
    return {
        'learning_curves': (
            f'Top-1 accuracy in validation after each {unit}, as the runs logged it; in brackets the last value. A broken '
            'black line is the teacher, on the images of this report. A curve that still rises at its end says that the run '
            'was short. Compare the ends, not the best points.'
        ),
        'loss_terms': (
            'Each term of the loss in training, weighted as it was added up. A term that lies far below the task loss all '
            'the time has little to say, and one that does not fall is not learnt. Terms of different methods have other '
            'units: compare the shapes. Some do not go to 0, as a cross entropy ends at the entropy of its target.'
        ),
        'over_training': (
            'Left: the share of images for which student and teacher name the same class, right or wrong. Right: how far '
            'the student’s probabilities are from the teacher’s, 0 where they are equal. Distillation should bring a '
            'student nearer than training alone does. Where accuracy is higher and closeness is not, something else helped.'
        ),
        'class_differences': (
            f'For each class, how much more accurate a network is than {found.reference}.{_about_classes(found)}'
        ),
        'reliability': (
            f'Images are sorted by confidence, the largest probability, into {BINS} intervals. A bar is the share of right '
            'answers among them. On the broken line confidence and accuracy are equal; where bars are below it the network '
            'is too sure of itself, where they are above it not sure enough. The error in the title is the mean distance '
            'from the line, each bar counted by its images, whose share stands below it.'
        ),
        'features': (
            f'What goes into each classifier, laid into the plane by t-SNE (up to {TSNE_IMAGES} images).{some} Groups that '
            'stand apart are classes that the network tells apart. The axes, the sizes of groups and how far apart they are '
            'mean nothing.'
        ),
        'correlations': (
            'How the logits of two classes rise and fall together over the images: red together, blue against each other. '
            'Columns stand in the order of the rows. '
            'Red off the diagonal are classes that look alike to the network, which a teacher knows beyond the labels.'
            + (below if found.teachers else '')
        ),
    }


def _about_classes(found: Comparison) -> str:
    """Describe the classes in their figure, and the weight of one image there."""
    there, count = len(next(iter(found.outputs.values())).label.unique()), len(found.class_names)
    missing, each = count - there, found.images / there
    left_out = f' {missing} of {count} classes {"has" if missing == 1 else "have"} no image here.' if missing else ''
    most = f' Of {there} classes those {MOST_CLASSES} are shown that lose and gain most.' if there > MOST_CLASSES else ''
    whose = 'a class with images' if missing else 'a class'
    return (
        f'{left_out}{most} With {found.images} images {whose} has {round(each, 1):g} on average, so one image is '
        f'{100 / each:.1f} points: small differences are chance.'
    )


def write_page(found: Comparison, files: Mapping[str, Path], path: Path) -> None:
    """Write the report, atomically, with the figures that exist, by name."""
    with atomic_path(path) as file:
        file.write_text('\n'.join(_page(found, files)) + '\n', encoding='utf-8')


def _page(found: Comparison, files: Mapping[str, Path]) -> Iterator[str]:
    names = ', '.join(run.name for run in found.runs)
    yield '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f'<link rel="icon" href="data:,">\n<title>Comparison of {escape(names)}</title>'
    yield f'<style>{STYLE}</style>\n</head>\n<body>'
    yield f'<h1>Comparison of {escape(names)}</h1>'
    yield f'<p>On {found.images} validation images of {len(found.class_names)} classes. Runs:</p>\n<ul>'
    for run in found.runs:
        yield f'<li>{escape(run.name)}: <code>{escape(str(run.folder))}</code>, {escape(_trained(run.cfg))}</li>'
    yield '</ul>'
    for note in found.notes:
        yield f'<p>{escape(note)}</p>'
    yield '<h2>Numbers</h2>'
    yield f'<p>{escape(_about_numbers(found))}</p>'
    yield from _table(found)
    described = texts(found)
    for name, title, _ in FIGURES:
        if name in files:
            yield f'<h2 id="{name}">{escape(title)}</h2>\n<p>{escape(described[name])}</p>'
            yield _image(files[name], title)
    yield '</body>\n</html>'


def _trained(cfg: Mapping) -> str:
    if 'student_cfg' not in cfg['model']:
        return 'a student alone'
    methods = cfg.get('methods') or ()
    return f'distilled by {", ".join([methods] if isinstance(methods, str) else methods)}' if methods else 'distilled'


def _about_numbers(found: Comparison) -> str:
    error = 100 * max(math.sqrt(row.accuracy * (1 - row.accuracy) / found.images) for row in found.rows())
    return (
        'Of the last checkpoint of each run. Calibration error: how far confidence and accuracy are apart. Entropy: how '
        'unsure the probabilities are. The last three columns compare a run with its teacher. '
        f'With {found.images} images an accuracy has a standard error of up to {error:.1f} points; another seed gives '
        'another accuracy.'
    )


def _table(found: Comparison) -> Iterator[str]:
    heads = ''.join(f'<th>{column}</th>' for column in COLUMNS)
    yield f'<div class="wide"><table>\n<thead><tr>{heads}</tr></thead>\n<tbody>'
    for row in found.rows():
        yield '<tr>' + ''.join(f'<td>{escape(cell)}</td>' for cell in cells(row, found.unit)) + '</tr>'
    yield '</tbody>\n</table></div>'


def cells(row: Row, unit: str) -> list[str]:
    """Return a network's row of the table, see :data:`COLUMNS`."""
    numbers = [(getattr(row, name), digits, factor) for _, name, digits, factor in NUMBERS]
    shown = ['' if value is None else f'{factor * value:.{digits}f}' for value, digits, factor in numbers]
    return [row.name, '' if row.step is None else f'{UNITS[unit]} {row.step}', *shown]


def _image(path: Path, title: str) -> str:
    content = path.read_bytes()
    width, height = struct.unpack('>II', content[16:24])  # of a PNG's header, so that the page does not jump
    text = base64.b64encode(content).decode()
    size = f'width="{width}" height="{height}"'
    return f'<figure><img {size} alt="{escape(title)}" src="data:image/png;base64,{text}"></figure>'
