"""Configs and weights of a study: each file is read once, by its place, until it is forgotten."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from copy import deepcopy
from functools import cache
from pathlib import Path

from mmengine.config import Config

from ..configs.options import option_value
from ..configs.reading import read_config
from ..files.paths import find_file

#: The parts of a config that decide a result. Its entries of losses belong to the single run.
DECIDING = (
    'model',
    'data_preprocessor',
    'train_dataloader',
    'test_dataloader',
    'train_cfg',
    'optim_wrapper',
    'param_scheduler',
    'custom_hooks',
)


def known_config(path: str, options: tuple[str, ...] = ()) -> Config:
    """Return a config with options, which nobody changes; it is read once."""
    return _config_at(path, options, _place_of(path))


def content_of(*files: str) -> str:
    """Return a digest of files: of configs the parts that decide a result, of weights all bytes.

    Of an address, or a file that does not exist yet, the name alone counts.
    """
    return _content_at(files, tuple(map(_place_of, files)))


def forget_files() -> None:
    """Forget the content of all files: they may have changed."""
    _config_at.cache_clear()
    _content_at.cache_clear()


def _place_of(path: str) -> Path | None:
    """Return the file that a path means in the present working directory; None if there is none."""
    with suppress(FileNotFoundError):
        return find_file(path).resolve()
    return None


@cache
def _config_at(path: str, options: tuple[str, ...], _place: Path | None) -> Config:
    if not options:
        return read_config(path)
    cfg = deepcopy(known_config(path))
    cfg.merge_from_dict({key: option_value(text) for key, _, text in (option.partition('=') for option in options)})
    return cfg


@cache
def _content_at(files: tuple[str, ...], _places: tuple[Path | None, ...]) -> str:
    content = hashlib.blake2b(digest_size=8)
    for path in files:
        content.update(path.encode())
        if path.endswith('.py'):
            cfg = known_config(path)._cfg_dict.to_dict()
            said = {key: cfg.get(key) for key in DECIDING}
            said['model'] = {key: value for key, value in (said['model'] or {}).items() if key != 'distill_cfg'}
            for loader in ('train_dataloader', 'test_dataloader'):  # how a data set keeps its list decides nothing
                ((said[loader] or {}).get('dataset') or {}).pop('serialize_data', None)
            content.update(json.dumps(said, sort_keys=True, default=str).encode())
        else:
            with suppress(FileNotFoundError):
                content.update(find_file(path).read_bytes())
    return content.hexdigest()
