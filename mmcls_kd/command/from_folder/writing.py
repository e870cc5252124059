"""The files of a training on a folder of images: configs and lists as text, written unless a training goes by others."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...configs.reading import as_python, read_config
from ...engine.checkpoint_hook import POINTER
from ...engine.config import datasets_of
from ...files.atomic import atomic_path
from ..arguments import command_line

#: Parts of the images, each with a list of its own.
PARTS = ('train', 'val', 'test')
#: Folders of the trainings in that of the results.
RUNS = ('distilled', 'student', 'alone', 'linear', 'finetune')


@dataclass(frozen=True)
class Name:
    """A value of a made config that is another key's."""

    name: str

    def __str__(self) -> str:
        return self.name


def assignments(values: Mapping[str, Any]) -> str:
    """Return the values of a config as Python source."""
    return ''.join(f'{key} = {as_python(value, 100 - len(key))}\n' for key, value in values.items())


def config_text(values: Mapping[str, Any], command: str, chosen: str) -> str:
    """Return a config as Python source, with a head that names its origin, a command or a call, and the chosen settings."""
    but = ' but for --cfg-options' if '--cfg-options' in command else ''
    head = [
        f'made by: {" ".join(command.split())}' if command else 'made by mmcls_kd.distill',
        f'It is complete{but}: edit it, and train it by: python -m mmcls_kd train THIS_FILE',
        f'{chosen} (docs/own_images.md has the table)',
    ]
    return ''.join(f'# {line}\n' for line in head) + assignments(values)


def list_text(images: Sequence[tuple[str, int]]) -> str:
    """Return an annotation file: a line for each image, its path and label."""
    return ''.join(f'{path} {label}\n' for path, label in images)


def write_files(files: Mapping[Path, str], folder: Path, root: Path) -> None:
    """Write files; refuse to replace one that differs where a training has begun; ``root`` is the folder of images."""
    begun = any((folder / run / POINTER).exists() for run in RUNS)
    for path, text in files.items():
        if begun and path.is_file() and _body(path.read_text()) != _body(text):
            config = next(iter(files))
            if gone := folder_gone(config):
                raise ValueError(
                    f'{path} belongs to a training that has begun, on the images of {gone}, which is no longer there: if '
                    f'--data has the same images, go on by `{_going_on(config, root)}`, or name another --work-dir'
                )
            raise ValueError(
                f'{path} belongs to a training that has begun, and differs from what this command makes: train it as it is '
                f'(train {config}), or name another --work-dir'
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            with atomic_path(path) as unfinished:
                unfinished.write_text(text)
    except OSError as error:
        raise ValueError(f'--work-dir {folder} cannot be written ({error}): name a folder of yours') from error


def folder_gone(config: Path) -> str | None:
    """Return the folder of images of a made config if it no longer exists."""
    if not config.is_file():
        return None
    roots = (part.get('data_root') for _, part in datasets_of(read_config(str(config))))
    root = next(filter(None, roots), None)
    return None if root is None or Path(root).is_dir() else root


def _going_on(config: Path, root: Path) -> str:
    """Return the command that resumes a made training whose folder of images has moved."""
    options = [f'{part}_dataloader.dataset.data_root={root}' for part in PARTS]
    return shlex.join(command_line('train', 'train.py', str(config), '--resume', '--cfg-options', *options))


def _body(text: str) -> str:
    """Return a config's text without its head."""
    return re.sub(r'\A(#.*\n)*', '', text)
