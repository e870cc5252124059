"""The one table of network families: where each keeps its stages or blocks, and which of their features are read."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from contextlib import suppress
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from .dry_run import DryRun, evaluating
from .embedding import has_class_token
from .layouts import Layout, grid
from .taps import FORM_OF, Tap, record, tap

#: Paths of stages (CNN, Swin) or blocks (ViT), in order; the first pattern that fits counts.
STAGES = (
    r'backbone\.(layers|stages)\.\d+',  # mmpretrain
    r'model\.incre_modules\.\d',  # HRNet of timm: its four branches
    r'model\.(layer|stage|s)\d',  # ResNet and RegNet of timm, ResNet and ShuffleNet of torchvision
    r'model\.(stages|layers|layer|blocks)\.\d+',  # ConvNeXt, Swin, ViT, EfficientNet of timm; MaxViT of torchvision
    r'model\.trunk_output\.\w+',  # RegNet of torchvision
    r'model\.encoder\.layers\.\w+',  # ViT of torchvision
    r'model\.\w+\.(encoder\.)?(stages|layers|layer)\.\d+',  # Hugging Face: ResNet, ConvNeXt; Swin; ViT, DeiT, DINOv2
    r'model\.(inception\d\w|Mixed_\d\w)',  # GoogLeNet and Inception of torchvision
    r'model\.features\.denseblock\d',  # DenseNet of timm and torchvision
    r'model\.features\.\d+',  # MobileNet, EfficientNet, ConvNeXt, Swin, VGG of torchvision
)
#: Names of the number of prefix tokens.
EXTRA_TOKENS = ('num_extra_tokens', 'num_prefix_tokens')
#: Names of the classifier of a distillation token, in mmpretrain and timm, and in Hugging Face's networks.
TOKEN_HEADS = ('head_dist', 'distillation_classifier')
#: Attributes in which a backbone of mmpretrain lists its stages by name.
LISTS = ('res_layers', 'layers', 'stages')


def stated_places(network: nn.Module, kind: str) -> list[tuple[str, bool]]:
    """Return the places of its stages' maps that a network, or one inside of it, states; empty if none does.

    Args:
        network: The network.
        kind: ``'stage'`` for the maps behind the stages, ``'preact'`` for those before their ReLU: the network has an
            attribute ``stage_places`` or ``preact_places``, a sequence of a module's path and whether its input is meant.
    """
    for path, module in network.named_modules():
        if found := getattr(module, f'{kind}_places', None):
            return [(f'{path}.{inner}' if path else inner, goes_in) for inner, goes_in in found]
    return []


def stage_paths(network: nn.Module, dry_run: DryRun) -> list[str]:
    """Return the paths of a network's stages or blocks, in order; empty if the table has none for it."""
    if stated := stated_places(network, 'stage'):
        return [path for path, _ in stated]
    backbone = getattr(network, 'backbone', None)
    for names in (getattr(backbone, attribute, None) for attribute in LISTS):
        if isinstance(names, (list, tuple)) and names and all(isinstance(name, str) for name in names):
            return [f'backbone.{name}' for name in names]
    paths = [path for path, tensors in dry_run.outputs.items() if tensors]
    for outside in ('', 'model.'):  # a library's network itself has no wrapper around it
        found = ([path for path in paths if re.fullmatch(pattern, outside + path)] for pattern in STAGES)
        if stages := next((stages for stages in found if len(stages) > 1), []):
            return stages
    return []


def default_taps(network: Any, dry_run: DryRun) -> dict[str, Tap]:
    """Find the default taps of a network, by name.

    A map is available only if it is known to match its name: every path to the logits passes through it. ``feat``
    is the last such map, behind which no layer works on places.

    Args:
        network: A network; of one without classes, ``vector`` is its embedding, and there is no ``logit``.
        dry_run: Its dry run.
    """
    outermost = dry_run.logit_paths[0]
    place = next(i for i, tensor in enumerate(dry_run.outputs[outermost]) if tensor.shape == dry_run.logit.shape)
    taps = {'logit' if dry_run.has_classes else 'vector': tap(dry_run, [outermost], index=place)}
    taps |= _token_taps(dry_run)
    stages = stage_paths(network, dry_run)
    shapes = {dry_run.outputs[path][0].shape for path in stages}
    blocks_alike = stages and len(shapes) == 1 and len(next(iter(shapes))) == 3
    if dry_run.vector_place:
        path, index, goes_in = dry_run.vector_place
        taps['vector'] = tap(dry_run, [path], 'flat', index, goes_in=goes_in)
    with suppress(ValueError):  # tokens of a kind that the table does not know; config's taps can still name them
        found = _block_taps(network, dry_run, stages) if blocks_alike else _stage_taps(network, dry_run, stages)
        return found | taps
    return taps


def _token_taps(dry_run: DryRun) -> dict[str, Tap]:
    """Return the tap of a distillation token's logits, if there is such a token."""
    for path, tensors in dry_run.outputs.items():
        if path.split('.')[-1] in TOKEN_HEADS and dry_run.has_classes and tensors[0].shape == dry_run.logit.shape:
            return {'logit_token': tap(dry_run, [path])}
    return {}


def _block_taps(network: nn.Module, dry_run: DryRun, blocks: list[str]) -> dict[str, Tap]:
    """Return the taps of a transformer whose blocks all have the same tokens."""
    if not dry_run.all_goes_through(blocks):
        return {}
    last = _last_map(network, dry_run, blocks)
    middle = blocks[len(blocks) // 2 - 1]
    extra, extra_last = (dry_run.layout(path, extra=_extra_tokens(network)).extra for path in (middle, last or middle))
    pooled = 'class_token' if extra and has_class_token(network) else 'pooled'
    quarters = [blocks[math.ceil(len(blocks) * i / 4) - 1] for i in range(1, 5)]
    taps = {
        'feat_mid': tap(dry_run, [middle], pooled, 0, extra),
        'tokens_low': tap(dry_run, blocks[:2], 'tokens', 0, extra),
        'stages': tap(dry_run, list(dict.fromkeys(quarters)), 'map', 0, extra, apart=True),
    }
    if last:
        taps['feat'] = tap(dry_run, [last], 'map', extra=extra_last)
        taps['tokens_high'] = tap(dry_run, [last], 'tokens', extra=extra_last)
        if pooled == 'class_token':  # of two classifiers the first one's
            taps['vector'] = tap(dry_run, [last], pooled, extra=extra_last)
    return taps


def _extra_tokens(network: nn.Module) -> int | None:
    """Return the number of prefix tokens that a network states; None if it states none."""
    found = (getattr(module, name, None) for module in network.modules() for name in EXTRA_TOKENS)
    configs = (getattr(module, 'config', None) for module in network.modules())  # Hugging Face's, beside the class token
    registers = (getattr(config, 'num_register_tokens', None) for config in configs)
    stated = chain(found, (count + 1 for count in registers if isinstance(count, int)))
    return next((count for count in stated if isinstance(count, int)), None)


def _stage_taps(network: Any, dry_run: DryRun, stages: list[str]) -> dict[str, Tap]:
    """Return the taps of a network whose maps grow smaller and wider from stage to stage."""
    outputs = dry_run.outputs.get('backbone', [])
    if outputs and outputs[-1].dim() == 4 and dry_run.all_goes_through(['backbone'], -1):
        path, index = 'backbone', -1
    elif last := _last_map(network, dry_run, stages):
        path, index = last, 0
    else:
        return {}
    if not _row_by_row(network, dry_run, [path]):
        return {}
    taps = {name: tap(dry_run, [path], FORM_OF[name], index) for name in ('feat', 'tokens_high')}
    stated = bool(stated_places(network, 'stage'))
    ends = stages if stated else _four_stages(dry_run, stages)
    if ends and dry_run.all_goes_through(ends) and _row_by_row(network, dry_run, ends):
        taps['stages'] = tap(dry_run, ends, 'map', 0, apart=True)
        taps |= _before_relu(network, dry_run, ends)
    middle = ends[-2] if stated else _before_last(dry_run, stages)
    if any(kind.__name__ == 'SwinTransformer' for kind in type(getattr(network, 'backbone', None)).__mro__):  # mmpretrain's
        norm = f'backbone.norm{network.backbone.num_layers - 2}'
        middle = norm if norm in dry_run.outputs else None  # only if the config lists that stage in out_indices
    elif middle and not dry_run.all_goes_through([middle]):
        middle = None
    if middle:
        taps['feat_mid'] = tap(dry_run, [middle], 'pooled', index=0)
    return taps


def _before_relu(network: nn.Module, dry_run: DryRun, ends: list[str]) -> dict[str, Tap]:
    """Return the tap of the stages' maps before their ReLU: the stated ones, or the inputs of the ReLUs that return them."""
    places = stated_places(network, 'preact') or [(dry_run.relus.get(end, ''), True) for end in ends]
    paths = [path for path, _ in places if path]
    if len(paths) != len(ends) or len({*paths}) != len(ends) or dry_run.without_graph.intersection(paths):
        return {}
    return {'stages_preact': tap(dry_run, paths, 'map', 0, apart=True, goes_in=places[0][1], last_call=True)}


def _row_by_row(network: nn.Module, dry_run: DryRun, paths: list[str]) -> bool:
    """Check that patch tokens are in row order: a change of the image's upper left quarter changes them most.

    Some networks sort them by windows, or return (N, D, L); laid on a grid, these are no map.
    """
    tokens = {path: tap(dry_run, [path], 'raw', 0) for path in paths if dry_run.layout(path).kind == 'tokens'}
    if not tokens:
        return True
    height, width = dry_run.size
    with torch.random.fork_rng(devices=[]), evaluating(network), torch.no_grad():
        images = torch.randn(1, dry_run.channels, height, width).repeat(2, 1, 1, 1)
        images[1, :, : height // 2, : width // 2].normal_()
        with record(network, tokens) as read:
            network(images.to(next(network.parameters())))
    for path, tensor in read.items():
        change = (tensor[1] - tensor[0]).float()
        as_tokens = _in_first_quarter(change.norm(dim=1), dry_run.layout(path))
        others = change.norm(dim=0)  # as many as some grid has places, they may be the tokens
        if as_tokens is None and len(others) >= 16 and grid(len(others), dry_run.layout(path).ratio):
            as_tokens = not _in_first_quarter(others, dry_run.layout(path))
        if as_tokens is False:
            return False
    return True


def _in_first_quarter(change: Tensor, layout: Layout) -> bool | None:
    """Check whether the tokens that change most are the upper left ones of their grid; None where all change alike."""
    own = Layout.of((1, len(change), 1), layout.ratio)
    sides = grid(len(change) - own.extra, layout.ratio)
    if sides is None:
        return None
    places = change[own.extra :].unflatten(0, sides)
    inside = places[: sides[0] // 2, : sides[1] // 2]
    if not inside.numel():
        return None
    ordered = places.flatten().sort(descending=True).values
    most, rest = ordered[: inside.numel()].mean(), ordered[inside.numel() :].mean()
    return bool(inside.mean() > (most + rest) / 2) if most > 2 * rest else None


def _four_stages(dry_run: DryRun, stages: list[str]) -> list[str]:
    """Find the ends of four stages, from large maps to small ones.

    A stage that ends with a downsampling step counts up to its last block. Of more than four stages, the last one of each of
    the four smallest sizes counts. Of fewer, parts of a size of their own count too.
    """

    def last_of_each_size(paths: Iterable[str]) -> list[str]:
        return list({size: path for path in paths if (size := _places(dry_run, path))}.values())[-4:]

    paths = [path for path, tensors in dry_run.outputs.items() if tensors and dry_run.calls[path] == 1]
    ends = []
    for stage in stages:
        block = re.compile(re.escape(stage) + r'(\.\w+)?\.\d+')
        blocks = [path for path in paths if block.fullmatch(path)]
        larger = [path for path in blocks if _places(dry_run, path) != _places(dry_run, stage)]
        given = [tensor.shape for tensor in dry_run.inputs[stage][:1]]
        kept = [p for p in larger if [dry_run.outputs[p][0].shape] == given and any(o.startswith(f'{p}.') for o in paths)]
        ends.append(kept[-1] if kept else blocks[-1] if blocks and blocks[-1] in larger else stage)
    ends = [path for path in ends if path in paths and _places(dry_run, path)]
    if len(ends) > 4:
        return last_of_each_size(ends)
    parts = re.compile('|'.join(rf'{re.escape(stage)}\.\d+' for stage in stages) or '$^')
    return ends if len(ends) == 4 else last_of_each_size(p for p in paths if p in ends or parts.fullmatch(p))


def _before_last(dry_run: DryRun, stages: list[str]) -> str | None:
    """Find the stage before the last.

    Some libraries count the downsampling step as a stage, or as the end of the one before it. Its output is already the last
    stage's input; then the last block or stage in front of that step is returned.
    """
    if len(stages) < 2:
        return None
    before, last = (dry_run.outputs[stage][0] for stage in stages[-2:])
    if before.shape == last.shape and not stages[-2].startswith('backbone.'):
        block = re.compile(re.escape(stages[-2]) + r'\.\w+\.\d+')
        earlier = [path for path in dry_run.outputs if path in stages[:-2] or block.fullmatch(path)]
        larger = [p for p in earlier if dry_run.outputs[p] and _places(dry_run, p) != _places(dry_run, stages[-1])]
        return larger[-1] if larger else stages[-2]
    return stages[-2]


def _last_map(network: nn.Module, dry_run: DryRun, stages: list[str]) -> str | None:
    """Find the last map, or tokens, on every path: the last stage, its final norm, or a layer that widens it.

    Modules inside of the classifier or of a pooling do not count. None if layers behind it work on places too: then it is
    one branch of several, or its output cannot be read.
    """
    order = list(dry_run.outputs)
    trunk = [path for path in order if _on_trunk(network, dry_run, path)]
    maps = [p for p in trunk if dry_run.calls[p] == 1 and len(dry_run.outputs[p]) == 1 and _has_places(dry_run, p)]
    if stages and not dry_run.growing(stages[-1]):  # then only the number of places tells
        behind = order[order.index(stages[-1]) :]
        maps = [p for p in maps if p in behind and _places(dry_run, p) == _places(dry_run, stages[-1])]
    last = next((path for path in reversed(maps) if dry_run.all_goes_through([path])), None)
    if last is None:
        return None
    for path in trunk[trunk.index(last) + 1 :]:
        own = [*network.get_submodule(path).parameters(recurse=False)]
        if own and not last.startswith(f'{path}.') and (not dry_run.outputs[path] or _has_places(dry_run, path)):
            return None
    return last


def _on_trunk(network: nn.Module, dry_run: DryRun, path: str) -> bool:
    """Check that no module around it turns maps into vectors, as classifiers and poolings do; a mere sequence does not."""
    above = [path[: match.start()] for match in re.finditer(r'\.', path)]
    inside = [p for p in above if dry_run.outputs.get(p) and not f'{dry_run.stem}.'.startswith(f'{p}.')]
    poolings = [p for p in inside if not _has_places(dry_run, p)]
    sequences = all(type(network.get_submodule(p)).forward is nn.Sequential.forward for p in poolings)
    return sequences and not any(p in dry_run.classifier_paths for p in (*inside, path))


def _has_places(dry_run: DryRun, path: str) -> bool:
    """Check whether a module returns a map or tokens: a tensor that grows with the image, if that is known."""
    for number, tensor in enumerate(dry_run.outputs[path]):
        grows = dry_run.growing(path, number)
        if grows is None:
            shape = tuple(tensor.shape)
            if len(shape) == 4 or (len(shape) == 3 and shape[1] > 1):
                return True
        elif grows == (1,) or (grows == (2,) and tensor.dim() == 4):
            return True
    return False


def _places(dry_run: DryRun, path: str) -> int:
    """Count the places of the map, or the patch tokens, in a module's first tensor; 0 if it has none."""
    shape = tuple(dry_run.outputs[path][0].shape)
    layout = dry_run.layout(path)
    if layout.kind == 'tokens':
        return shape[1] - layout.extra
    return math.prod({'map': shape[2:], 'map_last': shape[1:3]}.get(layout.kind, (0,)))


class OwnHead(nn.Module):
    """The part of an mmpretrain network that maps the last stage's map to logits: ``neck``, maybe None, and ``head``."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.norm = None
        if getattr(network.backbone, 'gap_before_final_norm', False):  # ConvNeXt
            self.norm = getattr(network.backbone, f'norm{network.backbone.num_stages - 1}')
        self.neck, self.head = network.neck, network.head

    def forward(self, feat: Tensor) -> Tensor:
        """Return the logits of a map, (N, C, H, W)."""
        if self.norm is not None:
            feat = self.norm(feat.mean(dim=(2, 3), keepdim=True)).flatten(1)
        return self.head((feat,) if self.neck is None else self.neck((feat,)))


def own_head(network: Any) -> OwnHead | None:
    """Return the own head of a network; None if it has no such parts."""
    whole = getattr(network, 'backbone', None) is not None and getattr(network, 'head', None) is not None
    return OwnHead(network) if whole else None


def drop_unread_outputs(network: Any, taps: Iterable[Tap]) -> None:
    """Stop a network from computing stage outputs that no tap reads, and freeze the norms of these alone, in place.

    mmpretrain's Swin, ConvNeXt and others put a norm ``norm{i}`` before each stage output in ``out_indices``. A norm whose
    output no loss reads has no gradient, which DistributedDataParallel refuses at the second step. The last output stays.
    """
    backbone: Any = getattr(network, 'backbone', None)
    if backbone is None:
        return
    read = [(path, getattr(tap.view, 'index', 0)) for tap in taps for path in tap.modules]
    paths = {path for path, _ in read}
    indices = list(getattr(backbone, 'out_indices', ()))
    places = range(-len(indices), len(indices))  # it may return further ones, such as an auxiliary classifier's
    by_place = {indices[index] for path, index in read if path == 'backbone' and index != -1 and index in places}
    children = dict(backbone.named_children())  # not hasattr: a ResNet has a property norm1, which is its stem's
    unread = [i for i in indices[:-1] if f'norm{i}' in children and f'backbone.norm{i}' not in paths and i not in by_place]
    for i in unread:
        children[f'norm{i}'].requires_grad_(False)
    if unread and not by_place:  # else the places of the others would move
        backbone.out_indices = [i for i in indices if i not in unread]
