"""The gradient of each term of a distiller's loss at the student, relative to the task loss's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..engine.loss_watch import value_of
from ..engine.seeds import buffers_kept, states_kept

#: Name of the task loss, the student's own on the labels.
TASK = 'task'


@dataclass(frozen=True)
class Term:
    """A term of the loss, weighted as in training; averaged over batches.

    Attributes:
        name: Name of the method, or :data:`TASK`.
        value: The term.
        norm: The 2-norm of its gradient over the student's parameters.
        ratio: ``norm`` in units of the task loss's; None where the task loss has no gradient.
        cosine: Cosine of the angle between both gradients; None where one of them is 0.
        weight: The method's ``loss_weight``, after a warm-up; None for the task.
    """

    name: str
    value: float
    norm: float
    ratio: float | None
    cosine: float | None
    weight: float | None = None


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Restore afterwards what a training step changes besides weights: buffers (batch statistics, memories), random states.

    The teachers' buffers count too.
    """
    with states_kept(), buffers_kept(model, *getattr(model, 'teachers', ())):
        yield


def weighted_terms(model: Any, data: Mapping[str, Any]) -> dict[str, Tensor]:
    """Compute the terms of one step's loss by name, the task loss first; weights count as after their warm-up.

    ``model`` is a distiller, or a classifier, which has only the task loss; ``data`` a batch, preprocessed for training.
    """
    losses = model(**data, mode='loss')
    methods = getattr(model, 'loss_weights', {})
    task = [value_of(loss) for name, loss in losses.items() if name not in methods and 'loss' in name]
    terms = {TASK: torch.stack(task).sum()}
    for name, weight in methods.items():
        now = weight.now(model.progress)
        terms[name] = value_of(losses[name]) * (weight.value / now if now else 1.0)
    return terms


def gradient(value: Tensor, parameters: list[nn.Parameter]) -> Tensor:
    """Compute the gradient of a term as one vector; 0 where it does not depend on a parameter."""
    if not value.requires_grad:
        return torch.zeros(sum(p.numel() for p in parameters))
    parts = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(parameters, parts, strict=True)])


def gradient_terms(model: Any, batches: Iterable[Any]) -> list[Term]:
    """Measure each term's gradient over the student's parameters at the start of training, the task loss's first.

    Nothing is trained: each batch starts from the same state.
    """
    parameters = [p for p in getattr(model, 'student', model).parameters() if p.requires_grad]
    measured: dict[str, list[tuple[float, float, float]]] = {}
    training = model.training
    model.train()
    try:
        for batch in batches:
            with untouched(model):
                terms = weighted_terms(model, model.data_preprocessor(batch, True))
                vectors = {name: gradient(value, parameters).double().cpu() for name, value in terms.items()}
            for name, vector in vectors.items():
                along = float(vector @ vectors[TASK])
                measured.setdefault(name, []).append((float(terms[name].detach()), float(vector.norm()), along))
    finally:
        model.train(training)
    if not measured:
        raise ValueError('there is no training batch to measure gradients on')
    tables = {name: np.array(rows) for name, rows in measured.items()}
    return [_term(name, rows, tables[TASK], getattr(model, 'loss_weights', {})) for name, rows in tables.items()]


def _term(name: str, rows: np.ndarray, task: np.ndarray, weights: Mapping) -> Term:
    """Average over batches; their rows have value, norm, and inner product with the task loss's gradient."""
    value, norm, _ = map(float, rows.mean(axis=0))
    task_norm = float(task[:, 1].mean())
    lengths = rows[:, 1] * task[:, 1]
    cosines = rows[lengths > 0, 2] / lengths[lengths > 0]
    ratio, cosine = norm / task_norm if task_norm else None, float(cosines.mean()) if len(cosines) else None
    return Term(name, value, norm, ratio, cosine, weights[name].value if name in weights else None)
