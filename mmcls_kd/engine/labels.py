"""Where labels meet names: what a data set calls its classes, compared with its folders and with other data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral
from pathlib import PurePath
from typing import Any

from mmengine.fileio import get_file_backend, isdir, join_path
from mmpretrain.datasets import CustomDataset
from mmpretrain.datasets.custom import find_folders
from mmpretrain.registry import DATASETS
from PIL import Image

from ..networks.classes import Names, match, miscounted, moved, some
from .data import plain_datasets, sample_infos

#: Of how many images, evenly spread over a data set, the folders are looked at.
LOOKED_AT = 100_000
#: What mends classes that are counted otherwise in two data sets.
MEND = (
    'give both the same class folders (an empty one keeps the numbers of those behind it), or annotation files (ann_file) '
    'that count alike'
)


def declared_names(dataset: Any) -> Names:
    """The names of the classes that a data set declares, by label; empty if it declares none."""
    names = (getattr(dataset, 'metainfo', None) or {}).get('classes') or ()
    return dict(enumerate(map(str, names))) if isinstance(names, (list, tuple)) else {}


def reads_class_folders(dataset: Any) -> bool:
    """Whether a data set's classes are the folders that its images lie in."""
    known = ('load_data_list', '_find_samples')
    return (
        isinstance(dataset, CustomDataset)
        and all(getattr(type(dataset), name) is getattr(CustomDataset, name) for name in known)
        and dataset.with_label
        and not dataset.ann_file
    )


def folder_names(dataset: Any) -> Names:
    """The folders of a data set's images by label, where each label has one folder and each folder one label; else empty.

    Args:
        dataset: One whose lists are read, unless its classes are folders.
    """
    if reads_class_folders(dataset):
        return dict(enumerate(find_folders(dataset.img_prefix)[0])) if isdir(dataset.img_prefix) else {}
    if not hasattr(dataset, 'get_data_info'):
        return {}
    labels: dict[str, int] = {}
    for info in sample_infos(dataset, 1 + len(dataset) // LOOKED_AT):
        folder = PurePath(str(info.get('img_path') or '')).parent.name
        label = info.get('gt_label')
        if not folder or not isinstance(label, Integral) or labels.setdefault(folder, int(label)) != label:
            return {}
    return {label: folder for folder, label in labels.items()} if len(set(labels.values())) == len(labels) > 1 else {}


def namings(dataset: Any) -> tuple[Names, Names]:
    """What a data set calls its classes: the names that it declares, as far as they are not those of its folders; these."""
    declared, folders = declared_names(dataset), folder_names(dataset)
    return ({} if declared == folders else declared), folders


def ways_of(dataset: Any) -> list[Names]:
    """The ways in which a data set, of several put together the first one, names its classes."""
    return [names for names in namings(next(plain_datasets(dataset))) if names]


def training_names(dataset: Mapping | None) -> list[Names]:
    """What the data set of a config calls its classes, in one or two ways; empty if that cannot be told.

    Args:
        dataset: Its config; of several put together the first one counts.
    """
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
    return [names for names in found if names]


def name_fault(declared: Names, folders: Names) -> str | None:
    """Why the names that a data set declares cannot be those of its folders; None if they can."""
    if found := moved(match(declared, folders), declared, 'the declared names', 'the folders, which are the labels'):
        order = f'classes={list(folders.values())!r}' if len(folders) <= 10 else 'the order of the folders'
        return f'the declared names (classes, metainfo) stand in another order than the folders: {found}; set {order}'
    return None


def number_note(declared: Names, folders: Names) -> str | None:
    """What may be wrong with folders whose names are numbers, but which are not in their order; None if nothing."""
    if not (counted := miscounted(folders)):
        return None
    text = f'the class folders are in the order of their text, not of their numbers: {counted}'
    if declared and not match(declared, folders):
        return f'{text}; if the declared names (classes, metainfo) are in the order of the numbers, they are wrong'
    return text


def pairs_of_lists(here: tuple[Names, Names], there: tuple[Names, Names]) -> Iterator[tuple[Names, Names, bool]]:
    """Which lists of names of two data sets can be compared: each with its like, else one with the other.

    Args:
        here: The one's :func:`namings`.
        there: The other's.

    Yields:
        The one's names, the other's, and whether both are folders.
    """
    kinds = zip(here, there, (False, True), strict=True)
    alike = [(ours, theirs, folders) for ours, theirs, folders in kinds if ours and theirs]
    across = [(ours, theirs, False) for ours in here if ours for theirs in there if theirs]
    yield from alike or across[:1]


def unlike(names: Names, others: Names, here: str, there: str, literal: bool = False) -> tuple[str, bool]:
    """How a list of classes differs from another, in words, and whether a label means two classes for it.

    Args:
        names: The one's names.
        others: The other's.
        here: What to call the one.
        there: What to call the other.
        literal: Whether two names that do not match are two classes; else they may be two words for one.
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
    """Compare what the data sets of a training call their classes, with their folders and with one another.

    Args:
        parts: The data sets, by the name of their dataloader; the first one is what the others are compared with. Their
            lists are read.

    Yields:
        What may be wrong, and is left to the user.

    Raises:
        ValueError: If labels cannot mean what the names say.
    """
    first: tuple[str, tuple[Names, Names]] | None = None
    for name, dataset in ((name, dataset) for name, datasets in parts.items() for dataset in datasets):
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
                raise ValueError(f'{name}: other classes than {first[0]}: {text}; {MEND}')
            if text:
                yield f'{name}: other classes than {first[0]}: {text}'


def left_out(dataset: Any) -> tuple[str, bool] | None:
    """What the class folders of a data set hold that is not read, counted, and whether images are among it; None if nothing.

    Args:
        dataset: One whose classes are folders.
    """
    root = dataset.img_prefix
    if not isdir(root) or not find_folders(root)[0]:
        return None
    backend = get_file_backend(root)
    inside, outside = Counter[str](), Counter[str]()
    for folder in find_folders(root)[0]:
        path = join_path(root, folder)
        for file in backend.list_dir_or_file(path, list_dir=False, list_file=True, recursive=True):
            if not dataset.is_valid_file(file):
                inside[_suffix(file)] += 1
    for file in backend.list_dir_or_file(root, list_dir=False, list_file=True):
        outside[_suffix(file)] += 1
    known = {suffix for suffix in (*inside, *outside) if suffix in Image.registered_extensions()}
    parts = []
    if inside:
        kinds = some(f'{count} {suffix}' for suffix, count in _most_first(inside))
        readable = [suffix for suffix in inside if suffix in known]
        mend = f' (to read them: extensions={tuple(sorted({*dataset.extensions, *readable}))})' if readable else ''
        parts.append(f'{inside.total()} of other types in class folders ({kinds}){mend}')
    if outside:
        kinds = some(f'{count} {suffix}' for suffix, count in _most_first(outside))
        parts.append(f'{outside.total()} outside of the class folders ({kinds})')
    return (f'files that are not read: {"; ".join(parts)}', bool(known)) if parts else None


def _most_first(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _suffix(file: str) -> str:
    return PurePath(file).suffix.lower() or 'without a suffix'
