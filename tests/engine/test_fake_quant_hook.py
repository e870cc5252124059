"""FakeQuantHook: fake quantisation from an epoch on, in runs that resume as others do, and as a key of the config."""

from types import SimpleNamespace

import pytest
import torch
from interruption import assert_equal
from networks import build, method
from toy_runs import toy_config, toy_run, toy_runner

from mmcls_kd.checks.features import check_features
from mmcls_kd.engine import FakeQuantHook
from mmcls_kd.engine.config import make_resumable
from mmcls_kd.recipe.fake_quant import FakeQuantisation


def hooked(**keywords):
    return dict(custom_hooks=[dict(type='FakeQuantHook', **keywords)])


def weights(folder, epoch):
    return torch.load(folder / f'epoch_{epoch}.pth', weights_only=False)['state_dict']


def test_it_begins_at_its_epoch_and_changes_no_name(tmp_path):
    toy_run(tmp_path / 'float')
    runner = toy_run(tmp_path / 'int8', **hooked(start_epoch=2))
    assert_equal(weights(tmp_path / 'int8', 2), weights(tmp_path / 'float', 2))
    plain, rounded = weights(tmp_path / 'float', 4), weights(tmp_path / 'int8', 4)
    assert list(rounded) == list(plain)
    assert not torch.equal(rounded['layers.0.weight'], plain['layers.0.weight'])
    assert not any(module._forward_pre_hooks for module in runner.model.modules())  # in float again after training


@pytest.mark.parametrize('epoch', [1, 3])
def test_a_resumed_run_ends_as_an_undisturbed_one(epoch, tmp_path):
    toy_run(tmp_path / 'whole', **hooked(start_epoch=2))
    toy_run(tmp_path / 'again', resume=tmp_path / 'whole' / f'epoch_{epoch}.pth', **hooked(start_epoch=2))
    assert_equal(weights(tmp_path / 'again', 4), weights(tmp_path / 'whole', 4))


def test_the_student_alone_is_rounded():
    distiller = build(method('NKDLoss', 'loss_nkd')).train()
    hook = FakeQuantHook()
    hook.before_train_epoch(SimpleNamespace(model=distiller, epoch=0, logger=SimpleNamespace(info=lambda _: None)))
    assert hook.quantisation.network is distiller.student
    assert not any(module._forward_pre_hooks for module in distiller.teacher.modules())
    assert list(hook.quantisation.layers) == list(FakeQuantisation(distiller.student).layers)


class TestRefusals:
    """In one line, before the training."""

    @pytest.mark.parametrize('start', [-1, 1.5, '2', True, None])
    def test_no_number_of_epochs(self, start):
        with pytest.raises(ValueError, match=r'FakeQuantHook: start_epoch=.*: give a whole number, 0 or more'):
            FakeQuantHook(start)

    @pytest.mark.parametrize('value', ['no', 1, None])
    def test_neither_true_nor_false(self, value):
        with pytest.raises(ValueError, match='FakeQuantHook: symmetric=.*: give True or False'):
            FakeQuantHook(symmetric=value)

    def test_an_epoch_that_never_comes(self, tmp_path):
        runner = toy_runner(tmp_path, **hooked(start_epoch=4))
        with pytest.raises(ValueError, match=r'start_epoch=4 would never come: the training has 4 epochs'):
            check_features(runner)

    def test_epochs_in_a_training_by_iterations(self, tmp_path):
        loop = dict(type='ResumableIterLoop', max_iters=4)
        runner = toy_runner(tmp_path, train_cfg=loop, **hooked(start_epoch=1))
        with pytest.raises(ValueError, match='a training by iterations counts no epochs'):
            check_features(runner)

    def test_a_compiled_student(self, tmp_path):
        runner = toy_runner(tmp_path, **hooked())
        runner.cfg.model.compile = True
        with pytest.raises(ValueError, match='leave `compile` out'):
            check_features(runner)


@pytest.mark.parametrize(
    ('value', 'expected'),
    [
        (True, [dict(type='FakeQuantHook')]),
        (dict(start_epoch=3, symmetric=True), [dict(type='FakeQuantHook', start_epoch=3, symmetric=True)]),
        (False, []),
        (None, []),
    ],
)
def test_the_key_of_a_config_adds_the_hook_once(value, expected, tmp_path):
    cfg = toy_config(tmp_path, fake_quant=value)
    for _ in range(2):  # as the config that a run writes
        make_resumable(cfg)
        assert [hook for hook in cfg.custom_hooks if hook['type'] == 'FakeQuantHook'] == expected
        assert 'fake_quant' not in cfg


def test_another_value_of_the_key_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"fake_quant='on': set True, or dict\(start_epoch=2\)"):
        make_resumable(toy_config(tmp_path, fake_quant='on'))
