"""The live progress line: its text, a terminal that it leaves in order, and no line without a terminal."""

import io
import logging
import sys
from types import SimpleNamespace

import pytest
import torch

from mmcls_kd.engine.live import LiveProgressHook


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def runner():
    """As much of a runner as the hook reads, with a logger on stdout."""
    scalars = {'train/time': SimpleNamespace(mean=lambda window: 0.05)}
    info = dict(eta=62.4)
    logger = logging.Logger('live')
    logger.addHandler(logging.StreamHandler(sys.stdout))
    return SimpleNamespace(
        max_iters=40,
        iter=11,
        epoch=2,
        max_epochs=8,
        train_dataloader=[None] * 5,
        train_loop=SimpleNamespace(_max_epochs=8),
        logger=logger,
        message_hub=SimpleNamespace(log_scalars=scalars, get_info=lambda key, default=None: info.get(key, default)),
    )


OUTPUTS = dict(
    loss=torch.tensor(3.0, requires_grad=True),
    ori_loss=torch.tensor(1.25),
    loss_nkd=torch.tensor(1.75),
    images=torch.ones(3),
)


def test_the_line(runner):
    hook = LiveProgressHook()
    text = 'epoch 3/8 · step 2/5 · 320 images/s · 0:01:02 left · loss 3 · task 1.25 · nkd 1.75'
    assert hook.line(runner, 1, 16, OUTPUTS) == text
    hook.after_val_epoch(runner, {'accuracy/top1': 87.654})
    assert hook.line(runner, 1, 16, OUTPUTS) == f'{text} · top-1 87.65 %'

    hook.after_val_epoch(runner, {'knn/top1': 61.234, 'linear/top1': 70.0})
    assert hook.line(runner, 1, 16, OUTPUTS) == f'{text} · kNN 61.23 % · linear 70.00 %'
    hook.after_val_epoch(runner, {'data_time': 0.1})
    assert hook.line(runner, 1, 16, OUTPUTS) == f'{text} · kNN 61.23 % · linear 70.00 %'


def test_in_a_terminal_it_changes_in_place_and_leaves_all_as_it_was(runner, monkeypatch):
    monkeypatch.setattr(sys, 'stdout', terminal := Terminal())
    monkeypatch.setenv('TERM', 'xterm')
    monkeypatch.setenv('COLUMNS', '120')
    handler = runner.logger.handlers[0]
    handler.setStream(terminal)
    hook = LiveProgressHook()
    hook.before_train(runner)
    assert sys.stdout is not terminal
    hook.after_train_iter(runner, 1, dict(inputs=[None] * 16), OUTPUTS)
    runner.logger.info('Epoch(train) [3][2/5] loss: 3.0')
    runner.logger.info('Epoch(val) [3][2/5] accuracy/top1: 87.7')
    hook._bar.refresh()
    hook.after_train(runner)
    shown = terminal.getvalue()
    assert 'epoch 3/8 · step 2/5' in shown
    assert 'Epoch(val)' in shown
    assert 'Epoch(train)' not in shown
    assert shown.rindex('\x1b[?25h') > shown.rindex('\x1b[?25l')  # the cursor is back
    assert (sys.stdout, handler.stream, handler.filters) == (terminal, terminal, [])
    hook.stop()


def test_without_a_terminal_there_is_no_line(runner, capsys):
    hook = LiveProgressHook()
    hook.before_train(runner)
    hook.after_train_iter(runner, 1, dict(inputs=[None] * 16), OUTPUTS)
    hook.after_train(runner)
    assert capsys.readouterr().out == ''
