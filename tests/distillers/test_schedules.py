"""Weights of losses that change while a training goes on."""

from types import SimpleNamespace

import pytest
import torch
from interruption import logged
from mmengine.logging import MessageHub
from mmengine.runner import IterBasedTrainLoop
from networks import build, images, method, resnet, samples
from stores import refused, train, write_config

from mmcls_kd.checks.training import check_phases
from mmcls_kd.distillers.classification import RunnerProgress
from mmcls_kd.distillers.recipe import Recipe
from mmcls_kd.engine.config import check_schedules
from mmcls_kd.recipe.schedules import LossWeight


@pytest.fixture
def at(monkeypatch):
    """Puts the training in progress at an epoch and an iteration, both counted from 0."""
    hub = MessageHub('test_schedules')
    monkeypatch.setattr(MessageHub, 'get_current_instance', classmethod(lambda _: hub))

    def move(epoch=0, iteration=0):
        hub.update_info('epoch', epoch)
        hub.update_info('iter', iteration)

    return move


class TestValues:
    @pytest.mark.parametrize(
        ('given', 'expected'),
        [
            (2.5, {1: 2.5, 50: 2.5}),
            (0, {1: 0.0}),
            (-1.5, {1: -1.5}),
            (dict(), {1: 1.0, 99: 1.0}),
            (dict(value=3.0), {1: 3.0, 99: 3.0}),
            (dict(value=3.0, warmup=1), {1: 3.0, 2: 3.0}),
            (dict(value=8.0, warmup=20), {1: 0.4, 10: 4.0, 19: 7.6, 20: 8.0, 21: 8.0, 240: 8.0}),
            (dict(value=6.0, decay=(0, 3)), {1: 4.0, 2: 2.0, 3: 0.0, 4: 0.0}),
            (dict(value=6.0, decay=[10, 12], final=1.0), {1: 6.0, 10: 6.0, 11: 3.5, 12: 1.0, 13: 1.0, 99: 1.0}),
            (dict(value=1.0, decay=(2, 4), final=3.0), {2: 1.0, 3: 2.0, 4: 3.0, 5: 3.0}),  # which grows
            (dict(value=4.0, warmup=2, decay=(2, 4)), {1: 2.0, 2: 4.0, 3: 2.0, 4: 0.0}),
            (dict(value=2.0, warmup=2, _scope_='mmpretrain'), {1: 1.0, 2: 2.0}),
        ],
    )
    def test_in_each_epoch(self, given, expected):
        weight = LossWeight.of(given)
        assert {epoch: weight.at(epoch) for epoch in expected} == pytest.approx(expected, rel=1e-12)

    @pytest.mark.parametrize(('by_epoch', 'expected'), [(True, 0.3), (False, 0.8)])
    def test_now_by_epochs_or_iterations(self, at, by_epoch, expected):
        at(epoch=2, iteration=7)
        assert RunnerProgress().done(by_epoch) == (2 if by_epoch else 7)
        assert LossWeight(1.0, warmup=10, by_epoch=by_epoch).now(RunnerProgress()) == pytest.approx(expected)

    def test_without_a_training_it_is_that_of_the_first_epoch(self, monkeypatch):
        hub = MessageHub('test_schedules_empty')
        monkeypatch.setattr(MessageHub, 'get_current_instance', classmethod(lambda _: hub))
        assert LossWeight(1.0, warmup=4).now(RunnerProgress()) == 0.25

    def test_in_a_distiller(self, at):
        changing = dict(value=3.0, warmup=3, decay=(3, 5))
        distiller = build(method('NKDLoss'), method('NKDLoss', 'loss_changing', loss_weight=changing)).eval()
        for epoch, weight in enumerate((1.0, 2.0, 3.0, 1.5, 0.0)):
            at(epoch=epoch, iteration=77)
            losses = distiller.loss(images(), samples())
            torch.testing.assert_close(losses['loss_changing'], weight * losses['loss_nkd'])

    @pytest.mark.parametrize('stages', [None, [1, 2]])
    def test_one_that_the_loss_has_as_well_counts_once(self, stages):
        entries = method('ATLoss', 'loss_one', stages=stages), method('ATLoss', 'loss_three', stages=stages, loss_weight=3.0)
        distiller = build(*entries).eval()
        losses = distiller.loss(images(), samples())
        torch.testing.assert_close(losses['loss_three'], 3 * losses['loss_one'])


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        ('1', r"value, warmup, decay and final are numbers, but one of \['1', 0, 0.0\] is not"),
        (True, 'are numbers, but one of .True, 0, 0.0. is not'),
        (None, 'are numbers'),
        (dict(value='much'), "are numbers, but one of .'much'"),
        (dict(warmup=-1), 'warmup=-1 has to be 0 or more'),
        (dict(decay=(3,)), r'decay=\(3,\) has to be two numbers, the last with the whole weight'),
        (dict(decay=[1, 2, 3]), r'decay=\[1, 2, 3\] has to be two numbers'),
        (dict(decay=(5, 5)), r'decay=\(5, 5\) .*in that order'),
        (dict(decay=(5, 4)), r'decay=\(5, 4\) .*in that order'),
        (dict(warmup=5, decay=(4, 9)), r'decay=\(4, 9\) .* not before warmup=5'),
        (dict(decay=(-1, 9)), r'decay=\(-1, 9\)'),
        (dict(decay=7), 'decay=7 has to be two numbers'),
        (dict(decay='ab'), 'are numbers'),
        (dict(warm_up=3), 'loss_weight takes value, warmup, decay, final, by_epoch, but has warm_up'),
        ([1.0, 2.0], 'are numbers'),
        (dict(value=float('nan')), 'nan'),
    ],
)
def test_refused_by_the_methods_name(given, message):
    with pytest.raises(ValueError, match=message) as caught:
        build(method('NKDLoss', loss_weight=given))
    assert str(caught.value).startswith('loss_nkd: loss_weight')
    assert '\n' not in str(caught.value)


class TestByIterations:
    """A training by iterations never leaves its first epoch, so nothing may count epochs there."""

    EPOCHS = ('EpochBasedTrainLoop', 'ResumableEpochLoop', 'SomebodysLoop')
    ITERATIONS = ('IterBasedTrainLoop', 'ResumableIterLoop', 'mmengine.IterBasedTrainLoop', IterBasedTrainLoop)

    @staticmethod
    def config(loop, kind='KDLoss', **entry):
        model = dict(
            type='ClassificationDistiller',
            student_cfg=resnet(4),
            distill_cfg=[method('NKDLoss'), method(kind, 'loss_x', **entry)],
        )
        return Recipe(model), loop

    @pytest.mark.parametrize('loop', ITERATIONS)
    @pytest.mark.parametrize(
        ('entry', 'message'),
        [
            (dict(loss_weight=dict(value=8, warmup=20)), 'give warmup and decay in iterations, and by_epoch=False'),
            (dict(loss_weight=dict(value=8, decay=(0, 9))), 'give warmup and decay in iterations, and by_epoch=False'),
            (dict(curriculum=dict(epochs=3)), 'train by epochs .* or leave curriculum out'),
            (dict(curriculum={}), 'train by epochs .* or leave curriculum out'),
        ],
    )
    def test_what_counts_epochs_is_refused(self, loop, entry, message):
        with pytest.raises(ValueError, match=message) as caught:
            check_schedules(*self.config(loop, **entry))
        assert str(caught.value).startswith('loss_x: its ')
        assert '\n' not in str(caught.value)
        check_schedules(*self.config(loop, use_this=False, **entry))
        for by_epochs in self.EPOCHS:
            check_schedules(*self.config(by_epochs, **entry))

    @pytest.mark.parametrize('weight', [2.0, {}, dict(value=8, warmup=1), dict(warmup=20, decay=(30, 40), by_epoch=False)])
    def test_what_does_not_is_left_alone(self, weight):
        for loop in (*self.EPOCHS, *self.ITERATIONS):
            check_schedules(*self.config(loop, loss_weight=weight))

    def test_the_tool_refuses_it(self, data, tmp_path):
        config = write_config(tmp_path / 'config.py', data, TestTraining.MORE, images=16)
        loop = ['train_cfg.by_epoch=False', 'train_cfg.max_iters=4', 'train_cfg.max_epochs=None']
        assert 'loss_epochs: its loss_weight changes with the epochs' in refused('train', config, tmp_path, options=loop)


class TestLength:
    """A training may be too short for what a method does in its course."""

    @staticmethod
    def check(kind='KDLoss', epochs=3, steps=12, **entry):
        logged = []
        logger = SimpleNamespace(warning=logged.append)
        model = build(method(kind, 'loss_x', **entry))
        check_phases(SimpleNamespace(model=model, max_epochs=epochs, max_iters=steps, logger=logger))
        return logged

    @pytest.mark.parametrize(
        ('entry', 'said'),
        [
            (
                dict(loss_weight=dict(value=8.0, warmup=4)),
                'loss_x: its loss_weight changes until epoch 4, and the training ends after epoch 3, with 6 for 8',
            ),
            (
                dict(loss_weight=dict(value=8.0, decay=(2, 4))),
                'loss_x: its loss_weight changes until epoch 4, and the training ends after epoch 3, with 4 for 8',
            ),
            (
                dict(loss_weight=dict(value=8.0, warmup=16, by_epoch=False)),
                'loss_x: its loss_weight changes until iteration 16, and the training ends after iteration 12, with 6 for 8',
            ),
            (dict(curriculum={}), 'loss_x: its curriculum has 10 epochs, and the training ends after epoch 3'),
        ],
    )
    def test_a_schedule_that_is_cut_off_is_told(self, entry, said):
        assert self.check(**entry) == [said]
        assert self.check(epochs=10, steps=40, **entry) == []

    def test_a_loss_that_would_never_teach_is_refused(self):
        entry = dict(kind='FTLoss', paraphraser_steps=12)
        with pytest.raises(ValueError, match='loss_x: in its first 12 steps .* has 12: .* paraphraser_steps=3$'):
            self.check(**entry)
        with pytest.raises(ValueError, match='loss_x: in its first 12 steps'):
            self.check(stages=[3, 4], **entry)
        assert self.check(steps=13, **entry) == []

    def test_the_training_of_a_config_checks_it(self, data, tmp_path):
        config = write_config(tmp_path / 'config.py', data, TestTraining.MORE.replace('NKDLoss', 'FTLoss', 1), images=16)
        assert 'loss_plain: in its first 1000 steps the student learns nothing' in refused('train', config, tmp_path)


class TestTraining:
    """The demo on sixteen images, an iteration of eight at a time."""

    MORE = """
chosen = [dict(type='NKDLoss', name='loss_plain')]
chosen += [dict(type='NKDLoss', name='loss_epochs', loss_weight=dict(value=8.0, warmup=4))]
chosen += [dict(type='NKDLoss', name='loss_steps', loss_weight=dict(value=8.0, decay=(1, 5), by_epoch=False))]
model = dict(distill_cfg=[dict(methods=chosen)])
log_processor = dict(window_size=1)
train_dataloader = dict(batch_size=8)
"""

    @pytest.fixture
    def config(self, data, tmp_path):
        return write_config(tmp_path / 'config.py', data, self.MORE, images=16)

    @staticmethod
    def weights(work_dir, name):
        """The weight of each step: what was logged of two losses that differ in nothing else."""
        steps = [values for (kind, _), values in sorted(logged(work_dir).items()) if kind == 'training']
        return [values[name] / values['loss_plain'] for values in steps]

    def test_what_is_logged_is_weight_times_value_also_after_resuming(self, config, tmp_path):
        train(config, tmp_path / 'run')
        assert self.weights(tmp_path / 'run', 'loss_epochs') == pytest.approx([2, 2, 4, 4], rel=1e-4)
        assert self.weights(tmp_path / 'run', 'loss_steps') == pytest.approx([8, 6, 4, 2], rel=1e-4)
        MessageHub.get_current_instance().update_info('epoch', 0)  # as in a process that has just begun
        train(config, tmp_path / 'run', None, '--resume', options=['train_cfg.max_epochs=3'])
        assert self.weights(tmp_path / 'run', 'loss_epochs') == pytest.approx([2, 2, 4, 4, 6, 6], rel=1e-4)
        assert self.weights(tmp_path / 'run', 'loss_steps') == pytest.approx([8, 6, 4, 2, 0, 0], rel=1e-4)

    def test_a_wrong_one_ends_the_tool_in_one_line(self, config, tmp_path):
        options = ['model.distill_cfg.0.methods.1.loss_weight.decay=3']
        said = refused('train', config, tmp_path, options=options)
        assert 'loss_epochs: loss_weight: decay=3 has to be two numbers' in said
