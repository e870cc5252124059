"""The optimizer's state goes to its parameters by name: in a checkpoint of the original, and after a change of methods."""

import copy

import pytest
import torch
from commands import TOOLBOX
from interruption import Run, last, write_config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from networks import batch, build, method, resnet, vit
from torch import nn

from mmcls_kd.engine.optimizer_state import match_by_name, parameter_names
from mmcls_kd.files.checkpoint import read_checkpoint

KD, MGD = method('KDLoss'), method('MGDLoss', student_channels=32, teacher_channels=64)


def sgd(model):
    return OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))


def trained(model, wrapper, steps=2):
    for _ in range(steps):
        model.train_step(batch(), wrapper)
    return dict(state_dict=model.state_dict(), optimizer=copy.deepcopy(wrapper.state_dict()))


def momentum(model, wrapper):
    """The momentum of each parameter, by name."""
    state = wrapper.optimizer.state
    return {n: state[p]['momentum_buffer'] for n, p in model.named_parameters() if 'momentum_buffer' in state.get(p, ())}


class Original(nn.Module):
    """A distiller as the original has it: the frozen teacher is one of its modules, between student and losses."""

    def __init__(self, distiller):
        super().__init__()
        self.student, self.teacher = distiller.student, distiller.teacher
        self.distill_losses = distiller.distill_losses


def original_checkpoint(distiller, wrapper_of):
    """What the original would have saved after two steps, and the momentum by name."""
    model = Original(distiller)
    wrapper = wrapper_of(model)
    for _ in range(2):
        distiller.train_step(batch(), wrapper)
    found = momentum(model, wrapper)
    return dict(state_dict=model.state_dict(), optimizer=copy.deepcopy(wrapper.state_dict())), found


def paramwise(model):
    cfg = dict(
        optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=0.1),
        paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
    )
    return build_optim_wrapper(model, cfg)


@pytest.mark.parametrize('wrapper_of', [sgd, paramwise])
def test_a_checkpoint_of_the_original(wrapper_of):
    checkpoint, expected = original_checkpoint(build(KD, MGD), wrapper_of)
    distiller = build(KD, MGD)
    wrapper = wrapper_of(distiller)
    match_by_name(checkpoint, distiller, wrapper)
    wrapper.load_state_dict(checkpoint['optimizer'])
    found = momentum(distiller, wrapper)
    assert found.keys() == expected.keys()
    assert any(name.startswith('distill_losses.loss_mgd') for name in found)
    assert all(torch.equal(found[name], expected[name]) for name in found)
    if wrapper_of is paramwise:
        names, groups = parameter_names(distiller, wrapper.optimizer), wrapper.optimizer.param_groups
        decay = {name: group['weight_decay'] for name, group in zip(names, groups, strict=True)}
        assert decay['student.backbone.bn1.weight'] == 0.0
        assert decay['student.backbone.conv1.weight'] == 0.1


def test_a_transformer_s_with_buffers_that_are_no_batch_statistics():
    arch = dict(embed_dims=8, depths=[2, 2], num_heads=[2, 2])
    swin = dict(
        type='ImageClassifier',
        backbone=dict(
            type='SwinTransformer',
            arch=arch,
            img_size=32,
            window_size=4,
            out_indices=(0, 1),
        ),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=10, in_channels=16),
    )
    uskd = method('USKDLoss', channel=8, num_classes=10)
    checkpoint, expected = original_checkpoint(build(uskd, KD, student=swin, teacher=vit()), sgd)
    distiller = build(uskd, KD, student=swin, teacher=vit())
    wrapper = sgd(distiller)
    match_by_name(checkpoint, distiller, wrapper)
    wrapper.load_state_dict(checkpoint['optimizer'])
    assert all(torch.equal(value, expected[name]) for name, value in momentum(distiller, wrapper).items())


def test_a_method_more_and_a_method_less():
    model = build(KD, MGD)
    wrapper = sgd(model)
    checkpoint = trained(model, wrapper)
    checkpoint['optimizer_names'] = parameter_names(model, wrapper.optimizer)
    expected = momentum(model, wrapper)

    fewer = build(KD)
    wrapper = sgd(fewer)
    part = copy.deepcopy(checkpoint)
    match_by_name(part, fewer, wrapper)
    wrapper.load_state_dict(part['optimizer'])
    found = momentum(fewer, wrapper)
    assert found.keys() == {name for name, _ in fewer.named_parameters()}
    assert all(torch.equal(found[name], expected[name]) for name in found)

    more = build(method('SRRLLoss', student_channels=32, teacher_channels=64), KD, MGD)
    wrapper = sgd(more)
    match_by_name(checkpoint, more, wrapper)
    wrapper.load_state_dict(checkpoint['optimizer'])
    found = momentum(more, wrapper)
    assert found.keys() == expected.keys()
    trained(more, wrapper, steps=1)
    assert momentum(more, wrapper).keys() == {name for name, _ in more.named_parameters()}


def test_schedules_have_a_value_for_each_group():
    checkpoint, _ = original_checkpoint(build(KD), paramwise)
    groups = len(checkpoint['optimizer']['param_groups'])
    # mmengine has one value more, of the settings that no parameter has
    checkpoint['param_schedulers'] = [dict(base_values=[*range(groups), 99], last_step=3)]
    distiller = build(KD, MGD)
    wrapper = paramwise(distiller)
    match_by_name(checkpoint, distiller, wrapper)
    values = checkpoint['param_schedulers'][0]['base_values']
    assert len(values) == len(wrapper.param_groups)
    own = sum(name.startswith('student.') for name, _ in distiller.named_parameters())
    assert sorted(values)[-own - 1 :] == [*range(own), 99][-own - 1 :]
    assert values[-1] == 99


def test_other_shapes_and_other_counts_are_refused():
    checkpoint, _ = original_checkpoint(build(KD, student=resnet(8)), sgd)
    distiller = build(KD)
    with pytest.raises(
        ValueError, match=r'momentum_buffer of student\.backbone\.conv1\.weight has the shape \(8, 3, 3, 3\), not \(4,'
    ):
        match_by_name(checkpoint, distiller, sgd(distiller))
    checkpoint['state_dict'].popitem()
    with pytest.raises(ValueError, match='start from its weights alone'):
        match_by_name(checkpoint, distiller, sgd(distiller))


@pytest.mark.parametrize(
    ('before', 'now'), [('SGD', 'AdamW'), ('AdamW', 'SGD'), ('Adam', 'AdamW'), ('RMSprop', 'SGD'), ('SGD', 'RMSprop')]
)
@pytest.mark.parametrize('named', [True, False])
def test_another_kind_of_optimizer_is_refused(before, now, named):
    model = nn.Linear(2, 2)
    saved, own = (OptimWrapper(getattr(torch.optim, kind)(model.parameters(), lr=0.1)) for kind in (before, now))
    checkpoint = dict(state_dict=model.state_dict(), optimizer=saved.state_dict(), optimizer_type=before)
    if not named:
        if {before, now} == {'Adam', 'AdamW'}:
            pytest.skip('their states have the same names; only a checkpoint that names its optimizer tells')
        del checkpoint['optimizer_type']
    with pytest.raises(
        ValueError, match=f'optim_wrapper.optimizer is {now}, and the checkpoint’s is .* start from its weights'
    ):
        match_by_name(checkpoint, model, own)


@pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning')
def test_a_run_of_the_original_goes_on(data, tmp_path):
    config = write_config(tmp_path / 'config.py', data)
    run = Run(config, tmp_path / 'run', '--cfg-options', 'train_cfg.max_epochs=2')
    assert run.wait() == [0], run.output()
    checkpoint = read_checkpoint(tmp_path / 'run' / 'epoch_2.pth')
    names = checkpoint.pop('optimizer_names')

    # put the teacher inside, behind the student, and count its parameters, as the original does
    teacher = read_checkpoint(TOOLBOX / 'configs/fashion_mnist/teacher.pth')['state_dict']
    inside = {f'teacher.{k}': v for k, v in teacher.items()}
    parts = {
        p: {k: v for k, v in checkpoint['state_dict'].items() if k.startswith(p)} for p in ('student.', 'distill_losses.')
    }
    checkpoint['state_dict'] = parts['student.'] | inside | parts['distill_losses.']
    del checkpoint['ema_state_dict']
    frozen = [f'teacher.{k}' for k in teacher if not k.endswith(('running_mean', 'running_var', 'num_batches_tracked'))]
    order = [n for n in names if n.startswith('student.')] + frozen + [n for n in names if n.startswith('distill_losses.')]
    optimizer = checkpoint['optimizer']
    optimizer['state'] = {order.index(names[i]): value for i, value in optimizer['state'].items()}
    optimizer['param_groups'][0]['params'] = list(range(len(order)))
    torch.save(checkpoint, tmp_path / 'original.pth')

    run = Run(config, tmp_path / 'again', '--resume', tmp_path / 'original.pth')
    assert run.wait() == [0], run.output()
    assert 'Epoch(train) [3]' in run.output()
    after = last(tmp_path / 'again')
    assert after['meta']['epoch'] == 3
    assert not any(name.startswith('teacher.') for name in after['state_dict'])
