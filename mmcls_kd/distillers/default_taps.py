"""The one table that knows families of networks: where each keeps its stages or blocks, and what is read of them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from mmpretrain.models.backbones import SwinTransformer
from torch import Tensor, nn

from .forms import Layout
from .survey import Survey
from .taps import FORM_OF, Tap, tap

#: Where networks keep their stages (CNN, Swin) or blocks (ViT), in order; the first pattern that fits counts.
STAGES = (
    r'backbone\.(layers|stages)\.\d+',  # mmpretrain
    r'model\.(layer|stage|s)\d',  # ResNet and RegNet of timm, ResNet and ShuffleNet of torchvision
    r'model\.(stages|layers|blocks)\.\d+',  # ConvNeXt, Swin, ViT, EfficientNet of timm; MaxViT of torchvision
    r'model\.trunk_output\.\w+',  # RegNet of torchvision
    r'model\.encoder\.layers\.\w+',  # ViT of torchvision
    r'model\.\w+\.(encoder\.)?(stages|layers|layer)\.\d+',  # Hugging Face: ResNet, ConvNeXt; Swin; ViT, DeiT, DINOv2
    r'model\.(inception\d\w|Mixed_\d\w)',  # GoogLeNet and Inception of torchvision
    r'model\.features\.denseblock\d',  # DenseNet of timm and torchvision
    r'model\.features\.\d+',  # MobileNet, EfficientNet, ConvNeXt, Swin, VGG of torchvision
)
#: What networks call the number of tokens before the patch tokens, and the parameter that is the class token.
EXTRA_TOKENS = ('num_extra_tokens', 'num_prefix_tokens')
CLASS_TOKEN = r'(cls|class)_token$'
#: Where a backbone of mmpretrain lists its stages by name.
LISTS = ('res_layers', 'layers', 'stages')


def stage_paths(network: nn.Module, survey: Survey) -> list[str]:
    """The paths of a network's stages or blocks, in order; empty where the table has none for it."""
    backbone = getattr(network, 'backbone', None)
    for names in (getattr(backbone, attribute, None) for attribute in LISTS):
        if isinstance(names, (list, tuple)) and names and all(isinstance(name, str) for name in names):
            return [f'backbone.{name}' for name in names]
    paths = [path for path, tensors in survey.outputs.items() if tensors]
    found = ([path for path in paths if re.fullmatch(pattern, path)] for pattern in STAGES)
    return next((stages for stages in found if len(stages) > 1), [])


def default_taps(network: Any, survey: Survey) -> dict[str, Tap]:
    """The tensors that a network offers without being told where they are, by name.

    Args:
        network: A classifier.
        survey: Its dry run.
    """
    outermost = survey.logit_paths[0]
    place = next(i for i, tensor in enumerate(survey.outputs[outermost]) if tensor.shape == survey.logit.shape)
    taps = {'logit': tap(survey, [outermost], index=place)}
    stages = stage_paths(network, survey)
    shapes = {survey.outputs[path][0].shape for path in stages}
    blocks_alike = stages and len(shapes) == 1 and len(next(iter(shapes))) == 3
    if survey.vector_place:
        path, index, goes_in = survey.vector_place
        taps['vector'] = tap(survey, [path], 'flat', index, goes_in=goes_in)
    with suppress(ValueError):  # tokens of a kind that the table does not know; config's taps can still name them
        found = _block_taps(network, survey, stages) if blocks_alike else _stage_taps(network, survey, stages)
        return found | taps
    return taps


def _block_taps(network: nn.Module, survey: Survey, blocks: list[str]) -> dict[str, Tap]:
    """Of a transformer whose blocks all have the same tokens."""
    last = _last_alike(survey, blocks[-1])
    middle = blocks[len(blocks) // 2 - 1]
    shape = tuple(survey.outputs[middle][0].shape)
    extra = Layout.of(shape, survey.size, _extra_tokens(network)).extra
    has_class_token = any(re.search(CLASS_TOKEN, name) for name, _ in network.named_parameters())
    pooled = 'class_token' if extra and has_class_token else 'pooled'
    quarters = [blocks[math.ceil(len(blocks) * i / 4) - 1] for i in range(1, 5)]
    return {
        'feat': tap(survey, [last], 'map', extra=extra),
        'feat_mid': tap(survey, [middle], pooled, 0, extra),
        'tokens_low': tap(survey, blocks[:2], 'tokens', 0, extra),
        'tokens_high': tap(survey, [last], 'tokens', extra=extra),
        'vector': tap(survey, [last], pooled, extra=extra),
        'stages': tap(survey, list(dict.fromkeys(quarters)), 'map', 0, extra, apart=True),
    }


def _extra_tokens(network: nn.Module) -> int | None:
    """How many tokens a network says stand before its patch tokens; None if it does not say."""
    found = (getattr(module, name, None) for module in network.modules() for name in EXTRA_TOKENS)
    return next((count for count in found if isinstance(count, int)), None)


def _stage_taps(network: Any, survey: Survey, stages: list[str]) -> dict[str, Tap]:
    """Of a network whose maps grow smaller and wider from stage to stage."""
    outputs = survey.outputs.get('backbone', [])
    if outputs and outputs[-1].dim() == 4:
        path, index = 'backbone', -1
    elif stages:
        path, index = _last_alike(survey, stages[-1]), 0
    else:
        return {}
    taps = {name: tap(survey, [path], FORM_OF[name], index) for name in ('feat', 'tokens_high', 'vector')}
    if ends := _four_stages(survey, stages):
        taps['stages'] = tap(survey, ends, 'map', 0, apart=True)
    middle = _before_last(survey, stages)
    if isinstance(getattr(network, 'backbone', None), SwinTransformer):
        norm = f'backbone.norm{network.backbone.num_layers - 2}'
        middle = norm if norm in survey.outputs else None  # only if the config lists that stage in out_indices
    if middle:
        taps['feat_mid'] = tap(survey, [middle], 'pooled', index=0)
    return taps


def _four_stages(survey: Survey, stages: list[str]) -> list[str]:
    """Where four stages end, from large maps to small ones.

    A stage that ends with the step that makes the map smaller counts up to its last block. Of more than four the last ones
    of the four smallest sizes count; of fewer the parts count too that have a size of their own.
    """

    def last_of_each_size(paths: Iterable[str]) -> list[str]:
        return list({math.prod(size): path for path in paths if (size := _places(survey, path)[1])}.values())[-4:]

    paths = [path for path, tensors in survey.outputs.items() if tensors and survey.calls[path] == 1]
    ends = []
    for stage in stages:
        block = re.compile(re.escape(stage) + r'(\.\w+)?\.\d+')
        blocks = [path for path in paths if block.fullmatch(path)]
        ends.append(blocks[-1] if blocks and _places(survey, blocks[-1]) != _places(survey, stage) else stage)
    ends = [path for path in ends if path in paths and _places(survey, path)[1]]
    if len(ends) > 4:
        return last_of_each_size(ends)
    parts = re.compile('|'.join(rf'{re.escape(stage)}\.\d+' for stage in stages) or '$^')
    return ends if len(ends) == 4 else last_of_each_size(p for p in paths if p in ends or parts.fullmatch(p))


def _before_last(survey: Survey, stages: list[str]) -> str | None:
    """The stage before the last.

    Some libraries count the step that makes the map smaller as a stage, or as the end of the one before it. That already
    returns what the last stage works on; then it is the last block or stage in front of that step.
    """
    if len(stages) < 2:
        return None
    before, last = (survey.outputs[stage][0] for stage in stages[-2:])
    if before.shape == last.shape and not stages[-2].startswith('backbone.'):
        block = re.compile(re.escape(stages[-2]) + r'\.\w+\.\d+')
        earlier = [path for path in survey.outputs if path in stages[:-2] or block.fullmatch(path)]
        larger = [p for p in earlier if survey.outputs[p] and _places(survey, p) != _places(survey, stages[-1])]
        return larger[-1] if larger else stages[-2]
    return stages[-2]


def _last_alike(survey: Survey, stage: str) -> str:
    """The last module behind a stage whose tensor has the same places: its final norm, or a convolution that widens it.

    What is inside of the classifier does not count.
    """
    order = list(survey.outputs)
    heads = tuple(f'{path}.' for path in survey.classifier_paths if not stage.startswith(f'{path}.'))
    behind = [p for p in order[order.index(stage) :] if survey.calls[p] == 1 and not p.startswith(heads)]
    alike = [p for p in behind if len(survey.outputs[p]) == 1 and _places(survey, p) == _places(survey, stage)]
    return alike[-1] if alike else stage


def _places(survey: Survey, path: str) -> tuple[Any, ...]:
    """The kind and the size of the grid in a module's first tensor, whatever its width."""
    shape = tuple(survey.outputs[path][0].shape)
    layout = Layout.of(shape, survey.size)
    sizes = {'map': shape[2:], 'map_last': shape[1:3], 'tokens': shape[1:2]}
    return layout.kind, sizes.get(layout.kind, ())


class OwnHead(nn.Module):
    """What makes class scores of the last stage's map where a network of mmpretrain has that as parts of its own.

    Args:
        network: A classifier with ``backbone``, ``head`` and, maybe None, ``neck``.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.norm = None
        if getattr(network.backbone, 'gap_before_final_norm', False):  # ConvNeXt
            self.norm = getattr(network.backbone, f'norm{network.backbone.num_stages - 1}')
        self.neck, self.head = network.neck, network.head

    def forward(self, feat: Tensor) -> Tensor:
        """Class scores of a map, (N, C, H, W)."""
        if self.norm is not None:
            feat = self.norm(feat.mean(dim=(2, 3), keepdim=True)).flatten(1)
        return self.head((feat,) if self.neck is None else self.neck((feat,)))


def own_head(network: Any) -> OwnHead | None:
    """That of a network; None where it has no such parts."""
    whole = getattr(network, 'backbone', None) is not None and getattr(network, 'head', None) is not None
    return OwnHead(network) if whole else None


def drop_unread_outputs(network: Any, taps: Iterable[Tap]) -> None:
    """Stop a network from computing stage outputs that nobody reads, and freeze the norms that only these have.

    mmpretrain's Swin, ConvNeXt and others put a norm ``norm{i}`` before each stage output in ``out_indices``. A norm whose
    output no loss reads has no gradient, which DistributedDataParallel refuses at the second step.

    Args:
        network: A classifier, changed in place; its parameters keep their names.
        taps: The taps that are read beside the last output.
    """
    backbone: Any = getattr(network, 'backbone', None)
    if backbone is None:
        return
    read = [(path, getattr(tap.view, 'index', 0)) for tap in taps for path in tap.modules]
    paths = {path for path, _ in read}
    indices = list(getattr(backbone, 'out_indices', ()))
    by_place = {indices[index] for path, index in read if path == 'backbone' and index != -1}
    children = dict(backbone.named_children())  # not hasattr: a ResNet has a property norm1, which is its stem's
    unread = [i for i in indices[:-1] if f'norm{i}' in children and f'backbone.norm{i}' not in paths and i not in by_place]
    for i in unread:
        children[f'norm{i}'].requires_grad_(False)
    if unread and not by_place:  # else the places of the others would move
        backbone.out_indices = [i for i in indices if i not in unread]
