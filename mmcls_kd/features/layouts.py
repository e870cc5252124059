"""Forms of features (maps, token sequences, vectors) and the conversions between them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

#: The value of a tap: a tensor, or a tuple of them.
Read = Any


def parts(read: Read) -> tuple[Tensor, ...]:
    """Return the tensors of a tap's value."""
    return (read,) if isinstance(read, Tensor) else read


def tensors_in(output: Any) -> list[Tensor]:
    """List the tensors in a module's output: the output itself, or those in a tuple, a list or a dict."""
    if isinstance(output, Tensor):
        return [output]
    parts = output.values() if isinstance(output, Mapping) else output if isinstance(output, (list, tuple)) else ()
    return [part for part in parts if isinstance(part, Tensor)]


@dataclass(frozen=True)
class Layout:
    """The layout of a feature.

    Attributes:
        kind: One of ``map`` (N, C, H, W), ``map_last`` (N, H, W, C), ``tokens`` (N, L, D), ``vector`` (N, C), ``other``.
        extra: Number of prefix tokens (class, distillation, register) before the patch tokens.
        ratio: Height and width of the images, without common factor; patches lie on a grid of that ratio.
    """

    kind: str
    extra: int = 0
    ratio: tuple[int, int] = (1, 1)

    @classmethod
    def of(cls, shape: tuple[int, ...], size: tuple[int, int] = (1, 1), extra: int | None = None) -> Layout:
        """Find the layout of a tensor computed from images.

        Tokens beyond the largest grid of the images' ratio are prefix tokens. Of a map, the two neighbouring sizes whose
        ratio is nearer to that of the images are height and width.

        Args:
            shape: Shape of the tensor.
            size: Height and width of the images.
            extra: Number of prefix tokens, used if the others then lie on such a grid.

        Example:
            >>> Layout.of((2, 198, 384))
            Layout(kind='tokens', extra=2, ratio=(1, 1))
            >>> Layout.of((2, 7, 7, 768))
            Layout(kind='map_last', extra=0, ratio=(1, 1))
        """
        common = math.gcd(*size)
        ratio = (size[0] // common, size[1] // common)
        if len(shape) == 4:
            first, last = (abs(math.log(h * ratio[1] / (w * ratio[0]))) for h, w in (shape[1:3], shape[2:4]))
            return cls('map_last' if first < last else 'map', ratio=ratio)
        if len(shape) == 3:
            length = shape[1]
            if extra is None or length <= extra or grid(length - extra, ratio) is None:
                extra = length - math.isqrt(length // math.prod(ratio)) ** 2 * math.prod(ratio)
            return cls('tokens' if extra < length else 'other', extra, ratio)
        return cls('vector' if len(shape) == 2 else 'other', ratio=ratio)


def undecided(shape: Sequence[int], size: tuple[int, int]) -> bool:
    """Check whether a map's height and width may be its second and third size, and its third and fourth as well.

    Of a ratio that is the images' but for the rounding of both sides to a whole number of places.
    """
    return min(shape[1:]) > 1 and all(
        abs(math.log(h * size[1] / (w * size[0]))) <= math.log1p(1 / h) + math.log1p(1 / w)
        for h, w in (shape[1:3], shape[2:4])
    )


def grid(count: int, ratio: tuple[int, int]) -> tuple[int, int] | None:
    """Return height and width of a grid of so many patches, of the images' ratio; None if there is none."""
    times = math.isqrt(count // math.prod(ratio))
    return (times * ratio[0], times * ratio[1]) if times**2 * math.prod(ratio) == count else None


def as_map(feat: Tensor, layout: Layout) -> Tensor:
    """Convert a feature to a map, (N, C, H, W), without prefix tokens; patch tokens lie on a grid of the images' ratio.

    Raises:
        ValueError: If it contains no map.
    """
    if layout.kind == 'map':
        return feat
    if layout.kind == 'map_last':
        return feat.permute(0, 3, 1, 2)
    tokens = as_tokens(feat, layout)
    sides = grid(tokens.shape[1], layout.ratio)
    if sides is None:
        raise ValueError(
            f'{tokens.shape[1]} patch tokens lie on no grid of {layout.ratio[0]} to {layout.ratio[1]}, the ratio of the '
            'images, so no feature map can be made of them: use square images'
        )
    return tokens.transpose(1, 2).unflatten(2, sides)


def as_tokens(feat: Tensor, layout: Layout) -> Tensor:
    """Convert a feature to patch tokens, (N, L, D), row by row, without prefix tokens.

    Raises:
        ValueError: If it contains none.
    """
    if layout.kind == 'tokens':
        return feat[:, layout.extra :]
    if layout.kind == 'map':
        return feat.flatten(2).transpose(1, 2)
    if layout.kind == 'map_last':
        return feat.flatten(1, 2)
    raise ValueError(f'a tensor of shape {tuple(feat.shape)} has neither a feature map nor tokens')


def as_pooled(feat: Tensor, layout: Layout) -> Tensor:
    """Average a feature over all places, without prefix tokens, (N, C).

    Raises:
        ValueError: If it has another form.
    """
    if layout.kind == 'vector':
        return feat
    return feat.mean(dim=(2, 3)) if layout.kind == 'map' else as_tokens(feat, layout).mean(dim=1)


def as_flat(feat: Tensor, layout: Layout) -> Tensor:  # noqa: ARG001
    """Flatten the feature of each image, (N, D)."""
    return feat.flatten(1)


def as_class_token(feat: Tensor, layout: Layout) -> Tensor:
    """Return the first prefix token, (N, D).

    Raises:
        ValueError: If there is none.
    """
    if layout.kind != 'tokens' or not layout.extra:
        raise ValueError(f'a tensor of shape {tuple(feat.shape)} has no class token')
    return feat[:, 0]


def as_it_is(feat: Tensor, layout: Layout) -> Tensor:  # noqa: ARG001
    """Return the tensor itself."""
    return feat


FORMS: dict[str, Callable[[Tensor, Layout], Tensor]] = {
    'map': as_map,
    'tokens': as_tokens,
    'pooled': as_pooled,
    'class_token': as_class_token,
    'flat': as_flat,
    'raw': as_it_is,
}
