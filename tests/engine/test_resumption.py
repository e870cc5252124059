"""A run that goes on as another: schedules keep to their epochs, counts and gradients survive, what has changed is said."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from interruption import assert_equal
from mmengine.hooks import EarlyStoppingHook
from mmengine.model import ExponentialMovingAverage
from mmengine.optim import OptimWrapper
from mmengine.runner import BaseLoop
from mmengine.runner.checkpoint import _load_checkpoint_to_model
from mmpretrain.registry import MODELS
from networks import build, method, resnet
from processes import run_in_two
from toy_runs import rates, toy_run, toy_runner

from mmcls_kd.checks.training import check_optimizer, check_resumed, check_start
from mmcls_kd.command.train import closing_line
from mmcls_kd.engine import ResumableCheckpointHook, resumption
from mmcls_kd.engine.checkpoint_hook import _save_once
from mmcls_kd.engine.loss_watch import LossWatch, not_finite
from mmcls_kd.engine.models import share_memories
from mmcls_kd.engine.rates import scale_rates
from mmcls_kd.errors import DivergenceError, TrainingError
from mmcls_kd.files.checkpoint import read_checkpoint

pytestmark = pytest.mark.filterwarnings('ignore:Detected call of `scheduler.step:UserWarning')  # where batches are gathered

SCHEDULES = {
    'cosine to the end': dict(type='CosineAnnealingLR', by_epoch=True, convert_to_iter_based=True),
    'cosine of four epochs': dict(type='CosineAnnealingLR', by_epoch=True, convert_to_iter_based=True, T_max=4, end=4),
    'milestones': dict(type='MultiStepLR', milestones=[3], by_epoch=True, convert_to_iter_based=True),
    'warm-up, then cosine': [
        dict(type='LinearLR', start_factor=0.1, end=3, by_epoch=True, convert_to_iter_based=True),
        dict(type='CosineAnnealingLR', begin=3, by_epoch=True, convert_to_iter_based=True),
    ],
    'warm-up, then epochs': [
        dict(type='LinearLR', start_factor=0.1, end=3, by_epoch=False),
        dict(type='StepLR', step_size=2, by_epoch=True),
    ],
    'polynomial': dict(type='PolyLR', power=0.9, by_epoch=True, convert_to_iter_based=True),
    'one cycle': dict(type='OneCycleLR', eta_max=0.2, by_epoch=False),
    'restarts': dict(
        type='CosineRestartLR', periods=[1, 3], restart_weights=[1, 0.5], eta_min=0, convert_to_iter_based=True
    ),
}


LENGTHS = [{'train_dataloader.batch_size': 2}, {'train_cfg.max_epochs': 6}, {'train_dataloader.dataset.size': 20}]


@pytest.fixture
def warned(monkeypatch):
    """The warnings of a resumption."""
    texts = []

    def note(text, _logger, level=logging.INFO):
        texts.extend([text] if level == logging.WARNING else [])

    monkeypatch.setattr('mmcls_kd.engine.resumption.print_log', note)
    return texts


@pytest.fixture(scope='module')
def short(tmp_path_factory):
    """The folder of a run of two epochs."""
    folder = tmp_path_factory.mktemp('short')
    toy_run(folder, **{'train_cfg.max_epochs': 2})
    return folder


def weights(runner):
    return {name: value.clone() for name, value in runner.model.state_dict().items()}


class TestSchedules:
    @pytest.mark.parametrize('schedule', SCHEDULES.values(), ids=SCHEDULES)
    def test_rates_are_those_of_an_undisturbed_run_of_the_new_length(self, schedule, tmp_path):
        toy_run(tmp_path / 'a', param_scheduler=schedule)
        for changes in LENGTHS if isinstance(schedule, list) else LENGTHS[:2]:
            resumed = toy_run(tmp_path / 'a', tmp_path / 'a/epoch_2.pth', param_scheduler=schedule, **changes)
            fresh = toy_run(tmp_path / 'b', param_scheduler=schedule, **changes)
            length = len(fresh.train_dataloader)
            assert resumed.iter == fresh.iter == length * fresh.max_epochs
            np.testing.assert_allclose(rates(resumed)[6:], rates(fresh)[2 * length :], rtol=1e-6)

    def test_another_rate_or_schedule_counts_from_here_on(self, short, tmp_path, warned):
        changes = {'optim_wrapper.optimizer.lr': 0.01, 'optim_wrapper.optimizer.weight_decay': 0.1}
        schedule = dict(type='StepLR', step_size=3, gamma=0.5, by_epoch=True)
        resumed = toy_run(tmp_path, short / 'epoch_2.pth', param_scheduler=schedule, **changes)
        np.testing.assert_allclose(rates(resumed)[6:], [0.01] * 3 + [0.005] * 3)
        assert resumed.optim_wrapper.param_groups[0]['weight_decay'] == 0.1
        assert 'optim_wrapper.optimizer.lr: 0.1 → 0.01' in warned[0]
        assert 'param_scheduler: CosineAnnealingLR → StepLR' in warned[0]

    def test_one_that_follows_a_metric_cannot_be_put_anywhere(self, tmp_path):
        schedule = [
            dict(type='LinearLR', end=6, by_epoch=True, convert_to_iter_based=True),
            dict(type='ReduceOnPlateauLR', monitor='loss'),
        ]
        toy_run(tmp_path, param_scheduler=schedule, **{'train_cfg.max_epochs': 1})
        with pytest.raises(TrainingError, match='ReduceOnPlateauLR follows a metric'):
            toy_run(tmp_path, tmp_path / 'epoch_1.pth', param_scheduler=schedule, **{'train_dataloader.batch_size': 2})


class TestPlaces:
    def test_iterations_go_on_at_the_next(self, tmp_path):
        loop = dict(type='ResumableIterLoop', max_iters=8)
        sampler = dict(type='InfiniteSampler', shuffle=True)
        hooks = dict(checkpoint=dict(type='ResumableCheckpointHook', interval=4, by_epoch=False))
        settings = {'train_cfg': loop, 'default_hooks': hooks, 'train_dataloader.sampler': sampler}
        toy_run(tmp_path, **settings)
        resumed = toy_run(tmp_path, tmp_path / 'iter_4.pth', **settings, **{'train_dataloader.batch_size': 2})
        assert resumed.iter == 8
        assert len(rates(resumed)) == 8
        assert resumed.message_hub.get_scalar('train/loss').data[1].size == 8

    @pytest.mark.parametrize('by_epoch', [True, False])
    def test_beyond_a_shortened_end_the_weights_are_validated_and_the_own_checkpoint_named(self, by_epoch, tmp_path):
        class Validation(BaseLoop):
            def run(self):
                self.runner.message_hub.update_scalar('val/accuracy/top1', 10.0 * self.runner.iter)

        def validated(folder, last, resume=None):
            loop = dict(type='ResumableEpochLoop', max_epochs=last, val_interval=50)
            if not by_epoch:
                loop = dict(type='ResumableIterLoop', max_iters=3 * last, val_interval=50)
            hooks = dict(checkpoint=dict(type='ResumableCheckpointHook', interval=2 if by_epoch else 6, by_epoch=by_epoch))
            runner = toy_runner(folder, resume, train_cfg=loop, default_hooks=hooks)
            runner._val_loop = Validation(runner, [])
            runner.train()
            return closing_line(runner)

        name = 'epoch_2.pth' if by_epoch else 'iter_6.pth'
        assert 'accuracy/top1 60.00' in validated(tmp_path / 'first', 2)
        (tmp_path / 'first').rename(tmp_path / 'moved')
        told = validated(tmp_path / 'moved', 1, tmp_path / 'moved' / name)
        assert 'accuracy/top1 60.00' in told
        assert str(tmp_path / 'moved' / name) in told

    def test_times_are_counted_from_the_new_place(self, short, tmp_path, warned):
        changes = {'train_dataloader.batch_size': 12, 'default_hooks.logger': dict(type='LoggerHook', interval=1)}
        resumed = toy_run(tmp_path, short / 'epoch_2.pth', **changes)
        assert resumed.iter == 4
        assert resumed.message_hub.get_info('eta') == 0
        assert 'has 1 now: the run resumes at the start of epoch 3' in warned[0]

    def test_what_was_validated_and_saved_is_known_in_the_new_count(self, short):
        runner = toy_runner(short, **{'train_dataloader.batch_size': 2})
        runner._train_loop = runner.build_train_loop(runner._train_loop)
        info, meta = dict(last_validation=3, saved_after=4), dict(epoch=1, iter=5)
        resumption._fit_length(runner, meta, info, before=3, length=6)
        assert (info, meta) == (dict(last_validation=6, saved_after=-1), dict(epoch=1, iter=6))


class TestWhatIsSaid:
    def test_nothing_of_a_run_that_is_the_same(self, short, tmp_path, warned):
        toy_run(tmp_path, short / 'epoch_2.pth', **{'train_cfg.max_epochs': 2, 'train_dataloader.num_workers': 0})
        assert not warned

    @pytest.mark.parametrize(
        ('changes', 'said'),
        [
            ({'train_dataloader.dataset.size': 11}, 'training images: 12 → 11'),
            ({'train_dataloader.dataset.first': 5}, 'names and labels of the training images: '),
            ({'custom_hooks': [dict(type='EMAHook')]}, 'custom_hooks: none → '),
            ({'train_cfg.max_epochs': 3}, 'train_cfg.max_epochs: 2 → 3'),
            ({'model.nan_at': [99]}, 'model.nan_at: none → [99]'),
        ],
    )
    def test_old_and_new(self, changes, said, short):
        before = read_checkpoint(short / 'epoch_2.pth')['meta']['run']
        now = resumption.record_of(toy_runner(short, **{'train_cfg.max_epochs': 2, **changes}))
        assert any(text.startswith(said) for text in resumption.changes(before, now))

    def test_the_number_of_processes_with_as_many_batches(self, short, tmp_path, warned):
        checkpoint = read_checkpoint(short / 'epoch_2.pth')
        checkpoint['meta']['run'] |= dict(processes=2)
        torch.save(checkpoint, tmp_path / 'of_two.pth')
        toy_run(tmp_path, tmp_path / 'of_two.pth', **{'train_cfg.max_epochs': 2})
        assert warned == ['resumed, but no longer the run that it was: processes: 2 → 1']

    def test_methods_and_teachers(self):
        kd, mgd = method('KDLoss'), method('MGDLoss', student_channels=32, teacher_channels=64)
        records = [
            resumption.record_of(SimpleNamespace(cfg=dict(model=cfg), train_dataloader=SimpleNamespace(dataset=[]), model=m))
            for cfg, m in ((dict(distill_cfg=[kd]), build(kd)), (dict(distill_cfg=[kd, mgd]), build(kd, mgd)))
        ]
        assert [text.split(': ')[0] for text in resumption.changes(*records)] == [
            'weights of the teacher',
            'model.methods.loss_mgd',
        ]


class TestMemories:
    """CRD remembers every training image: too much to have it twice, and of no use for other images."""

    def test_other_images_are_refused(self):
        runner = SimpleNamespace(model=self.distiller())
        resumption._check_memories(runner, ['train_cfg.max_epochs: 2 → 3'])
        with pytest.raises(TrainingError, match='loss_crd remembers each training image .* 9 → 8'):
            resumption._check_memories(runner, ['training images: 9 → 8'])

    @staticmethod
    def distiller(images=9):
        return build(method('CRDLoss', nce_k=4), num_samples=images)

    def test_memories_of_another_size_are_refused_before_training(self):
        checkpoint = dict(state_dict=self.distiller().state_dict())
        check_resumed(self.distiller(), 'a.pth', checkpoint)
        with pytest.raises(
            ValueError, match=r'a.pth holds distill_losses.loss_crd.memory_s of shape \(9, 128\).*\(8, 128\)'
        ):
            check_resumed(self.distiller(8), 'a.pth', checkpoint)

    def test_none_of_them_is_taken_where_weights_alone_are(self):
        before, after = self.distiller(), self.distiller(8)
        before.distill_losses.loss_crd.log_z.fill_(3.0)
        _load_checkpoint_to_model(after, dict(state_dict=before.state_dict()))
        loss = after.distill_losses.loss_crd
        assert torch.equal(loss.embed_s.weight, before.distill_losses.loss_crd.embed_s.weight)
        assert not loss.log_z.isfinite().any()

    @pytest.mark.parametrize('update_buffers', [False, True])
    def test_a_moving_average_shares_them(self, update_buffers):
        model = self.distiller()
        average = ExponentialMovingAverage(model, 0.5, update_buffers=update_buffers)
        share_memories(model, average)
        loss, twin = model.distill_losses.loss_crd, average.module.distill_losses.loss_crd
        before = loss.memory_s.clone()
        for _ in range(2):
            loss.embed_s.weight.data.add_(1.0)
            average.update_parameters(model)
        assert torch.equal(loss.memory_s, before)
        for name in ('memory_s', 'memory_t', 'log_z'):
            assert getattr(loss, name) is getattr(twin, name)
        assert not torch.equal(loss.embed_s.weight, twin.embed_s.weight)

        names = {k: v.clone() for k, v in model.state_dict().items()}  # on another device a checkpoint's are copies
        checkpoint = dict(state_dict=dict(model.state_dict()), ema_state_dict={f'module.{k}': v for k, v in names.items()})
        _save_once(checkpoint, dict(model.named_buffers()))
        memory = 'distill_losses.loss_crd.memory_s'
        assert checkpoint['state_dict'][memory] is checkpoint['ema_state_dict'][f'module.{memory}']


def gather_in_process(rank):
    model = torch.nn.Linear(2, 1)
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1), accumulative_counts=2)
    wrapper.update_params((rank + 1) * model(torch.ones(1, 2)).sum())
    found = resumption.gathered_gradients(SimpleNamespace(model=model, optim_wrapper=wrapper))
    assert torch.equal(found['weight'], torch.full((1, 2), 0.75))  # halves of 1 and 2
    assert torch.equal(model.weight.grad, torch.full((1, 2), 0.5 * (rank + 1)))


class TestWhatSurvives:
    def test_gradients_that_wait_for_the_step(self, tmp_path):
        options = {'optim_wrapper.accumulative_counts': 2}  # of three batches an epoch
        whole = toy_run(tmp_path / 'a', **options)
        again = toy_run(tmp_path / 'b', tmp_path / 'a/epoch_1.pth', **options)
        assert read_checkpoint(tmp_path / 'a/epoch_1.pth')['gathered_gradients']
        assert not read_checkpoint(tmp_path / 'a/epoch_2.pth')['gathered_gradients']
        assert_equal(weights(again), weights(whole))

    @pytest.mark.slow
    def test_of_two_processes_their_mean_waits(self):
        run_in_two(gather_in_process)

    def test_the_counts_of_early_stopping(self):
        def hooks():
            return SimpleNamespace(hooks=[EarlyStoppingHook(monitor='loss', patience=3)])

        before, after = hooks(), hooks()
        for loss in (2.0, 1.0, 1.5):
            before.hooks[0]._check_stop_condition(loss)
        resumption.restore_stopping(after, resumption.stopping_counts(before))
        assert vars(after.hooks[0]) == vars(before.hooks[0])
        assert (after.hooks[0].wait_count, after.hooks[0].best_score) == (1, 1.0)

    def test_the_weights_themselves_where_the_average_is_given_up(self, tmp_path, warned):
        averaged = toy_run(tmp_path / 'a', custom_hooks=[dict(type='EMAHook', momentum=0.5)], **{'train_cfg.max_epochs': 2})
        plain = toy_run(tmp_path / 'b', tmp_path / 'a/epoch_2.pth', **{'train_cfg.max_epochs': 2})
        assert_equal(weights(plain), weights(averaged))
        assert 'the moving average is given up' in warned[0]

    def test_how_many_steps_in_a_row_were_left_out(self, tmp_path):
        options = {
            'model.nan_at': list(range(4, 99)),
            'train_cfg.on_nonfinite': 'skip',
            'train_cfg.max_nonfinite': 3,
            'default_hooks': dict(checkpoint=dict(type='ResumableCheckpointHook', interval=1, by_epoch=False)),
        }
        messages = []
        for resume in (None, tmp_path / 'iter_6.pth'):
            with pytest.raises(DivergenceError) as error:
                toy_run(tmp_path, resume, **options)
            messages.append(str(error.value).split('(')[0])
        assert messages[0] == messages[1]
        assert 'iteration 8, 4 times in a row' in messages[0]


def test_the_student_of_simkd_is_found():
    model = build(method('SimKD'))
    check_start(model.student, 'a.pth', dict(state_dict=model.state_dict()))
    other = build(method('SimKD'), student=resnet(8))
    with pytest.raises(ValueError, match='holds another student'):
        check_start(other.student, 'a.pth', dict(state_dict=model.state_dict()))


class TestGradients:
    """Finite losses may have gradients that are not."""

    def test_the_run_stops_before_the_weights_are_touched(self, tmp_path):
        with pytest.raises(
            DivergenceError, match=r'the gradient of layers\.0\.weight and of \d more .* iteration 6.*epoch_1'
        ):
            toy_run(tmp_path, **{'model.nan_gradient_at': [5]})  # the last step of the second epoch
        assert not (tmp_path / 'epoch_2.pth').exists()

    def test_or_the_step_is_left_out(self, tmp_path):
        options = {'train_cfg.on_nonfinite': 'skip', 'param_scheduler': None, 'train_cfg.max_epochs': 2}
        with_it = toy_run(tmp_path / 'a', **options, **{'model.nan_gradient_at': [5]})
        assert with_it.message_hub.get_info('left_out_steps') == 1
        hooks = dict(checkpoint=dict(type='ResumableCheckpointHook', interval=5, by_epoch=False))
        toy_run(tmp_path / 'b', **options, default_hooks=hooks)
        assert_equal(weights(with_it), read_checkpoint(tmp_path / 'b/iter_5.pth')['state_dict'])

    def test_what_a_loss_scaler_finds_is_its_own_business(self):
        model = MODELS.build(dict(type='ToyModel'))
        optimizer, scaler = torch.optim.SGD(model.parameters(), lr=1.0), torch.amp.GradScaler('cpu')
        LossWatch(model, False, 0).watch_gradients(SimpleNamespace(optimizer=optimizer))
        scaler.scale(1e38 * model.layers(torch.ones(2, 4)).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        assert all(p.isfinite().all() for p in model.parameters())
        assert scaler.get_scale() == 2.0**15

    @pytest.mark.parametrize('bad', [float('nan'), float('inf'), -float('inf')])
    def test_names(self, bad):
        tensors = dict(a=torch.ones(3), none=None, b=torch.tensor([1.0, bad]), c=torch.full((2,), 3e38))
        assert not_finite(tensors) == ['b']
        assert not_finite({}) == []
        assert not_finite(dict(c=tensors['c'])) == []

    def test_finite_numbers_cost_one_pass_of_the_fast_norm(self, monkeypatch):
        norm, orders = torch._foreach_norm, []
        monkeypatch.setattr(torch, '_foreach_norm', lambda given, order: norm(given, orders.append(order) or order))
        assert not_finite(dict(a=torch.ones(3))) == []
        assert orders == [2.0]
        assert not_finite(dict(a=torch.tensor([float('nan')]))) == ['a']
        assert orders == [2.0, 2.0, float('inf')]

    def test_weights_that_are_not_finite_are_not_saved(self, tmp_path):
        runner = toy_run(tmp_path, **{'train_cfg.max_epochs': 1})
        hook = next(hook for hook in runner.hooks if isinstance(hook, ResumableCheckpointHook))
        runner.model.layers[0].weight.data[0, 0] = float('inf')
        with pytest.raises(DivergenceError, match=r'the weights became NaN or infinite \(layers.0.weight .*epoch_1'):
            hook.save_terminated(runner)
        assert [path.name for path in tmp_path.glob('*.pth')] == ['epoch_1.pth']


class TestScaledRates:
    """``auto_scale_lr``: the rates are for eight images an optimizer step, and it has four."""

    @pytest.mark.parametrize('schedule', SCHEDULES.values(), ids=SCHEDULES)
    def test_every_rate_of_every_schedule(self, schedule, tmp_path):
        found = []
        for enable in (False, True):
            auto = dict(base_batch_size=8, enable=enable)
            runner = toy_runner(tmp_path, auto_scale_lr=auto, param_scheduler=schedule)
            assert runner.train_dataloader
            scale_rates(runner)
            runner.train()
            found.append(rates(runner))
        np.testing.assert_allclose(found[1], np.array(found[0]) / 2, rtol=1e-6)

    @pytest.mark.parametrize(
        ('schedule', 'expected'),
        [
            (dict(type='CosineAnnealingLR', eta_min=1e-3), dict(eta_min=5e-4)),
            (dict(type='ReduceOnPlateauLR', min_value=[1e-3, 2e-3]), dict(min_value=[5e-4, 1e-3])),
            (dict(type='OneCycleLR', eta_max=0.1, total_steps=6, by_epoch=False), dict(eta_max=0.05, total_steps=12)),
            (dict(type='OneCycleLR', eta_max=0.1, total_steps=12, by_epoch=False), dict(eta_max=0.05, total_steps=12)),
            (dict(type='CosineAnnealingMomentum', eta_min=1e-3), dict(eta_min=1e-3)),
        ],
        ids=str,
    )
    def test_what_stands_in_the_schedules(self, schedule, expected, tmp_path):
        runner = toy_runner(tmp_path, auto_scale_lr=dict(base_batch_size=8, enable=True), param_scheduler=[schedule])
        assert runner.train_dataloader  # 4 epochs of 3 batches
        scale_rates(runner)
        found = runner.param_schedulers[0]
        assert {key: found[key] for key in expected} == expected
        assert runner.cfg.param_scheduler[0] == schedule  # what is written down stays

    def test_gathered_batches_count(self, tmp_path):
        options = {'auto_scale_lr': dict(base_batch_size=8, enable=True), 'optim_wrapper.accumulative_counts': 2}
        runner = toy_runner(tmp_path, param_scheduler=None, **options, **{'train_cfg.max_epochs': 1})
        assert runner.train_dataloader
        scale_rates(runner)
        runner.train()
        assert rates(runner) == pytest.approx([0.1] * 3)

    def test_cycles_that_end_before_the_training(self, tmp_path):
        cycle = dict(type='OneCycleLR', eta_max=0.1, total_steps=11, by_epoch=False)
        runner = toy_runner(tmp_path, param_scheduler=cycle)
        assert runner.train_dataloader
        with pytest.raises(ValueError, match='total_steps=11, and the training has 12 iterations: leave total_steps out'):
            check_optimizer(runner, None)
