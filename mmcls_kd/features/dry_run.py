"""A dry run of a network: the modules that run, their outputs, and the place of its logits."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import chain, product
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .embedding import has_classes, pooled_in
from .flow import ways
from .layouts import Layout, tensors_in, undecided

#: Image sizes to try where a network does not state its own, or states a wrong one.
SIZES = (64, 224, 32, 384, 28, 96, 128, 160, 192, 240, 256, 299, 320, 336, 448, 512)
#: The layers that can map a vector to logits.
LINEAR = (nn.Linear, nn.Conv2d)
DROPOUT = nn.modules.dropout._DropoutNd
#: The errors of a module whose input does not fit.
MISFITS = (RuntimeError, AssertionError, LookupError, TypeError, AttributeError, ValueError)
#: Shapes of the tensors at a module, by its path and whether they are its inputs.
Shapes = dict[tuple[str, bool], list[tuple[int, ...]]]


class Place(NamedTuple):
    """The place of a tensor: a module, the number of the tensor, and whether it is an input or an output of the module."""

    path: str
    number: int
    goes_in: bool


@dataclass
class DryRun:
    """The result of a dry run.

    Attributes:
        size: Height and width of its images.
        channels: Number of channels of its images.
        outputs: Outputs of each module, by path, in the order in which the modules ended; without values, on the meta
            device.
        inputs: Inputs of each module, by path; without values too.
        calls: Number of calls of each module.
        overwritten: Modules whose outputs a later step changes in place, or a dropout will in training.
        logit: The logits, (N, C), without values; of a network without classes its embedding, (N, D).
        logit_paths: The modules that return the logits, the outermost first.
        classifier_paths: The modules that return them in any shape, for example (N, C, 1, 1).
        linear_path: The linear layer (or 1×1 convolution) that computes them; None if another layer does.
        vector_place: The first place of that layer's input, before any dropout; None if it cannot be read.
        stem: The first module that ran and has no submodules.
        ways: Number of paths from the image to the logits through a tensor, by path and number; ``('', 0)`` for all of them;
            empty if unknown.
        without_graph: Modules that ran without a graph although gradients were enabled: inside of gradient checkpointing, or
            of a part that needs no gradient.
        grown: Shapes of outputs, and of inputs, for one image of twice the height; None if the network takes no such image.
        mixing: Layout of maps by the dimension that a layer mixes, by path; only where shapes do not decide.
        has_classes: Whether its output is logits.
        relus: The ReLU of which a module returns the (last) output, by the module's path.
        changes_images: Whether the network changes the images in place, which another one may see.
        ends_in_softmax: Whether its output is probabilities of exclusive classes instead of logits.
    """

    size: tuple[int, int]
    channels: int
    outputs: dict[str, list[Tensor]]
    inputs: dict[str, list[Tensor]]
    calls: Counter[str]
    overwritten: frozenset[str]
    logit: Tensor
    logit_paths: list[str]
    classifier_paths: list[str]
    linear_path: str | None
    vector_place: Place | None
    stem: str = ''
    ways: Mapping[tuple[str, int], int] = field(default_factory=dict)
    without_graph: frozenset[str] = frozenset()
    grown: Shapes | None = None
    mixing: Mapping[str, str] = field(default_factory=dict)
    has_classes: bool = True
    relus: Mapping[str, str] = field(default_factory=dict)
    changes_images: bool = False
    ends_in_softmax: bool = False

    def check_logits(self, role: str) -> None:
        """Refuse a network that returns probabilities; ``role`` is its name in the message."""
        if self.ends_in_softmax:
            raise ValueError(
                f'the {role} returns probabilities (none is negative, and those of an image add up to 1), and the losses '
                'take logits: leave out the softmax at its end'
            )

    def check_images_stay(self, role: str) -> None:
        """Refuse a network that changes the images in place; ``role`` is its name in the message."""
        if self.changes_images:
            raise ValueError(
                f'the {role} changes the images in place, which the other network sees, too: let its forward begin with '
                'images = images.clone()'
            )

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 for a network without classes."""
        return self.logit.shape[1] if self.has_classes else 0

    def growing(self, path: str, number: int = 0, goes_in: bool = False) -> tuple[int, ...] | None:
        """Return the dimensions of a module's output, or input, that grow with the image's height; None if unknown."""
        if self.grown is None:
            return None
        shapes = [tuple(tensor.shape) for tensor in (self.inputs if goes_in else self.outputs)[path]]
        others = self.grown.get((path, goes_in), [])
        if [len(shape) for shape in shapes] != [len(shape) for shape in others]:
            return None
        pairs = zip(shapes[number], others[number], strict=True)
        # of two images, and of one: the first dimension counts them, or is one that also grew
        return tuple(i for i, (size, other) in enumerate(pairs) if (size != other if i else size != 2 * other))

    def layout(self, path: str, number: int = 0, goes_in: bool = False, extra: int | None = None) -> Layout:
        """Find the layout of a module's output, or input: by its growth with the image, by its layers, or by its shape.

        The number of prefix tokens is as in :meth:`.layouts.Layout.of`.
        """
        shape = tuple((self.inputs if goes_in else self.outputs)[path][number].shape)
        found = Layout.of(shape, self.size, extra)
        if len(shape) != 4:
            return found
        kinds: dict[Any, str] = {(1,): 'map_last', (2,): 'map'}
        otherwise = found.kind if goes_in else self.mixing.get(path, found.kind)
        return replace(found, kind=kinds.get(self.growing(path, number, goes_in), otherwise))

    def all_goes_through(self, paths: Sequence[str], number: int = 0) -> bool:
        """Check whether every path to the logits passes through each of the tensors, or exactly one of them.

        True where that is unknown.
        """
        if not self.ways:
            return True
        through = [self.ways.get((path, number % len(self.outputs[path])), 0) for path in paths]
        return all(count == self.ways['', 0] for count in through) or sum(through) == self.ways['', 0]


def channel_counts(network: nn.Module) -> list[int]:
    """List the numbers of channels that images of a network may have, the likeliest first.

    That of its config or constructor; three; that of its first convolution (which may come after a step that moves pixels
    into channels, or channels into the batch); one.
    """
    inner: Any = getattr(network, 'model', network)
    said = (getattr(getattr(inner, 'config', None), 'num_channels', None), getattr(inner, 'in_chans', None))
    convolution = next((module.in_channels for module in network.modules() if isinstance(module, nn.Conv2d)), 3)
    return list(dict.fromkeys(count for count in (*said, 3, convolution, 1) if isinstance(count, int)))


def own_sizes(network: nn.Module) -> list[tuple[int, int]]:
    """Return the image sizes stated by parts of a network."""
    found = (getattr(module, name, None) for module in network.modules() for name in ('img_size', 'image_size'))
    pairs = [
        (size, size) if isinstance(size, int) else tuple(size) for size in found if isinstance(size, (int, tuple, list))
    ]
    return list(dict.fromkeys(pair for pair in pairs if len(pair) == 2))


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put the network in eval mode, and each of its modules back into its own mode afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def uncompiled(network: nn.Module) -> Iterator[None]:
    """Run uncompiled: parts that ``Module.compile`` has compiled would be compiled anew for each hook.

    ``torch.compiler.set_stance`` imports torch's compiler, for seconds, and holds in all threads.
    """
    compiled = [(module, call) for module in network.modules() if (call := module._compiled_call_impl)]
    for module, _ in compiled:
        module._compiled_call_impl = None
    try:
        yield
    finally:
        for module, call in compiled:
            module._compiled_call_impl = call


def dry_run(network: nn.Module, role: str, size: tuple[int, int] | None = None, whole: bool = False) -> DryRun:
    """Run a network once on two random images, without a trace.

    Args:
        network: A classifier.
        role: ``'student'`` or ``'teacher'``, for messages.
        size: Height and width of the images; if None, the size that the network states, or one that runs.
        whole: Accept the logits of the network itself, where no module inside returns them.

    Raises:
        ValueError: If it does not run, runs in inference mode, or returns no logits.
    """
    counts, sizes = channel_counts(network), [size] if size else [*own_sizes(network), *((n, n) for n in SIZES)]
    parameter = next(chain(network.parameters(), [torch.empty(0)]))
    reasons: dict[int, dict[str, str]] = {count: {} for count in counts}  # most often one for all sizes
    for channels, (height, width) in product(counts, sizes):
        with torch.random.fork_rng(devices=[]), evaluating(network), uncompiled(network):
            images = torch.randn(2, channels, height, width).to(parameter)
            for graph in (True, False):  # some change in place what torch keeps a graph of
                try:
                    found = _run(network, images, graph, whole)
                except _InferenceModeError:
                    raise ValueError(
                        f'the {role} runs under torch.inference_mode(), whose tensors no loss can use: leave that out, in '
                        'the network and around the distiller; a teacher runs without gradients anyway'
                    ) from None
                except MISFITS as error:
                    reason = f'{type(error).__name__}: {error}'
                else:
                    found.grown = _grown(network, images)
                    return found if role == 'student' else replace(found, without_graph=frozenset())
            reasons[channels].setdefault(reason, f'{height} × {width}')
    first = next((module.in_channels for module in network.modules() if isinstance(module, nn.Conv2d)), 3)
    shown = first if first in (1, 3) else counts[0]  # the reason that is not its first convolution's
    tried = '; '.join(f'{place}: {reason}' for reason, place in [*reasons[shown].items()][:4])
    key = 'TeacherSpec(inputs=dict(size=...)), or model.teacher_pixels=dict(size=...) in a config'
    if role == 'student':
        key = 'Distiller(input_size=...)' if whole and not size else ''
    other = f'. Its input size can be set by {key}' if key else ''
    raise ValueError(f'the {role} does not run on {shown}-channel images. {tried}{other}')


@contextmanager
def _watching(network: nn.Module, before: Any, after: Any) -> Iterator[None]:
    """Call ``before(path, module, args)`` and ``after(path, output)`` for each module that runs in the ``with`` block."""
    handles = []
    for path, module in network.named_modules():
        if path and not isinstance(module, torch.jit.ScriptModule):  # takes no hooks
            handles.append(module.register_forward_pre_hook(lambda module, args, path=path: before(path, module, args)))
            handles.append(module.register_forward_hook(lambda _module, _args, output, path=path: after(path, output)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _unchanged(network: nn.Module) -> Iterator[None]:
    """Restore each module's attributes, buffers and parameters afterwards: some networks replace them for another size."""
    kept = [
        (module, {key: type(v)(v) if isinstance(v, (dict, set)) else v for key, v in vars(module).items()})
        for module in network.modules()
    ]
    try:
        yield
    finally:
        for module, attributes in kept:
            vars(module).clear()
            vars(module).update(attributes)


def _grown(network: nn.Module, images: Tensor) -> Shapes | None:
    """Return the shapes of each module's outputs and inputs for one image of twice the height; None if that does not run."""
    shapes: Shapes = {}

    def see(path: str, tensors: Any, goes_in: bool) -> None:
        shapes[path, goes_in] = [tuple(tensor.shape) for tensor in tensors_in(tensors)]

    watching = _watching(network, lambda path, _, args: see(path, args, True), lambda path, out: see(path, out, False))
    with torch.no_grad(), suppress(*MISFITS), _unchanged(network), watching:
        network(images[:1].repeat(1, 1, 2, 1))
        return shapes
    return None


class _InferenceModeError(Exception):
    """Tensors that autograd does not know."""


class _Watch:
    """The record of a forward pass; tensors are as in :class:`DryRun`, with values."""

    def __init__(self) -> None:
        self.outputs: dict[str, list[Tensor]] = {}
        self.inputs: dict[str, list[Tensor]] = {}
        self.calls: Counter[str] = Counter()
        self.nodes: dict[str, list[tuple[Any, int]]] = {}  # places of the outputs in autograd's graph
        self.seen: list[tuple[Place, Tensor, int]] = []  # in the order of the pass, each with its version there
        self.dropped: list[Tensor] = []  # those that a dropout will overwrite in training
        self.without_graph: set[str] = set()

    def see(self, path: str, tensors: list[Tensor], goes_in: bool) -> None:
        """Keep the tensors at a place."""
        if any(tensor.is_inference() for tensor in tensors):
            raise _InferenceModeError
        for number, tensor in enumerate(tensors, -len(tensors)):  # from the last, as earlier outputs may be left out
            self.seen.append((Place(path, number, goes_in), tensor, tensor._version))

    def before(self, path: str, module: nn.Module, args: Any) -> None:
        """Keep the inputs of a module."""
        self.inputs[path] = tensors_in(args)
        self.see(path, self.inputs[path], goes_in=True)
        if isinstance(module, DROPOUT) and module.inplace:
            self.dropped.extend(self.inputs[path])

    def after(self, path: str, output: Any) -> None:
        """Keep the outputs of a module."""
        self.calls[path] += 1
        self.outputs.pop(path, None)  # so that they stand in the order in which they ended
        self.outputs[path] = tensors_in(output)
        self.nodes[path] = [(tensor.grad_fn, tensor.output_nr) for tensor in self.outputs[path]]
        self.see(path, self.outputs[path], goes_in=False)
        if not torch.is_grad_enabled():
            self.without_graph.add(path)


def _run(network: nn.Module, images: Tensor, graph: bool, whole: bool) -> DryRun:
    """Watch one forward pass, with autograd's graph of it or without."""
    watch = _Watch()
    forgotten = torch.autograd.graph.saved_tensors_hooks(lambda _tensor: None, lambda nothing: nothing)
    with (
        warnings.catch_warnings(),
        torch.set_grad_enabled(graph),
        forgotten,
        _watching(network, watch.before, watch.after),
    ):
        warnings.simplefilter('ignore')  # of how networks call checkpointing, which is none of the dry run's business
        if torch.is_inference_mode_enabled():
            raise _InferenceModeError
        given = images.clone().requires_grad_(graph).clone()  # no leaf, so a network may change it in place
        version = given._version
        output = network(given)
        logit = scores(output)
        if whole and not any(tensor is logit for tensors in watch.outputs.values() for tensor in tensors):
            watch.after('', output)
        count = ways(given, logit) if graph else None
    if logit.dim() != 2 or len(logit) != len(images):
        raise ValueError(f'its class scores have the shape {tuple(logit.shape)} instead of (N, C)')
    outputs, calls = watch.outputs, watch.calls
    giving = [path for path, tensors in outputs.items() if any(tensor is logit for tensor in tensors)]
    if not giving:
        raise ValueError('no module in it returns its class scores')
    overwritten = frozenset(place.path for place, t, version in watch.seen if not place.goes_in and t._version != version)
    dropping = (p for p, tensors in outputs.items() if any(_same_memory(t, o) for t in tensors for o in watch.dropped))
    classes = has_classes(network, output)
    classifiers = [p for p, tensors in outputs.items() if any(_same_memory(t, logit) for t in tensors)]
    linears = (path for path in classifiers if isinstance(network.get_submodule(path), LINEAR))
    linear = next(linears, None) if classes else None
    without_graph = frozenset(watch.without_graph if graph else ())
    height, width = images.shape[2:]
    return DryRun(
        size=(height, width),
        channels=images.shape[1],
        outputs=_without_values(outputs),
        inputs=_without_values(watch.inputs),
        calls=calls,
        overwritten=overwritten.union(dropping),
        logit=logit.detach().to('meta'),
        logit_paths=sorted(giving, key=lambda path: path.count('.')),
        classifier_paths=classifiers,
        linear_path=linear,
        ends_in_softmax=classes and _are_probabilities(logit.detach()),
        vector_place=_vector_place(network.get_submodule(linear), linear, watch, without_graph) if linear else None,
        stem=next(iter(outputs)),
        ways=_counted(count, watch, logit) if count else {},
        without_graph=without_graph,
        mixing=_mixing(network, watch, (height, width)),
        has_classes=classes,
        relus=_relus(network, outputs),
        changes_images=given._version > version,
    )


def _relus(network: nn.Module, outputs: Mapping[str, list[Tensor]]) -> dict[str, str]:
    """Find the ReLU, the module itself or one inside of it, of which each module returns the output."""
    ends = {id(t): p for p, tensors in outputs.items() for t in tensors if type(network.get_submodule(p)) is nn.ReLU}
    found = {path: ends.get(id(tensors[0]), '') for path, tensors in outputs.items() if tensors}
    return {path: relu for path, relu in found.items() if f'{relu}.'.startswith(f'{path}.')}


def _counted(count: Any, watch: _Watch, logit: Tensor) -> dict[tuple[str, int], int]:
    """Count the paths through each tensor."""
    all_ways = {('', 0): count(logit.grad_fn, logit.output_nr)}
    return all_ways | {(p, i): count(*node) for p, nodes in watch.nodes.items() for i, node in enumerate(nodes)}


def _without_values(tensors: dict[str, list[Tensor]]) -> dict[str, list[Tensor]]:
    return {path: [tensor.detach().to('meta') for tensor in found] for path, found in tensors.items()}


def _vector_place(linear: nn.Module, path: str, watch: _Watch, without_graph: frozenset[str]) -> Place | None:
    """Find the first place of a linear layer's input; None if it is more than one vector an image, or nowhere."""
    weight: Any = linear.weight
    vector = watch.inputs[path][0] if watch.inputs[path] else None
    if vector is None or vector[0].numel() != weight[0].numel():
        return None
    places = (
        place
        for place, tensor, version in watch.seen
        if watch.calls[place.path] == 1 and place.path not in without_graph
        if tensor._version == version and _same_memory(tensor, vector)
    )
    return next(places, None)


def _same_memory(tensor: Tensor, other: Tensor) -> bool:
    """Check whether one tensor is the other, or another shape of it."""
    return tensor.data_ptr() == other.data_ptr() and tensor.numel() == other.numel()


@torch.no_grad()
def _mixing(network: nn.Module, watch: _Watch, size: tuple[int, int]) -> dict[str, str]:
    """Find the layout of maps whose shape does not tell it.

    A layer that reads such a map, or else the last one inside of the module that returns it that keeps its shape, mixes
    channels at each place: of a number that changes, only numbers beside it in the dimension of the channels change too.
    """
    found: dict[str, str] = {}
    known: list[tuple[str, Tensor, str]] = []  # of the layers so far: path, tensor, what they mix
    for place, tensor, _ in watch.seen:
        if tensor.dim() == 4 and undecided(tensor.shape, size):
            module = network.get_submodule(place.path)
            if not place.goes_in:
                found.setdefault(place.path, '')
            elif not [*module.children()] and (kind := _mixed(module, tensor)):
                known.append((place.path, tensor, kind))
    for path in found:
        tensor = watch.outputs[path][0]
        takers = [kind for _, other, kind in known if _same_memory(other, tensor)]
        inside = [kind for other, given, kind in known if f'{other}.'.startswith(f'{path}.') and given.shape == tensor.shape]
        found[path] = next(chain(takers, reversed(inside)), '')
    return {path: kind for path, kind in found.items() if kind}


def _mixed(module: nn.Module, images: Tensor) -> str:
    """Return the layout whose channels a layer mixes: ``map`` (second dimension) or ``map_last`` (last); else nothing."""
    changed = images.clone()
    changed[:, 0, 0, 0] += 1
    try:
        one, other = (module(value) for value in (images.clone(), changed))
    except MISFITS:
        return ''
    if not isinstance(one, Tensor) or one.dim() != 4:
        return ''
    moved = (one != other).any(dim=0)
    second, last = bool(moved[1:, 0, 0].any()), bool(moved[0, 0, 1:].any())
    return '' if second == last else 'map' if second else 'map_last'


def _are_probabilities(logit: Tensor) -> bool:
    """Check whether class scores, (N, C), are probabilities: none is negative, and those of each image add up to 1."""
    if logit.device.type == 'meta' or logit.shape[1] < 2:
        return False
    return bool((logit >= 0).all() and (logit.sum(dim=1) - 1).abs().max() < 1e-5)


def scores(output: Any) -> Tensor:
    """Return the logits in a network's output, or its embedding: a tensor, or an object that has one of them."""
    found = getattr(output, 'logits', output)
    if not isinstance(found, Tensor):
        found = pooled_in(output)
    if found is None:
        raise ValueError(
            'a classifier has to return a tensor of class scores, or `logits`, in training too, but returns '
            f'{type(output)}; give a module whose forward returns the scores alone; wrap a network without classes into '
            'mmcls_kd.EmbeddingNetwork'
        )
    return found
