"""Class folders: found, split into training and validation, and checked before anything is built."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import NamedTuple

import mmcv
from PIL import Image

from ...engine.image_ends import SUFFIXES, images_below
from ...errors import close_names, listed

#: Names of the folder of validation images beside ``train``; the first one that exists counts.
VALIDATION = ('val', 'valid', 'validation', 'test')
#: Names of folders that programs make; no classes.
MADE = ('__pycache__', '__MACOSX')
#: Names of parts of a data set, in small letters: folders that all have such a name are no classes.
PARTS = {'train', 'training', 'eval', 'testing', *VALIDATION}
#: Number of images, evenly spread, whose headers are read.
LOOKED_AT = 20_000
#: Formats and modes that every build of OpenCV decodes.
USUAL = {('JPEG', 'RGB'), ('JPEG', 'L'), ('PNG', 'RGB'), ('PNG', 'L'), ('PNG', 'RGBA'), ('PNG', 'P'), ('BMP', 'RGB')}
Listed = list[tuple[str, int]]  # path relative to the folder, label


class Header(NamedTuple):
    """The facts in the header of an image file."""

    path: Path
    kind: tuple[str, str]  # format and mode, as Pillow calls them
    side: int  # the shorter one, in pixels


@dataclass(frozen=True)
class FolderImages:
    """The images of a folder.

    Attributes:
        root: The folder, absolute.
        classes: Names of the classes in the order of their labels.
        train: Training images: path relative to ``root``, and label.
        val: Validation images.
        test: Images of ``test`` beside both; none where there is no such folder.
        side: Median of the images' shorter sides, in pixels.
        notes: Remarks for the user.
        divided: Whether the folder has ``train`` with the class folders; else these are its own.
    """

    root: Path
    classes: list[str]
    train: Listed
    val: Listed
    side: int
    notes: list[str] = field(default_factory=list)
    divided: bool = False
    test: Listed = field(default_factory=list)


def find_images(folder: str | Path, val_fraction: float = 0.2, seed: int = 0) -> FolderImages:
    """Find the images of a folder: class folders below ``train`` and ``val``, or class folders that are split here.

    Class folders below ``test`` are a test set where there is another folder of validation images; else these.

    Args:
        folder: The folder.
        val_fraction: Share of each class that is used for validation, if the folder has no validation images.
        seed: Seed of this split: the same files and seed give the same split.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it has no images, fewer than two classes, a class without images, a class that training does not
            have, or an image that cannot be decoded.
    """
    root = Path(folder).expanduser().resolve()
    if not root.is_dir():
        raise FileNotFoundError(f'--data {folder}: no such folder')
    _check_text([root], root)
    inside = {path.name: path for path in _folders(root)}
    beside = next((name for name in VALIDATION if name in inside), None)
    divided = 'train' in inside and (beside is not None or len(inside) == 1)
    trained = inside['train'] if divided else root
    parts, notes = _class_files(trained, root), _about_left_out(trained)
    names = [*parts]
    _check_classes(names, root)
    if divided:
        notes += _about_parts(inside, beside)
    if divided and beside:
        val = _held_files(inside[beside], root, names, notes)
    else:
        parts, val = _split(parts, val_fraction, seed)
    tested = divided and beside != 'test' and 'test' in inside and bool(_folders(inside['test']))
    test = _held_files(inside['test'], root, names, notes) if tested else {}
    labels = {name: label for label, name in enumerate(names)}
    lists = [[(path, labels[name]) for name, paths in of.items() for path in paths] for of in (parts, val, test)]
    side = _check_files([root / path for part in lists for path, _ in part])
    return FolderImages(root, names, lists[0], lists[1], side, notes, divided, lists[2])


def _held_files(folder: Path, root: Path, names: Sequence[str], notes: list[str]) -> dict[str, list[str]]:
    """Return the images of each class in a folder that does not train; note the classes without any."""
    found = _class_files(folder, root)
    _check_known(found, names, folder)
    notes += _about_left_out(folder)
    if without := [name for name in names if name not in found]:
        notes.append(f'{folder}: no images of {listed([*map(repr, without)])}; their accuracy is not measured')
    return found


def _about_parts(inside: Mapping[str, Path], beside: str | None) -> list[str]:
    """Return remarks on the use of the folders beside ``train``."""
    notes, used = [], {'train', beside}
    if beside == 'test':
        notes.append(
            f'{inside["test"]} validates after each epoch, as there is no val/: its accuracy is not that of a test set'
        )
    elif 'test' in inside and _folders(inside['test']):
        used.add('test')
    if ignored := [name for name in inside if name not in used]:
        why = ', as it has no class folders' if ignored == ['test'] else ''
        notes.append(f'not used, beside train/: {listed(ignored)}{why}')
    return notes


def _folders(folder: Path) -> list[Path]:
    """List the folders inside of a folder by name, without hidden ones and those that programs make."""
    return [path for path in _subfolders(folder) if not _is_left_out(path)]


def _subfolders(folder: Path) -> list[Path]:
    return sorted((path for path in folder.iterdir() if path.is_dir()), key=lambda path: path.name)


def _is_left_out(folder: Path) -> bool:
    return folder.name.startswith('.') or folder.name in MADE


def _about_left_out(folder: Path) -> list[str]:
    """Return a remark on the folders with images that are no classes because of their names."""
    found = [path.name for path in _subfolders(folder) if _is_left_out(path) and any(images_below(path))]
    return [f'{folder}: left out, as hidden or made by programs, though with images: {listed(found)}'] if found else []


def _class_files(folder: Path, root: Path) -> dict[str, list[str]]:
    """Return the images of each class folder, relative to ``root``; a class folder may have folders inside."""
    found = {path.name: sorted(images_below(path)) for path in _folders(folder)}
    if not found:
        loose = any(path.suffix.lower() in SUFFIXES for path in folder.iterdir())
        has = 'images, but no class folders' if loose else 'no class folders'
        without = '; images without labels need a config (docs/labels.md, UnlabelledImages)' if loose else ''
        raise ValueError(
            f'--data: {folder} has {has}: put the images of each class into a folder of its own, named as it{without}'
        )
    if empty := [name for name, paths in found.items() if not paths]:
        raise ValueError(
            f'--data: {folder / empty[0]} has no image{f", nor have {len(empty) - 1} more" * (len(empty) > 1)}: add images '
            f'({" ".join(SUFFIXES)}) or remove the folder'
        )
    _check_text([path for paths in found.values() for path in paths], folder)
    relative = {name: [path.relative_to(root).as_posix() for path in paths] for name, paths in found.items()}
    if odd := [path for paths in relative.values() for path in paths if path != path.strip() or '\n' in path]:
        raise ValueError(f'--data: {odd[0]!r}: rename it; a list of images takes no line breaks, nor spaces at an end')
    return relative


def _check_text(paths: Sequence[Path], folder: Path) -> None:
    """Refuse paths in another encoding than UTF-8: the made config and its lists of images are text."""
    if odd := [path for path in paths if any('\ud800' <= letter <= '\udfff' for letter in str(path))]:
        shown, place = (os.fsencode(path).decode('utf-8', 'backslashreplace') for path in (odd[0], folder))
        more = f', nor have {len(odd) - 1} more' if len(odd) > 1 else ''
        raise ValueError(
            f'--data: {shown} has no name in UTF-8{more}, as the list of images needs: rename it; names in Latin-1 are '
            f'renamed by `convmv -r -f latin1 -t utf8 --notest {place}`'
        )


def _check_classes(names: Sequence[str], root: Path) -> None:
    """Refuse parts of a data set as classes, a single class, and classes whose names differ by case alone."""
    if PARTS.issuperset(map(str.casefold, names)):
        raise ValueError(
            f'--data: the folders in {root} are {listed([*map(repr, names)])}, which are no classes: name the folder of '
            "training images 'train' and that of validation images 'val', with class folders in both"
        )
    if len(names) == 1:
        raise ValueError(f'--data: {root} has one class, {names[0]!r}: a classifier needs at least two class folders')
    times = Counter(map(str.casefold, names))
    if alike := [name for name in names if times[name.casefold()] > 1]:
        raise ValueError(
            f'--data: the class folders {" and ".join(map(repr, alike[:2]))} differ by case alone: merge or rename them, as '
            'classes are compared with a teacher’s without regard to case'
        )


def _check_known(found: Iterable[str], names: Sequence[str], folder: Path) -> None:
    """Refuse a class that training does not have."""
    if unknown := [name for name in found if name not in names]:
        more = f', and {len(unknown) - 1} more' if len(unknown) > 1 else ''
        raise ValueError(
            f'--data: {folder / unknown[0]}: the training images have no class {unknown[0]!r}{more}'
            f'{close_names(unknown[0], names)}: rename, remove or add it to train'
        )


def _split(files: dict[str, list[str]], fraction: float, seed: int) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Split each class into training and validation images, by the hashes of seed and path; both keep the order of paths."""
    if not 0 < fraction < 1:
        raise ValueError(f'--val-fraction {fraction:g}: give a share between 0 and 1, such as 0.2')
    train, val = {}, {}
    for name, paths in files.items():
        if len(paths) < 2:
            raise ValueError(
                f'--data: class {name!r} has one image, {paths[0]}, and a split needs at least two: one to train, one to '
                'validate. Add images, or divide the folder into train/ and val/ yourself'
            )
        ranked = sorted(paths, key=lambda path: hashlib.sha256(f'{seed} {path}'.encode()).digest())
        count = min(max(1, round(fraction * len(paths))), len(paths) - 1)
        val[name], train[name] = sorted(ranked[:count]), sorted(ranked[count:])
    return train, val


def _check_files(paths: Sequence[Path]) -> int:
    """Read headers of images, and decode one of each unusual kind; return the median of the shorter sides."""
    with ThreadPoolExecutor(8) as pool:
        headers = list(pool.map(_header, paths[:: 1 + len(paths) // LOOKED_AT]))
    kinds = {header.kind: header.path for header in headers if header.kind not in USUAL}
    for kind, path in kinds.items():
        try:
            decoded = mmcv.imfrombytes(path.read_bytes())
        except Exception:  # OpenCV's own
            decoded = None
        if decoded is None:
            raise ValueError(
                f'--data: {path}: OpenCV does not decode it ({" ".join(kind)}): convert it and its like to 8-bit PNG or JPEG'
            )
    return round(median(header.side for header in headers))


def _header(path: Path) -> Header:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of odd metadata
            with Image.open(path) as image:
                return Header(path, (str(image.format), image.mode), min(image.size))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = 'no image that can be identified' if 'cannot identify' in str(error) else str(error)
        raise ValueError(f'--data: {path} cannot be read ({reason}): mend or remove it') from error
