"""Stored teachers that the runs of the same views share: which runs, where, and who makes them."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, redirect_stdout, suppress
from functools import cache
from io import StringIO
from pathlib import Path

from mmengine.config import Config

from ..features.taps import FORM_OF
from ..files.locks import locked
from ..recipe.methods import TEACHER_LINEAR, Method, needs_teacher, weak_name
from ..teachers.store import Manifest
from .contents import known_config

#: Folder of the stored teachers, in that of the study's runs.
STORES = 'teachers'
#: Inputs and facts of a method that every store holds.
ALWAYS = frozenset({'logit_t', *TEACHER_LINEAR})
#: Those that a store can hold if it is asked for them: vectors, and maps and tokens, which take far more space.
VECTORS = frozenset({'vector_t'})
MAPS = frozenset(f'{name}_t' for name, form in FORM_OF.items() if form in ('map', 'tokens'))
#: Keys of a distiller that decide its teacher's outputs, beside those of :meth:`~.distillers.recipe.Recipe.teacher_record`.
FURTHER = ('teacher_pretrained', 'teacher_precision', 'taps')


def teacher_inputs(method: Method) -> set[str]:
    """Return what a method needs of its teacher: features, and facts that its entry does not give."""
    facts = {name for name in method.facts.values() if name.startswith('teacher')}
    return facts | {weak_name(name) for name in method.inputs if needs_teacher(name)}


def features_read(methods: Iterable[Method]) -> tuple[str, ...]:
    """Return the teacher's features beside the logits that methods read, by the names of their taps."""
    names = set().union(*map(teacher_inputs, methods)) - ALWAYS
    return tuple(sorted(name.removesuffix('_t') for name in names if name.endswith('_t')))


def shared_store(
    config: str, options: tuple[str, ...], seed: int, methods: Sequence[Method], content: str, maps: bool = False
) -> tuple[str, tuple[str, ...]]:
    """Return the name of the stored teacher of a run, and the features beside the logits that it reads there.

    The name is equal for runs of the same views, teacher and maps: a training reads all that its store holds.

    Args:
        config: Config of its training.
        options: Options of its training.
        seed: Its seed.
        methods: Its methods.
        content: Digest of the teacher's files.
        maps: Whether maps and tokens are stored, too.

    Returns:
        The name and the features; '' where a store cannot replace the teacher, or there is none.
    """
    needed = set().union(*map(teacher_inputs, methods))
    asked = needed - ALWAYS
    if not needed or asked - VECTORS - (MAPS if maps else set()) or not (views := _views(known_config(config, options))):
        return '', ()
    said = json.dumps([views, sorted(asked & MAPS), content])
    name = f'seed{seed}-{hashlib.blake2b(said.encode(), digest_size=8).hexdigest()}'
    return name, features_read(methods)


@cache
def _views(cfg: Config) -> str:
    """Describe views and teacher of a training but for its seed; '' where the teacher depends on more than the views."""
    with redirect_stdout(StringIO()):  # where mmpretrain tells which library it does not find
        from ..distillers.recipe import Recipe

    recipe, epochs = Recipe.of(cfg), cfg.train_cfg.get('max_epochs')
    if (
        recipe is None
        or epochs is None
        or recipe.model.get('teacher_mode', 'eval') != 'eval'
        or 'teacher_store' in cfg.model
    ):
        return ''
    preprocessing = recipe.preprocessor(cfg.get('data_preprocessor'))
    switches = any('SwitchRecipeHook' in str(hook['type']) for hook in cfg.get('custom_hooks') or [])
    if preprocessing.get('batch_augments') or switches:
        return ''
    loader = {key: cfg.train_dataloader.get(key) for key in ('dataset', 'sampler')}
    wrapper = [cfg.optim_wrapper.get('type'), *filter(None, [cfg.optim_wrapper.get('dtype')])]
    teacher = [recipe.teacher_record(), *map(cfg.model.get, FURTHER), *wrapper]
    return json.dumps([epochs, loader, preprocessing, teacher], sort_keys=True, default=str)


def is_stored(store: Path, epochs: int) -> bool:
    """Return whether a folder holds a store with that many epochs."""
    with suppress(FileNotFoundError, ValueError):
        return Manifest.read(store).epochs >= epochs
    return False


def lock_of(store: Path) -> Path:
    """Return the folder whose lock a run holds while it stores a teacher."""
    return store.with_name(f'.{store.name}')


def _alone(store: Path) -> AbstractContextManager[None]:
    return locked(lock_of(store), 'another run stores this teacher')


def reserve(store: Path, epochs: int, held: ExitStack) -> bool:
    """Return whether a run may begin: its store is whole, or it is the one to make it, alone as long as ``held`` is open."""
    if is_stored(store, epochs):
        return True
    with suppress(ValueError):
        held.enter_context(_alone(store))
        return True
    return False


def announcement(key: str, folder: Path, name: str) -> str:
    """Return the line that tells the size of a stored teacher, which a run has just made."""
    size = sum(file.stat().st_size for file in (folder / STORES / name).rglob('*.npy'))
    return f'{key} has stored its teacher for all runs of its views: {size / 2**20:.2f} MiB, removed after the last one'


def remove_stores(folder: Path, needed: Iterable[str]) -> None:
    """Remove the stored teachers of a study's folder that are not needed, each with its lock, unless it is being stored."""
    for name in {path.name.removeprefix('.') for path in (folder / STORES).glob('*seed*')} - set(needed):
        store = folder / STORES / name
        with suppress(ValueError), _alone(store):
            shutil.rmtree(store, ignore_errors=True)
            shutil.rmtree(lock_of(store), ignore_errors=True)
