"""A dry run of a network: which modules run, what they return, and where its class scores are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..networks.classifiers import scores
from .forms import tensors_in

#: The sizes of images to try where a network does not say which it takes, or says so wrongly.
SIZES = (64, 224, 32, 384, 28, 96, 128, 160, 192, 240, 256, 299, 320, 336, 448, 512)
#: The layers that can make class scores of a vector.
LINEAR = (nn.Linear, nn.Conv2d)
DROPOUT = nn.modules.dropout._DropoutNd
#: What a module may raise where its input does not fit.
MISFITS = (RuntimeError, AssertionError, LookupError, TypeError, AttributeError, ValueError)


class Place(NamedTuple):
    """Where a tensor can be read: the module, which of its tensors, and whether of those that go in or that come out."""

    path: str
    number: int
    goes_in: bool


@dataclass
class Survey:
    """What a dry run showed.

    Attributes:
        size: Height and width of its images.
        outputs: What each module returned, by path, in the order in which they ended; tensors without values, on torch's
            meta device.
        inputs: What each was given, likewise.
        calls: How often each ran.
        overwritten: Those whose tensors a later step changes in place, or a dropout will in training.
        logit: The class scores, (N, C), without values.
        logit_paths: The modules that return them, the outermost first.
        classifier_paths: Those that return them in whatever shape, (N, C, 1, 1) for one.
        linear_path: The linear layer (or 1×1 convolution) that makes them; None if something else does.
        vector_place: Where what goes into that layer is first there, before any dropout; None if that cannot be read.
    """

    size: tuple[int, int]
    outputs: dict[str, list[Tensor]]
    inputs: dict[str, list[Tensor]]
    calls: Counter[str]
    overwritten: frozenset[str]
    logit: Tensor
    logit_paths: list[str]
    classifier_paths: list[str]
    linear_path: str | None
    vector_place: Place | None

    @property
    def num_classes(self) -> int:
        """How many classes the network tells apart."""
        return self.logit.shape[1]


def image_channels(network: nn.Module) -> int:
    """How many channels the images of a network have: those that its first convolution takes; 3 if it has none."""
    return next((module.in_channels for module in network.modules() if isinstance(module, nn.Conv2d)), 3)


def own_sizes(network: nn.Module) -> list[tuple[int, int]]:
    """The sizes of images that parts of a network say they were made for."""
    found = (getattr(module, name, None) for module in network.modules() for name in ('img_size', 'image_size'))
    pairs = [
        (size, size) if isinstance(size, int) else tuple(size) for size in found if isinstance(size, (int, tuple, list))
    ]
    return list(dict.fromkeys(pair for pair in pairs if len(pair) == 2))


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """The network in eval mode; afterwards each of its modules is in the mode in which it was."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def survey(network: nn.Module, role: str, size: tuple[int, int] | None = None) -> Survey:
    """Run a network once on two random images, without a trace.

    Args:
        network: A classifier.
        role: Whose it is, for messages.
        size: Height and width of the images; what the network says, or what runs, if None.

    Raises:
        ValueError: If it does not run, or gives no class scores.
    """
    channels = image_channels(network)
    parameter = next(chain(network.parameters(), [torch.empty(0)]))
    reasons: dict[str, str] = {}  # most often one for all sizes
    for height, width in [size] if size else [*own_sizes(network), *((n, n) for n in SIZES)]:
        with torch.random.fork_rng(devices=[]), evaluating(network), torch.no_grad():
            images = torch.randn(2, channels, height, width).to(parameter)
            try:
                return _run(network, images)
            except MISFITS as error:
                reasons.setdefault(f'{type(error).__name__}: {error}', f'{height} × {width}')
    tried = '; '.join(f'{place}: {reason}' for reason, place in [*reasons.items()][:4])
    raise ValueError(f'the {role} does not run on {channels}-channel images. {tried}')


def _run(network: nn.Module, images: Tensor) -> Survey:
    """One forward pass that is watched."""
    outputs: dict[str, list[Tensor]] = {}
    versions: dict[str, list[int]] = {}
    calls: Counter[str] = Counter()
    inputs: dict[str, list[Tensor]] = {}
    seen: list[tuple[Place, Tensor, int]] = []  # each tensor at each place in the order of the pass, and its version there
    dropped: list[Tensor] = []  # what a dropout will overwrite in training

    def see(path: str, tensors: list[Tensor], goes_in: bool) -> None:
        for number, tensor in enumerate(tensors, -len(tensors)):  # from the last, as earlier outputs may be left out
            seen.append((Place(path, number, goes_in), tensor, tensor._version))

    def watch_input(path: str) -> Any:
        def hook(module: nn.Module, args: Any) -> None:
            inputs[path] = tensors_in(args)
            see(path, inputs[path], goes_in=True)
            if isinstance(module, DROPOUT) and module.inplace:
                dropped.extend(inputs[path])

        return hook

    def watch(path: str) -> Any:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            calls[path] += 1
            outputs.pop(path, None)
            outputs[path] = tensors_in(output)
            versions[path] = [tensor._version for tensor in outputs[path]]
            see(path, outputs[path], goes_in=False)

        return hook

    modules = [(path, module) for path, module in network.named_modules() if path]
    handles = [module.register_forward_pre_hook(watch_input(path)) for path, module in modules]
    handles += [module.register_forward_hook(watch(path)) for path, module in modules]
    try:
        logit = scores(network(images))
    finally:
        for handle in handles:
            handle.remove()
    if logit.dim() != 2 or len(logit) != len(images):
        raise ValueError(f'its class scores have the shape {tuple(logit.shape)} instead of (N, C)')
    giving = [path for path, tensors in outputs.items() if any(tensor is logit for tensor in tensors)]
    if not giving:
        raise ValueError('no module in it returns its class scores')
    overwritten = frozenset(p for p, tensors in outputs.items() if [t._version for t in tensors] != versions[p])
    dropping = (p for p, tensors in outputs.items() if any(_same_memory(t, other) for t in tensors for other in dropped))
    classifiers = [p for p, tensors in outputs.items() if any(t.data_ptr() == logit.data_ptr() for t in tensors)]
    linear = next((path for path in classifiers if isinstance(network.get_submodule(path), LINEAR)), None)
    vector = _vector(network.get_submodule(linear), inputs[linear]) if linear else None
    places = (
        place
        for place, tensor, version in seen
        if vector is not None and calls[place.path] == 1 and tensor._version == version and _same_memory(tensor, vector)
    )
    height, width = images.shape[2:]
    return Survey(
        size=(height, width),
        outputs=_without_values(outputs),
        inputs=_without_values(inputs),
        calls=calls,
        overwritten=overwritten.union(dropping),
        logit=logit.to('meta'),
        logit_paths=sorted(giving, key=lambda path: path.count('.')),
        classifier_paths=classifiers,
        linear_path=linear,
        vector_place=next(places, None),
    )


def _without_values(tensors: dict[str, list[Tensor]]) -> dict[str, list[Tensor]]:
    return {path: [tensor.to('meta') for tensor in found] for path, found in tensors.items()}


def _vector(linear: nn.Module, inputs: list[Tensor]) -> Tensor | None:
    """What a linear layer was given; None if that is more than one vector an image."""
    weight: Any = linear.weight
    return inputs[0] if inputs and inputs[0][0].numel() == weight[0].numel() else None


def _same_memory(tensor: Tensor, other: Tensor) -> bool:
    """Whether one is the other, or another shape of it."""
    return tensor.data_ptr() == other.data_ptr() and tensor.numel() == other.numel()
