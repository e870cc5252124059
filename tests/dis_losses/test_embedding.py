"""Losses on embeddings alone: values and gradients against loops over numbers, the queue, two processes, refusals."""

import copy
import math

import pytest
import torch
from kit import assert_close, logits
from mmpretrain.registry import MODELS
from processes import run_in_two

from mmcls_kd.dis_losses import embedding_loss
from mmcls_kd.dis_losses.embedding import kept_teachers

SIZES = dict(student_dims=3, teacher_dims=4)
NAN = math.nan


def build(loss_type, **keywords):
    torch.manual_seed(0)
    return MODELS.build(dict(type=loss_type, **SIZES, **keywords)).double()


def inputs(count, seed=0):
    vector_s, vector_t = logits(count, 3, 2.0, seed=seed + 1), logits(count, 4, 2.0, seed=seed + 2)
    return dict(vector_s=vector_s.requires_grad_(), vector_t=vector_t)


def rows_of(vectors, linear):
    """A linear layer of each vector, as lists of numbers that autograd can follow."""
    return [
        [sum(w * x for w, x in zip(row, vector, strict=True)) + b for row, b in zip(*linear.parameters(), strict=True)]
        for vector in vectors
    ]


def unit_rows(rows):
    return [[x / sum(y * y for y in row) ** 0.5 for x in row] for row in rows]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def same_gradients(loss, given, value, expected):
    ours = [given['vector_s'], *loss.parameters()]
    assert_close(value.detach(), torch.as_tensor(expected).detach())
    for gradient, wanted in zip(torch.autograd.grad(value, ours, retain_graph=True), torch.autograd.grad(expected, ours)):  # noqa: B905
        assert_close(gradient, wanted)


@pytest.mark.parametrize('count', [1, 3])
@pytest.mark.parametrize(('kind', 'share'), [('cosine', 1.0), ('smooth_l1', 0.0), ('both', 0.5)])
def test_embedding_is_the_formula(kind, share, count):
    loss, given = build('EmbeddingLoss', kind=kind), inputs(count)
    predicted, wanted = rows_of(given['vector_s'], loss.project), given['vector_t'].tolist()
    cosine = sum(1 - dot(*unit_rows([p, e])) for p, e in zip(predicted, wanted, strict=True)) / count
    apart = [abs(x - y) for p, e in zip(predicted, wanted, strict=True) for x, y in zip(p, e, strict=True)]
    smooth = sum(d - 0.5 if d > 1 else d * d / 2 for d in apart) / len(apart)
    same_gradients(loss, given, loss(**given), share * cosine + (1 - share) * smooth)


def several(**keywords):
    torch.manual_seed(0)
    return MODELS.build(dict(type='EmbeddingLoss', student_dims=3, teacher_dims=(4, 2), **keywords)).double()


def test_embeddings_of_several_teachers_are_added():
    loss, vectors = several(drop=0.0), (inputs(5)['vector_t'], logits(5, 2, seed=9))
    given = inputs(5)['vector_s']
    parts = [embedding_loss(project(given), vector) for project, vector in zip(loss.project, vectors, strict=True)]
    assert_close(loss(given, vectors).detach(), sum(parts).detach())
    assert_close(several(drop=1.0).eval()(given, vectors).detach(), sum(parts).detach())


def test_a_teacher_without_the_largest_loss_is_dropped_with_its_probability():
    values = torch.tensor([[1.0, 5.0, 2.0], [3.0, 4.0, 1.0], [2.0, 1.0, 0.5]]).repeat(1, 2000)
    largest = torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert torch.equal(kept_teachers(values, 1.0), largest.repeat(1, 2000))
    assert kept_teachers(values, 0.0).min() == 1
    torch.manual_seed(0)
    share = kept_teachers(values, 0.3).view(3, 2000, 3).mean(dim=1)
    assert (share[largest == 1] == 1).all()
    assert (share[largest == 0] - 0.7).abs().max() < 0.05


def divergence(predicted, wanted, entries, tau):
    """The mean over samples of the divergence of two softmaxes of cosines, in loops."""
    total = 0
    for p, e in zip(unit_rows(predicted), unit_rows(wanted), strict=True):
        z_s, z_t = ([dot(vector, entry) / tau for entry in unit_rows(entries)] for vector in (p, e))
        sum_s, sum_t = sum(z.exp() for z in z_s), sum(math.exp(z) for z in z_t)
        total = total + sum(
            math.exp(b) / sum_t * (b - math.log(sum_t) - (a - sum_s.log())) for a, b in zip(z_s, z_t, strict=True)
        )
    return total / len(wanted)


def test_queue_is_the_formula_over_batches_until_it_turns_round():
    """Batches of 3 in a queue of 7: entries are those of the batch, and the last seven before it."""
    loss, before = build('QueueLoss', queue_size=7, tau=0.5), []
    for step in range(4):
        given = inputs(3, seed=10 * step)
        wanted = given['vector_t'].tolist()
        expected = divergence(rows_of(given['vector_s'], loss.project), wanted, wanted + before[-7:], tau=0.5)
        same_gradients(loss, given, loss(**given), expected)
        before += wanted
        kept = torch.tensor(sorted(unit_rows(before[-7:])), dtype=torch.float64)
        assert_close(torch.tensor(sorted(loss.queue[loss.queue.any(dim=1)].tolist()), dtype=torch.float64), kept)
    assert loss.count == 12


def test_the_queue_stays_in_eval_mode_and_without_gradients():
    loss, given = build('QueueLoss', queue_size=7), inputs(3)
    loss(**given)
    state = copy.deepcopy(loss.state_dict())
    with torch.no_grad():
        loss(**inputs(3, seed=5))
    value = loss.eval()(**inputs(3, seed=5))
    assert torch.equal(value, loss(**inputs(3, seed=5)))
    assert all(torch.equal(tensor, state[name]) for name, tensor in loss.state_dict().items())


def test_a_student_that_points_as_the_teacher_has_no_loss():
    vectors = logits(5, 4, 2.0, seed=3)
    for loss_type in ('EmbeddingLoss', 'QueueLoss'):
        loss = MODELS.build(dict(type=loss_type, student_dims=4, teacher_dims=4)).double()
        torch.nn.init.eye_(loss.project.weight), torch.nn.init.zeros_(loss.project.bias)
        assert_close(loss(3 * vectors, vectors).detach(), torch.tensor(0.0, dtype=torch.float64))


def test_a_checkpoint_with_another_queue_starts_it_anew(caplog):
    loss = build('QueueLoss', queue_size=7)
    loss(**inputs(3))
    other = build('QueueLoss', queue_size=9)
    weight = loss.project.weight.detach().clone()
    other.load_state_dict(loss.state_dict(), strict=False)
    assert torch.equal(other.project.weight, weight)
    assert other.count == 0
    assert not other.queue.any()


@pytest.mark.parametrize(
    ('loss_type', 'keywords', 'message'),
    [
        ('EmbeddingLoss', dict(kind='cosin'), r"kind='cosin'\): choose one of 'cosine', 'smooth_l1', 'both'; did you mean"),
        ('EmbeddingLoss', dict(kind=['cosine']), r"kind=\['cosine'\]\): choose one of"),
        *[('EmbeddingLoss', dict(drop=drop), 'drop=.*: give a number from 0 to 1') for drop in (2, -0.1, NAN, '0.5', True)],
        *[
            ('QueueLoss', dict(queue_size=n), 'queue_size=.* give a whole number, 1 or more')
            for n in (0, 8.5, '8', NAN, True)
        ],
        *[('QueueLoss', dict(tau=tau), 'QueueLoss: tau=.* give a number above 0') for tau in (0, -1, NAN, 1e400, '0.07')],
    ],
)
def test_unfit_settings_are_refused(loss_type, keywords, message):
    with pytest.raises(ValueError, match=message):
        build(loss_type, **keywords)


@pytest.mark.parametrize('loss_type', ['EmbeddingLoss', 'QueueLoss'])
def test_a_last_batch_of_one_image(loss_type):
    """Its value is that of the image in a larger batch; the queue goes on; gradients are finite."""
    loss, given = build(loss_type, **(dict(queue_size=8) if loss_type == 'QueueLoss' else {})), inputs(4)
    if loss_type == 'QueueLoss':
        loss(**inputs(5, seed=1))
    one = {name: tensor[:1] for name, tensor in given.items()}
    value = loss(**one)
    value.backward()
    assert value > 0
    assert all(parameter.grad.isfinite().all() for parameter in loss.parameters())
    if loss_type == 'EmbeddingLoss':
        rest = loss(**{name: tensor[1:] for name, tensor in given.items()})
        assert_close(loss(**given), (value + 3 * rest) / 4)
    else:
        assert loss.count == 6
        assert loss(**{name: tensor[1:] for name, tensor in given.items()}).isfinite()


def test_an_empty_queue_and_one_image_say_nothing():
    """The image is then its own only entry: both distributions are 1."""
    assert build('QueueLoss', queue_size=8)(**inputs(1)) == 0


def test_a_batch_above_the_queue_is_refused():
    with pytest.raises(ValueError, match=r'queue_size=2\) is smaller than a batch of 3 images: set queue_size to 3 or more'):
        build('QueueLoss', queue_size=2)(**inputs(3))


def save_queue(rank, folder):
    """Save the state of one of two processes after two steps, with every other row of each batch."""
    loss = build('QueueLoss', queue_size=7)
    for step in range(2):
        given = inputs(4, seed=10 * step)
        loss(given['vector_s'][rank::2], given['vector_t'][rank::2])
    torch.save(loss.state_dict(), folder / f'{rank}.pth')


def test_two_processes_have_the_same_queue(tmp_path):
    run_in_two(save_queue, tmp_path)
    first, second = (torch.load(tmp_path / f'{rank}.pth') for rank in (0, 1))
    assert torch.equal(first['queue'], second['queue'])
    assert first['count'] == second['count'] == 8
