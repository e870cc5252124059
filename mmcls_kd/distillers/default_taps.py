"""The one table that knows families of networks: where each keeps its stages or blocks, and what is read of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
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
#: Where a backbone of mmpretrain lists its stages by name.
LISTS = ('res_layers', 'layers', 'stages')


def stage_paths(network: nn.Module, survey: Survey) -> list[str]:
    """The paths of a network's stages or blocks, in order; empty where the table has none for it."""
    backbone = getattr(network, 'backbone', None)
    for names in (getattr(backbone, attribute, None) for attribute in LISTS):
        if isinstance(names, (list, tuple)) and names and all(isinstance(name, str) for name in names):
            return [f'backbone.{name}' for name in names]
    found = ([path for path in survey.outputs if re.fullmatch(pattern, path)] for pattern in STAGES)
    return next((paths for paths in found if len(paths) > 1), [])


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
    if stages and len(shapes) == 1 and len(next(iter(shapes))) == 3:
        return taps | _block_taps(survey, stages)
    return taps | _stage_taps(network, survey, stages)


def _block_taps(survey: Survey, blocks: list[str]) -> dict[str, Tap]:
    """Of a transformer whose blocks all have the same tokens."""
    last = _last_alike(survey, blocks[-1])
    middle = blocks[len(blocks) // 2 - 1]
    form = 'class_token' if Layout.of(tuple(survey.outputs[middle][0].shape)).extra else 'pooled'
    return {
        'feat': tap(survey, [last], 'map'),
        'feat_mid': tap(survey, [middle], form, index=0),
        'tokens_low': tap(survey, blocks[:2], 'tokens', index=0),
        'tokens_high': tap(survey, [last], 'tokens'),
    }


def _stage_taps(network: Any, survey: Survey, stages: list[str]) -> dict[str, Tap]:
    """Of a network whose maps grow smaller and wider from stage to stage."""
    outputs = survey.outputs.get('backbone', [])
    if outputs and outputs[-1].dim() == 4:
        path, index = 'backbone', -1
    elif stages:
        path, index = _last_alike(survey, stages[-1]), 0
    else:
        return {}
    taps = {name: tap(survey, [path], FORM_OF[name], index) for name in ('feat', 'tokens_high')}
    middle = stages[-2] if len(stages) > 1 else None
    if isinstance(getattr(network, 'backbone', None), SwinTransformer):
        norm = f'backbone.norm{network.backbone.num_layers - 2}'
        middle = norm if norm in survey.outputs else None  # only if the config lists that stage in out_indices
    if middle:
        taps['feat_mid'] = tap(survey, [middle], 'pooled', index=0)
    return taps


def _last_alike(survey: Survey, stage: str) -> str:
    """The last module behind a stage whose tensor has the same places: its final norm, or a convolution that widens it."""
    order = list(survey.outputs)
    places = _places(survey.outputs[stage][0])
    behind = [path for path in order[order.index(stage) :] if survey.calls[path] == 1]
    alike = [path for path in behind if len(survey.outputs[path]) == 1 and _places(survey.outputs[path][0]) == places]
    return alike[-1] if alike else stage


def _places(tensor: Tensor) -> tuple[Any, ...]:
    """The kind and the size of a tensor's grid, whatever its width."""
    layout = Layout.of(tuple(tensor.shape))
    sizes = {'map': tensor.shape[2:], 'map_last': tensor.shape[1:3], 'tokens': tensor.shape[1:2]}
    return layout.kind, tuple(sizes.get(layout.kind, ()))


def own_head(network: Any) -> Callable[[Tensor], Tensor] | None:
    """What makes class scores of the last stage's map, (N, C, H, W), where a network has that as parts of its own."""
    if getattr(network, 'backbone', None) is None or getattr(network, 'head', None) is None:
        return None

    def head(feat: Tensor) -> Tensor:
        outputs = (feat,) if network.neck is None else network.neck((feat,))
        return network.head(outputs)

    return head


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
    read = {path for tap in taps for path in tap.modules}
    indices = list(getattr(backbone, 'out_indices', ()))
    children = dict(backbone.named_children())  # not hasattr: a ResNet has a property norm1, which is its stem's
    unread = [i for i in indices[:-1] if f'norm{i}' in children and f'backbone.norm{i}' not in read]
    for i in unread:
        children[f'norm{i}'].requires_grad_(False)
    if unread:
        backbone.out_indices = [i for i in indices if i not in unread]
