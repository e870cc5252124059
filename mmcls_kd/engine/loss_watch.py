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
    for order in (2.0, float('inf')):  # the first is four times as fast, but squares of finite numbers may be infinite
        norms = torch._foreach_norm(list(there.values()), order)
        finite = torch.stack([norm.float() for norm in norms]).isfinite()
        if finite.all():
            return []
    return [name for name, good in zip(there, finite.tolist(), strict=True) if not good]


class LossWatch:
    """Check of the losses between forward and backward pass, and of the gradients before the optimizer's step.

    Args:
        model: The model, not in a parallel wrapper; a forward hook of it gets all terms by name.
        keep_statistics: Keep a copy of the buffers (batch statistics) from before each step, to restore them.
        gradient_norm_interval: See :class:`~mmcls_kd.engine.loops.ResumableEpochLoop`.

    Attributes:
        norms: The gradient norms of this step, to log; empty where they are not due.
    """

    def __init__(self, model: Any, keep_statistics: bool, gradient_norm_interval: int) -> None:
        self.model = model
        self.gradient_norm_interval = gradient_norm_interval
        self.buffers = list(self.model.buffers()) if keep_statistics else []
        self.kept = [buffer.clone() for buffer in self.buffers]
        self.iteration = 0
        self.norms: dict[str, Tensor] = {}
        model.register_forward_hook(self._after_forward, with_kwargs=True)

    def before_step(self, iteration: int) -> None:
        """Note the state before a step."""
        self.iteration, self.norms = iteration, {}
        for copy, buffer in zip(self.kept, self.buffers, strict=True):
            copy.copy_(buffer)

    def restore_statistics(self) -> None:
        """Restore the buffers of before the step."""
        for copy, buffer in zip(self.kept, self.buffers, strict=True):
            buffer.copy_(copy)

    def _after_forward(self, model: Any, _: Any, inputs: Mapping[str, Any], output: Any) -> None:
        if model.training and inputs.get('mode') == 'loss':
            self.look(output)

    def look(self, losses: Mapping[str, Any]) -> None:
        """Check the losses of a step, and take their gradient norms if they are due."""
        terms = {name: value_of(loss) for name, loss in losses.items()}
        self.check(terms)
        if self.gradient_norm_interval and (self.iteration + 1) % self.gradient_norm_interval == 0:
            self.norms = self.gradient_norms({n: v for n, v in terms.items() if v.requires_grad})

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
        """Refuse non-finite terms or a non-finite sum, in all processes at once: none may enter the backward pass alone.

        Raises:
            NonFiniteLossError: Names the terms.
        """
        values = torch.stack([value.detach().float() for value in terms.values()])
        here = values.sum().isfinite()  # with a term that is not finite, the sum is not
        all_finite = here.float()
        if is_distributed():
            torch.distributed.all_reduce(all_finite, torch.distributed.ReduceOp.MIN)
        if not all_finite:
            bad = [name for name, good in zip(terms, values.isfinite().tolist(), strict=True) if not good]
            raise NonFiniteLossError(bad or ([] if here else ['the sum of the losses']))

    def gradient_norms(self, terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the 2-norm of each term's gradient over all trainable parameters, in this process."""
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        norms = {}
        for name, value in terms.items():
            with torch.autocast(value.device.type, enabled=False):
                gradients = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
            norms[f'gradient_norm/{name}'] = torch.stack([g.norm() for g in gradients if g is not None]).norm()
        return norms
