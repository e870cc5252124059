"""Weights in files: their places, the conversions of each library, and missing ones."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.logging import print_log
from mmpretrain.models.classifiers import HuggingFaceClassifier, TimmClassifier
from torch import Tensor, nn

from ..errors import listed

#: Places of a moving average of the weights; timm takes it instead of the weights, and so does this toolbox.
#: mmengine's own average needs no name: it swaps the two when it saves.
AVERAGES = ('state_dict_ema', 'model_ema', 'params_ema')
#: Places of the weights in a checkpoint, in order of precedence.
PLACES = (
    *AVERAGES,
    'state_dict',
    'model',
    'model_state_dict',
    'model_state',
    'net',
    'network',
    'module',
    'weights',
    'params',
)
#: Names under which training scripts write the accuracy of the weights.
ACCURACIES = ('accuracy', 'best_acc')
#: Counters of steps in averages of torch and mmengine.
COUNTERS = ('n_averaged', 'steps')
#: A name in torchvision's published DenseNets, whose networks have `norm1` for `norm.1` today.
DENSE_LAYER = re.compile(r'(denselayer\d+\.(?:norm|conv))\.([12])\.')
#: The weights of a loss that makes the predictions.
PREDICTOR = r'distill_losses\.[^.]+\.predictor\.'


def find_weights(checkpoint: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Find the weights in a checkpoint, and their place: one of :data:`PLACES`, or an empty name and the whole content."""
    for place in PLACES:
        inside = checkpoint.get(place)
        if isinstance(inside, nn.Module):  # of a trusted file
            inside = inside.state_dict()
        if isinstance(inside, Mapping):
            found = inside if tensors_in(inside) else find_weights(inside)[1]
            if tensors_in(found):
                return place, found
    return '', checkpoint


def refuse_infinite(weights: Mapping[str, Tensor], what: str) -> None:
    """Refuse weights with NaN or infinite numbers; ``what`` begins the message, with its verb."""
    if infinite := [key for key, value in weights.items() if not value.isfinite().all()]:
        raise ValueError(f'{what} NaN or infinite numbers: {listed(infinite)}')


def stated_accuracy(checkpoint: Mapping[str, Any]) -> float | None:
    """Return the accuracy that a training script wrote beside the weights, from 0 to 1; None if there is none.

    Values above 1 are percent, as in the published files of the CIFAR-100 benchmark.
    """
    for key in ACCURACIES:
        value = checkpoint.get(key)
        if isinstance(value, Tensor) and value.numel() == 1:
            value = value.item()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= 100:
            return value / 100 if value > 1 else float(value)
    return None


def tensors_in(content: Any) -> int:
    """Count the tensors by name in a part of a checkpoint."""
    return sum(isinstance(value, Tensor) for value in content.values()) if isinstance(content, Mapping) else 0


def about_contents(checkpoint: Mapping[str, Any]) -> str:
    """Describe a checkpoint without known weights, for a message."""
    inside = {str(key): tensors_in(value) for key, value in checkpoint.items()}
    likely = max(inside, key=lambda key: inside[key], default=None)
    found = 'has no weights by name under a name that is known here. '
    found += f'It has: {listed([repr(key) for key in inside], 12) or "nothing"}'
    if likely is None or not inside[likely]:
        return found
    return (
        f'{found}. What looks like weights, {inside[likely]} tensors by name, is under {likely!r}: save that by itself, '
        f"torch.save(torch.load(FILE)[{likely!r}], 'weights.pth')"
    )


def say_average(checkpoint: Mapping[str, Any], what: str) -> None:
    """Log that the moving average is taken, where a file has two sets of weights."""
    place = find_weights(checkpoint)[0]
    if place in AVERAGES:
        others = [repr(other) for other in PLACES if other != place and tensors_in(checkpoint.get(other))]
        beside = f', not {" or ".join(others)} beside it' if others else ''
        print_log(f'{what}: {place!r}, the moving average, is taken, as timm does{beside}', 'current')


def weights_of(checkpoint: Mapping[str, Any]) -> OrderedDict[str, Tensor]:
    """Return the weights in a checkpoint by parameter name; empty if it has no known ones.

    Prefixes of wrappers are removed from names: ``module.`` (parallel), ``_orig_mod.`` (``torch.compile``).
    """
    _, inside = find_weights(checkpoint)
    if any(tensors_in(value) > tensors_in(inside) for value in inside.values()):
        return OrderedDict()  # these are a count or two beside weights under an unknown name
    weights = {re.sub(r'(^|\.)_orig_mod\.', r'\1', str(k)): v for k, v in inside.items() if isinstance(v, Tensor)}
    if all(key.startswith('module.') or key in COUNTERS for key in weights):
        weights = {key: value for key, value in weights.items() if key not in COUNTERS}
    return OrderedDict(
        (DENSE_LAYER.sub(r'\1\2.', re.sub(r'^(module\.)+', '', key)), value) for key, value in weights.items()
    )


def student_weights(weights: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    """Return the predicting weights of a distiller, under their own names; empty for weights of any other network.

    These are the student's; where a method predicts (SimKD), ``student.*`` and ``predictor.*``.
    """
    predictor = {k: f'predictor.{k.split(".predictor.", 1)[1]}' for k in weights if re.match(PREDICTOR, k)}
    if predictor:
        kept = [k for k in weights if k in predictor or k.startswith('student.')]
        return OrderedDict((predictor.get(k, k), weights[k]) for k in kept)
    if any(k.startswith('predictor.') for k in weights):  # such a student, transferred
        return OrderedDict()
    return OrderedDict((k.removeprefix('student.'), v) for k, v in weights.items() if k.startswith('student.'))


def as_in_memory(network: nn.Module, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Convert weights from the form in a library's files to that of its networks.

    Hugging Face's files keep names, and sometimes shapes, of earlier versions, which it converts at loading. Weights that do
    not fit are included, missing ones are not.
    """
    own = network.state_dict()
    if weights.keys() == own.keys():
        current = OrderedDict(weights)
        current._metadata = getattr(own, '_metadata', None)  # type: ignore[attr-defined]  # versions: MNASNet asks for its own
        return current
    if not isinstance(network, HuggingFaceClassifier):
        return weights
    inner = network.model
    with torch.random.fork_rng(devices=[]):
        made, info = type(inner).from_pretrained(
            None,
            config=inner.config,
            state_dict=dict(weights),
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    misshapen = {name: torch.zeros(shape) for name, shape, _ in info['mismatched_keys']}
    other_half = getattr(network, 'other_half', ())
    unexpected = [name for name in info['unexpected_keys'] if not name.startswith(other_half)]
    unfit = {name: weights[name] for name in unexpected if name in weights}
    found = {name: value for name, value in made.state_dict().items() if name not in info['missing_keys']}
    return OrderedDict({**found, **misshapen, **unfit})


def rename_to_own(state: dict[str, Any], start: str, network: nn.Module) -> None:
    """Rename an inner network in a state dict to its own names, in place.

    Some classifiers save their weights under other names than those of their modules. torch applies this only to a
    network that is saved by itself, but to any that is loaded.

    Args:
        state: The state dict.
        start: The beginning of the network's names.
        network: The network.
    """
    own = [start + key for key in network.state_dict()]
    names = dict(zip([key for key in state if key.startswith(start)], own, strict=True))
    if any(key != name for key, name in names.items()):
        items = [(names.get(key, key), value) for key, value in state.items()]
        state.clear()
        state.update(items)


def left_random(network: nn.Module) -> list[str]:
    """List the parts of a network that stay random after its library loaded its own weights.

    timm does so silently if the number of classes differs, Hugging Face with a warning if a file has no head.
    """
    inner: Any = getattr(network, 'model', None)
    if isinstance(network, TimmClassifier):
        published = (getattr(inner, 'pretrained_cfg', None) or {}).get('num_classes')
        if published is not None and published != inner.num_classes:
            return [f'the classifier of {inner.num_classes} classes, where the weights have {published}']
    elif isinstance(network, HuggingFaceClassifier):
        name, cfg = inner.config.name_or_path, inner.config
        options = dict(config=cfg, output_loading_info=True, ignore_mismatched_sizes=True)
        _, info = type(inner).from_pretrained(name, **options)
        return sorted({*info['missing_keys'], *(key for key, *_ in info['mismatched_keys'])})
    return []


def refuse_partial(network: nn.Module, role: str) -> None:
    """Refuse a network whose library has loaded its own weights in part, see :func:`left_random`."""
    if random := left_random(network):
        raise ValueError(
            f'pretrained weights do not cover the {role}: {", ".join(random[:6])} would stay randomly initialised. Take a '
            f'network that was trained to classify, or set model.{role}_pretrained to weights for these classes'
        )


def _distillation_only(weights: Mapping[str, Tensor]) -> list[str]:
    """List the norms before stage outputs other than the last (Swin's norm0 to norm2), which only distillation reads."""
    norms = {key: int(found[1]) for key in weights if (found := re.match(r'backbone\.norm(\d+)\.', key))}
    stages = any(key.startswith('backbone.stages.') for key in weights)
    return [key for key, i in norms.items() if stages and i < max(norms.values())]
