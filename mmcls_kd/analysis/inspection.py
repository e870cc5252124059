"""Inspection of a network: the paths of its modules, their outputs, and its taps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmpretrain.registry import MODELS

from ..configs.reading import read_config
from ..distillers.recipe import Recipe
from ..distillers.teacher import network_pixels
from ..features.dry_run import DryRun, dry_run
from ..features.families import default_taps
from ..features.taps import Tap, check_names, given_taps, shapes_of
from ..networks.sources import Source, find_network
from ..networks.towers import find_teacher
from ..recipe.methods import ALIASES, TEACHER_HEAD, shown_shape
from ..teachers.head import find_head


def networks_in(name: str) -> Iterator[tuple[str, Source, Mapping[str, Any]]]:
    """Find the networks of a name (``timm:resnet18``) or a config, each with its role and the config's ``taps``."""
    try:
        cfg = read_config(name)
    except FileNotFoundError:
        yield 'network', find_network(name), {}
        return
    if not (recipe := Recipe.of(cfg)):
        yield 'network', find_network(cfg), {}
        return
    taps = check_names(cfg.model.get('taps') or {}, ALIASES)
    yield 'student', recipe.student, taps
    for teacher in filter(None, recipe.of_each_teacher('teacher_cfg')):
        yield 'teacher', find_teacher(teacher), taps


def describe(
    role: str, source: Source, taps: Mapping[str, Any], depth: int | None = None, size: int | None = None
) -> Iterator[str]:
    """Describe a network, line by line; paths of more than ``depth`` parts are shown only if a tap reads them.

    Taps of a ``'student'`` and ``'teacher'`` end with ``_s`` and ``_t``. ``size`` overrides the images' own.
    """
    network = MODELS.build(source.cfg)
    pixels = network_pixels(network, source)
    found = dry_run(network, role, (size, size) if size else pixels.size)
    side = {'student': '_s', 'teacher': '_t'}.get(role, '')
    offered = default_taps(network, found) | (given_taps(taps, side, found) if side else {})
    inner = getattr(network, 'backbone', getattr(network, 'model', network))
    yield (
        f'{role}: {type(network).__name__} of a {type(inner).__name__}, {found.num_classes} classes, tried on images of '
        + (f'{found.size[0]} × {found.size[1]}')
    )
    if role != 'student':
        yield f'it was made for {pixels}'
    names = {path: [n + side + _input(tap) for n, tap in offered.items() if path in tap.modules] for path in found.outputs}
    shown = [p for p, _ in network.named_modules() if p in found.outputs and (not depth or p.count('.') < depth or names[p])]
    rows = [(path, _shapes(found, path), ', '.join(names[path])) for path in shown]
    yield from _columns([('module', 'returns', 'read as'), *rows])
    yield from _columns([('tensor', 'shape', 'read at'), *_tensors(offered, found, side)])
    if role == 'teacher' and find_head(network, found, offered):
        yield f'{TEACHER_HEAD}: makes class scores of feat_t'


def _shapes(found: DryRun, path: str) -> str:
    calls = f' {found.calls[path]} times' if found.calls[path] > 1 else ''
    return (' and '.join(shown_shape(tuple(tensor.shape)) for tensor in found.outputs[path]) or '-') + calls


def _tensors(taps: Mapping[str, Tap], found: DryRun, side: str) -> list[tuple[str, ...]]:
    shapes = shapes_of(taps, found)
    return [(name + side, shown_shape(shapes[name]), ' and '.join(tap.modules) + _input(tap)) for name, tap in taps.items()]


def _input(tap: Tap) -> str:
    return ' (what goes in)' if tap.goes_in else ''


def _columns(rows: list[tuple[str, ...]]) -> Iterator[str]:
    """Align rows in columns, the first of them a heading."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    yield ''
    for row in rows:
        yield '  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
