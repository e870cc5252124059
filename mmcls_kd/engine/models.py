"""The model of a runner."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from mmengine.model import BaseAveragedModel, is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from ..features.dry_run import dry_run
from ..networks.heads import label_count
from ..networks.weights import rename_to_own


def unwrapped(runner: Runner) -> Any:
    """Return the runner's model without a parallel wrapper."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def classes_of(model: Any) -> int | None:
    """Return the number of classes of a model, two for one logit; None if unknown."""
    found = getattr(model, 'num_classes', getattr(getattr(model, 'head', None), 'num_classes', None))
    if found is None:
        with suppress(ValueError):
            return dry_run(model, 'model').num_classes
    return label_count(model, found)


def fill_in_classes(model: Any) -> None:
    """Give the number of classes to a data preprocessor that makes one-hot labels, as for mixup, and lacks it."""
    preprocessor: Any = getattr(model, 'data_preprocessor', None)
    if getattr(preprocessor, 'to_onehot', False) and preprocessor.num_classes is None:
        preprocessor.num_classes = classes_of(model)


def share_memories(model: nn.Module, average: BaseAveragedModel) -> None:
    """Share the memories of the model's losses with a moving average, which has neither a use nor room for copies."""
    for own, copy in zip(model.modules(), average.module.modules(), strict=True):
        for name in getattr(own, 'memories', ()):
            setattr(copy, name, getattr(own, name))
    if average.update_buffers:
        average.avg_parameters = average.module.state_dict()


def models_own_names(average: BaseAveragedModel, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Rename the model in a moving average's state dict to its own names, by which EMAHook looks for them, in place."""
    rename_to_own(state, f'{prefix}module.', average.module)
