"""Watch over the losses of each step: it stops at non-finite losses, and measures gradient norms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from mmengine.dist import is_distributed
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor

from ..errors import NonFiniteLossError


def value_of(loss: Tensor | list[Tensor]) -> Tensor:
    """Return a loss as mmengine adds it up: its mean; for a list the sum of the means."""
    return loss.mean() if isinstance(loss, Tensor) else sum(part.mean() for part in loss)  # type: ignore[return-value]


def not_finite(tensors: Mapping[str, Tensor | None]) -> list[str]:
    """Return the names of tensors with a NaN or an infinite number."""
    there = {name: value for name, value in tensors.items() if value is not None and not value.is_sparse}
    if not there:
        return []
    largest = torch._foreach_norm(list(there.values()), float('inf'))
    finite = torch.stack([value.float() for value in largest]).isfinite()
    return [] if finite.all() else [name for name, good in zip(there, finite.tolist(), strict=True) if not good]


class LossWatch:
    """Check of the losses between forward and backward pass, and of the gradients before the optimizer's step.

    It replaces the model's ``parse_losses``, the only function that gets all terms by name, and calls it.

    Args:
        model: The model, not in a parallel wrapper.
        keep_statistics: Keep a copy of the buffers (batch statistics) from before each step, to restore them.
        gradient_norm_interval: See :class:`~mmcls_kd.engine.loops.ResumableEpochLoop`.
    """

    def __init__(self, model: Any, keep_statistics: bool, gradient_norm_interval: int) -> None:
        self.model = model
        self.gradient_norm_interval = gradient_norm_interval
        self.buffers = list(self.model.buffers()) if keep_statistics else []
        self.kept = [buffer.clone() for buffer in self.buffers]
        self.iteration = 0
        self._parse = type(self.model).parse_losses
        self.model.parse_losses = self.parse_losses

    def before_step(self, iteration: int) -> None:
        """Note the state before a step."""
        self.iteration = iteration
        for copy, buffer in zip(self.kept, self.buffers, strict=True):
            copy.copy_(buffer)

    def restore_statistics(self) -> None:
        """Restore the buffers of before the step."""
        for copy, buffer in zip(self.kept, self.buffers, strict=True):
            buffer.copy_(copy)

    def parse_losses(self, losses: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Call the model's own ``parse_losses``, and add the gradient norms if they are due.

        Raises:
            NonFiniteLossError: In every process, if a loss of any process is NaN or infinite.
        """
        total, log_vars = self._parse(self.model, losses)
        terms = {name: value_of(loss) for name, loss in losses.items()}
        self.check(terms | {'the sum of the losses': total})
        if self.gradient_norm_interval and (self.iteration + 1) % self.gradient_norm_interval == 0:
            log_vars = log_vars | self.gradient_norms({n: v for n, v in terms.items() if v.requires_grad})
        return total, log_vars

    def watch_gradients(self, wrapper: OptimWrapper) -> None:
        """Check the gradients before each step of an optimizer: those of finite losses may be non-finite.

        All processes see the same gradients. Those that a loss scaler finds are left to it: it skips the step and scales
        less.
        """
        names = {id(parameter): name for name, parameter in self.model.named_parameters()}
        wrappers: Iterable[Any] = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]

        def look(optimizer: Any, *_: Any) -> None:
            if getattr(optimizer, 'found_inf', None) is not None:  # a fused one under a loss scaler
                return
            parameters = [p for group in optimizer.param_groups for p in group['params']]
            if bad := not_finite({names[id(p)]: p.grad for p in parameters}):
                more = f' and of {len(bad) - 1} more parameters' if len(bad) > 1 else ''
                raise NonFiniteLossError([f'the gradient of {bad[0]}{more}'], gradient=True)

        for one in wrappers:
            one.optimizer.register_step_pre_hook(look)

    @staticmethod
    def check(terms: Mapping[str, Tensor]) -> None:
        """Refuse non-finite terms, in all processes at once: none may enter the backward pass alone.

        Raises:
            NonFiniteLossError: Names the terms.
        """
        finite = torch.stack([value.detach().float() for value in terms.values()]).isfinite()
        all_finite = finite.all().float()
        if is_distributed():
            torch.distributed.all_reduce(all_finite, torch.distributed.ReduceOp.MIN)
        if not all_finite:
            bad = [name for name, good in zip(terms, finite.tolist(), strict=True) if not good]
            raise NonFiniteLossError(bad[:-1] or bad)

    def gradient_norms(self, terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the 2-norm of each term's gradient over all trainable parameters, in this process."""
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        norms = {}
        for name, value in terms.items():
            gradients = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
            norms[f'gradient_norm/{name}'] = torch.stack([g.norm() for g in gradients if g is not None]).norm()
        return norms
