"""The teacher: built, loaded strictly, frozen, and run for the tensors that the losses ask for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor

from ..checkpoint import load_strictly
from ..configs import network_cfg
from .fast_network import PRECISIONS, FastNetwork, run
from .taps import default_taps

MODES = ('eval', 'train')


class Teacher:
    """A frozen classifier, deliberately no ``nn.Module``.

    So the distiller that holds it does not register it: it is in no parameter list, optimizer, state dict, DDP wrapper or
    EMA copy, and neither ``train()`` nor ``init_weights()`` of the distiller reaches it. A deep copy of the distiller (EMA
    makes one) shares it.

    Args:
        cfg: What :func:`~mmcls_kd.configs.network_cfg` takes.
        pretrained: File or address of its weights; False for a teacher with random weights, on purpose.
        mode: ``'eval'``, or ``'train'`` for batch statistics and drop path in the teacher, as in the original's runs.
        precision: ``'bf16'`` or ``'fp16'`` to compute in it; None for float32, or autocast's under mixed precision.
        compile_options: Keywords of ``torch.compile``; None not to compile.

    Raises:
        ValueError: If ``mode`` or ``precision`` is none of these, or config or weights are not given; names what to set.
        FileNotFoundError: If config or weights are missing.
    """

    def __init__(
        self,
        cfg: str | Mapping | None,
        pretrained: str | bool | None,
        mode: str = 'eval',
        precision: str | None = None,
        compile_options: Mapping[str, Any] | None = None,
    ) -> None:
        if mode not in MODES:
            raise ValueError(f'teacher_mode={mode!r}: choose one of {", ".join(map(repr, MODES))}')
        if precision is not None and precision not in PRECISIONS:
            raise ValueError(f'teacher_precision={precision!r}: choose one of {", ".join(map(repr, PRECISIONS))}, or None')
        if precision is not None and mode == 'train':
            raise ValueError("teacher_precision is for teacher_mode='eval': statistics of a batch need float32")
        if cfg is None:
            raise ValueError('the chosen methods need a teacher: set model.teacher_cfg')
        if pretrained is not False and not (isinstance(pretrained, str) and pretrained):
            raise ValueError(
                'the teacher has no weights: set model.teacher_pretrained to a file or an address '
                '(or to False, to distil from random weights on purpose)'
            )
        self.pretrained = pretrained
        with torch.random.fork_rng(devices=[]):  # so a run with a stored teacher, which draws none, starts alike
            self.network = MODELS.build(network_cfg(cfg))
        if pretrained:
            load_strictly(self.network, pretrained, 'teacher')
        self.network.requires_grad_(False).train(mode == 'train')
        self.fast = FastNetwork(self.network, precision, compile_options)
        self.taps = default_taps(self.network)

    @property
    def tensors(self) -> tuple[str, ...]:
        """The names of the tensors that can be read of it."""
        return tuple(self.taps)

    @property
    def num_classes(self) -> int | None:
        """How many classes it tells apart; None if its head does not say."""
        return getattr(getattr(self.network, 'head', None), 'num_classes', None)

    def __deepcopy__(self, memo: dict[int, Any]) -> Teacher:
        return self

    def head(self, feat: Tensor) -> Tensor:
        """The teacher's logits for features of its last stage, (N, C_t, H, W); gradients flow to the features."""
        outputs = (feat,) if self.network.neck is None else self.network.neck((feat,))
        return self.network.head(outputs)

    @torch.no_grad()
    def __call__(
        self,
        inputs: Tensor,
        data_samples: Sequence[DataSample],  # noqa: ARG002
        names: Iterable[str],
    ) -> dict[str, Tensor]:
        """Run the teacher as far as what is asked for needs it, in eval mode by :class:`.fast_network.FastNetwork`.

        Args:
            inputs: Images as the student sees them, (N, 3, H, W).
            data_samples: Their samples; only a stored teacher looks at them.
            names: Which of its taps to read.

        Returns:
            The tensors by name, without gradient.
        """
        taps = {name: self.taps[name] for name in names}
        return run(self.network, inputs, taps, stop=False) if self.network.training else self.fast(inputs, taps)
