"""The check of a config's data before training: the lists of each data set, every image file, sizes for one batch."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import timedelta
from itertools import chain, islice

from mmcv.transforms import LoadImageFromFile
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.fileio import exists
from mmengine.registry import FUNCTIONS
from mmpretrain.registry import DATASETS, TRANSFORMS
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ..distillers.recipe import Recipe
from ..engine.config import DATALOADERS, datasets_of
from ..engine.image_ends import loader_of
from .images import file_fault, image_files, opened, stacking_fault
from .listed_data import (
    FAULT,
    WARNING,
    Finding,
    ImageFile,
    ListedData,
    class_count_findings,
    counted,
    listed_data,
    name_findings,
    split_findings,
    unseen_findings,
)

#: Interval of progress lines without a terminal for a bar, in s.
SECONDS_BETWEEN_LINES = 30.0
#: Keys of a data set's config that do not change its images.
IMMATERIAL = ('pipeline', 'lazy_init', 'max_refetch', 'serialize_data')


def read_all(
    files: Iterator[ImageFile], workers: int, load: LoadImageFromFile | None = None
) -> Generator[tuple[ImageFile, str | None], None, None]:
    """Read image files in threads, since decoding releases Python's lock, and yield each with its fault, or None.

    Pillow finds files that lack their end, and the pipeline's own transform, if it is given, those that it does not decode.
    No more images than there are workers are in memory.
    """
    pool = ThreadPoolExecutor(workers)
    try:
        while batch := list(islice(files, 64 * workers)):
            yield from zip(batch, pool.map(lambda file: file_fault(file.path, load), batch), strict=True)
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C the rest of the batch is not waited for


def _own_loader(pipeline: Sequence[Mapping] | None) -> LoadImageFromFile | None:
    """Build the transform by which a config's pipeline reads image files, by default mmpretrain's own; None for another."""
    first = (pipeline or [dict(type='LoadImageFromFile')])[0]
    with suppress(Exception):  # of a transform that cannot be built, which the training refuses
        return loader_of(Compose([TRANSFORMS.build(first)]))
    return None


def model_classes(cfg: Config) -> int | None:
    """Return the number of classes of a config's classifier, or distiller's student, two for one logit; None if unknown."""
    recipe = Recipe.of(cfg)
    model = recipe.student.cfg if recipe else cfg.get('model') or {}
    part = model.get('head') or model.get('model') or model
    return 2 if str(part.get('type')).endswith('BinaryClsHead') else part.get('num_classes')


class DataCheck:
    """Check of all data sets of a config, which prints its findings and writes nothing."""

    def __init__(self, cfg: Config, workers: int) -> None:
        self.workers = workers
        self.console = Console()
        self.data: dict[str, ListedData] = {}
        self._configs: dict[str, tuple[Mapping, Mapping]] = {}
        self._same: dict[str, str] = {}
        self._counts: Counter[tuple[str, str]] = Counter()
        self._last_line = time.monotonic()
        num_classes = model_classes(cfg)
        seen: list[tuple[dict, str]] = []
        for loader in DATALOADERS:
            wrappers = ('dataset', 'datasets')
            parts = [d for name, d in datasets_of(cfg) if name == loader and not any(key in d for key in wrappers)]
            for number, part in enumerate(parts, 1):
                name = loader.removesuffix('_dataloader') + (f' {number}' if len(parts) > 1 else '')
                material = {k: v for k, v in part.items() if k not in IMMATERIAL}
                earlier = next((earlier for known, earlier in seen if known == material), None)
                if earlier is None:
                    seen.append((material, name))
                    self.data[name] = listed_data(part, num_classes)
                    self._configs[name] = cfg[loader], part
                else:
                    self._same[name] = earlier
        if not self.data:
            raise ValueError(f'no data set to check: the config has none of {", ".join(DATALOADERS)}')

    def _report(self, name: str, finding: Finding) -> None:
        self._counts[name, finding.kind] += 1
        line = f'{name}: {finding}'
        # a file name that is not UTF-8 could not be printed
        self.console.out(line.encode('utf-8', 'backslashreplace').decode(), highlight=False)

    def _check_lists(self) -> None:
        """Check everything that needs no images."""
        for name, data in self.data.items():
            self.console.out(f'{name}: listing {data.place}', highlight=False)
            for finding in chain(data.findings(), class_count_findings(data), name_findings(data)):
                self._report(name, finding)
        first, *others = self.data
        for name in others:
            for finding in split_findings(self.data[name], self.data[first], first):
                self._report(name, finding)
        trained = {name: data for name, data in self.data.items() if name.startswith('train')}
        for finding in unseen_findings(list(trained.values())):
            self._report(next(iter(trained)), finding)

    def _read_images(self) -> None:
        columns = (
            TextColumn('{task.description}'),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn('images, time left'),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, disable=not self.console.is_terminal) as progress:
            task = progress.add_task('', total=sum(data.images for data in self.data.values()))
            for name, data in self.data.items():
                progress.update(task, description=name, advance=data.in_memory)
                load = _own_loader(self._configs[name][1].get('pipeline'))
                with closing(read_all(data.files(), self.workers, load)) as results:
                    for file, fault in results:
                        if fault is not None:
                            missing = file.line and not exists(file.path)
                            text = f'{file.line}: the image file {file.path} does not exist'
                            self._report(name, Finding(data.place, text) if missing else Finding(file.path, fault))
                        progress.advance(task)
                        self._print_progress(progress)

    def _check_sizes(self) -> None:
        """Report images that the pipeline leaves too different in size for one batch."""
        for name, (loader, part) in self._configs.items():
            collate = (loader.get('collate_fn') or {}).get('type', 'default_collate')
            if self._counts[name, FAULT] or not part.get('pipeline') or loader.get('batch_size') == 1:
                continue
            with suppress(AssertionError, OSError, RuntimeError, ValueError):  # of reading the lists, said already
                images = [opened(*file) for file in image_files(DATASETS.build(dict(part)))]
                if text := stacking_fault(images, FUNCTIONS.get(collate)):
                    self._report(name, Finding(self.data[name].place, text))

    def _print_progress(self, progress: Progress) -> None:
        """Print a line at intervals, where there is no terminal for a bar."""
        if self.console.is_terminal or time.monotonic() - self._last_line < SECONDS_BETWEEN_LINES:
            return
        self._last_line = time.monotonic()
        task = progress.tasks[0]
        left = 'unknown' if task.time_remaining is None else timedelta(seconds=int(task.time_remaining))
        text = f'{task.description}: {task.completed:,} of {task.total:,} images read, {counted(self.faults, "fault")}'
        self.console.out(f'{text}, time left: {left}', highlight=False)

    @property
    def faults(self) -> int:
        """Number of faults so far."""
        return sum(count for (_, kind), count in self._counts.items() if kind == FAULT)

    def _print_summary(self) -> None:
        table = Table('data set', title='summary')
        for column in ('images', 'classes', 'with images', 'faults', 'warnings'):
            table.add_column(column, justify='right')
        for name, data in self.data.items():
            classes = data.folders or data.names or data.labels
            found = (self._counts[name, FAULT], self._counts[name, WARNING])
            numbers = (data.images, len(classes), len(data.labels), *found)
            table.add_row(name, *(f'{number:,}' for number in numbers))
        for name, earlier in self._same.items():
            table.add_row(name, f'as {earlier}')
        self.console.print(table)

    def run(self) -> int:
        """Check everything, and return the number of faults."""
        self._check_lists()
        self._read_images()
        self._check_sizes()
        self._print_summary()
        return self.faults

    def faults_by_name(self) -> str:
        """Return the faulty data sets with their numbers of faults, e.g. ``train 3, val 1``."""
        return ', '.join(f'{name} {self._counts[name, FAULT]:,}' for name in self.data if self._counts[name, FAULT])
