"""DOT: the authors' steps, an oracle, and trainings of a distiller by configs, resumed and in two processes."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from kit import assert_close, seeded
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmpretrain.registry import MODELS, OPTIM_WRAPPERS
from networks import build, images, method, samples, vit
from processes import run_in_two
from torch import nn
from toy_runs import ToyModel, toy_run

from mmcls_kd.engine.config import take_switches
from mmcls_kd.engine.dot import DOT, DOTWrapper, split_losses

with np.load(Path(__file__).parents[1] / 'data' / 'methods2.npz') as file:
    VECTORS = {key.removeprefix('dot/'): file[key] for key in file if key.startswith('dot/')}


# ---- the optimizer


def test_the_steps_are_the_authors():
    about = json.loads(str(VECTORS['meta']))
    stored = {key: torch.from_numpy(value) for key, value in VECTORS.items() if key != 'meta'}
    weight, bias = (nn.Parameter(stored[f'param.{name}']) for name in 'Wb')
    dot = DOT([weight, bias], **about['kwargs'])
    for step in range(about['steps']):
        logit = F.linear(stored['in.x'], weight, bias)
        log_q, log_p = (logit / 4).log_softmax(dim=1), (stored['in.logit_t'] / 4).log_softmax(dim=1)
        kd = 0.9 * 16 * F.kl_div(log_q, log_p, reduction='batchmean', log_target=True)
        dot.step(0.1 * F.cross_entropy(logit, stored['in.gt_label']), kd)
        for name, parameter in (('W', weight), ('b', bias)):
            assert_close(parameter.detach(), stored[f'out.{name}.{step + 1}'])


def losses_of(shared, of_task, of_kd, step):
    """A task and a distillation loss, of which each has a parameter of its own; in the third step, the task has no loss."""
    x = torch.randn(3, generator=seeded(step), dtype=torch.float64)
    task = (shared * x - of_task).square().sum()
    return None if step == 2 else task, (shared.sin() * x + of_kd).square().sum()


@pytest.mark.parametrize(('lr', 'momentum', 'delta', 'decay'), [(0.1, 0.9, 0.09, 1e-2), (0.03, 0.5, 0.2, 0.0)])
def test_the_oracles_loops_over_single_numbers(lr, momentum, delta, decay):
    start = [torch.randn(3, generator=seeded(10 + i), dtype=torch.float64) for i in range(3)]
    parameters = [nn.Parameter(value.clone()) for value in start]
    dot = DOT(parameters, lr=lr, momentum=momentum, delta=delta, weight_decay=decay)
    for step in range(6):
        dot.step(*losses_of(*parameters, step))

    values = [value.tolist() for value in start]
    task_buffer, kd_buffer = {}, {}
    for step in range(6):
        now = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in values]
        both = []
        for loss in losses_of(*now, step):
            none = [None] * 3
            both.append(torch.autograd.grad(loss, now, retain_graph=True, allow_unused=True) if loss is not None else none)
        for i in range(3):
            of_task, of_kd = both[0][i], both[1][i]
            together = of_task is not None and of_kd is not None
            for j in range(3):
                w = values[i][j]
                moved = 0.0
                if of_task is not None:
                    own = (momentum - delta if together else momentum) * task_buffer.get((i, j), 0.0)
                    task_buffer[i, j] = own + of_task[j].item() + decay * w
                    moved += task_buffer[i, j]
                if of_kd is not None:
                    decayed = decay * w if of_task is None and (i, j) in kd_buffer else 0.0
                    own = (momentum + delta if together else momentum) * kd_buffer.get((i, j), 0.0)
                    kd_buffer[i, j] = own + of_kd[j].item() + decayed
                    moved += kd_buffer[i, j]
                values[i][j] = w - lr * moved
    for parameter, value in zip(parameters, values, strict=True):
        assert_close(parameter.detach(), torch.tensor(value, dtype=torch.float64))


def test_without_a_difference_it_is_sgd_on_the_sum():
    ours, theirs = (nn.Parameter(torch.randn(4, generator=seeded(1), dtype=torch.float64)) for _ in range(2))
    dot = DOT([ours], lr=0.05, momentum=0.9, delta=0.0, weight_decay=1e-2)
    sgd = torch.optim.SGD([theirs], lr=0.05, momentum=0.9, weight_decay=1e-2)
    for _ in range(5):
        dot.step(ours.square().sum(), ours.sin().sum())
        sgd.zero_grad()
        (theirs.square().sum() + theirs.sin().sum()).backward()
        sgd.step()
    assert_close(ours.detach(), theirs.detach())


def test_the_sum_of_both_gradients_is_there_before_a_step():
    weight = nn.Parameter(torch.tensor([2.0]))
    dot = DOT([weight], lr=0.1)
    dot.differentiate(3 * weight.sum(), 4 * weight.sum())
    assert weight.grad == 7
    dot.step()
    assert_close(weight.detach(), torch.tensor([1.3]))
    dot.zero_grad()
    assert weight.grad is None


def test_its_state_goes_through_a_state_dict():
    def run(steps, dot, weight):
        for _ in range(steps):
            dot.step(weight.square().sum(), weight.sin().sum())

    whole, part, rest = (nn.Parameter(torch.ones(3)) for _ in range(3))
    run(5, DOT([whole], lr=0.1), whole)
    first = DOT([part], lr=0.1)
    run(2, first, part)
    rest.data.copy_(part)
    second = DOT([rest], lr=0.5)
    second.load_state_dict(first.state_dict())
    run(3, second, rest)
    assert torch.equal(rest, whole)


@pytest.mark.parametrize(
    ('keywords', 'said'),
    [
        (dict(lr=-1.0), r'DOT\(lr=-1.0, .*0 or more'),
        (dict(lr=0.1, weight_decay=-1.0), 'weight_decay=-1.0'),
        (dict(lr=0.1, momentum=0.95), r'momentum=0.95, delta=0.075\).*less than 1'),
        (dict(lr=0.1, momentum=0.05), 'momentum=0.05'),
    ],
)
def test_a_wrong_value_is_refused(keywords, said):
    with pytest.raises(ValueError, match=said):
        DOT([nn.Parameter(torch.ones(1))], **keywords)


def test_a_step_without_losses_is_refused():
    with pytest.raises(RuntimeError, match=r"step\(task_loss, kd_loss\).*type='DOTWrapper'"):
        DOT([nn.Parameter(torch.ones(1))], lr=0.1).step()


# ---- the wrapper

STEPS = 4


def distiller_of():
    torch.manual_seed(0)
    kd, pefd = method('KDLoss', temp=2.0), method('PEFDLoss')
    kd['methods'][0]['name'] = 'kd'  # without the word loss
    return build(kd, pefd, student=vit(16), teacher=vit(24, 'DeiT3')).train()


def wrapper_of(model, **keywords):
    return OPTIM_WRAPPERS.build(dict(type='DOTWrapper', optimizer=DOT(model.parameters(), lr=0.02, **keywords)))


def train(rows, wrap=None):
    distiller = distiller_of()
    wrapper, model = wrapper_of(distiller), wrap(distiller) if wrap else distiller
    for step in range(STEPS):
        data = dict(inputs=images(8, seed=step)[rows], data_samples=[samples(8)[row] for row in rows])
        log = model.train_step(data, wrapper)
    return distiller, log


def test_a_distiller_trains_by_the_rule_and_logs_as_ever():
    distiller, log = train(list(range(8)))
    assert {'loss', 'ori_loss', 'kd'} < log.keys()

    twin = distiller_of()
    dot = DOT(twin.parameters(), lr=0.02)
    for step in range(STEPS):
        data = twin.data_preprocessor(dict(inputs=images(8, seed=step), data_samples=samples(8)), training=True)
        losses = twin(**data, mode='loss')
        task = losses.pop('ori_loss')
        dot.step(task, sum(losses.values()))
    for ours, theirs in zip(distiller.parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(next(distiller.parameters()), next(distiller_of().parameters()))


def test_losses_are_told_apart_by_their_names():
    one = torch.ones(())
    losses = dict(
        ori_loss=one, ori_aux_loss=[one, one], ori_accuracy=9 * one, loss_kd=4 * one, plain=8 * one, temp_ctkd=9 * one
    )
    assert split_losses(losses, ['loss_kd', 'plain']) == (3, 12)
    assert split_losses(dict(loss_kd=one), ['loss_kd']) == (None, 1)
    assert split_losses(dict(ori_loss=one), []) == (1, None)


def parallel(model):
    return MMDistributedDataParallel(model, device_ids=None, broadcast_buffers=False, find_unused_parameters=False)


def train_half(rank, folder):
    distiller, _ = train(list(range(8))[rank::2], parallel)
    torch.save(distiller.state_dict(), folder / f'{rank}.pth')


@pytest.mark.slow
def test_two_processes_train_what_one_does(tmp_path):
    run_in_two(train_half, tmp_path)
    alone = train(list(range(8)))[0].state_dict()
    first, second = (torch.load(tmp_path / f'{rank}.pth') for rank in range(2))
    for name, value in alone.items():
        assert torch.equal(first[name], second[name])
        assert (first[name] - value).abs().max() < 1e-5


@MODELS.register_module()
class ToyDistiller(ToyModel):
    """The toy model with a second loss."""

    def forward(self, inputs, data_samples, mode='loss'):
        losses = super().forward(inputs, data_samples, mode)
        return dict(ori_loss=losses['loss'], loss_kd=self.layers(torch.stack(inputs)).sin().mean())


TOY = {
    'model': dict(type='ToyDistiller'),
    'optim_wrapper': dict(type='DOTWrapper', optimizer=dict(type='DOT', lr=0.05, weight_decay=1e-3)),
}


@pytest.mark.own_process
def test_a_config_trains_and_a_resumed_run_is_the_same_to_the_bit(tmp_path):
    whole = toy_run(tmp_path / 'a', **TOY)
    again = toy_run(tmp_path / 'b', tmp_path / 'a/epoch_2.pth', **TOY)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name])
    buffers = whole.optim_wrapper.optimizer.state_dict()['state'][0]
    assert {*buffers} == {'task_momentum', 'kd_momentum'}


@pytest.mark.own_process
def test_a_model_without_losses_by_name_is_no_distiller(tmp_path):
    with pytest.raises(ValueError, match='DOTWrapper: the model .* for distillers'):
        toy_run(tmp_path, **TOY | dict(model=dict(type='ToyModel')))


@pytest.mark.parametrize(
    ('keywords', 'said'),
    [
        (dict(accumulative_counts=2), 'without accumulative_counts: leave it out'),
        (dict(clip_grad=dict(max_norm=1.0)), 'without clip_grad: leave it out'),
    ],
)
def test_what_it_cannot_do_is_refused(keywords, said):
    with pytest.raises(ValueError, match=said):
        DOTWrapper(DOT([nn.Parameter(torch.ones(1))], lr=0.1), **keywords)


def test_another_optimizer_is_refused_and_so_is_dot_in_another_wrapper():
    weight = nn.Parameter(torch.ones(1))
    with pytest.raises(ValueError, match=r"optimizer=dict\(type='DOT', .*not for SGD"):
        DOTWrapper(torch.optim.SGD([weight], lr=0.1))
    with pytest.raises(RuntimeError, match="type='DOTWrapper'"):
        OptimWrapper(DOT([weight], lr=0.1)).update_params(weight.sum())


def test_mixed_precision_is_refused():
    args = argparse.Namespace(amp=True)
    with pytest.raises(ValueError, match='than DOTWrapper: train without --amp'):
        take_switches(Config(dict(optim_wrapper=TOY['optim_wrapper'])), args)
