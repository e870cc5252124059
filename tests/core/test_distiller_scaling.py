"""The distiller under DistributedDataParallel, autocast, gradient accumulation and torch.compile."""

import copy
import logging
import warnings

import pytest
import torch
from processes import in_child, run_in_two
from small_networks import CNN, ViT, batch, pair
from torch.distributed import HashStore, init_device_mesh, init_process_group
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from mmcls_kd import Distiller, losses

#: Losses that are means over the samples, each independent of the others.
MEANS = dict(
    kd='kd',
    dkd='dkd',
    fitnet='fitnet',
    vid='vid',
    at='at',
    catkd='catkd',
    sdd='sdd',
    late=dict(type='dist', loss_weight=0.0),
)


def gradients(distiller, images, labels, share=1.0):
    """The gradients of one step, by name, added to those that are there."""
    (share * distiller(images, labels)['loss']).backward()
    return {name: parameter.grad for name, parameter in distiller.named_parameters() if parameter.grad is not None}


def same(one, other):
    """Compare gradients."""
    assert one.keys() == other.keys()
    for name, gradient in one.items():
        torch.testing.assert_close(gradient, other[name], rtol=1e-4, atol=1e-6, msg=name)


def test_half_batches_add_up():
    images, labels = batch()
    whole = gradients(Distiller(*pair(norm=False), MEANS), images, labels)
    distiller = Distiller(*pair(norm=False), MEANS)
    for part in (slice(0, 4), slice(4, 8)):
        halves = gradients(distiller, images[part], labels[part], 0.5)
    same(halves, whole)


@pytest.mark.parametrize(('loss', 'several'), [('kd', False), ('kd', True), ('scalekd', False), ('simkd', False)])
def test_a_copy_that_is_moved_leaves_the_teacher_where_it_is(loss, several):
    student, teacher = pair()
    distiller = Distiller(student, [teacher, copy.deepcopy(teacher)] if several else teacher, loss)
    images, labels = batch()

    def value(of, images=images):
        torch.manual_seed(0)
        return of(images, labels)['loss'].detach()

    before, other = value(distiller), copy.deepcopy(distiller)
    assert other.cpu().float().teacher is distiller.teacher  # nothing changes, and memory is saved
    torch.testing.assert_close(value(other.double(), images.double()).float(), before)
    copy.deepcopy(distiller).to('meta')  # as a moving average on another device than the training
    assert torch.equal(value(distiller), before)
    distiller.double()  # the original itself, and its teacher
    assert {weight.dtype for network in distiller.teachers for weight in network.parameters()} == {torch.float64}
    assert teacher is distiller.teachers[0]


def _step(rank, folder):
    distiller = Distiller(*pair(norm=False, seed=0), MEANS)
    wrapped = DistributedDataParallel(distiller)
    images, labels = batch()
    for _ in range(2):  # the second step would tell of parameters without a gradient
        distiller.zero_grad()
        wrapped(images[rank::2], labels[rank::2])['loss'].backward()
    torch.save({name: parameter.grad for name, parameter in distiller.named_parameters()}, folder / f'{rank}.pt')
    torch.save(distiller.state_dict(), folder / f'weights{rank}.pt')


def test_two_processes_get_the_gradients_of_the_whole_batch(tmp_path):
    run_in_two(_step, tmp_path)
    distiller = Distiller(*pair(norm=False), MEANS)
    distiller.load_state_dict(torch.load(tmp_path / 'weights0.pt'))  # DDP sent the first one's to the second
    whole = gradients(distiller, *batch())
    for rank in (0, 1):
        same(torch.load(tmp_path / f'{rank}.pt'), whole)


class TestAutocast:
    @pytest.mark.parametrize('network', [CNN, ViT])
    def test_losses_are_float32(self, network):
        names = ['kd', 'mgd', 'fitnet', 'dist', 'uskd', 'reviewkd', 'rkd', 'at', 'vid', 'ofa']
        student, teacher = pair(network)
        distiller = Distiller(student, teacher, names)
        images, labels = batch()
        with torch.autocast('cpu', torch.bfloat16):
            out = distiller(images, labels)
            assert student(images).dtype == torch.bfloat16
        assert {value.dtype for value in out.values()} == {torch.float32}
        torch.manual_seed(0)
        exact = Distiller(*pair(network), names)(images, labels)
        out['loss'].backward()
        assert all(value.isfinite() for value in out.values())
        assert all(parameter.grad.isfinite().all() for parameter in student.parameters())
        for name in ('task', 'kd', 'dist', 'fitnet', 'vid'):
            torch.testing.assert_close(out[name], exact[name], rtol=0.05, atol=0.05, msg=name)

    def test_scores_keep_float32(self):
        student, _ = pair()
        images, labels = batch()
        scores = 0.9 * F.one_hot(labels, 10) + 0.01
        with torch.autocast('cpu', torch.bfloat16):
            task = Distiller(student)(images, scores)['task']
            logit = student(images)
        assert torch.equal(task, F.cross_entropy(logit.float(), scores, reduction='none').mean())

    def test_the_teacher_in_bfloat16(self):
        images, labels = batch()
        exact = Distiller(*pair(), ['kd', 'fitnet'])(images, labels)
        out = Distiller(*pair(), ['kd', 'fitnet'], teacher_precision='bf16')(images, labels)
        assert {value.dtype for value in out.values()} == {torch.float32}
        assert not torch.equal(out['kd'], exact['kd'])
        torch.testing.assert_close(out['kd'], exact['kd'], rtol=0.01, atol=0.01)


class TestCompile:
    """With the backend that runs each graph as it is: dynamo is what could go wrong."""

    pytestmark = [pytest.mark.slow, pytest.mark.own_process(shared=True)]
    LOSSES = ('kd', 'fitnet', 'at', 'vid', 'catkd', 'sdd')

    def steps(self, distiller, call):
        """Train three steps, with a prediction between; return the losses and the predictions."""
        optimizer = torch.optim.SGD(distiller.parameters(), lr=0.05)
        found = []
        for step in range(3):
            images, labels = batch()
            out = call(images + step, labels)
            optimizer.zero_grad()
            out['loss'].backward()
            optimizer.step()
            found += [*(value.detach() for value in out.values()), distiller.predict(images[:3])]
        return found

    def check(self, student, distiller, call):
        warnings.filterwarnings('ignore', 'The .grad attribute of a Tensor that is not a leaf')  # dynamo's own
        expected = Distiller(*pair(), self.LOSSES)
        for one, other in zip(self.steps(expected, expected), self.steps(distiller, call), strict=True):
            torch.testing.assert_close(other, one)
        assert distiller.student is student

    def test_the_student_compiled_before(self):
        student, teacher = pair()
        student.compile(backend='eager')
        distiller = Distiller(student, teacher, self.LOSSES)
        self.check(student, distiller, distiller)
        assert student._compiled_call_impl is not None

    def test_the_student_compiled_after(self):
        student, teacher = pair()
        distiller = Distiller(student, teacher, self.LOSSES)
        student.compile(backend='eager')
        self.check(student, distiller, distiller)

    def test_the_distiller_compiled(self):
        student, teacher = pair()
        distiller = Distiller(student, teacher, self.LOSSES)
        self.check(student, distiller, torch.compile(distiller, backend='aot_eager'))

    def test_both_networks_compiled(self):
        student, teacher = pair()
        for network in (student, teacher):
            network.compile(backend='eager')
        distiller = Distiller(student, teacher, self.LOSSES)
        self.check(student, distiller, distiller)

    def test_building_compiles_nothing(self):
        student, teacher = pair()
        graphs = []
        student.compile(backend=lambda graph, _example: graphs.append(graph) or graph)
        distiller = Distiller(student, teacher, self.LOSSES)
        assert not graphs
        for _ in range(10):
            distiller(*batch())
        assert len(graphs) == 1

    def test_a_student_that_ran_compiled_before(self):
        torch.compiler.reset()
        student, teacher = pair()
        student.compile(backend='eager')
        student(batch()[0])
        distiller = Distiller(student, teacher, self.LOSSES)
        with pytest.raises(RuntimeError, match=r"module '.*' did not run .* call torch.compiler.reset\(\) once"):
            distiller(*batch())
        torch.compiler.reset()
        student, teacher = pair()
        distiller = Distiller(student, teacher, self.LOSSES)
        self.check(student, distiller, distiller)

    def test_a_wrapper_is_refused(self):
        student, teacher = pair()
        with pytest.raises(ValueError, match='student: torch.compile wraps it: give the module itself, and compile that'):
            Distiller(torch.compile(student), teacher, losses.KDLoss())
        with pytest.raises(ValueError, match='teacher: torch.compile wraps it'):
            Distiller(student, torch.compile(copy.deepcopy(teacher)), losses.KDLoss())


@pytest.mark.skipif(not hasattr(torch.cpu.Stream, 'record_event'), reason='fully_shard runs on CUDA alone up to torch 2.6')
@in_child
def test_sharded_losses_are_not_taken_for_forgotten_ones():
    init_process_group('gloo', store=HashStore(), rank=0, world_size=1)
    told, sums, (images, labels) = [], [], batch()
    logging.getLogger('mmcls_kd.distiller').warning = told.append
    for shards in (False, True):
        distiller = Distiller(*pair(), 'mgd')
        for module in (*distiller.student.children(), distiller) if shards else ():
            fully_shard(module, mesh=init_device_mesh('cpu', (1,)))
        optimizer = torch.optim.SGD(distiller.parameters(), lr=0.1)
        torch.manual_seed(0)
        for _ in range(3):
            distiller(images, labels)['loss'].backward()
            optimizer.step()
        sums.append(sum(float(parameter.detach().abs().sum()) for parameter in distiller.parameters()))
    assert told == []
    assert sums[0] == pytest.approx(sums[1])
