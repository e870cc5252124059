"""The optimizer's state by parameter name, so that it fits a model with other parts.

torch counts parameters by position. A checkpoint of the original toolbox also counts the frozen teacher's, which are in no
optimizer here; and a loss with parameters that is switched on or off moves all behind it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mmengine.optim import OptimWrapper
from torch import Tensor, nn
from torch.optim import Optimizer

#: Endings of buffers' names, for use without a network to distinguish them from parameters.
BUFFERS = re.compile(
    r'(running_mean|running_var|num_batches_tracked|relative_position_index|attn_mask|relative_coords_table)$'
)


def parameter_names(model: nn.Module, optimizer: Optimizer) -> list[str]:
    """Return the names of an optimizer's parameters in the order of its state."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(p)] for group in optimizer.param_groups for p in group['params']]


def names_in(checkpoint: Mapping[str, Any], model: nn.Module, count: int) -> list[str]:
    """Return the names of the ``count`` parameters in a checkpoint's optimizer state.

    Ours has them. In one of the original, the order is that of its weights, which hold all parameters and the buffers; the
    teacher's are included, unless the optimizer had options for single parameters.
    """
    if 'optimizer_names' in checkpoint:
        return list(checkpoint['optimizer_names'])
    buffers = {name for name, _ in model.named_buffers()}
    weights = (name.removeprefix('module.') for name in checkpoint['state_dict'])
    names = [name for name in weights if name not in buffers and not BUFFERS.search(name)]
    for choice in (names, [name for name in names if not name.startswith('teacher.')]):
        if len(choice) == count:
            return choice
    raise ValueError(
        f'the checkpoint’s optimizer has the state of {count} parameters, but its weights are {len(names)}: '
        'start from its weights alone (load_from, without --resume)'
    )


def match_by_name(checkpoint: dict[str, Any], model: nn.Module, optim_wrapper: OptimWrapper) -> None:
    """Reorder the optimizer's and the schedulers' state of a checkpoint to this run's parameters.

    They replace the old ones in ``checkpoint``, which stay unchanged themselves. Parameters that the checkpoint lacks start
    without state; state of others (a teacher's) is dropped. Several optimizers by name are left to mmengine.

    Raises:
        ValueError: If the state is of another kind of optimizer, or its number of parameters or their shapes differ.
    """
    saved = checkpoint['optimizer']
    if 'param_groups' not in saved:
        return
    _check_kind(checkpoint, optim_wrapper.optimizer)
    positions = [i for group in saved['param_groups'] for i in group['params']]
    names = names_in(checkpoint, model, len(positions))
    name_at = dict(zip(positions, names, strict=True))
    group_of = {name_at[i]: g for g, group in enumerate(saved['param_groups']) for i in group['params']}
    state_of = {name_at[i]: state for i, state in saved['state'].items()}

    own = parameter_names(model, optim_wrapper.optimizer)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    for name in own:
        _check_shapes(name, state_of.get(name, {}), shapes[name])
    groups = optim_wrapper.state_dict()['param_groups']
    sources = [next((group_of[own[i]] for i in group['params'] if own[i] in group_of), 0) for group in groups]
    for group, source in zip(groups, sources, strict=True):
        group.update({k: v for k, v in saved['param_groups'][source].items() if k not in ('params', 'param_names')})
    state = {i: state_of[name] for i, name in enumerate(own) if name in state_of}
    checkpoint['optimizer'] = {**saved, 'state': state, 'param_groups': groups}
    extra = len(optim_wrapper.param_groups) - len(groups)  # mmengine's base_param_settings, which have no parameter
    if schedulers := checkpoint.get('param_schedulers'):
        by_group = ('base_values', '_last_value')  # a value for each group
        checkpoint['param_schedulers'] = [
            s | {k: [s[k][i] for i in sources] + s[k][-1:] * extra for k in by_group if s.get(k)} for s in schedulers
        ]


def _check_kind(checkpoint: Mapping[str, Any], optimizer: Optimizer) -> None:
    """Refuse the state of another kind of optimizer; without its name, one that lacks settings of this one."""
    own, kind = type(optimizer).__name__, checkpoint.get('optimizer_type')
    group = checkpoint['optimizer']['param_groups'][0]
    numbers = [k for k, v in optimizer.defaults.items() if isinstance(v, (int, float, tuple)) and not isinstance(v, bool)]
    lacking = [key for key in numbers if key not in group]
    if (kind or own) != own or (kind is None and lacking):
        what = f'is {kind}' if kind else f'is another (it has no {", ".join(lacking)})'
        raise ValueError(
            f'optim_wrapper.optimizer is {own}, and the checkpoint’s {what}: resume with the optimizer that the run had, or '
            'start from its weights alone (load_from, without --resume)'
        )


def _check_shapes(name: str, state: Mapping[str, Any], shape: Any) -> None:
    for key, value in state.items():
        if isinstance(value, Tensor) and value.dim() and value.shape != shape:
            raise ValueError(f'the optimizer state {key} of {name} has the shape {tuple(value.shape)}, not {tuple(shape)}')
