"""Taps: named features of a network, and how they are read in one forward pass.

The names, without the ``_s`` (student) or ``_t`` (teacher), and the form of each:

========================  ===========================================================================================
``logit``                 logits, (N, C)
``logit_token``           logits of a ViT's distillation token, (N, C)
``feat``                  feature map of the last stage, (N, C, H, W); of a ViT its last patch tokens, laid on their grid
``feat_mid``              features of the stage before the last, pooled, (N, C); of a ViT the class token half-way
``tokens_low``            a ViT's patch tokens after its first two blocks, (N, 2, L, D)
``tokens_high``           patch tokens after the last block and final norm, (N, L, D); of a CNN the places of its last map
``vector``                input of the classifier, (N, D): the pooled last stage, or the class token; without classes the
                          output
``stages``                a tuple of feature maps (N, C_i, H_i, W_i), one for each stage, shallow to deep, usually four
``stages_preact``         the same maps before the ReLU at the end of each stage; only of networks that end them so
========================  ===========================================================================================

:func:`.families.default_taps` finds their modules; the config's ``taps`` replaces or extends them.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..errors import TrainingError
from .dry_run import DryRun
from .layouts import FORMS, Layout, Read, tensors_in

#: The shape of a tap's value; of a tuple those of its tensors.
Shape = tuple[Any, ...]

#: The form of each name; of others the tensor as it is.
FORM_OF = {
    'logit_token': 'raw',
    'feat': 'map',
    'feat_mid': 'pooled',
    'tokens_low': 'tokens',
    'tokens_high': 'tokens',
    'vector': 'pooled',
    'stages': 'map',
    'stages_preact': 'map',
}
#: The names under which several modules give a tuple; else their tensors lie side by side.
TUPLES = frozenset({'stages', 'stages_preact'})
KEYS = ('path', 'form', 'index', 'extra')
#: Why no gradient reaches the student from a module.
NO_GRAPH = (
    'runs where no gradients are kept (inside of a part under gradient checkpointing, such as with_cp=True, or under '
    'no_grad), so a loss on what it returns would teach nothing: name a module around it in `taps`, or switch checkpointing '
    'off'
)


@dataclass(frozen=True)
class Tap:
    """A feature read at the outputs, or at the inputs, of some modules.

    Attributes:
        modules: Paths of the modules inside the network, as ``get_submodule`` takes them.
        view: Conversion of the modules' outputs into the feature.
        overwritten: Modules whose outputs a later step changes in place, as an activation does: they are copied.
        goes_in: Whether the modules' inputs are read.
        calls: Number of calls in a forward pass, by module, of those that run several times: the last one is read.
    """

    modules: tuple[str, ...]
    view: Callable[..., Read]
    overwritten: frozenset[str] = frozenset()
    goes_in: bool = False
    calls: Mapping[str, int] = field(default_factory=dict)

    @property
    def places(self) -> list[tuple[str, bool]]:
        """Each module, and whether its inputs are read."""
        return [(path, self.goes_in) for path in self.modules]


@dataclass(frozen=True)
class View:
    """Conversion of module outputs into the tap's feature.

    Attributes:
        form: One of :data:`.layouts.FORMS`.
        layouts: Layout of each module's tensor.
        index: Number of the tensor among a module's outputs.
        apart: Whether to return a tuple, one tensor for each module.
    """

    form: str
    layouts: tuple[Layout, ...]
    index: int = 0
    apart: bool = False

    def __call__(self, *outputs: Any) -> Read:
        """Return the feature, or the tuple; tensors of several modules are else stacked in dimension 1."""
        found = [
            FORMS[self.form](tensors_in(output)[self.index], layout)
            for output, layout in zip(outputs, self.layouts, strict=True)
        ]
        if self.apart:
            return tuple(found)
        return found[0] if len(found) == 1 else torch.stack(found, dim=1)


def lays_tokens(tap: Tap) -> bool:
    """Return whether a tap lays tokens on a grid, whose ratio is that of the images."""
    view = tap.view
    return isinstance(view, View) and view.form == 'map' and any(layout.kind == 'tokens' for layout in view.layouts)


def nearest_paths(path: str, dry_run: DryRun) -> str:
    """Hint at the nearest paths of modules for a path that does not exist."""
    close = difflib.get_close_matches(path, dry_run.outputs, n=5, cutoff=0)
    return f'the nearest paths: {", ".join(close)}; `python -m mmcls_kd inspect CONFIG` prints them all'


def tap(
    dry_run: DryRun,
    paths: Sequence[str],
    form: str = 'raw',
    index: int | None = None,
    extra: int | None = None,
    apart: bool = False,
    goes_in: bool = False,
    last_call: bool = False,
) -> Tap:
    """Make a tap on modules of a network.

    Args:
        dry_run: Dry run of the network.
        paths: Paths of the modules.
        form: One of :data:`.layouts.FORMS`.
        index: Number of the tensor of a module that returns several.
        extra: Number of prefix tokens; found from the number of tokens if None.
        apart: Whether to read a tuple, one tensor for each module.
        goes_in: Whether to read the modules' inputs instead of their outputs.
        last_call: Whether to read the last call of a module that runs several times, instead of refusing it.

    Raises:
        ValueError: If there is no such module (names the nearest), it does not run or runs several times, it returns no
            tensor or several, or its tensor does not have this form.
    """
    layouts = []
    for path in paths:
        if path not in dry_run.outputs:
            raise ValueError(f'no module {path!r} runs in this network; {nearest_paths(path, dry_run)}')
        if dry_run.calls[path] > 1 and not last_call:
            raise ValueError(f'module {path!r} runs {dry_run.calls[path]} times in a forward pass; take one that runs once')
        tensors = (dry_run.inputs if goes_in else dry_run.outputs)[path]
        shapes = ', '.join(str(tuple(t.shape)) for t in tensors) or 'none'
        if not -len(tensors) <= (index or 0) < len(tensors) or (index is None and len(tensors) > 1):
            raise ValueError(f'module {path!r} returns {len(tensors)} tensors ({shapes}): say which by index=0, 1, ...')
        if path in dry_run.without_graph:
            raise ValueError(f'module {path!r} {NO_GRAPH}')
        layouts.append(_layout(dry_run, path, index or 0, goes_in, extra))
    if form not in FORMS:
        raise ValueError(f'form={form!r}: choose one of {", ".join(map(repr, FORMS))}')
    if not paths:
        raise ValueError('it has no path of a module')
    view = View(form, tuple(layouts), index or 0, apart)
    calls = {path: dry_run.calls[path] for path in paths if dry_run.calls[path] > 1}
    made = Tap(tuple(paths), view, dry_run.overwritten.intersection(paths), goes_in, calls)
    try:
        read(made, dry_run)
    except (AssertionError, ValueError, RuntimeError) as error:  # torch 2.6 asserts that stacked tensors have one size
        raise ValueError(f'{" and ".join(paths)}: {error}') from error
    return made


def _layout(dry_run: DryRun, path: str, number: int, goes_in: bool, extra: int | None) -> Layout:
    """Find the layout of a tensor, with so many prefix tokens if that is given."""
    found = dry_run.layout(path, number, goes_in)
    if extra is None:
        return found
    shape = tuple((dry_run.inputs if goes_in else dry_run.outputs)[path][number].shape)
    if len(shape) != 3 or not 0 <= extra < shape[1]:
        raise ValueError(f'extra={extra} does not fit a tensor of shape {shape}: it is a number of tokens, of (N, L, D)')
    return Layout('tokens', extra, found.ratio)


def read(tap: Tap, dry_run: DryRun) -> Read:
    """Return the tap's value in the dry run, without values."""
    return tap.view(*((dry_run.inputs if goes_in else dry_run.outputs)[path] for path, goes_in in tap.places))


def shapes_of(taps: Mapping[str, Tap], dry_run: DryRun) -> dict[str, Shape]:
    """Return the shape of each tap's value for two images, by name; of a tuple the shapes of its tensors."""
    return {name: shape_of(read(tap, dry_run)) for name, tap in taps.items()}


def shape_of(value: Read) -> Shape:
    """Return the shape of a tensor; of a tuple the shapes of its tensors."""
    return tuple(value.shape) if isinstance(value, Tensor) else tuple(tuple(part.shape) for part in value)


def check_names(given: Mapping[str, Any], aliases: Mapping[str, str]) -> dict[str, Any]:
    """Return the taps of a config under their full names.

    Args:
        given: Taps by name.
        aliases: Full names by short ones.

    Raises:
        ValueError: If a name has neither ``_s`` nor ``_t``.
    """
    if not isinstance(given, Mapping):
        raise ValueError(f'taps is a dict of paths by name, e.g. dict(feat_s="backbone.layer3"), not {given!r}')
    named = {aliases.get(name, name): value for name, value in given.items()}
    for name in named:
        if not name.endswith(('_s', '_t')):
            raise ValueError(
                f'taps: {name!r} has to say whose tensor it is: {name}_s is the student’s, {name}_t the teacher’s'
            )
    return named


def given_taps(given: Mapping[str, Any], side: str, dry_run: DryRun) -> dict[str, Tap]:
    """Parse the config's taps for one of the networks.

    Args:
        given: By name with ``_s`` or ``_t``: the path of a module; a list of them; or a dict with ``path`` and, optionally,
            ``form``, ``index`` and ``extra`` as in :func:`tap`.
        side: ``'_s'`` or ``'_t'``; other names are skipped.
        dry_run: Dry run of the network.

    Raises:
        ValueError: As :func:`tap`; names the tap.
    """
    taps = {}
    for full_name, value in given.items():
        if not full_name.endswith(side):
            continue
        name = full_name.removesuffix(side)
        keywords = dict(value) if isinstance(value, Mapping) else dict(path=value)
        if unknown := sorted(set(keywords) - set(KEYS)) or ([] if 'path' in keywords else ['no path']):
            raise ValueError(f'taps: {full_name} takes {", ".join(KEYS)}, but has {unknown[0]}')
        paths = keywords.pop('path')
        keywords.setdefault('form', FORM_OF.get(name, 'raw'))
        try:
            paths = [paths] if isinstance(paths, str) else list(paths)
            taps[name] = tap(dry_run, paths, apart=name in TUPLES, **keywords)
        except ValueError as error:
            raise ValueError(f'taps: {full_name}: {error}') from error
    return taps


class _AllRead(Exception):  # noqa: N818  (no error)
    """End a forward pass in which nothing is left to read."""


@contextmanager
def record(network: nn.Module, taps: dict[str, Tap], stop: bool = False) -> Iterator[dict[str, Read]]:
    """Record the taps' values of one forward pass in the ``with`` block; they are in the dict when it ends.

    Args:
        network: The network that runs inside the block.
        taps: Taps to read, by name.
        stop: Leave the block as soon as all is read, so that no later stage is computed.
    """
    found: dict[tuple[str, bool], list[Tensor]] = {}
    tensors: dict[str, Read] = {}
    places = {place for tap in taps.values() for place in tap.places}
    overwritten = {path for tap in taps.values() for path in tap.overwritten}
    learning = network.training and torch.is_grad_enabled()
    calls = {path: count for tap in taps.values() for path, count in tap.calls.items()}
    seen: Counter[tuple[str, bool]] = Counter()

    def keep(path: str, goes_in: bool) -> RemovableHandle:
        def hook(_module: nn.Module, args: Any, output: Any = None) -> None:
            if path in calls:
                seen[path, goes_in] += 1
                if seen[path, goes_in] < calls[path]:
                    return
            if learning and not torch.is_grad_enabled():
                raise ValueError(f'module {path!r} {NO_GRAPH}')
            read = tensors_in(args if goes_in else output)
            copied = goes_in or path in overwritten  # the module itself may change in place what goes in
            found[path, goes_in] = [tensor.clone() for tensor in read] if copied else read
            if stop and len(found) == len(places):
                raise _AllRead

        module = network.get_submodule(path)
        return module.register_forward_pre_hook(hook) if goes_in else module.register_forward_hook(hook)

    handles = [keep(*place) for place in places]
    try:
        yield tensors
    except _AllRead:
        pass
    finally:
        for handle in handles:
            handle.remove()
    if missing := [path for path, goes_in in places if (path, goes_in) not in found]:
        raise TrainingError(
            f'module {missing[0]!r} did not run in this forward pass: name another by `taps`; or, if the network is '
            'compiled and ran before, call torch.compiler.reset() once'
        )
    tensors.update({name: tap.view(*(found[place] for place in tap.places)) for name, tap in taps.items()})
