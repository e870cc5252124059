"""The figures of the report; each run has one colour in all of them, also for colour-blind readers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..files.atomic import atomic_path
from ..files.drawing import drawing, entry
from .compare import Comparison
from .measures import calibration, class_accuracies, class_correlation, correlation_distance
from .outputs import Outputs
from .runs import TOP1

#: Okabe and Ito's colours without black and yellow, for runs; the teachers are black.
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9')
#: With more runs than colours, their line styles differ too.
LINES = ('-', '--', ':', '-.')
MARKERS = 'osD^vPX'  # one more than colours, so that pairs of both differ for long
TEACHER_COLOUR = '#222222'
#: Paul Tol's muted colours, for classes.
CLASS_COLOURS = ['#332288', '#88CCEE', '#44AA99', '#117733', '#999933']
CLASS_COLOURS += ['#DDCC77', '#CC6677', '#882255', '#AA4499', '#999999']
CLASS_MARKERS = 'osD^v'
WIDTH, DPI = 10.0, 110
#: Number of images and classes of t-SNE; number of classes of a figure of classes.
TSNE_IMAGES, TSNE_CLASSES, MOST_CLASSES = 1000, 10, 30
#: Number of matrices side by side.
MATRICES = 6
UNITS = dict(epoch='epoch', iter='iteration')


def line_styles(found: Comparison) -> dict[str, dict[str, str]]:
    """Return the colour, line style and marker of each network, by name, as matplotlib's keywords."""
    styles = {
        name: dict(color=TEACHER_COLOUR, linestyle=LINES[(i + 1) % len(LINES)], marker='*')
        for i, name in enumerate(found.teachers)
    }
    for i, run in enumerate(found.runs):
        colour, line = COLOURS[i % len(COLOURS)], LINES[i // len(COLOURS) % len(LINES)]
        styles[run.name] = dict(color=colour, linestyle=line, marker=MARKERS[i % len(MARKERS)])
    return styles


def new_figure(height: float) -> Any:
    """Make an empty figure of the report's width."""
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), layout='constrained')


def panels(count: int, height: float, columns: int) -> tuple[Any, list[Any]]:
    """Make a figure of panels, each of a height in inches, in rows of at most ``columns``."""
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    figure = new_figure(rows * height)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in axes[count:]:
        unused.set_axis_off()
    return figure, axes[:count]


def short(name: str, most: int = 22) -> str:
    """Shorten a long name to its end, by which names of runs differ."""
    return name if len(name) <= most else f'…{name[1 - most :]}'


def save(figure: Any, path: Path) -> None:
    """Write a figure, atomically."""
    with atomic_path(path) as file:
        figure.savefig(file, format='png', dpi=DPI, facecolor='white')


def learning_curves(found: Comparison) -> Any | None:
    """Plot the logged validation accuracy, or else another metric, over training; None if none was logged."""
    curves = {run.name: run.accuracies() for run in found.runs}
    if not any(curves.values()):
        return None
    figure = new_figure(4.2)
    axes = figure.add_subplot()
    style = line_styles(found)
    others = {run.name: f', {run.metric}' for run in found.runs if run.metric and not run.metric.endswith(TOP1)}
    for name, curve in curves.items():
        if curve:
            steps, values = zip(*curve, strict=True)
            _line(axes, steps, values, style[name], f'{name}{others.get(name, "")} ({curve[-1][1]:.2f})')
    for row in found.rows():
        if row.name in found.teachers:
            look = dict(style[row.name], marker='')
            axes.axhline(100 * row.accuracy, **look, linewidth=1.3, label=entry(f'{row.name} ({100 * row.accuracy:.2f})'))
    axes.set(xlabel=UNITS[found.unit], ylabel='validation (%)' if others else 'validation accuracy (%)')
    _whole_numbers(axes)
    _legend_beside(axes)
    return figure


def loss_terms(found: Comparison) -> Any:
    """Plot each run's logged loss terms over training."""
    figure, all_axes = panels(len(found.runs), 3.0, columns=3)
    names = list(dict.fromkeys(name for run in found.runs for name in run.terms()))
    for axes, run in zip(all_axes, found.runs, strict=True):
        for name, curve in run.terms().items():
            i = names.index(name)
            steps, values = zip(*curve, strict=True)
            axes.plot(steps, values, color=(TEACHER_COLOUR, *COLOURS)[i % 7], linestyle=LINES[i // 7 % 4], label=entry(name))
        if all(value > 0 for curve in run.terms().values() for _, value in curve):
            axes.set_yscale('log')
            _plain_log(axes)
        axes.set(title=short(run.name, 40), xlabel=UNITS[found.unit])
        axes.legend(fontsize=8.5)
    all_axes[0].set_ylabel('loss term, weighted')
    return figure


def over_training(found: Comparison) -> Any | None:
    """Plot agreement with and divergence from the teacher at each checkpoint; None without a teacher."""
    if not found.teachers:
        return None
    figure, (left, right) = panels(2, 3.8, columns=2)
    style = line_styles(found)
    for name, points in found.history.items():
        steps = [point.step for point in points]
        _line(left, steps, [100 * (point.agreement or 0) for point in points], style[name], name)
        _line(right, steps, [point.divergence for point in points], style[name], name)
    left.set(title='Same answer as the teacher', ylabel='images (%)', xlabel=UNITS[found.unit])
    right.set(title='KL(teacher ‖ student)', ylabel='nats', xlabel=UNITS[found.unit], ylim=(0, None))
    for axes in (left, right):
        _whole_numbers(axes)
    figure.legend(*left.get_legend_handles_labels(), loc='outside lower center', ncols=min(5, len(found.runs)))
    return figure


def class_differences(found: Comparison) -> Any | None:
    """Plot the difference of accuracy on each class between each network and the reference; None without one."""
    if found.reference is None:
        return None
    of = {name: 100 * class_accuracies(o.logit, o.label) for name, o in found.outputs.items()}
    base = of[found.reference]
    shown = [run.name for run in found.runs if run.name != found.reference]
    differences = torch.stack([of[name] - base for name in shown])
    order = [int(i) for i in differences.mean(dim=0).argsort() if not differences[:, i].isnan().any()]
    if len(order) > MOST_CLASSES:
        order = order[: MOST_CLASSES // 2] + order[-MOST_CLASSES // 2 :]
    figure = new_figure(1.3 + max(0.36, 0.2 + 0.07 * len(shown)) * len(order))
    axes = figure.add_subplot()
    style = line_styles(found)
    axes.axvline(0, color='0.35', linewidth=1)
    spacing = min(0.22, 0.8 / len(shown))
    for i, name in enumerate(shown):
        shift = (i - (len(shown) - 1) / 2) * spacing
        y = np.arange(len(order)) - shift
        values = differences[i, order].numpy()
        look = style[name]
        axes.hlines(y, 0, values, color=look['color'], linestyle=look['linestyle'], linewidth=1.6, alpha=0.6)
        axes.plot(values, y, **(look | dict(linestyle='')), markersize=6, label=entry(name))
    axes.set_yticks(range(len(order)), [f'{found.class_names[i]} ({base[i]:.0f}%)' for i in order])
    axes.set(
        xlabel=f'accuracy minus that of {found.reference}, in points (in brackets: its accuracy)',
        ylim=(-0.7, len(order) - 0.3),
    )
    _legend_beside(axes)
    return figure


def reliability(found: Comparison) -> Any:
    """Plot accuracy by confidence for each network, and below it the number of images by confidence."""
    names = list(found.outputs)
    columns = min(4, len(names))
    rows = math.ceil(len(names) / columns)
    figure = new_figure(3.5 * rows)
    grid = figure.add_gridspec(2 * rows, columns, height_ratios=[3, 1] * rows)
    style = line_styles(found)
    for i, name in enumerate(names):
        row, column = divmod(i, columns)
        upper = figure.add_subplot(grid[2 * row, column])
        lower = figure.add_subplot(grid[2 * row + 1, column], sharex=upper)
        _reliability(upper, lower, found.outputs[name], style[name]['color'])
        error = calibration(found.outputs[name].logit, found.outputs[name].label).error
        upper.set_title(f'{short(name)}\nerror {100 * error:.1f}%')
        lower.set_xlabel('confidence')
        if column == 0:
            upper.set_ylabel('accuracy')
            lower.set_ylabel('images')
    return figure


def _reliability(upper: Any, lower: Any, outputs: Outputs, colour: str) -> None:
    found = calibration(outputs.logit, outputs.label)
    bins = len(found.counts)
    left = np.arange(bins) / bins
    share = (found.counts / found.counts.sum()).numpy()
    options = dict(width=1 / bins, align='edge', edgecolor='white', linewidth=0.6)
    upper.bar(left, found.accuracies.nan_to_num().numpy(), color=colour, alpha=0.75, **options)
    upper.plot([0, 1], [0, 1], color='0.2', linewidth=1.2, linestyle='--')
    upper.set(xlim=(0, 1), ylim=(0, 1), aspect='auto')
    upper.tick_params(labelbottom=False)
    lower.bar(left, share, color='0.55', **options)
    lower.set(ylim=(0, max(0.05, 1.1 * share.max())))
    lower.yaxis.set_major_formatter(lambda value, _: f'{100 * value:.0f}%')


def correlations(found: Comparison) -> Any:
    """Plot the correlation of the logits of two classes for each network; below it, its difference from the teacher's."""
    names = list(found.outputs)
    bands = math.ceil(len(names) / MATRICES)
    columns, rows = math.ceil(len(names) / bands), 2 if found.teachers else 1
    figure = new_figure(bands * rows * min((WIDTH - 2) / columns + 0.6, 4.5))
    figure.set_layout_engine('compressed')  # room for square panels
    grid = figure.subplots(bands * rows, columns, squeeze=False)
    for i, name in enumerate(names):
        band, column = divmod(i, columns)
        image = _correlations(found, name, grid[rows * band : rows * (band + 1), column], 80 // columns)
        if column == 0 and len(found.class_names) <= MOST_CLASSES:
            grid[rows * band, 0].set_yticks(range(len(found.class_names)), found.class_names, fontsize=8)
    for axes in grid.flat:
        if not axes.images:
            axes.set_axis_off()
    figure.colorbar(image, ax=list(grid.flat), shrink=0.6, label='correlation, or difference of two')
    return figure


def _correlations(found: Comparison, name: str, places: Sequence[Any], room: int) -> Any:
    """Plot a network's matrix, and below it its difference from the teacher's."""
    matrix = class_correlation(found.outputs[name].logit)
    image = _matrix(places[0], matrix.numpy(), short(name, room))
    teacher = found.teacher_of.get(name)
    if teacher is not None:
        logit_t = found.outputs[teacher].logit
        apart = correlation_distance(found.outputs[name].logit, logit_t)
        title = f'{short(name, room)}\n− {short(teacher, room - 2)}\nmean distance {apart:.3f}'
        _matrix(places[1], (matrix - class_correlation(logit_t)).numpy(), title)
    return image


def _matrix(axes: Any, matrix: np.ndarray, title: str) -> Any:
    axes.set_facecolor('0.8')  # where there is no correlation
    image = axes.imshow(matrix, vmin=-1, vmax=1, cmap='RdBu_r', interpolation='nearest')
    axes.set_title(title, fontsize=9.5)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    return image


def features(found: Comparison) -> Any | None:
    """Plot t-SNE of the inputs of each network's classifier; None if none can be read."""
    shown = {name: outputs for name, outputs in found.outputs.items() if outputs.vector is not None}
    if not shown:
        return None
    label = next(iter(shown.values())).label
    classes = chosen_classes(len(found.class_names))
    places = torch.nonzero(torch.isin(label, torch.tensor(classes))).flatten()
    places = places[torch.linspace(0, len(places) - 1, min(TSNE_IMAGES, len(places))).round().long()]
    if len(places) < 10:
        return None
    figure, all_axes = panels(len(shown), 3.4, columns=min(4, max(2, len(shown))) if len(shown) != 4 else 2)
    figure.set_figheight(figure.get_figheight() + 0.4)
    for axes, (name, outputs) in zip(all_axes, shown.items(), strict=True):
        _scatter(axes, embedded(outputs.vector[places]), label[places].numpy(), classes, found.class_names)  # type: ignore[index]
        axes.set_title(short(name, 40))
    handles, names = all_axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc='outside lower center', ncols=min(5, len(names)), markerscale=1.8, fontsize=9)
    return figure


def chosen_classes(count: int) -> list[int]:
    """Select the classes for t-SNE: all, or ten, evenly spread."""
    return np.linspace(0, count - 1, min(count, TSNE_CLASSES)).round().astype(int).tolist()


def embedded(vectors: torch.Tensor) -> np.ndarray:
    """Embed vectors in the plane, (N, 2), by t-SNE; deterministically."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    values = vectors.double().numpy()
    if values.shape[1] > 50:
        values = PCA(min(50, len(values)), random_state=0).fit_transform(values)
    perplexity = min(30.0, (len(values) - 1) / 3)
    return TSNE(perplexity=perplexity, init='pca', random_state=0, n_jobs=1).fit_transform(values)


def _scatter(axes: Any, places: np.ndarray, label: np.ndarray, classes: Sequence[int], names: Sequence[str]) -> None:
    for i, number in enumerate(classes):
        of = places[label == number]
        colour, marker = CLASS_COLOURS[i % len(CLASS_COLOURS)], CLASS_MARKERS[i % len(CLASS_MARKERS)]
        options = dict(color=colour, markersize=3.4, markeredgewidth=0, alpha=0.85, label=entry(names[number]))
        axes.plot(of[:, 0], of[:, 1], marker, **options)
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set(visible=True, color='0.75')


def _line(axes: Any, x: Sequence[float], y: Sequence[float | None], style: Any, label: str) -> None:
    axes.plot(x, y, **style, markersize=5, linewidth=1.8, label=entry(label))


def _whole_numbers(axes: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _plain_log(axes: Any) -> None:
    """Label a logarithmic axis with plain numbers, enough of them."""
    from matplotlib.ticker import LogLocator

    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 3.0, 5.0, 7.0)))
    axes.yaxis.set_major_formatter('{x:g}')
    axes.yaxis.set_minor_formatter('')


def _legend_beside(axes: Any) -> None:
    axes.legend(loc='upper left', bbox_to_anchor=(1.0, 1.0), fontsize=9.5)


#: Each figure: its file, its title, the function that draws it.
FIGURES: tuple[tuple[str, str, Callable[[Comparison], Any | None]], ...] = (
    ('learning_curves', 'Learning curves', learning_curves),
    ('loss_terms', 'Loss terms', loss_terms),
    ('over_training', 'Closeness to the teacher', over_training),
    ('class_differences', 'Accuracy of each class', class_differences),
    ('reliability', 'Reliability', reliability),
    ('features', 'Features', features),
    ('correlations', 'Correlation of the classes’ logits', correlations),
)


def draw(found: Comparison, folder: Path, log: Callable[[str], Any] = print) -> dict[str, Path]:
    """Draw all figures that have content; returns each one's file, by name."""
    files = {}
    with drawing():
        for name, title, make in FIGURES:
            log(f'drawing: {title}')
            figure = make(found)
            if figure is not None:
                files[name] = folder / f'{name}.png'
                save(figure, files[name])
    return files
