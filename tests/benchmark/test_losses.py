"""The times of the logit losses: which are taken, on what, and how they are shown."""

import pytest
import torch

from benchmark import losses
from benchmark.losses import loss_works, measure_losses, show_losses
from benchmark.timing import Timing

NAMES = ['cross entropy', 'KD', 'DKD', 'WSLD', 'NKD', 'tf-NKD', 'USKD']


@pytest.mark.parametrize('soft', [False, True])
def test_every_loss_has_a_time_of_each_round(soft):
    timings = measure_losses(batch=4, classes=5, rounds=3, soft=soft)
    assert list(timings) == NAMES
    for timing in timings.values():
        assert len(timing.seconds) == 3
        assert min(timing.seconds) > 0


@pytest.mark.parametrize('soft', [False, True])
def test_forward_and_backward_give_the_students_gradients(soft):
    for name, work in loss_works(4, 5, soft).items():
        found = work()
        assert [gradient.shape for gradient in found] == [(4, 5)] * (2 if name == 'USKD' else 1)
        assert all(gradient.isfinite().all() and gradient.count_nonzero() for gradient in found)


def watch(monkeypatch, look):
    """Let ``look`` see the arguments of every DKD that is timed; returns what it saw."""
    seen, dkd_loss = [], losses.dkd_loss

    def watched(*given):
        seen.append(look(*given))
        return dkd_loss(*given)

    monkeypatch.setattr(losses, 'dkd_loss', watched)
    return seen


def test_labels_are_indices_or_scores_of_two_classes(monkeypatch):
    seen = watch(monkeypatch, lambda logit_s, logit_t, gt_label: gt_label)
    measure_losses(batch=4, classes=5, rounds=1)
    assert {tuple(label.shape) for label in seen} == {(4,)}
    seen.clear()
    measure_losses(batch=4, classes=5, rounds=1, soft=True)
    assert {tuple(label.shape) for label in seen} == {(4, 5)}
    torch.testing.assert_close(seen[0].sum(dim=1), torch.ones(4))
    assert (seen[0] > 0).sum(dim=1).max() <= 2


def test_the_threads_asked_for_work_and_then_those_from_before(monkeypatch):
    before = torch.get_num_threads()
    seen = watch(monkeypatch, lambda *_: torch.get_num_threads())
    measure_losses(batch=4, classes=5, rounds=1, threads=before + 1)
    assert set(seen) == {before + 1}
    assert torch.get_num_threads() == before


def test_the_threads_from_before_are_back_after_an_error():
    before = torch.get_num_threads()
    with pytest.raises(ValueError, match='rounds=0'):
        measure_losses(batch=4, classes=5, rounds=0, threads=before + 1)
    assert torch.get_num_threads() == before


def test_the_table_has_each_loss_with_its_time_and_how_many_cross_entropies_it_is_worth(capsys):
    show_losses({name: Timing((0.002 * (i + 1), 0.004 * (i + 1))) for i, name in enumerate(NAMES)})
    lines = capsys.readouterr().out.splitlines()
    for i, name in enumerate(NAMES):
        (line,) = (line for line in lines if f'│ {name} ' in line)
        assert [cell.strip() for cell in line.strip('│').split('│')] == [
            name,
            f'{3 * (i + 1):.2f}',
            f'{0.5 * (i + 1):.2f}',
            f'{i + 1:.1f}',
        ]
