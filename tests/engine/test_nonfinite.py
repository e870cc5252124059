"""A loss that is NaN or infinite stops the run before it touches the weights, or its step is left out."""

import pytest
import torch
from interruption import Run, assert_equal, last, write_config
from networks import batch, build, method

from mmcls_kd.engine.loss_watch import LossWatch
from mmcls_kd.errors import NonFiniteLossError

pytestmark = pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning')


@pytest.fixture
def train(data, tmp_path):
    """Trains with a loss that is NaN at some calls; returns the run, ended, and its exit codes."""

    def call(calls, *options, processes=1, rank=0, name='run'):
        config = write_config(tmp_path / f'{name}.py', data, processes=processes)
        text = config.read_text().replace(
            'model = dict(',
            "custom_imports = dict(imports=['mmcls_kd', 'diverging'])\n"
            "model = dict(distill_cfg=[dict(methods=[dict(type='DivergingLoss', name='loss_diverging', "
            f'calls={list(calls)}, rank={rank})])], ',
        )
        config.write_text(text.replace("methods = ['nkd', 'mgd']\n", ''))
        options = ['--cfg-options', *options] if options else []
        run = Run(config, tmp_path / name, *options, processes=processes)
        return run, run.wait()

    return call


def test_the_run_stops_and_says_which_term_where_and_on_what(train, tmp_path):
    run, codes = train([7])  # the look before training, then four iterations of the first epoch, then two
    assert codes == [3], run.output()
    message = run.output().splitlines()[-1]
    assert message.startswith(
        'train.py: error: loss_diverging became NaN or infinite in epoch 2, iteration 7 (images: sample '
    )
    assert 'epoch_1.pth' in message
    assert 'on_nonfinite=skip' in message
    logged = next(line for line in run.output().splitlines() if 'the images of the batch' in line)
    assert logged.count('sample ') == 32
    checkpoint = last(tmp_path / 'run')
    assert checkpoint['meta']['iter'] == 4
    assert all(value.isfinite().all() for value in checkpoint['state_dict'].values())


@pytest.mark.slow
def test_steps_that_are_left_out_change_nothing(train, tmp_path):
    run, codes = train([9, 10, 11, 12], 'train_cfg.on_nonfinite=skip')  # the whole last epoch
    assert codes == [0], run.output()
    assert 'the step is left out (4 of them so far)' in run.output()
    _, codes = train([], 'train_cfg.max_epochs=2', name='shorter')
    with_them, without = last(tmp_path / 'run'), last(tmp_path / 'shorter')
    assert (with_them['meta']['iter'], without['meta']['iter']) == (12, 8)
    # with EMAHook a checkpoint has the weights themselves, and the batch statistics, here
    weights, expected = with_them['ema_state_dict'], without['ema_state_dict']
    assert_equal({n: w for n, w in weights.items() if n != 'steps'}, {n: w for n, w in expected.items() if n != 'steps'})
    assert_equal(with_them['optimizer']['state'], without['optimizer']['state'])


@pytest.mark.slow
def test_it_gives_up_after_so_many_in_a_row(train):
    run, codes = train([3, 5, 6, 7], 'train_cfg.on_nonfinite=skip', 'train_cfg.max_nonfinite=2')
    assert codes == [3], run.output()
    assert 'in epoch 2, iteration 7, 3 times in a row' in run.output().splitlines()[-1]


@pytest.mark.slow
def test_two_processes_leave_out_the_same_step(train, tmp_path):
    run, codes = train([6], 'train_cfg.on_nonfinite=skip', processes=2, rank=1)
    assert codes == [0, 0], run.output()
    assert 'a loss in another process: NaN or infinite in epoch 2, iteration 6' in run.output()
    assert all(v.isfinite().all() for v in last(tmp_path / 'run')['state_dict'].values())


@pytest.mark.slow
def test_an_unknown_choice_lists_the_known(train):
    run, codes = train([], 'train_cfg.on_nonfinite=ignore')
    assert codes == [1]
    assert "on_nonfinite='ignore': choose one of 'stop', 'skip'" in run.output().splitlines()[-1]


class TestLossWatch:
    def watched(self, **settings):
        distiller = build(method('KDLoss'), method('MGDLoss', student_channels=32, teacher_channels=64))
        watch = LossWatch(distiller, **{'keep_statistics': False, 'gradient_norm_interval': 1, **settings})
        data = distiller.data_preprocessor(batch(), training=True)
        return distiller, watch, distiller(**data, mode='loss')

    def test_gradient_norms_are_those_of_separate_backward_passes(self):
        distiller, watch, losses = self.watched()
        for name, value in losses.items():
            distiller.zero_grad()
            value.backward(retain_graph=True)
            squares = [p.grad.double().square().sum() for p in distiller.parameters() if p.grad is not None]
            expected = torch.stack(squares).sum().sqrt()
            torch.testing.assert_close(watch.norms[f'gradient_norm/{name}'].double(), expected, rtol=1e-5, atol=0)

    def test_gradient_norms_are_taken_at_their_interval_alone(self):
        _, watch, losses = self.watched(gradient_norm_interval=3)
        found = []
        for iteration in range(6):
            watch.before_step(iteration)
            watch.look(losses)
            found.append('gradient_norm/loss_kd' in watch.norms)
        assert found == [False, False, True, False, False, True]

    @pytest.mark.parametrize('bad', [float('nan'), float('inf'), -float('inf')])
    def test_each_term_that_is_not_finite_is_named(self, bad):
        _, watch, losses = self.watched()
        losses['loss_kd'] = losses['loss_kd'] * bad
        with pytest.raises(NonFiniteLossError, match='^loss_kd$'):
            watch.look(losses)

    def test_terms_that_are_finite_may_have_a_sum_that_is_not(self):
        _, watch, losses = self.watched()
        losses = {name: torch.full((), 3e38) for name in losses}
        with pytest.raises(NonFiniteLossError, match='^the sum of the losses$'):
            watch.look(losses)

    def test_batch_statistics_go_back_to_what_they_were(self):
        distiller, watch, _ = self.watched(keep_statistics=True)
        before = [b.clone() for b in distiller.buffers()]
        watch.before_step(0)
        distiller(**distiller.data_preprocessor(batch(), training=True), mode='loss')
        assert any(not torch.equal(a, b) for a, b in zip(before, distiller.buffers(), strict=True))
        watch.restore_statistics()
        assert all(torch.equal(a, b) for a, b in zip(before, distiller.buffers(), strict=True))
