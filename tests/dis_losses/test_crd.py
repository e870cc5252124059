"""CRD: value, gradients, memory and constant against loops over numbers; the draws; two processes; what it refuses."""

import copy
import math

import pytest
import torch
from kit import assert_close, logits, seeded
from mmpretrain.registry import MODELS
from processes import run_in_two
from torch.utils.flop_counter import FlopCounterMode

from mmcls_kd.dis_losses import crd, nce_loss
from mmcls_kd.dis_losses.crd import draw_entries, entry_products, entry_sums, nce_gradient

SIZES = dict(student_dims=3, teacher_dims=4, num_samples=9)
SMALL = dict(**SIZES, feat_dim=5, nce_k=6)


def build(seed=0, **keywords):
    torch.manual_seed(seed)
    return MODELS.build(dict(type='CRDLoss', **{**SMALL, **keywords})).double()


def inputs(index, seed=0):
    vector_s, vector_t = logits(len(index), 3, 2.0, seed=seed + 1), logits(len(index), 4, 2.0, seed=seed + 2)
    return dict(vector_s=vector_s.requires_grad_(), vector_t=vector_t.requires_grad_(), sample_idx=torch.tensor(index))


def run(loss, given, seed=7):
    torch.manual_seed(seed)
    return loss(**given)


# ---- the oracle


def embedded(vectors, linear):
    """A linear layer of each vector, divided by its length; as lists of numbers that autograd can follow."""
    embeddings = []
    for vector in vectors:
        out = [sum(w * x for w, x in zip(row, vector, strict=True)) + b for row, b in zip(*linear.parameters(), strict=True)]
        length = sum(x * x for x in out) ** 0.5
        embeddings.append([x / length for x in out])
    return embeddings


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def oracle(loss, given, index):
    """The value, and what the buffers are afterwards; ``index`` are the entries that were drawn.

    The state before is that of ``loss``.
    """
    count, k = loss.num_samples, loss.nce_k
    samples = given['sample_idx'].tolist()
    embedded_s = embedded(given['vector_s'], loss.embed_s)
    embedded_t = embedded(given['vector_t'], loss.embed_t)
    memory_s, memory_t = loss.memory_s.tolist(), loss.memory_t.tolist()
    value, constants = 0, []
    for d, (embeddings, memory) in enumerate([(embedded_s, memory_t), (embedded_t, memory_s)]):
        power = [
            [torch.exp(dot(embedding, memory[j]) / loss.nce_t) for j in entries]
            for embedding, entries in zip(embeddings, index.tolist(), strict=True)
        ]
        z = math.exp(loss.log_z[d])
        if z == 0:
            z = count * sum(p.item() for row in power for p in row) / (len(samples) * (1 + k))
        constants.append(z)
        for row in power:
            own, *drawn = (p / z for p in row)
            value -= torch.log(own / (own + k / count + 1e-7)) / len(samples)
            for p in drawn:
                value -= torch.log(k / count / (p + k / count + 1e-7)) / len(samples)
    for memory, embeddings in ((memory_s, embedded_s), (memory_t, embedded_t)):
        before = copy.deepcopy(memory)
        for sample, embedding in zip(samples, embeddings, strict=True):
            mixed = [
                loss.nce_m * old + (1 - loss.nce_m) * x.item() for old, x in zip(before[sample], embedding, strict=True)
            ]
            memory[sample] = [x / math.sqrt(dot(mixed, mixed)) for x in mixed]
    state = dict(memory_s=memory_s, memory_t=memory_t, log_z=[math.log(z) for z in constants])
    return value, {name: torch.tensor(value, dtype=torch.float64) for name, value in state.items()}


@pytest.mark.parametrize(
    'keywords', [{}, dict(nce_k=1, num_samples=2), dict(nce_t=0.5, nce_m=0.0), dict(nce_m=0.9, feat_dim=2, nce_k=8)]
)
@pytest.mark.parametrize('batches', [[[1]], [[0, 1], [1, 0]], [[0, 1], [1], [0, 0, 1]]])
def test_it_is_the_formula_in_value_gradients_memory_and_constant(keywords, batches):
    loss = build(**keywords)
    for i, samples in enumerate(batches):
        given, before = inputs(samples, seed=10 * i), copy.deepcopy(loss)
        torch.manual_seed(i)
        index = draw_entries(given['sample_idx'], loss.num_samples, loss.nce_k)
        expected, state = oracle(before, given, index)
        value = run(loss, given, seed=i)
        ours = [given['vector_s'], given['vector_t'], *loss.parameters()]
        theirs = [given['vector_s'], given['vector_t'], *before.parameters()]
        assert_close(value.detach(), expected.detach())
        gradients = torch.autograd.grad(value, ours), torch.autograd.grad(expected, theirs)
        for gradient, wanted in zip(*gradients, strict=True):
            assert_close(gradient, wanted)
        for name, buffer in loss.named_buffers():
            assert_close(buffer, state[name])


def test_the_functions_gradient_is_autograds():
    scores = logits(3, 6, 4.0).requires_grad_()
    value = nce_loss(scores, torch.tensor(1.5), num_samples=20)
    assert_close(nce_gradient(scores.detach(), torch.tensor(1.5), num_samples=20), *torch.autograd.grad(value, scores))


def test_the_gradient_is_the_derivative():
    loss = build().eval()
    loss.log_z.fill_(2.0)
    given = inputs([4, 0, 8])
    assert torch.autograd.gradcheck(lambda *_: run(loss, given), (given['vector_s'], given['vector_t'], *loss.parameters()))


@pytest.mark.parametrize('at_once', [9, 20, 10_000])
def test_parts_of_a_batch_give_what_the_batch_gives(monkeypatch, at_once):
    monkeypatch.setattr(crd, 'SCORES_AT_ONCE', at_once)
    embedding, memory, weights = logits(5, 4, seed=1), logits(9, 4, seed=2), logits(5, 7, seed=3)
    index = torch.randint(9, (5, 7), generator=seeded(4))
    entries = memory[index]  # (N, k, d)
    assert_close(entry_products(embedding, memory, index), (entries * embedding[:, None]).sum(dim=2))
    assert_close(entry_sums(weights, memory, index), (entries * weights[..., None]).sum(dim=1))


def test_few_entries_of_many_are_copied_and_not_all_multiplied(monkeypatch):
    embedding, memory = logits(5, 4, seed=1), logits(300, 4, seed=2)
    index = torch.randint(300, (5, 7), generator=seeded(4))
    whole = entry_products(embedding, memory, index)
    monkeypatch.setattr(crd, 'WHOLE', 200)
    with FlopCounterMode(display=False) as counted:
        assert_close(entry_products(embedding, memory, index), whole)
    assert counted.get_total_flops() <= 2 * index.numel() * 4


def test_without_a_gradient_only_the_value_is_computed(monkeypatch):
    loss = build()
    with torch.no_grad():
        value = run(loss, inputs([1, 2]))
        monkeypatch.setattr(crd, 'entry_sums', None)
        assert torch.equal(run(loss, inputs([1, 2])), value)


@pytest.mark.parametrize('scale', [1e-4, 1.0, 1e4])
def test_any_size_of_the_vectors_and_a_small_temperature_are_finite_in_float32(scale):
    loss = build(nce_t=0.005).float()
    given = inputs([1, 2, 3])
    vectors = {name: (scale * given[name].detach().float()).requires_grad_() for name in ('vector_s', 'vector_t')}
    value = run(loss, given | vectors)
    assert value.isfinite()
    for gradient in torch.autograd.grad(value, [*vectors.values(), *loss.parameters()]):
        assert gradient.isfinite().all()


# ---- draws


def test_each_other_sample_is_drawn_equally_often_and_the_own_only_first():
    own = torch.tensor([0, 3, 9])
    torch.manual_seed(0)
    index = draw_entries(own, 10, 9000)
    assert torch.equal(index[:, 0], own)
    for sample, drawn in zip(own, index[:, 1:], strict=True):
        counts = drawn.bincount(minlength=10)
        assert counts[sample] == 0
        others = counts[torch.arange(10) != sample]
        assert (others - 1000).abs().max() < 5 * math.sqrt(1000)
    assert not torch.equal(index[0, 1:].sort().values, index[1, 1:].sort().values)


def test_the_draws_come_from_torchs_generator():
    values = []
    for seed in (1, 1, 2):
        values.append(run(build().eval(), inputs([0, 5]), seed))
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])


# ---- memory


def test_the_memory_starts_at_vectors_of_length_1_on_average():
    loss = build(num_samples=2000, feat_dim=48)
    for memory in (loss.memory_s, loss.memory_t):
        assert memory.square().sum(dim=1).mean().item() == pytest.approx(1, abs=0.02)
        assert memory.abs().max().item() == pytest.approx(0.25, abs=0.01)
    assert (loss.memory_s == loss.memory_t).double().mean() < 1e-3
    other_process = build(seed=1, num_samples=2000, feat_dim=48)  # DDP makes parameters equal, not always buffers
    assert torch.equal(loss.memory_s, other_process.memory_s)
    assert torch.equal(loss.memory_t, other_process.memory_t)
    assert not any(buffer.requires_grad for buffer in loss.buffers())


@pytest.mark.parametrize('still', ['eval mode', 'no gradients'])
def test_validation_leaves_the_memory_and_the_constant_alone(still):
    loss = build().train(still != 'eval mode')
    before = copy.deepcopy(loss.state_dict())
    with torch.set_grad_enabled(still != 'no gradients'):
        assert run(loss, inputs([1, 2])).isfinite()
    assert all(torch.equal(value, before[name]) for name, value in loss.state_dict().items())


def test_of_a_sample_that_comes_twice_the_last_counts():
    loss, twin = build(), build()
    given = inputs([2, 6, 2])
    run(loss, given)
    run(twin, {name: value[1:] for name, value in given.items()})
    assert torch.equal(loss.memory_s, twin.memory_s)
    assert torch.equal(loss.memory_t, twin.memory_t)


def test_a_state_dict_holds_all_that_the_next_step_needs():
    loss, resumed = build(), build(seed=1)
    for step in range(2):
        run(loss, inputs([1, 5], seed=step))
    resumed.load_state_dict(loss.state_dict())
    values = [run(one, inputs([0, 1], seed=5)) for one in (loss, resumed)]
    assert torch.equal(*values)
    for value, other in zip(loss.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(value, other)


def test_the_embeddings_learn_to_tell_the_samples_apart():
    torch.manual_seed(0)
    loss = MODELS.build(dict(type='CRDLoss', student_dims=8, teacher_dims=8, num_samples=40, feat_dim=16, nce_k=30))
    given = dict(
        vector_s=torch.randn(40, 8, generator=seeded(1)),
        vector_t=torch.randn(40, 8, generator=seeded(2)),
        sample_idx=torch.arange(40),
    )
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.1)
    values = []
    for _ in range(60):
        values.append(run(loss, given).item())
        optimizer.zero_grad()
        loss(**given).backward()
        optimizer.step()
    assert values[-1] < 0.5 * values[0]


# ---- two processes

WHOLE = [[0, 3, 5, 1, 3], [8, 3, 2, 0, 7]]  # of each step; samples that come twice too
FIRST = [3, 2]  # how many of these are the first process's


def eighths(step):
    """A step's batch in numbers whose sums have no rounding: that of a linear layer depends on the size of the batch."""
    return {n: (8 * v).round() / 8 if v.is_floating_point() else v for n, v in inputs(WHOLE[step], seed=step).items()}


def build_in_eighths():
    loss = build()
    for parameter in loss.parameters():
        parameter.data = (8 * parameter.data).round() / 8
    return loss


def states_in_two(rank, folder):
    torch.set_num_threads(1)
    loss = build_in_eighths()
    for step, first in enumerate(FIRST):
        part = slice(first) if rank == 0 else slice(first, None)
        run(loss, {name: value[part] for name, value in eighths(step).items()}, seed=rank)
        torch.save(loss.state_dict(), folder / f'{rank}_{step}.pth')


@pytest.mark.slow
def test_two_processes_keep_the_memories_of_one_with_all_samples(tmp_path):
    run_in_two(states_in_two, tmp_path)
    alone = build_in_eighths()
    for step in range(len(WHOLE)):
        given = eighths(step)
        before = copy.deepcopy(alone)
        run(alone, given)
        states = [torch.load(tmp_path / f'{rank}_{step}.pth') for rank in (0, 1)]
        for name, value in states[0].items():
            assert torch.equal(value, states[1][name])
        for name in ('memory_s', 'memory_t'):
            assert torch.equal(states[0][name], alone.state_dict()[name])
        if step == 0:  # each has drawn negatives of its own: the constant is that of the draws of both
            index = []
            for rank, part in enumerate([slice(FIRST[0]), slice(FIRST[0], None)]):
                torch.manual_seed(rank)
                index.append(draw_entries(given['sample_idx'][part], 9, 6))
            first_z = oracle(before, given, torch.cat(index))[1]['log_z']
        assert_close(states[0]['log_z'], first_z)


# ---- refusals


@pytest.mark.parametrize('wrong', [[0, 9], [-1, 0]])
def test_an_index_beyond_the_samples_is_an_error_that_names_num_samples(wrong):
    loss = build()
    before = copy.deepcopy(loss.state_dict())
    message = r'CRDLoss\(num_samples=9\) got a sample_idx that is not from 0 to 8: set num_samples'
    with pytest.raises(RuntimeError, match=message):
        run(loss, inputs(wrong))
    assert all(torch.equal(value, before[name]) for name, value in loss.state_dict().items())


@pytest.mark.parametrize(
    ('keywords', 'message'),
    [
        (dict(num_samples=None), r'num_samples=None\): set num_samples to the number of training images'),
        (dict(nce_k=9), r'nce_k=9\): there are 9 training samples, so a sample has 8 others; set nce_k'),
        (dict(nce_k=0), r'nce_k=0\)'),
    ],
)
def test_numbers_that_make_no_sense_are_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        build(**keywords)


@pytest.mark.parametrize(
    ('kind', 'size', 'names'),
    [('CRDLoss', 'num_samples', ('memory_s', 'memory_t', 'log_z')), ('QueueLoss', 'queue_size', ('queue', 'count'))],
)
def test_a_memory_of_another_size_begins_anew_and_the_rest_is_loaded(kind, size, names, caplog):
    dims = dict(student_dims=3, teacher_dims=4, **(dict(nce_k=5) if kind == 'CRDLoss' else {}))
    source, target = (MODELS.build(dict(dims, type=kind, **{size: count})) for count in (40, 30))
    before = {name: value.clone() for name, value in target.state_dict().items() if name in names}
    target.load_state_dict(source.state_dict())
    assert 'anew' in caplog.text
    for name, value in target.state_dict().items():
        assert torch.equal(value, before[name] if name in names else source.state_dict()[name]), name
