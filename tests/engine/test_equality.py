"""The same batch trains the same student, whether one process has it, two share it, or gradients accumulate over its parts.

That holds for every loss without batch statistics. The students here have none either: a vision transformer, and a ResNet
with group norm. What has batch statistics, and what becomes of it:

* The batch mean of USKD and tf-NKD: ``sync_batch_mean``. Without it the students differ, which these tests see too. It
  does not reach over the parts of an accumulated batch.
* Losses that compare the samples of a batch with one another, RKD, PKT, CC, SP, DIST, LumiNet, SRD, MLKD: ``sync_batch``,
  likewise.
* SRRL's connector has a batch norm. It is in eval mode here, so that it normalises by its running statistics; all else of
  SRRL is as ever. In train mode it needs SyncBN like any batch norm, which torch has on CUDA only: the last test.
"""

import copy

import pytest
import torch
from kit import labels, seeded
from mmengine.model import MMDistributedDataParallel, convert_sync_batchnorm
from mmengine.optim import OptimWrapper
from mmpretrain.registry import MODELS
from networks import build, images, method, resnet, samples, vit
from processes import run_in_two
from torch import nn

from mmcls_kd.dis_losses import RKDLoss, TFNKDLoss, USKDLoss, tfnkd_loss, uskd_loss
from mmcls_kd.dis_losses.common import batch_mean

WHOLE, STEPS = 8, 10  # images in a whole batch, optimizer steps
TOLERANCE = 1e-5

VITS = dict(student=vit(16), teacher=vit(24, 'DeiT3'))
GROUP_NORM = resnet(4)
GROUP_NORM['backbone']['norm_cfg'] = dict(type='GN', num_groups=2)
RESNETS = dict(student=GROUP_NORM, teacher=resnet(8))
USKD = dict(channel=16, num_classes=10, alpha=1.0, beta=1.0, mu=1.0)
MGD = method('MGDLoss', student_channels=32, teacher_channels=64, alpha_mgd=1e-3)
SRRL = method('SRRLLoss', student_channels=32, teacher_channels=64)

# what trains: its networks, its method, whether labels are scores
CASES = {
    'kd': (VITS, method('KDLoss'), False),
    'dkd': (VITS, method('DKDLoss'), False),
    'wsld': (VITS, method('WSLDLoss', num_classes=10), False),
    'nkd': (VITS, method('NKDLoss'), False),
    'vitkd': (VITS, method('ViTKDLoss', student_dims=16, teacher_dims=24, alpha_vitkd=1e-3, beta_vitkd=1e-3), False),
    'mgd': (RESNETS, MGD, False),
    'srrl': (RESNETS, SRRL, False),
    'crld': (VITS, method('CRLDLoss', tau_weak=0.0, tau_strong=0.0), False),  # random teachers are never sure
    'catkd': (RESNETS, method('CATKDLoss'), False),
    'sdd': (RESNETS, method('SDDLoss'), False),
    'rld': (VITS, method('RLDLoss'), False),
    'pefd': (VITS, method('PEFDLoss'), False),
    'vkd': (VITS, method('VkDLoss'), False),
}
SYNCED = {
    'uskd': (VITS, method('USKDLoss', **USKD, sync_batch_mean=True), False),
    'uskd, scores': (VITS, method('USKDLoss', **USKD, sync_batch_mean=True), True),
    'tfnkd': (VITS, method('TFNKDLoss', sync_batch_mean=True), False),
    'tfnkd, scores': (VITS, method('TFNKDLoss', sync_batch_mean=True), True),
    'rkd': (VITS, method('RKDLoss', sync_batch=True), False),
    'pkt': (VITS, method('PKTLoss', sync_batch=True, loss_weight=100.0), False),
    'cc': (VITS, method('CCLoss', sync_batch=True, feat_dim=8), False),
    'sp': (RESNETS, method('SPLoss', sync_batch=True), False),
    'dist': (VITS, method('DISTLoss', sync_batch=True), False),
    'mlkd': (VITS, method('MLKDLoss', sync_batch=True), False),
    'srd': (VITS, method('SRDLoss', sync_batch=True, loss_weight=0.05), False),
    'luminet': (VITS, method('LumiNetLoss', sync_batch=True), False),
}
NOT_SYNCED = {
    'uskd, not synced': (VITS, method('USKDLoss', **USKD), False),
    'tfnkd, not synced': (VITS, method('TFNKDLoss'), False),
    'rkd, not synced': (VITS, method('RKDLoss'), False),
    'srd, not synced': (VITS, method('SRDLoss', loss_weight=0.05), False),
    'dist, not synced': (VITS, method('DISTLoss'), False),
}
NO_METHOD = {
    'no method, vit': (VITS, method('NKDLoss', loss_weight=0.0), False),
    'no method, resnet': (RESNETS, method('NKDLoss', loss_weight=0.0), False),
}
BOTH_WAYS = ('nkd', 'mgd')  # in two processes that accumulate gradients; that concerns no loss more than another
ALL = CASES | SYNCED | NOT_SYNCED | NO_METHOD


def given_masks(patch, step, rows):
    """Make what MGD and ViTKD draw in this step a function of the sample, not of the process that has it.

    Both draw ``torch.rand(N, ...)`` for N samples. Here each gets its rows of one draw for the whole batch.
    """
    rand = torch.rand

    def of_these_rows(count, *shape, device=None):
        assert count == len(rows)
        return rand(WHOLE, *shape, generator=seeded(step))[rows].to(device)

    patch.setattr(torch, 'rand', of_these_rows)


def in_double(distiller):
    """The distiller in float64, its images too.

    ResNets need that: a ReLU's input that is zero but for rounding passes its gradient in one layout and none in the other,
    which in float32 moves weights by 1e-4 for one seed out of eight. The transformers' GELU has no such step.
    """
    distiller.data_preprocessor.register_forward_hook(lambda _, __, data: {**data, 'inputs': data['inputs'].double()})
    return distiller.double()


def built(*methods, student, teacher):
    """A distiller that has the same networks in every process, and whatever its methods are."""
    torch.manual_seed(0)
    distiller = build(*methods, student=student, teacher=teacher).train()
    for network, cfg in ((distiller.student, student), (distiller.teacher, teacher)):
        if network is not None:
            torch.manual_seed(0)  # anew, for a method with parameters has drawn before
            network.load_state_dict(MODELS.build(copy.deepcopy(cfg)).state_dict())
    return in_double(distiller) if student['backbone']['type'] == 'ResNet_CIFAR' else distiller


def distiller_of(case):
    """The distiller of a case."""
    networks, chosen, _ = ALL[case]
    distiller = built(chosen, **networks)
    for module in distiller.distill_losses.modules():
        if isinstance(module, nn.BatchNorm2d):  # SRRL's, see above
            module.eval()
    return distiller


def train(distiller, parts, soft=False, wrap=None, device='cpu'):
    """Train on whole batches, of which this process has the given parts; one step takes all of them.

    Args:
        distiller: The distiller.
        parts: Row numbers of each part; gradients accumulate over the parts.
        soft: Whether labels are scores.
        wrap: Makes the parallel model of it.
        device: Where.

    Returns:
        Its weights.
    """
    model = wrap(distiller) if wrap else distiller
    sgd = torch.optim.SGD(distiller.parameters(), lr=0.02, momentum=0.9)
    wrapper = OptimWrapper(sgd, accumulative_counts=len(parts))
    wrapper.initialize_count_status(model, 0, STEPS * len(parts))
    for step in range(STEPS):
        inputs, data_samples = images(WHOLE, seed=step).to(device), samples(WHOLE, soft=soft)
        for rows in parts:
            with pytest.MonkeyPatch.context() as patch:
                given_masks(patch, step, rows)
                given = [inputs[rows], inputs[rows].flip(3)] if distiller.needs_strong else inputs[rows]
                data = dict(inputs=given, data_samples=[data_samples[row] for row in rows])
                model.train_step(data, wrapper)
    return {name: value.cpu() for name, value in distiller.state_dict().items()}


def parallel(distiller):
    """As :mod:`mmcls_kd.runtime` wraps it on CPUs."""
    return MMDistributedDataParallel(distiller, device_ids=None, broadcast_buffers=False, find_unused_parameters=False)


WHOLE_BATCH = list(range(WHOLE))
HALVES = [WHOLE_BATCH[: WHOLE // 2], WHOLE_BATCH[WHOLE // 2 :]]


def train_all_in_two(rank, folder):
    """What each of two processes does: train every case on its half of each batch, at once and in two parts."""
    mine = WHOLE_BATCH[rank::2]
    done = {case: train(distiller_of(case), [mine], ALL[case][2], parallel) for case in CASES | SYNCED | NOT_SYNCED}
    torch.save(done, folder / f'at_once_{rank}.pth')
    done = {case: train(distiller_of(case), [mine[:2], mine[2:]], wrap=parallel) for case in BOTH_WAYS}
    torch.save(done, folder / f'accumulated_{rank}.pth')
    torch.save(batch_mean(UNEVEN[rank], sync=True), folder / f'mean_{rank}.pth')
    torch.save(relation_gradient(UNEVEN[rank], sync_batch=True), folder / f'gradient_{rank}.pth')


UNEVEN = torch.randn(5, 2, generator=seeded(0)).split([3, 2])


def relation_gradient(rows, **keywords):
    """RKD's gradient by the student's vectors; the teacher's are a function of them."""
    student = rows.clone().requires_grad_()
    RKDLoss(**keywords)(student, rows.square()).backward()
    return student.grad


@pytest.fixture(scope='module')
def in_two(tmp_path_factory):
    """What two processes left in their folder, by name."""
    folder = tmp_path_factory.mktemp('in_two')
    run_in_two(train_all_in_two, folder)
    return {path.stem: torch.load(path) for path in folder.iterdir()}


@pytest.fixture(scope='module')
def alone():
    """Weights that one process trains on whole batches, by case."""
    return {case: train(distiller_of(case), [WHOLE_BATCH], ALL[case][2]) for case in ALL}


def difference(a, b, part=''):
    """The largest difference of two sets of weights, or of those whose names begin so."""
    assert list(a) == list(b)
    return max((a[name] - b[name]).abs().max().item() for name in a if name.startswith(part))


@pytest.mark.slow
@pytest.mark.parametrize('case', CASES | SYNCED)
def test_two_processes_train_what_one_does(case, in_two, alone):
    for rank in (0, 1):
        assert difference(in_two[f'at_once_{rank}'][case], alone[case]) < TOLERANCE
    assert difference(in_two['at_once_0'][case], alone[case]) == difference(in_two['at_once_1'][case], alone[case])


@pytest.mark.slow
@pytest.mark.parametrize('case', NOT_SYNCED)
def test_without_synchronisation_the_batch_mean_tells_them_apart(case, in_two, alone):
    assert difference(in_two['at_once_0'][case], alone[case], 'student.') > 10 * TOLERANCE


@pytest.mark.parametrize('case', CASES)
def test_accumulated_gradients_train_what_a_whole_batch_does(case, alone):
    assert difference(train(distiller_of(case), HALVES), alone[case]) < TOLERANCE


@pytest.mark.parametrize('case', BOTH_WAYS)
def test_so_do_those_of_two_processes(case, in_two, alone):
    for rank in (0, 1):
        assert difference(in_two[f'accumulated_{rank}'][case], alone[case]) < TOLERANCE


@pytest.mark.parametrize('case', SYNCED)
def test_accumulation_divides_the_batch_mean(case, alone):
    assert difference(train(distiller_of(case), HALVES, ALL[case][2]), alone[case], 'student.') > 10 * TOLERANCE


@pytest.mark.parametrize('case', [case for case in CASES | SYNCED if not case.endswith('scores')])
def test_each_method_moves_the_student_by_far_more_than_the_tolerance(case, alone):
    """Else it could be wrong above, and nobody would see it."""
    network = 'vit' if ALL[case][0] is VITS else 'resnet'
    student, plain = (
        {name: value for name, value in weights.items() if name.startswith('student.')}
        for weights in (alone[case], alone[f'no method, {network}'])
    )
    assert difference(student, plain) > 100 * TOLERANCE


def test_the_mean_of_uneven_batches_is_that_of_all_samples(in_two):
    expected = torch.cat(UNEVEN).mean(dim=0)
    for rank in (0, 1):
        torch.testing.assert_close(in_two[f'mean_{rank}'], expected)
        assert not torch.allclose(batch_mean(UNEVEN[rank]), expected)


def test_the_gradient_by_uneven_batches_is_that_by_all_samples(in_two):
    both = torch.cat([in_two[f'gradient_{rank}'] for rank in (0, 1)]) / 2  # the mean over processes, as DDP takes it
    torch.testing.assert_close(both, relation_gradient(torch.cat(UNEVEN)))


def test_without_a_process_group_synchronisation_changes_nothing():
    logit, label, feat = torch.randn(4, 10, generator=seeded(1)), labels('mixup', 4, 10), torch.randn(4, 3)
    assert tfnkd_loss(logit, label, sync_batch_mean=True) == tfnkd_loss(logit, label)
    assert uskd_loss(logit, logit, label, sync_batch_mean=True) == uskd_loss(logit, logit, label)
    assert TFNKDLoss(sync_batch_mean=True)(logit, label) == tfnkd_loss(logit, label)
    assert torch.isfinite(USKDLoss(3, num_classes=10, sync_batch_mean=True)(feat, logit, label))


BATCH_NORM = dict(student=resnet(4), teacher=resnet(8))


def train_with_batch_norm(rows, device, wrap=None):
    """Train with batch norm in the student and in SRRL's connector, in the batch's own statistics."""
    distiller = built(MGD, SRRL, **BATCH_NORM).to(device)
    return train(distiller, [rows], wrap=wrap, device=device)


def train_with_sync_bn(rank, folder):
    """What each of two processes does: as mmengine's runner does it for ``sync_bn='torch'``, also with one device."""
    device = torch.device('cuda', rank % torch.cuda.device_count())

    def wrap(distiller):
        return MMDistributedDataParallel(
            convert_sync_batchnorm(distiller, 'torch'),
            device_ids=[device.index],
            broadcast_buffers=False,
            find_unused_parameters=False,
        )

    torch.save(train_with_batch_norm(WHOLE_BATCH[rank::2], device, wrap), folder / f'{rank}.pth')


@pytest.mark.skipif(not torch.cuda.is_available(), reason='torch has SyncBN on CUDA only')
def test_batch_norm_synchronised(tmp_path):
    run_in_two(train_with_sync_bn, tmp_path)
    whole = train_with_batch_norm(WHOLE_BATCH, 'cuda')
    assert difference(torch.load(tmp_path / '0.pth'), whole) < TOLERANCE
    half = train_with_batch_norm(WHOLE_BATCH[::2], 'cuda')
    assert difference(half, whole) > 10 * TOLERANCE
