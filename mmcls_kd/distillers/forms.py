"""The forms of features, maps, token sequences and vectors, and how one is made of another."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor


def tensors_in(output: Any) -> list[Tensor]:
    """The tensors in what a module returns: itself, or those in a tuple, a list or a dict."""
    if isinstance(output, Tensor):
        return [output]
    parts = output.values() if isinstance(output, Mapping) else output if isinstance(output, (list, tuple)) else ()
    return [part for part in parts if isinstance(part, Tensor)]


@dataclass(frozen=True)
class Layout:
    """How a tensor of features is laid out.

    Attributes:
        kind: One of ``map`` (N, C, H, W), ``map_last`` (N, H, W, C), ``tokens`` (N, L, D), ``vector`` (N, C), ``other``.
        extra: How many tokens (class, distillation, registers) stand before the patch tokens.
    """

    kind: str
    extra: int = 0

    @classmethod
    def of(cls, shape: tuple[int, ...]) -> Layout:
        """That of a tensor made of square images.

        Patches then lie on a square grid, so tokens beyond the largest square are extra ones; and two equal sizes side by
        side are height and width.

        Example:
            >>> Layout.of((2, 198, 384))
            Layout(kind='tokens', extra=2)
            >>> Layout.of((2, 7, 7, 768))
            Layout(kind='map_last', extra=0)
        """
        if len(shape) == 4:
            return cls('map_last' if shape[1] == shape[2] != shape[3] else 'map')
        if len(shape) == 3:
            return cls('tokens', shape[1] - math.isqrt(shape[1]) ** 2)
        return cls('vector' if len(shape) == 2 else 'other')


def as_map(feat: Tensor, layout: Layout) -> Tensor:
    """Features as a map, (N, C, H, W); the patch tokens lie on a square grid, the extra ones are left out.

    Raises:
        ValueError: If there is no map in them.
    """
    if layout.kind == 'map':
        return feat
    if layout.kind == 'map_last':
        return feat.permute(0, 3, 1, 2)
    tokens = as_tokens(feat, layout)
    side = math.isqrt(tokens.shape[1])
    if side**2 != tokens.shape[1]:
        raise ValueError(
            f'{tokens.shape[1]} patch tokens lie on no square grid, so no feature map can be made of them: use square images'
        )
    return tokens.transpose(1, 2).unflatten(2, (side, side))


def as_tokens(feat: Tensor, layout: Layout) -> Tensor:
    """Features as patch tokens, (N, L, D), row by row; extra tokens are left out.

    Raises:
        ValueError: If there are none in them.
    """
    if layout.kind == 'tokens':
        return feat[:, layout.extra :]
    if layout.kind == 'map':
        return feat.flatten(2).transpose(1, 2)
    if layout.kind == 'map_last':
        return feat.flatten(1, 2)
    raise ValueError(f'a tensor of shape {tuple(feat.shape)} has neither a feature map nor tokens')


def as_pooled(feat: Tensor, layout: Layout) -> Tensor:
    """Features averaged over all places, extra tokens left out, (N, C).

    Raises:
        ValueError: If they have another form.
    """
    if layout.kind == 'vector':
        return feat
    return feat.mean(dim=(2, 3)) if layout.kind == 'map' else as_tokens(feat, layout).mean(dim=1)


def as_class_token(feat: Tensor, layout: Layout) -> Tensor:
    """The first of the extra tokens, (N, D).

    Raises:
        ValueError: If there is none.
    """
    if layout.kind != 'tokens' or not layout.extra:
        raise ValueError(f'a tensor of shape {tuple(feat.shape)} has no class token')
    return feat[:, 0]


def as_it_is(feat: Tensor, layout: Layout) -> Tensor:  # noqa: ARG001
    """The tensor itself."""
    return feat


FORMS: dict[str, Callable[[Tensor, Layout], Tensor]] = {
    'map': as_map,
    'tokens': as_tokens,
    'pooled': as_pooled,
    'class_token': as_class_token,
    'raw': as_it_is,
}
