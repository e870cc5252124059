"""Named tensors out of a network: which module gives which, and how they are read in one forward pass.

The names, without the ``_s`` or ``_t`` that says whose tensor it is:

========================  ===========================================================================================
``logit``                 class scores before the softmax, (N, C)
``feat``                  feature map of the last stage, (N, C, H, W)
``feat_mid``              features of the stage before the last, pooled, (N, C); of a ViT the class token half-way
``tokens_low``            a ViT's patch tokens after its first two blocks, (N, 2, L, D)
``tokens_high``           a ViT's patch tokens after its last block and final norm, (N, L, D)
========================  ===========================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from mmpretrain.models.backbones import SwinTransformer, VisionTransformer
from torch import Tensor, nn


@dataclass(frozen=True)
class Tap:
    """A tensor read at the outputs of some modules.

    Attributes:
        modules: Paths of the modules inside the network, as ``get_submodule`` takes them.
        view: What makes the tensor of these modules' outputs.
    """

    modules: tuple[str, ...]
    view: Callable[..., Tensor]


def _pool(feat: Tensor) -> Tensor:
    """Global average pool: (N, C, H, W) to (N, C)."""
    if not isinstance(feat, Tensor) or feat.dim() != 4:
        raise ValueError('feat_mid: the stage before the last of this backbone gives no feature map (N, C, H, W)')
    return feat.mean(dim=(2, 3))


def _stages(backbone: nn.Module) -> list[str]:
    """The names of a convolutional backbone's stages, in order."""
    for attribute in ('res_layers', 'layers', 'stages'):
        stages = getattr(backbone, attribute, None)
        if isinstance(stages, nn.ModuleList):
            return [f'{attribute}.{i}' for i in range(len(stages))]
        if isinstance(stages, (list, tuple)) and all(isinstance(name, str) for name in stages):
            return list(stages)
    return []


def _vit_taps(backbone: VisionTransformer) -> dict[str, Tap]:
    extra, half = backbone.num_extra_tokens, backbone.num_layers // 2
    first_two = ('backbone.layers.0', 'backbone.layers.1')
    taps = {'tokens_low': Tap(first_two, lambda *tokens: torch.stack([t[:, extra:] for t in tokens], dim=1))}
    if extra:
        taps['feat_mid'] = Tap((f'backbone.layers.{half - 1}',), lambda tokens: tokens[:, 0])
    if backbone.final_norm:
        taps['tokens_high'] = Tap(('backbone.ln1',), lambda tokens: tokens[:, extra:])
    return taps


def default_taps(network: Any) -> dict[str, Tap]:
    """The tensors that a classifier offers, by name.

    Args:
        network: An mmpretrain classifier with ``backbone`` and ``head``.
    """
    taps = {'logit': Tap(('head',), lambda logit: logit)}
    backbone = network.backbone
    if isinstance(backbone, VisionTransformer):
        return taps | _vit_taps(backbone)
    taps['feat'] = Tap(('backbone',), lambda outputs: outputs[-1])
    if isinstance(backbone, SwinTransformer):
        norm = f'norm{backbone.num_layers - 2}'
        if hasattr(backbone, norm):  # only if the config lists that stage in out_indices
            taps['feat_mid'] = Tap((f'backbone.{norm}',), lambda tokens: tokens.mean(dim=1))
    elif len(stages := _stages(backbone)) > 1:
        taps['feat_mid'] = Tap((f'backbone.{stages[-2]}',), _pool)
    return taps


class _AllRead(Exception):  # noqa: N818  (no error)
    """Ends a forward pass in which nothing is left to read."""


@contextmanager
def record(network: nn.Module, taps: dict[str, Tap], stop: bool = False) -> Iterator[dict[str, Tensor]]:
    """Read the tensors of one forward pass inside the ``with`` block; they are in the dict when it ends.

    Args:
        network: The network that runs inside the block.
        taps: What to read, by name.
        stop: Leave the block as soon as all is read, so that no later stage is computed.
    """
    outputs: dict[str, Tensor] = {}
    tensors: dict[str, Tensor] = {}
    paths = {path for tap in taps.values() for path in tap.modules}

    def keep(path: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            outputs[path] = output
            if stop and len(outputs) == len(paths):
                raise _AllRead

        return hook

    handles = [network.get_submodule(path).register_forward_hook(keep(path)) for path in paths]
    try:
        yield tensors
    except _AllRead:
        pass
    finally:
        for handle in handles:
            handle.remove()
    tensors.update({name: tap.view(*(outputs[path] for path in tap.modules)) for name, tap in taps.items()})


def drop_unread_outputs(backbone: Any, taps: Iterable[Tap]) -> None:
    """Stop a backbone from computing stage outputs that nobody reads, and freeze the norms that only these have.

    mmpretrain's Swin, ConvNeXt and others put a norm ``norm{i}`` before each stage output in ``out_indices``. A norm whose
    output no loss reads has no gradient, which DistributedDataParallel refuses at the second step.

    Args:
        backbone: The student's backbone, changed in place; its parameters keep their names.
        taps: The taps that are read beside the last output.
    """
    read = {path for tap in taps for path in tap.modules}
    indices = list(getattr(backbone, 'out_indices', ()))
    children = dict(backbone.named_children())  # not hasattr: a ResNet has a property norm1, which is its stem's
    unread = [i for i in indices[:-1] if f'norm{i}' in children and f'backbone.norm{i}' not in read]
    for i in unread:
        children[f'norm{i}'].requires_grad_(False)
    if unread:
        backbone.out_indices = [i for i in indices if i not in unread]
