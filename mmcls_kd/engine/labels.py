"""Labels and names: the class names of a data set, compared with its folders and with other data."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Integral
from pathlib import PurePath
from typing import Any

from mmengine.fileio import get_file_backend, isdir, join_path
from mmpretrain.datasets import CustomDataset
from mmpretrain.datasets.custom import find_folders
from mmpretrain.registry import DATASETS
from PIL import Image

from ..networks.classes import Names, match, miscounted, moved, some, synset_words
from ..networks.sources import kind_of
from ..readers.base import HeldDataset
from .data import plain_datasets, sample_infos

#: Number of images, evenly spread over a data set, whose folders are read.
LOOKED_AT = 30_000
#: Remedy for classes that are counted differently in two data sets.
MEND = (
    'give both the same class folders (an empty one keeps the numbers of those behind it), annotation files (ann_file) '
    'that count alike, or, in shards and tables, the same classes=[...]'
)


def declared_names(dataset: Any) -> Names:
    """Return the declared class names of a data set by label; empty if it declares none."""
    names = (getattr(dataset, 'metainfo', None) or {}).get('classes') or ()
    return dict(enumerate(map(str, names))) if isinstance(names, (list, tuple)) else {}


def reads_lists(dataset: Any) -> bool:
    """Check whether a data set lists its images in mmpretrain's own way: by class folders or an annotation file."""
    known = ('load_data_list', '_find_samples')
    return isinstance(dataset, CustomDataset) and all(
        getattr(type(dataset), name) is getattr(CustomDataset, name) for name in known
    )


def reads_class_folders(dataset: Any) -> bool:
    """Check whether a data set's classes are the folders of its images."""
    return reads_lists(dataset) and dataset.with_label and not dataset.ann_file


def folder_names(dataset: Any) -> Names:
    """Return the folders of a data set's images by label; empty unless each label has one folder, and each folder one."""
    if reads_class_folders(dataset):
        return dict(enumerate(find_folders(dataset.img_prefix)[0])) if isdir(dataset.img_prefix) else {}
    if isinstance(dataset, HeldDataset):
        dataset.full_init()
        return dataset.label_names
    if not hasattr(dataset, 'get_data_info'):
        return {}
    labels: dict[str, int] = {}
    for info in sample_infos(dataset, 1 + len(dataset) // LOOKED_AT):
        path, label = str(info.get('img_path') or ''), info.get('gt_label')
        folder = os.path.basename(os.path.dirname(path))  # noqa: PTH119, PTH120  (a tenth of pathlib's time)
        known = labels.get(folder)
        if type(label) is int and known == label:
            continue
        if not folder or not isinstance(label, Integral) or known not in (None, label):
            return {}
        labels[folder] = int(label)
    return {label: folder for folder, label in labels.items()} if len(set(labels.values())) == len(labels) > 1 else {}


def namings(dataset: Any) -> tuple[Names, Names]:
    """Return the declared class names of a data set, if they differ from its folders, and the folders."""
    declared, folders = declared_names(dataset), folder_names(dataset)
    return ({} if declared == folders else declared), folders


def ways_of(dataset: Any) -> list[Names]:
    """Return the class names of a data set, in one or more forms (of several joined ones, the first's)."""
    return _forms(*namings(next(plain_datasets(dataset))))


def _forms(*found: Names) -> list[Names]:
    """Return the known ones of some lists of names, and those that are WordNet's numbers with their words, too."""
    return [names for given in found for names in (given, synset_words(given)) if names]


def has_labels(dataset: Any) -> bool:
    """Check whether a config's data set has labels, as far as its config tells; of several joined ones any."""
    if not isinstance(dataset, Mapping) or kind_of(dataset) in ('UnlabelledImages', 'WithoutLabels'):
        return False
    inner = dataset.get('datasets') or ([dataset['dataset']] if dataset.get('dataset') else [])
    return any(map(has_labels, inner)) if inner else dataset.get('with_label') is not False


def training_names(dataset: Mapping | None) -> list[Names]:
    """Return the class names of a config's data set (of several joined ones, the first), in one or two forms, if known."""
    while isinstance(dataset, Mapping) and (dataset.get('dataset') or dataset.get('datasets')):
        dataset = dataset.get('dataset') or dataset['datasets'][0]
    if not isinstance(dataset, Mapping):
        return []
    try:
        built = DATASETS.build({**dataset, 'pipeline': [], 'lazy_init': True})
        if reads_class_folders(built) or declared_names(built):
            found = [declared_names(built), folder_names(built) if reads_class_folders(built) else {}]
        else:
            built.full_init()
            found = list(namings(built))
    except (AssertionError, AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError):
        return []  # whoever reads the data says what is wrong with them
    return _forms(*found)


def name_fault(declared: Names, folders: Names) -> str | None:
    """Describe why the declared names cannot be those of the folders; None if they can."""
    if found := moved(match(declared, folders), declared, 'the declared names', 'the folders, which are the labels'):
        order = f'classes={list(folders.values())!r}' if len(folders) <= 10 else 'the order of the folders'
        return f'the declared names (classes, metainfo) stand in another order than the folders: {found}; set {order}'
    return None


def number_note(declared: Names, folders: Names) -> str | None:
    """Describe folders whose names are numbers that are not in numerical order; None if there are none."""
    if not (counted := miscounted(folders)):
        return None
    text = f'the class folders are in the order of their text, not of their numbers: {counted}'
    if declared and not match(declared, folders):
        return f'{text}; if the declared names (classes, metainfo) are in the order of the numbers, they are wrong'
    return text


def pairs_of_lists(here: tuple[Names, Names], there: tuple[Names, Names]) -> Iterator[tuple[Names, Names, bool]]:
    """Iterate over comparable lists of two data sets' :func:`namings`: each with its like, else one with the other.

    The third value says whether both are folders.
    """
    kinds = zip(here, there, (False, True), strict=True)
    alike = [(ours, theirs, folders) for ours, theirs, folders in kinds if ours and theirs]
    across = [(ours, theirs, False) for ours in here if ours for theirs in there if theirs]
    yield from alike or across[:1]


def unlike(names: Names, others: Names, here: str, there: str, literal: bool = False) -> tuple[str, bool]:
    """Describe how two lists of classes differ, and return whether they contradict each other in a label.

    Names that do not match may be synonyms, unless they are ``literal``.
    """
    pairs = match(names, others)
    missing = [repr(name) for label, name in others.items() if label not in pairs.values()]
    extra = [label for label in names if label not in pairs]
    parts = [f'missing: {some(missing)}'] * bool(missing)
    parts += [f'only here: {some(repr(names[label]) for label in extra)}'] * bool(extra)
    if other := moved(pairs, names, here, there):
        parts.append(other)
    return '; '.join(parts), bool(other) or (literal and any(label in others for label in extra))


def check_names(parts: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    """Compare the class names of a training's data sets with their folders and with the first set's; yield possible faults.

    Raises:
        ValueError: If labels contradict the names.
    """
    first: tuple[str, tuple[Names, Names]] | None = None
    numbered = (
        (f'{name} (data set {number})' if len(datasets) > 1 else name, dataset)
        for name, datasets in parts.items()
        for number, dataset in enumerate(datasets, 1)
    )
    for name, dataset in numbered:
        declared, folders = own = namings(dataset)
        if fault := name_fault(declared, folders):
            raise ValueError(f'{name}: {fault}')
        if note := number_note(declared, folders):
            yield f'{name}: {note}'
        if reads_class_folders(dataset) and (beside := left_out(dataset)):
            yield f'{name}: {dataset.img_prefix}: {beside[0]}'
        if first is None:
            first = name, own
            continue
        for ours, theirs, both_folders in pairs_of_lists(own, first[1]):
            text, wrong = unlike(ours, theirs, name, first[0], literal=both_folders)
            if wrong:
                raise ValueError(f'{name}: other classes than {first[0]}: {text}{first_of(dataset, ours, theirs)}; {MEND}')
            if text:
                yield f'{name}: other classes than {first[0]}: {text}'


def first_of(dataset: Any, names: Names, others: Names) -> str:
    """Name the first sample of a shard or table whose class is not among others; empty if there is none."""
    pairs = match(names, others)
    infos = sample_infos(dataset) if isinstance(dataset, HeldDataset) and dataset.with_label else ()
    found = next((info['img_path'] for info in infos if info['gt_label'] not in pairs), None)
    return f' (the first image of such a class: {found})' if found else ''


def left_out(dataset: Any) -> tuple[str, bool] | None:
    """Describe the unread files of a data set of class folders, and return whether images are among them; None for none."""
    root = dataset.img_prefix
    folders = find_folders(root)[0] if isdir(root) else ()
    if not folders:
        return None
    backend = get_file_backend(root)
    files = (
        file
        for folder in folders
        for file in backend.list_dir_or_file(join_path(root, folder), list_dir=False, recursive=True)
    )
    inside = _suffixes(file for file in files if not dataset.is_valid_file(file))
    outside = _suffixes(backend.list_dir_or_file(root, list_dir=False))
    images = {*inside, *outside} & Image.registered_extensions().keys()
    parts = []
    if inside:
        readable = tuple(sorted({*dataset.extensions, *(images & inside.keys())}))
        mend = f' (to read them: extensions={readable})' if images & inside.keys() else ''
        parts.append(f'{inside.total()} of other types in class folders ({_most_first(inside)}){mend}')
    if outside:
        parts.append(f'{outside.total()} outside of the class folders ({_most_first(outside)})')
    return (f'files that are not read: {"; ".join(parts)}', bool(images)) if parts else None


def _suffixes(files: Iterable[str]) -> Counter[str]:
    return Counter(PurePath(file).suffix.lower() or 'without a suffix' for file in files)


def _most_first(counts: Counter[str]) -> str:
    return some(f'{count} {suffix}' for suffix, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])))
