"""The lists of a data set, and what is wrong with them: class folders, annotation files, labels, class names."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from mmengine.fileio import exists, get, get_file_backend, isdir, join_path
from mmpretrain.datasets import MultiLabelDataset
from mmpretrain.registry import DATASETS

from ..engine.folders import LAYOUTS
from ..engine.labels import (
    declared_names,
    first_of,
    folder_names,
    left_out,
    name_fault,
    number_note,
    pairs_of_lists,
    reads_class_folders,
    reads_lists,
    unlike,
)
from ..files.packed_list import parsed_line, shown_line
from ..networks.classes import Names, match

FAULT, WARNING, NOTE = 'fault', 'warning', 'note'


class Finding(NamedTuple):
    """A finding about the data at a file or folder; of its kinds only faults have to be mended.

    Example:
        >>> print(Finding('data/val/dog', 'no image in this class folder'))
        data/val/dog: no image in this class folder
        >>> print(Finding('data/train/cat/a.txt', 'is not read', NOTE))
        data/train/cat/a.txt: note: is not read
    """

    place: str
    text: str
    kind: str = FAULT

    def __str__(self) -> str:
        return f'{self.place}: {"" if self.kind == FAULT else f"{self.kind}: "}{self.text}'


class ImageFile(NamedTuple):
    """An image file of a data set, and the line of the annotation file that names it, if there is one."""

    path: str
    line: str = ''


def counted(count: int, noun: str) -> str:
    """Format a count with its noun.

    Example:
        >>> counted(1, 'fault'), counted(2000, 'fault'), counted(10, 'class')
        ('1 fault', '2,000 faults', '10 classes')
    """
    plural = 'es' if noun.endswith('s') else 's'
    return f'{count:,} {noun}{"" if count == 1 else plural}'


def label_fault(label: int, classes: int | None) -> str | None:
    """Describe why a label is none of the classes, whose number may be unknown; None if it is one.

    Example:
        >>> label_fault(10, 10)
        'label 10 is outside of the 10 classes (0 to 9)'
    """
    if classes is None:
        return f'label {label} is negative' if label < 0 else None
    return None if 0 <= label < classes else f'label {label} is outside of the {classes} classes (0 to {classes - 1})'


class ListedData:
    """A data set by its lists: folders, an annotation file, or mmpretrain's reading of other files.

    Those of a data set of mmengine's kind are not read before :meth:`findings`, which also counts.
    """

    def __init__(self, dataset: Any, place: str, num_classes: int | None) -> None:
        self.dataset, self.num_classes = dataset, num_classes
        self.place = place.rstrip('/') or place  # configs write data/NAME/
        self.images = 0  # number of samples
        self.in_memory = 0  # number of those without a file of their own
        self.labels: Counter[int] = Counter()  # number of images of each label
        self.folders: Names | None = None  # class folders by label, if its classes are folders
        self.names = declared_names(dataset)  # by label

    @property
    def classes(self) -> int | None:
        """Number of valid labels: those that the model and the data set itself have room for."""
        return min((n for n in (self.num_classes, len(self.names)) if n), default=None)

    @property
    def namings(self) -> tuple[Names, Names]:
        """Its declared class names, if they differ from its folders, and the folders; by label."""
        folders = self.folders or {}
        return ({} if self.names == folders else self.names), folders

    @property
    def layout(self) -> str:
        """The expected layout of this type of data set, for messages."""
        kind = type(self.dataset).__name__
        return f'; {kind} expects in its data_root: {LAYOUTS[kind]}' if kind in LAYOUTS else ''

    def findings(self) -> Iterator[Finding]:
        """Read the lists, and iterate over their faults."""
        raise NotImplementedError

    def files(self) -> Iterator[ImageFile]:
        """Iterate over the image files; their number is ``images`` without ``in_memory``."""
        raise NotImplementedError


class ClassFolders(ListedData):
    """A data set whose classes are folders; the labels are in the order of the folders' names.

    mmpretrain trains without an error where such a folder has no image.
    """

    def _files_in(self, folder: str) -> Iterator[str]:
        """Iterate over all files below a class folder, in mmpretrain's order."""
        path = join_path(self.place, folder)
        files = get_file_backend(self.place).list_dir_or_file(path, list_dir=False, list_file=True, recursive=True)
        return (join_path(path, file) for file in sorted(files))

    def findings(self) -> Iterator[Finding]:
        """Name the class folders without an image, and count the files that are not read."""
        self.folders = folder_names(self.dataset)
        if not self.folders:
            yield Finding(self.place, f'{"no class folder in it" if isdir(self.place) else "no such folder"}{self.layout}')
        for label, folder in self.folders.items():
            self.labels[label] = sum(map(self.dataset.is_valid_file, self._files_in(folder)))
            if not self.labels[label]:
                yield Finding(join_path(self.place, folder), 'no image in this class folder')
        self.labels = +self.labels
        self.images = self.labels.total()
        if found := left_out(self.dataset):
            text, images = found
            yield Finding(self.place, text, WARNING if images else NOTE)

    def files(self) -> Iterator[ImageFile]:
        """Iterate over the files that mmpretrain would read; the folders are listed anew, so that no path is kept."""
        for folder in (self.folders or {}).values():
            yield from (ImageFile(path) for path in self._files_in(folder) if self.dataset.is_valid_file(path))


class AnnotationLine(NamedTuple):
    """A line of an annotation file: number and text, image file and label; with a fault, these two are meaningless."""

    where: str
    name: str = ''
    label: int = -1
    fault: str | None = None


class AnnotationFile(ListedData):
    """A data set whose samples are the lines ``PATH LABEL`` of an annotation file.

    A training stops at the first wrong line.
    """

    def _line(self, number: int, raw: bytes) -> AnnotationLine:
        """Parse a line as mmpretrain does."""
        where = f'line {number} {shown_line(raw)}'
        try:
            name, label = parsed_line(raw)
        except ValueError as error:
            return AnnotationLine(where, fault=str(error))
        return AnnotationLine(where, name, label, label_fault(label, self.classes))

    def _lines(self) -> Iterator[AnnotationLine]:
        return (self._line(number, raw) for number, raw in enumerate(io.BytesIO(get(self.place)), 1))

    def findings(self) -> Iterator[Finding]:
        """Name every wrong line, except those with a missing image file, which reading the images shows."""
        if not exists(self.place) or isdir(self.place):
            yield Finding(self.place, f'no such annotation file{self.layout}')
            return
        first_line: dict[str, int] = {}
        number = 0
        for number, line in enumerate(self._lines(), 1):
            if line.fault:
                yield Finding(self.place, f'{line.where}: {line.fault}')
                continue
            self.images += 1
            self.labels[line.label] += 1
            if (first := first_line.setdefault(line.name, number)) != number:
                yield Finding(self.place, f'{line.where}: this image stands in line {first} already')
        if not number:
            yield Finding(self.place, 'the annotation file is empty')

    def files(self) -> Iterator[ImageFile]:
        """Iterate over the image files of all valid lines; the file is read anew, so that no path is kept."""
        if self.images:
            right = (line for line in self._lines() if not line.fault)
            yield from (ImageFile(join_path(self.dataset.img_prefix, line.name), line.where) for line in right)


class OtherData(ListedData):
    """A data set of another form, which only mmpretrain or the user's class can read."""

    def findings(self) -> Iterator[Finding]:
        """Describe why it cannot be loaded, or which labels are wrong."""
        self.dataset.download = False  # nothing is written here; data sets that fetch nothing do not look at it
        try:
            if hasattr(self.dataset, 'full_init'):
                self.dataset.full_init()
            self.images = len(self.dataset)
        except Exception as error:  # damaged files make the readers raise anything
            reason = ' '.join(str(error).split())
            yield Finding(self.place, f'cannot be loaded ({type(error).__name__}: {reason}){self.layout}')
            return
        self.names = declared_names(self.dataset)
        if not self.images:
            yield Finding(self.place, f'no image in this data set{self.layout}')
        if not hasattr(self.dataset, 'get_data_info'):
            self.in_memory = self.images
            kind = type(self.dataset).__name__
            yield Finding(self.place, f'{kind} has no get_data_info, so its images are not looked at', WARNING)
            return
        for i in range(self.images):
            yield from self._sample_findings(i, self.dataset.get_data_info(i))

    def _sample_findings(self, i: int, info: Mapping) -> Iterator[Finding]:
        self.in_memory += 'img_path' not in info
        labels = np.asarray(info.get('gt_label', []))
        given = labels.reshape(-1).tolist() if labels.dtype.kind in 'iu' else []  # several where an image has several
        self.labels.update(given)
        faults = [fault for label in given if (fault := label_fault(label, self.classes))]
        if isinstance(self.dataset, MultiLabelDataset) and len(set(given)) < len(given):
            faults.append(f'the labels {given} name one twice')
        for fault in faults:
            yield Finding(self.place, f'sample {i} ({info.get("img_path", "an image without a file")}): {fault}')

    def files(self) -> Iterator[ImageFile]:
        """Iterate over the files of those samples that have one."""
        for i in range(self.images if self.in_memory < self.images else 0):
            info = self.dataset.get_data_info(i)
            if 'img_path' in info:
                yield ImageFile(info['img_path'])


def listed_data(cfg: Mapping, num_classes: int | None) -> ListedData:
    """Build a data set for its checks; ``indices``, which select images, do not apply to folders and annotation files."""
    try:
        try:
            dataset: Any = DATASETS.build({**cfg, 'pipeline': [], 'lazy_init': True})
        except TypeError:  # a class of the user's own need not take these
            dataset = DATASETS.build(dict(cfg))
    except (AssertionError, RuntimeError) as error:
        raise ValueError(f'the data set {cfg.get("type")} cannot be built: {error}') from error
    if reads_class_folders(dataset):
        return ClassFolders(dataset, dataset.img_prefix, num_classes)
    if reads_lists(dataset) and dataset.with_label:
        return AnnotationFile(dataset, dataset.ann_file, num_classes)
    prefixes = [prefix for prefix in getattr(dataset, 'data_prefix', {}).values() if prefix]
    places = [getattr(dataset, 'ann_file', ''), *prefixes, getattr(dataset, 'data_root', ''), type(dataset).__name__]
    return OtherData(dataset, next(place for place in places if place), num_classes)


def class_count_findings(data: ListedData) -> Iterator[Finding]:
    """Find different numbers of class folders, declared class names and classes of the model."""
    counts = [('the model has', data.num_classes, 'class')]
    if data.folders is None:
        have, noun = len(data.names), 'class name'
    else:
        have, noun = len(data.folders), 'class folder'
        counts.append(('the data set declares', len(data.names), 'class name'))
    others = [f'{who} {counted(count, what)}' for who, count, what in counts if count and count != have]
    if have and others:
        yield Finding(data.place, f'{counted(have, noun)}, but {" and ".join(others)}')


def name_findings(data: ListedData) -> Iterator[Finding]:
    """Find declared names in another order than the folders, or folders in another order than their numbers."""
    declared, folders = data.namings
    if fault := name_fault(declared, folders):
        yield Finding(data.place, fault)
    if note := number_note(declared, folders):
        yield Finding(data.place, note, WARNING if declared else NOTE)


def split_findings(data: ListedData, other: ListedData, other_name: str) -> Iterator[Finding]:
    """Find classes of a data set that differ from those of another.

    Folders are compared with folders and declared names with declared names; only if that is impossible, the folders of the
    one with the names of the other.
    """
    for ours, theirs, folders in pairs_of_lists(data.namings, other.namings):
        if folders and data.folders and other.folders:
            pairs = match(ours, theirs)
            for folder in sorted(name for label, name in theirs.items() if label not in pairs.values()):
                yield Finding(join_path(data.place, folder), f'this class folder is missing; {other_name} has it')
            for folder in sorted(name for label, name in ours.items() if label not in pairs):
                yield Finding(join_path(data.place, folder), f'{other_name} has no such class folder')
        elif text := unlike(ours, theirs, 'this data set', other_name)[0]:
            yield Finding(data.place, f'other classes than {other_name}: {text}{first_of(data.dataset, ours, theirs)}')


def unseen_findings(parts: Sequence[ListedData]) -> Iterator[Finding]:
    """Warn of classes without any training image.

    If all parts have class folders, there is nothing to warn of: an empty folder is a fault of its own.
    """
    labels: Counter[int] = sum((part.labels for part in parts), Counter())
    classes = max((part.num_classes or part.classes or 0 for part in parts), default=0)
    unseen = [label for label in range(classes) if label not in labels]
    if not labels or not unseen or all(part.folders is not None for part in parts):
        return
    names = parts[0].names
    shown = [f'{label} {names[label]!r}' if label in names else str(label) for label in unseen[:10]]
    text = f'{len(unseen)} of {classes} classes have no training image: {", ".join(shown)}'
    yield Finding(parts[0].place, f'{text}{", ..." if len(unseen) > 10 else ""}', WARNING)
