"""Two processes: no parameter is left unused, the teacher is each process's own, masks differ, test sets are whole."""

import pickle
from types import SimpleNamespace

import folders
import pytest
import stores
import torch
from commands import DISTILLER, STUDENT, accuracy, data_options, run
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmpretrain.registry import MODELS
from networks import batch, build, method
from processes import run_in_two
from test_configs import CONFIGS, read
from torch import nn

from mmcls_kd.dis_losses import MGDLoss, ViTKDLoss
from mmcls_kd.engine.loops import ResumableEpochLoop
from mmcls_kd.engine.seeds import seed_all
from mmcls_kd.files.paths import TOOLBOX
from mmcls_kd.networks.sources import network_cfg
from mmcls_kd.recipe.methods import MethodList

UNUSED = 'Expected to have finished reduction in the prior iteration'  # how DDP refuses a parameter without gradient
# Where each method runs alone too: together they could hide that one leaves a parameter unused, such as Swin's norm that
# only USKD reads.
ALONE = ('cifar100/res34_distill_res18_cifar', 'imagenet/deit-s_distill_deit-t_img', 'imagenet/swin-t_sd_img')
# Of the same parts as imagenet/deit-s3 and imagenet/res18_sd, but larger: test_configs.py takes a step of each.
LARGER = ('imagenet/deit-b3', 'imagenet/deit-l3', 'imagenet/res50_sd', 'imagenet/res101_sd')
# Without parameters of their own, on networks of which the task's loss reaches all: only KD of these runs alone, the others
# in acceptance tests.
ALIKE = ('wsld', 'dkd', 'nkd', 'dist', 'lskd', 'ttm', 'wttm', 'ofa_logit', 'wkd_logit', 'rkd', 'pkt')
ALIKE += ('normkd', 'normdkd', 'rld', 'abkd', 'luminet')
ALIKE += ('catkd', 'sdd', 'at', 'sp', 'nst', 'wkd_feature')
# Their parts for a teacher of 2,048 channels take 10 GB in each process; they run with smaller teachers.
TOO_LARGE = {'imagenet/res50_distill_mv1_img': ('semckd', 'ft')}
DEFAULT = ('imagenet/res18_sd_img', 'cifar100/res34_distill_res18_cifar')


def runs():
    """Each kind of config with all of its methods together, and some with each alone."""
    for name, (offered, _, _) in CONFIGS.items():
        if name.startswith(LARGER):
            continue
        together = [method for method in offered if method not in TOO_LARGE.get(name, ())]
        for methods in [together, *([chosen] for chosen in offered if name in ALONE)]:
            slow = name not in DEFAULT or len(methods) == 1
            marks = [pytest.mark.acceptance] if methods[0] in ALIKE and len(methods) == 1 else [pytest.mark.slow] * slow
            yield pytest.param(name, methods, id=f'{name}-{"+".join(methods)}', marks=marks)


def distiller_of(name, methods):
    """The distiller of a shipped config, random weights in its teacher."""
    cfg = read(name)
    assert not cfg.get('find_unused_parameters', False)
    MethodList(cfg.model.distill_cfg).select(methods)
    cfg.model.teacher_pretrained = False
    cfg.model.num_samples = 20_000
    cfg.model.batch_size = 8
    preprocessor = dict(data_preprocessor=cfg.data_preprocessor) if 'data_preprocessor' in cfg else {}
    return MODELS.build({**cfg.model, **preprocessor})


def train(distiller, rank, size=32, classes=10):
    """Train for two steps, each process on two images of its own; returns what wraps the distiller.

    DDP notices in the second step that a parameter had no gradient in the first.
    """
    model = MMDistributedDataParallel(  # as mmcls_kd.runtime wraps it on CPUs
        distiller.train(), device_ids=None, broadcast_buffers=False, find_unused_parameters=False
    )
    wrapper = OptimWrapper(torch.optim.SGD(distiller.parameters(), lr=1e-3))
    both = batch(4, size, classes)
    own = slice(2 * rank, 2 * rank + 2)
    for step in range(2):
        seed_all(0, 'step', step, rank)  # as the loops do
        data = dict(inputs=both['inputs'][own], data_samples=both['data_samples'][own])
        values = model.train_step(data, wrapper)
        assert all(torch.isfinite(value) for value in values.values()), values
    mine = nn.utils.parameters_to_vector(distiller.parameters()).detach()
    firsts = mine.clone()
    torch.distributed.broadcast(firsts, 0)
    assert torch.equal(mine, firsts), 'the processes have trained different weights'
    return model


def outcome_of(name, methods, rank):
    """What comes of training a config: 'trained', or how DDP refused it, which it does in both processes alike."""
    size = 32 if 'cifar' in name else 224 if 'deit' in name or 'swin' in name else 64  # as small as the networks take
    try:
        train(distiller_of(name, methods), rank, size, 100 if 'cifar' in name else 1000)
    except RuntimeError as error:
        if UNUSED not in str(error):
            raise
        return str(error)
    return 'trained'


def one_parameter_too_many(rank):
    """What comes of training a distiller with a parameter that no loss reads."""
    distiller = build(method('NKDLoss'))
    distiller.left_alone = nn.Parameter(torch.zeros(1))
    with pytest.raises(RuntimeError) as refused:
        train(distiller, rank)
    return str(refused.value)


def teachers_of_their_own(rank):
    """Train with other networks in each process; returns their weights before and after, and what of them DDP has."""
    torch.manual_seed(rank)
    distiller = build(method('NKDLoss'), method('MGDLoss', student_channels=32, teacher_channels=64))
    drawn = {name: value.clone() for name, value in distiller.teacher.state_dict().items()}
    with torch.no_grad():
        distiller.teacher.head.fc.bias.add_(rank)

    def weights():
        networks = dict(student=distiller.student, teacher=distiller.teacher)
        return {name: {k: v.clone() for k, v in network.state_dict().items()} for name, network in networks.items()}

    before = weights()
    model = train(distiller, rank)
    wrapped = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    own = {
        name: [id(tensor) in wrapped for tensor in (*network.parameters(), *network.buffers())]
        for name, network in (('student', distiller.student), ('teacher', distiller.teacher))
    }
    return dict(drawn=drawn, before=before, after=weights(), wrapped=own)


def masks():
    """What MGD and ViTKD mask in iterations 3, 3 and 4, seeded as the loop seeds a training step of this process."""
    seen = dict(mgd=[], vitkd=[])
    mgd, vitkd = MGDLoss(64, 64, lambda_mgd=0.5), ViTKDLoss(4, 4)
    for name, loss in (('mgd', mgd), ('vitkd', vitkd)):
        loss.generation.register_forward_pre_hook(lambda _, inputs, name=name: seen[name].append(inputs[0] == 0))
    for iteration in (3, 3, 4):
        ResumableEpochLoop.seed_for(SimpleNamespace(seed=7, _iter=iteration), 'step')
        mgd(torch.ones(2, 64, 1, 1), torch.ones(2, 64, 1, 1))
        low, high = torch.ones(2, 2, 64, 4), torch.ones(2, 64, 4)
        vitkd(low, low, high, high)
    return seen


def work(rank, folder, chosen):
    """What each of two processes does, and leaves in a file of its own."""
    found = dict(refused=one_parameter_too_many(rank), teachers=teachers_of_their_own(rank), masks=masks())
    found['configs'] = {(name, *methods): outcome_of(name, methods, rank) for name, methods in chosen}
    torch.save(found, folder / f'{rank}.pth')


@pytest.fixture(scope='module')
def found(request, tmp_path_factory):
    """What two processes found, that is one pair for all tests; they train the configs whose tests run."""
    folder = tmp_path_factory.mktemp('found')
    calls = [item.callspec.params for item in request.session.items if item.name.startswith('test_config_trains[')]
    run_in_two(work, folder, [(call['name'], call['methods']) for call in calls])
    return [torch.load(folder / f'{rank}.pth') for rank in (0, 1)]


@pytest.mark.parametrize(('name', 'methods'), list(runs()))
def test_config_trains(name, methods, found):
    assert [of_one['configs'][(name, *methods)] for of_one in found] == ['trained', 'trained']


def test_methods_that_are_alike_have_no_parameters():
    losses = distiller_of(ALONE[0], list(ALIKE)).distill_losses
    assert len(losses) == len(ALIKE)
    assert not list(losses.parameters())


def test_a_parameter_without_gradient_is_refused(found):
    assert all(UNUSED in of_one['refused'] for of_one in found)


def differing(a, b):
    """Whether two networks differ in weights."""
    return any(not torch.equal(a[name], b[name]) for name in a)


class TestTeacher:
    def test_random_weights_are_the_same_in_every_process(self, found):
        first, second = (of_one['teachers']['drawn'] for of_one in found)
        assert not differing(first, second)

    def test_it_stays_each_processs_own(self, found):
        first, second = (of_one['teachers'] for of_one in found)
        assert differing(first['before']['teacher'], second['before']['teacher'])
        for one in (first, second):
            assert not differing(one['before']['teacher'], one['after']['teacher'])

    def test_the_student_is_broadcast_and_trained(self, found):
        first, second = (of_one['teachers'] for of_one in found)
        assert differing(first['before']['student'], second['before']['student'])
        weights = [name for name in first['after']['student'] if 'running' not in name]
        assert not differing(*({name: one['after']['student'][name] for name in weights} for one in (first, second)))
        assert differing(first['before']['student'], first['after']['student'])

    def test_the_wrapper_has_nothing_of_it(self, found):
        for of_one in found:
            assert all(of_one['teachers']['wrapped']['student'])
            assert not any(of_one['teachers']['wrapped']['teacher'])


@pytest.mark.parametrize('loss', ['mgd', 'vitkd'])
def test_masks_differ_between_processes_and_iterations_and_repeat(loss, found):
    first, second = (of_one['masks'][loss] for of_one in found)
    for third, again, fourth in (first, second):
        assert torch.equal(third, again)
        assert not torch.equal(third, fourth)
        assert 0 < third.float().mean() < 1
    assert not torch.equal(first[0], second[0])


@pytest.mark.slow
def test_metrics_are_those_of_the_whole_set_that_does_not_divide_evenly(tmp_path):
    count = 101
    data = folders.fashion_mnist(tmp_path / 'data', train=1, test=count)
    student = MODELS.build(network_cfg(STUDENT))
    torch.save(student.state_dict(), tmp_path / 'student.pth')
    saved, outs = tmp_path / 'student.pth', [tmp_path / 'alone.pkl', tmp_path / 'in_two.pkl']
    words = ['--cfg-options', *data_options(data)]
    done = run('tools/test.py', DISTILLER, saved, '--work-dir', tmp_path / 'alone', '--out', outs[0], *words)
    log = stores.run_both('test', TOOLBOX / DISTILLER, tmp_path / 'in_two', saved, '--out', outs[1], *words)
    predictions, predictions_in_two = (pickle.loads(out.read_bytes()) for out in outs)
    assert [int(p['gt_label']) for p in predictions_in_two] == [i % 10 for i in range(count)]
    for a, b in zip(predictions, predictions_in_two, strict=True):
        torch.testing.assert_close(a['pred_score'], b['pred_score'])
    right = sum(int(p['pred_label'] == p['gt_label']) for p in predictions)
    assert 0 < right < count  # else another number of images could give the same share
    assert accuracy(log) == accuracy(done.output) == pytest.approx(100 * right / count, abs=1e-3)
