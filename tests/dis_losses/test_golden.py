"""Every case of losses.npz and methods2.npz: the recorded value and gradients (provenance: tests/data/README.md)."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from kit import assert_close
from mmpretrain.registry import MODELS

from mmcls_kd import dis_losses
from mmcls_kd.dis_losses import srrl_loss

with np.load(Path(__file__).parents[1] / 'data' / 'losses.npz') as file:
    VECTORS = dict(file)

LABELS = ('hard', 'soft')
SCALE_TEMP = [f's{scale}_T{temp}' for scale, temp in product((1, 4), (1, 4))]
SCALE_LABEL = [f's{scale}_{label}' for scale, label in product((1, 4), LABELS)]
FLOAT64_CASES = [
    *(f'kd_{grid}' for grid in SCALE_TEMP),
    *(f'dkd_{grid}_hard' for grid in SCALE_TEMP),
    *(f'wsld_{grid}_hard' for grid in SCALE_TEMP),
    *(f'nkd_{grid}_{label}' for grid, label in product(SCALE_TEMP, LABELS)),
    *(f'tfnkd_{grid}' for grid in SCALE_LABEL),
    *(f'uskd_{rank_by}_{grid}' for rank_by, grid in product(('prob', 'log_prob'), SCALE_LABEL)),
    'srrl',
]
FLOAT32_CASES = ['mgd', 'vitkd_8_12']
CASES = FLOAT64_CASES + FLOAT32_CASES
WITH_PARAMETERS = [case for case in CASES if case.startswith(('uskd', 'srrl', 'mgd', 'vitkd'))]

# The original's names of a tensor, where ours differs.
OUR_NAME = {
    'preds_S': 'feat_s',
    'preds_T': 'feat_t',
    'fea_s': 'feat_s',
    'fea_t': 'feat_t',
    'fea_mid': 'feat_mid',
    'low_s': 'tokens_low_s',
    'low_t': 'tokens_low_t',
    'high_s': 'tokens_high_s',
    'high_t': 'tokens_high_t',
}
TEACHERS = {'logit_t', 'feat_t', 'tokens_low_t', 'tokens_high_t', 'gt_label'}


def tensors(case, part):
    """The arrays of a case under ``part``, by our names."""
    prefix = f'{case}/{part}.'
    found = {key.removeprefix(prefix): torch.from_numpy(v.copy()) for key, v in VECTORS.items() if key.startswith(prefix)}
    return {OUR_NAME.get(name, name): value for name, value in found.items()}


def meta(case):
    return json.loads(str(VECTORS[f'{case}/meta']))


def build(case, dtype=torch.float64):
    """The registered loss of a case with the case's parameters."""
    loss = MODELS.build(dict(type=meta(case)['loss'], **meta(case)['kwargs'])).to(dtype)
    state = tensors(case, 'param')
    if case == 'srrl':  # a vector of the function alone: it has no running statistics
        state = {**loss.state_dict(), **state}
    loss.load_state_dict(state)
    return loss


def run(case, dtype):
    """The value of a case, computed in ``dtype``, and its gradients under the file's names."""
    loss = build(case, dtype)
    inputs = {k: v.to(dtype) if v.is_floating_point() else v for k, v in tensors(case, 'in').items()}
    leaves = {name: value.requires_grad_() for name, value in inputs.items() if name not in TEACHERS}
    if meta(case)['seed'] is not None:
        torch.manual_seed(meta(case)['seed'])
    if case == 'srrl':
        value = srrl_loss(**inputs, alpha=loss.alpha, beta=loss.beta)
    else:
        value = loss(**inputs)
        leaves |= {f'param.{name}': parameter for name, parameter in loss.named_parameters()}
    return value, dict(zip(leaves, torch.autograd.grad(value, list(leaves.values())), strict=True))


def test_every_case_of_the_file_is_covered():
    assert sorted(CASES) == sorted({key.split('/')[0] for key in VECTORS})
    assert {meta(case)['loss'] for case in CASES} == {
        *('KDLoss', 'DKDLoss', 'WSLDLoss', 'NKDLoss', 'USKDLoss', 'TFNKDLoss', 'ViTKDLoss', 'MGDLoss', 'SRRLLoss')
    }


@pytest.mark.parametrize(
    ('case', 'dtype'),
    [
        *((case, torch.float64) for case in FLOAT64_CASES),
        *((case, torch.float32) for case in CASES),
    ],
    ids=str,
)
def test_value_and_every_gradient_are_the_originals(case, dtype):
    value, gradients = run(case, dtype)
    expected = {name: gradient.to(dtype) for name, gradient in tensors(case, 'grad').items()}

    assert value.dtype == dtype
    assert_close(value, tensors(case, 'out')['loss'].to(dtype))
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        assert_close(gradient, expected[name])


@pytest.mark.parametrize('case', [case for case in CASES if case.startswith('kd_')])
def test_kd_leaves_the_task_loss_the_originals_share(case):
    assert build(case).task_weight == tensors(case, 'out')['scale'].item()


@pytest.mark.parametrize('case', WITH_PARAMETERS)
def test_parameters_have_the_originals_names_and_shapes(case):
    ours = {name: parameter.shape for name, parameter in build(case).named_parameters()}
    assert ours == {name: value.shape for name, value in tensors(case, 'param').items()}


@pytest.mark.parametrize('case', [case for case in WITH_PARAMETERS if case != 'srrl'])
def test_state_dict_of_the_original_is_the_whole_state(case):
    assert build(case).state_dict().keys() == tensors(case, 'param').keys()


# ---- methods2.npz: the later methods, by the names of its meta

with np.load(Path(__file__).parents[1] / 'data' / 'methods2.npz') as file:
    LATER = dict(file)

LATER_META = {key.removesuffix('/meta'): json.loads(str(value)) for key, value in LATER.items() if key.endswith('/meta')}
#: Methods of the file that are not built yet. Who builds one takes its name off.
NOT_YET: set[str] = set()
#: Those with a test of their own: an optimizer.
ELSEWHERE = {'DOT'}
LATER_CASES = [
    case for case, about in LATER_META.items() if about['kind'] != 'unstable' and about['method'] not in NOT_YET | ELSEWHERE
]
#: Cases in which float32 is coarser, by that factor: batch norm of six pooled vectors, all near their mean; normalised
#: queries and keys of two numbers, whose gradients in float64 change by up to 2e-5, too, if their inputs are rounded.
ROUNDING = {('afd', torch.float32): 10, ('semckd', torch.float32): 50}
#: Another value of a case (``out.NAME``), and the keywords that give it.
VARIANTS: dict[tuple[str, str], dict] = {
    ('deit_soft_T1', 'batchmean'): dict(batchmean=True),
    ('abkd_a0.5_b0_T2', 'released'): dict(released=True),
    ('abkd_a0.5_b-0.5_T2', 'released'): dict(released=True),
    ('sdd_nkd', 'released'): dict(released=True),
}


def later_tensors(case, part, dtype):
    """The tensors of a case under ``part`` by their names, in the order of the file; those of a tuple are one entry."""
    prefix, found = f'{case}/{part}.', {}
    for key, value in LATER.items():
        if not key.startswith(prefix):
            continue
        tensor = torch.from_numpy(value.copy())
        name, _, place = key.removeprefix(prefix).partition('.') if part in ('in', 'kwarg') else (key[len(prefix) :], '', '')
        tensor = tensor.to(dtype) if tensor.is_floating_point() else tensor
        found[name] = (*found.get(name, ()), tensor) if place else tensor
    return found


def load_parameters(loss, stored):
    """Set each parameter, by its name, to the stored one; a parametrised one by assignment. Buffers stay as they are."""
    free = dict(loss.named_parameters())
    for name, value in stored.items():
        owner, _, attribute = name.rpartition('.')
        if name in free:
            free.pop(name).data.copy_(value)
        else:
            setattr(loss.get_submodule(owner), attribute, value)
            free.pop(f'{owner}.parametrizations.{attribute}.original')
    assert free == {}


def run_later(case, dtype, **keywords):
    """The value of a case with its gradients, under the file's names of those that are leaves."""
    about = LATER_META[case]
    given, extra = later_tensors(case, 'in', dtype), later_tensors(case, 'kwarg', dtype)
    keywords = about['kwargs'] | extra | keywords
    leaves = {}
    for name in later_tensors(case, 'grad', dtype):
        top, _, place = name.partition('.')
        if top in given:
            leaves[name] = given[top][int(place)] if place else given[top]
            leaves[name].requires_grad_()
    if about['kind'] == 'function':
        value = getattr(dis_losses, about['method'])(*given.values(), **keywords)
    else:
        loss = MODELS.build(dict(type=about['method'], **keywords)).to(dtype)
        load_parameters(loss, later_tensors(case, 'param', dtype))
        value = loss(*given.values())
        leaves |= {f'param.{name}': parameter for name, parameter in loss.named_parameters()}
    if not leaves:
        return value, {}
    return value, dict(zip(leaves, torch.autograd.grad(value, list(leaves.values())), strict=True))


def test_the_methods_of_the_second_file_are_there_but_for_those_of_the_list():
    methods = {about['method'] for about in LATER_META.values() if about['kind'] != 'unstable'}
    assert methods >= NOT_YET
    assert {method for method in methods - ELSEWHERE if not hasattr(dis_losses, method)} == NOT_YET


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize('case', LATER_CASES)
def test_value_and_every_gradient_of_a_later_method_are_the_recorded(case, dtype):
    value, gradients = run_later(case, dtype)
    recorded = later_tensors(case, 'out', dtype)
    expected = later_tensors(case, 'grad', dtype)

    assert value.dtype == dtype
    assert_close(value.detach(), recorded['loss' if 'loss' in recorded else 'value'])
    for name, gradient in gradients.items():
        if '.parametrizations.' not in name:  # the file has the gradient of the free matrix
            wanted, factor = expected[name], ROUNDING.get((case, dtype), 1)
            assert_close(gradient, wanted, scale=factor * wanted.abs().max().item() if factor > 1 else None)


@pytest.mark.parametrize(('case', 'name'), VARIANTS)
def test_the_other_value_of_a_later_method_is_the_recorded(case, name):
    value, _ = run_later(case, torch.float64, **VARIANTS[case, name])
    assert_close(value.detach(), later_tensors(case, 'out', torch.float64)[name])
