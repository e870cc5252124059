"""One export: written aside, run and compared, and moved to its place only if it reproduces the logits of testing."""

from __future__ import annotations

import importlib.util
import os
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..files.atomic import atomic_path
from .formats import FORMATS, Format
from .network import Deployable

#: Largest accepted difference of logits, in units of the largest logit; rounding makes about 1e-6 of it.
TOLERANCE = 1e-4
#: Number of images for the graph, and for the check of one with any batch size.
EXAMPLE_BATCH, OTHER_BATCHES = 2, (1, 3)
#: Libraries of the extra ``onnx``.
LIBRARIES = ('onnx', 'onnxscript', 'onnxruntime')


class ExportError(ValueError):
    """An export is unusable; the message states why."""


def check_libraries(formats: Sequence[str]) -> None:
    """Refuse an export to ONNX if its libraries are missing."""
    missing = [name for name in LIBRARIES if 'onnx' in formats and importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"export to ONNX needs {', '.join(missing)}: pip install 'mmcls_kd[onnx]'")


def targets(checkpoint: str, formats: Sequence[str], output: str | None) -> dict[str, Path]:
    """Return the file to write for each format, after a check that this is possible and does not replace the checkpoint.

    ``output`` is the files' path, with or without suffix, or a folder. By default they have the checkpoint's own path;
    files of a downloaded one go into the working directory.
    """
    stem = Path(Path(checkpoint).name if '://' in checkpoint else checkpoint)
    if output:
        stem = Path(output, stem.name) if output.endswith('/') or Path(output).is_dir() else Path(output)
    if stem.suffix in ('.pth', *(form.suffix for form in FORMATS.values())):
        stem = stem.with_suffix('')
    paths = {name: stem.with_name(stem.name + FORMATS[name].suffix) for name in formats}
    for path in paths.values():
        obstacle = path if path.is_dir() else next(parent for parent in path.absolute().parents if parent.exists())
        if path.is_dir() or not obstacle.is_dir() or not os.access(obstacle, os.W_OK):
            what = 'is a folder' if path.is_dir() else 'is no folder that can be written to'
            raise ValueError(f'{path} cannot be written: {obstacle} {what}; name another file by --output')
        if path.exists() and Path(checkpoint).exists() and path.samefile(checkpoint):
            raise ValueError(f'{path} is the checkpoint itself; name another file by --output')
    return paths


@contextmanager
def failures_named(step: str) -> Iterator[None]:
    """Turn all errors of torch's exporters, onnx and onnxruntime into :class:`ExportError`.

    Their warnings are ignored: they are about constants of a trace, and deprecated parts of torch. The run of the file shows
    any effect.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    except OSError:
        raise  # of the disk
    except Exception as error:  # they raise many kinds
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ['']
        raise ExportError(f'{step}: {type(error).__name__}: {textwrap.shorten(lines[0], 200)}') from error


@dataclass(frozen=True)
class Exported:
    """A written and checked file, with the largest difference of logits in the check, and the largest absolute logit.

    Attributes:
        runtime: The library that ran it.
        batch: Its batch size; None for any.
        reason: Why it does not take any; empty if it does, or if one was given.
        batches: The batch sizes of the check.
        output: Name of the output.
    """

    path: Path
    runtime: str
    batch: int | None
    reason: str
    batches: tuple[int, ...]
    difference: float
    largest: float
    output: str

    def __str__(self) -> str:
        sizes = ' and '.join(str(count) for count in dict.fromkeys(self.batches))
        what = 'logits differ' if self.output == 'logits' else f'{self.output} differs'
        lines = [
            f'{self.path}: takes {"any batch size" if self.batch is None else f"batches of {self.batch} alone"}',
            f'  checked by {self.runtime} at a batch of {sizes}: {what} by up to {self.difference:.1e}, '
            f'the largest is {self.largest:.2g}',
        ]
        if self.reason:
            lines.insert(1, f'  the batch size is pinned, as with any size it would be wrong ({self.reason})')
        return '\n'.join(lines)


@torch.no_grad()
def check_file(path: Path, form: Format, network: Deployable, batches: Sequence[int]) -> tuple[float, float]:
    """Run a file on random images; return the largest difference from the logits of testing, and the largest logit.

    A logit may differ by :data:`TOLERANCE` times the largest.
    """
    difference, largest = 0.0, 0.0
    with failures_named(form.runtime):
        run = form.open(path)
    for seed, count in enumerate(batches):
        images = network.images.random_images(count, seed)
        expected = network.tested_logits(images)
        with failures_named(f'{form.runtime}, batch of {count}'):
            logits = run(images)
        if logits.shape != expected.shape:
            raise ExportError(f'{form.runtime}, batch of {count}: logits of shape {tuple(logits.shape)}')
        apart, scale = (logits - expected).abs().max().item(), expected.abs().max().item()
        if not apart <= TOLERANCE * scale:  # NaN too
            raise ExportError(
                f'{form.runtime}, batch of {count}: logits differ by up to {apart:.2g}, and {TOLERANCE:g} of the largest, '
                f'{scale:.2g}, is allowed'
            )
        difference, largest = max(difference, apart), max(largest, scale)
    return difference, largest


def export(
    network: Deployable, path: Path, form: Format, metadata: Mapping[str, Any], batch: int | None = None, opset: int = 18
) -> Exported:
    """Write a network in one format: for any batch size if that is correct and none is given, else for single images.

    The file takes its place once it has been run and has reproduced the logits of testing. Otherwise :class:`ExportError`
    states why. To the metadata the batch size is added.
    """

    def attempt(batch: int | None, reason: str = '') -> Exported:
        """Write the file for one batch size, or for any, and check it."""
        example = network.images.random_images(batch or EXAMPLE_BATCH, seed=len(OTHER_BATCHES))
        about = {**metadata, 'batch_size': batch, 'why_pinned': reason or None}
        with failures_named('export'), torch.no_grad():
            form.write(network, example, batch is None, about, unfinished, opset)
        batches = OTHER_BATCHES if batch is None else (batch, batch)
        checked = check_file(unfinished, form, network, batches)
        return Exported(path, form.runtime, batch, reason, batches, *checked, network.output)

    with atomic_path(path) as unfinished:
        try:
            try:
                return attempt(batch)
            except ExportError as error:
                if batch is not None:
                    raise
                return attempt(1, str(error))
        except ExportError as error:
            raise ExportError(f'{path} is not written: {error}') from error
