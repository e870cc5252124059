"""DOT: the optimizer that gives the task and distillation a momentum each (ICCV 2023, arXiv 2307.08436)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from mmpretrain.registry import OPTIM_WRAPPERS, OPTIMIZERS
from torch import Tensor, nn
from torch.optim import Optimizer

from .loss_watch import value_of


@OPTIMIZERS.register_module()
class DOT(Optimizer):
    r"""SGD with a momentum buffer for each of two losses: a smaller momentum for the task, a larger one for distillation.

    .. math:: v \leftarrow (\mu - \Delta) v + g_{task} + \lambda w, \quad u \leftarrow (\mu + \Delta) u + g_{kd}, \quad
        w \leftarrow w - lr (v + u)

    Both buffers begin as their first gradient. A parameter that only one of the losses reaches has the momentum μ. One that
    only distillation reaches has its weight decay in u, except in its first step, as in the authors' code.

    Both gradients come from :meth:`step`, or from :meth:`differentiate` before it, not from ``backward()``. With several
    processes they are averaged there. Therefore a model in ``DistributedDataParallel`` has to run forward under
    ``no_sync()``, as :class:`DOTWrapper` does.

    Args:
        params: Parameters, or groups of them.
        lr: Learning rate.
        momentum: Momentum μ.
        delta: Difference Δ. The authors have 0.075 on CIFAR-100 and 0.09 on ImageNet.
        weight_decay: Weight decay λ.

    Raises:
        ValueError: If a value is out of its range.

    Example:
        >>> weight = nn.Parameter(torch.tensor([1.0]))
        >>> DOT([weight], lr=0.1).step(2 * weight.sum(), 3 * weight.sum())
        >>> weight.data
        tensor([0.5000])
    """

    #: Both gradients of each parameter, for the next step.
    _gradients: Sequence[tuple[Tensor | None, Tensor | None]] = ()

    def __init__(
        self, params: Iterable[Any], lr: float, momentum: float = 0.9, delta: float = 0.075, weight_decay: float = 0.0
    ) -> None:
        if lr < 0 or weight_decay < 0:
            raise ValueError(f'DOT(lr={lr}, weight_decay={weight_decay}): both have to be 0 or more')
        if not (momentum - abs(delta) >= 0 and momentum + abs(delta) < 1):
            raise ValueError(
                f'DOT(momentum={momentum}, delta={delta}): momentum - delta and momentum + delta have to be 0 or more, and '
                'less than 1'
            )
        super().__init__(params, dict(lr=lr, momentum=momentum, delta=delta, weight_decay=weight_decay))

    def differentiate(self, task_loss: Tensor | None, kd_loss: Tensor | None) -> None:
        """Compute the gradients of both losses for the next step; ``grad`` of each parameter becomes their sum.

        Args:
            task_loss: Loss of the task, a scalar; None if there is none.
            kd_loss: Sum of the distillation losses, a scalar; None if there is none.
        """
        parameters = [p for group in self.param_groups for p in group['params']]
        trained = [p for p in parameters if p.requires_grad]
        both = []
        for loss, keep in ((kd_loss, task_loss is not None), (task_loss, False)):
            found: Sequence[Tensor | None] = ()
            if loss is not None and loss.requires_grad:
                found = torch.autograd.grad(loss, trained, retain_graph=keep, allow_unused=True)
            of_parameter = dict(zip(map(id, trained), average_over_processes(found), strict=bool(found)))
            both.append([of_parameter.get(id(p)) for p in parameters])
        of_kd, of_task = both
        self._gradients = list(zip(of_task, of_kd, strict=True))
        for parameter, pair in zip(parameters, self._gradients, strict=True):
            present = [gradient for gradient in pair if gradient is not None]
            parameter.grad = sum(present[1:], present[0].clone()) if present else None

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop all gradients."""
        self._gradients = ()
        super().zero_grad(set_to_none)

    @torch.no_grad()
    def step(self, task_loss: Tensor | None = None, kd_loss: Tensor | None = None) -> None:  # type: ignore[override]
        """Change the parameters once.

        Args:
            task_loss: Loss of the task, a scalar; None where :meth:`differentiate` was called before.
            kd_loss: Sum of the distillation losses, a scalar.

        Raises:
            RuntimeError: If there are no losses.
        """
        if task_loss is not None or kd_loss is not None:
            with torch.enable_grad():
                self.differentiate(task_loss, kd_loss)
        if not self._gradients:
            raise RuntimeError(
                "DOT needs its losses: step(task_loss, kd_loss), or in a config optim_wrapper.type='DOTWrapper'"
            )
        gradients = iter(self._gradients)
        for group in self.param_groups:
            for parameter in group['params']:
                self._move(parameter, *next(gradients), group)
        self._gradients = ()

    def _move(self, w: Tensor, of_task: Tensor | None, of_kd: Tensor | None, group: Mapping[str, float]) -> None:
        """Change one parameter."""
        state, decay = self.state[w], group['weight_decay']
        delta = group['delta'] if of_task is not None and of_kd is not None else 0.0
        before = w.clone() if decay else w
        if of_task is not None:
            self._follow(state, 'task_momentum', group['momentum'] - delta, of_task + decay * before)
            w.sub_(state['task_momentum'], alpha=group['lr'])
        if of_kd is not None:
            if of_task is None and 'kd_momentum' in state:
                of_kd = of_kd + decay * before
            self._follow(state, 'kd_momentum', group['momentum'] + delta, of_kd)
            w.sub_(state['kd_momentum'], alpha=group['lr'])

    @staticmethod
    def _follow(state: dict[str, Tensor], name: str, momentum: float, gradient: Tensor) -> None:
        """Add a gradient to its buffer."""
        if name in state:
            state[name].mul_(momentum).add_(gradient)
        else:
            state[name] = gradient.clone()


def average_over_processes(gradients: Iterable[Tensor | None]) -> list[Tensor | None]:
    """Average gradients over all processes, in one message; without several of them they stay the same."""
    gradients = list(gradients)
    there = [gradient for gradient in gradients if gradient is not None]
    if not there or not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return gradients
    flat = torch.cat([gradient.flatten().float() for gradient in there])
    torch.distributed.all_reduce(flat)
    parts = iter((flat / torch.distributed.get_world_size()).split([gradient.numel() for gradient in there]))
    return [None if g is None else next(parts).view_as(g).to(g.dtype) for g in gradients]


@OPTIM_WRAPPERS.register_module()
class DOTWrapper(OptimWrapper):
    """The optimizer wrapper of a training with :class:`DOT`: it hands both losses of a distiller to it.

    The task's loss is the sum of the student's own losses (``ori_...``), the other one that of the methods. Both contain
    their weights.

    Args:
        optimizer: A :class:`DOT`.
        accumulative_counts: 1.
        clip_grad: None.

    Raises:
        ValueError: If it is another optimizer, or gradients are to be accumulated or clipped.
    """

    def __init__(self, optimizer: Optimizer, accumulative_counts: int = 1, clip_grad: dict | None = None) -> None:
        if not isinstance(optimizer, DOT):
            raise ValueError(f"DOTWrapper is for optimizer=dict(type='DOT', ...), not for {type(optimizer).__name__}")
        if accumulative_counts != 1 or clip_grad:
            key = 'clip_grad' if clip_grad else 'accumulative_counts'
            raise ValueError(f'DOTWrapper keeps the gradients of task and distillation apart, without {key}: leave it out')
        super().__init__(optimizer)
        self.optimizer: DOT
        self._losses: tuple[Tensor | None, Tensor | None] | None = None

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Note the losses of the forward pass by name; a parallel wrapper leaves the gradients to the optimizer."""
        outer: Any = model
        parallel = hasattr(model, 'no_sync')

        def keep(distiller: Any, _: Any, losses: Any) -> None:
            methods = getattr(distiller, 'distill_losses', ())
            if isinstance(losses, Mapping) and (methods or any(name.startswith('ori_') for name in losses)):
                self._losses = split_losses(losses, methods)

        handle = (outer.module if parallel else outer).register_forward_hook(keep)
        try:
            with outer.no_sync() if parallel else nullcontext():
                yield
        finally:
            handle.remove()

    def update_params(
        self,
        loss: Tensor,  # noqa: ARG002
        step_kwargs: dict | None = None,
        zero_kwargs: dict | None = None,
    ) -> None:
        """Run one step with both losses of the last forward pass; their sum, ``loss``, is not needed."""
        if self._losses is None:
            raise ValueError('DOTWrapper: the model gave no losses of task and distillation by name; it is for distillers')
        losses, self._losses = self._losses, None
        self.optimizer.differentiate(*losses)
        self._inner_count += 1
        self.step(**(step_kwargs or {}))
        self.zero_grad(**(zero_kwargs or {}))


def split_losses(losses: Mapping[str, Any], methods: Iterable[str]) -> tuple[Tensor | None, Tensor | None]:
    """Add up a distiller's losses: those of the task, and those of the methods; None where there is none.

    Args:
        losses: Its losses and other values to log, by name.
        methods: Names of its methods, which count also without the word ``loss``.
    """
    methods = set(methods)
    of_task = [value_of(v) for name, v in losses.items() if name.startswith('ori_') and 'loss' in name]
    of_methods = [value_of(v) for k, v in losses.items() if not k.startswith('ori_') and ('loss' in k or k in methods)]
    return (sum(of_task) if of_task else None, sum(of_methods) if of_methods else None)  # type: ignore[return-value]
