"""The teacher's fast path: the same tensors from a folded twin, from lower precision, channels-last, compiled."""

import copy
import weakref

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from mmpretrain.registry import MODELS
from networks import batch, build, images, method, resnet, samples, vit
from processes import in_child
from torch import nn
from torch.nn.utils import prune

from mmcls_kd.engine.amp import CPUAmpOptimWrapper
from mmcls_kd.features.taps import Tap
from mmcls_kd.teachers import fast
from mmcls_kd.teachers.fast import TOLERANCE, FastNetwork, can_fold

# torch's own, of a part that is compiled with a tensor inside the graph as its input
pytestmark = [
    pytest.mark.filterwarnings('ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning'),
    pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning'),
]

NKD, MGD = method('NKDLoss'), method('MGDLoss', student_channels=32, teacher_channels=64)
SRRL = method('SRRLLoss', student_channels=32, teacher_channels=64)
VITKD = method('ViTKDLoss', student_dims=16, teacher_dims=32)


def with_statistics(distiller):
    """Batch norms of the teacher as after a training: no mean is 0, no variance and no scale is 1."""
    generator = torch.Generator().manual_seed(0)
    for norm in (m for m in distiller.teacher.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)):
        for tensor in (norm.weight, norm.running_var):
            tensor.data.uniform_(0.5, 2, generator=generator)
        for tensor in (norm.bias, norm.running_mean):
            tensor.data.normal_(generator=generator)
    return distiller


def read(distiller, inputs, *names):
    return distiller.teacher_holder(inputs, samples(len(inputs)), names)


def norms(network):
    return [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def ready(distiller):
    """The network that the fast path runs."""
    return distiller.teacher_holder.fast._ready


@pytest.fixture(autouse=True)
def _nothing_compiled_before_and_after():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class NormFirst(nn.Module):
    """Its norm comes after the convolution in the list of modules, and before it in the forward pass."""

    layers = nn.ModuleList()

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        return (self.conv(self.norm(x).relu()),)


class WidthsCrossed(nn.Module):
    """Its norm has the width of the stem, and follows the last convolution in the list of modules."""

    layers = nn.ModuleList()

    def __init__(self):
        super().__init__()
        self.stem, self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 1), nn.BatchNorm2d(4)

    def forward(self, x):
        return (self.conv(self.norm(self.stem(x))),)


class Flattening(nn.Module):
    """It flattens a map by ``view``, which maps of one memory format allow."""

    layers = nn.ModuleList()

    def __init__(self):
        super().__init__()
        self.parts = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3, padding=1))

    def forward(self, x):
        return (self.parts(x).view(len(x), -1),)


def built_of(backbone, teacher):
    """A distiller whose teacher has a backbone of this class."""
    MODELS.register_module(module=backbone)
    try:
        return build(NKD, teacher=teacher)
    finally:
        MODELS.module_dict.pop(backbone.__name__)


class TestFolding:
    BACKBONES = {
        'ResNet_CIFAR': None,
        'ResNet': dict(type='ResNet', depth=18, base_channels=8, stem_channels=8),
        'MobileNetV2': dict(type='MobileNetV2', widen_factor=0.25),
        'RegNet': dict(type='RegNet', arch='regnetx_400mf'),
        'ShuffleNetV2': dict(type='ShuffleNetV2', widen_factor=0.5),
        'MobileNetV1': dict(type='MobileNetV1'),
    }
    WIDTHS = dict(MobileNetV2=1280, RegNet=384, ShuffleNetV2=1024, MobileNetV1=1024)

    @pytest.mark.parametrize('name', BACKBONES)
    def test_what_is_read_stays_within_the_tolerance_and_no_batch_norm_is_left(self, name):
        teacher = resnet(8)
        if self.BACKBONES[name]:
            teacher['backbone'] = self.BACKBONES[name]
            teacher['head']['in_channels'] = self.WIDTHS.get(name, 64)
        distiller = with_statistics(build(NKD, teacher=teacher))
        inputs = images(6, 64)
        with torch.no_grad():
            expected = distiller.teacher(inputs)
        logit = read(distiller, inputs, 'logit')['logit']
        assert (logit - expected).abs().max() < TOLERANCE * max(1, expected.abs().max())
        assert norms(distiller.teacher)
        assert not norms(ready(distiller))

    def test_the_teacher_stays_as_loaded_and_shares_what_is_not_folded(self):
        distiller = with_statistics(build(NKD))
        before = copy.deepcopy(distiller.teacher.state_dict())
        read(distiller, images(), 'logit')
        after = distiller.teacher.state_dict()
        assert list(after) == list(before)
        assert all(torch.equal(after[key], before[key]) for key in before)
        assert ready(distiller).head.fc.weight is distiller.teacher.head.fc.weight
        assert not any(p.requires_grad for p in ready(distiller).parameters())

    @pytest.mark.parametrize('change', ['load_state_dict', 'in place', 'data', 'float64'])
    def test_it_is_made_anew_when_the_weights_change(self, change):
        distiller = with_statistics(build(NKD))
        inputs = images()
        first = read(distiller, inputs, 'logit')['logit']
        assert read(distiller, inputs, 'logit')['logit'].equal(first)
        if change == 'load_state_dict':
            other = with_statistics(build(NKD)).teacher.state_dict()
            distiller.teacher.load_state_dict({k: v * 1.5 if v.is_floating_point() else v for k, v in other.items()})
        elif change == 'in place':
            with torch.no_grad():
                distiller.teacher.backbone.layer2[0].bn1.running_mean.add_(1)
        elif change == 'data':  # as many moving averages of a student do
            for weight in distiller.teacher.parameters():
                weight.data.mul_(0.99)
        else:
            distiller.double()
            inputs = inputs.double()
        with torch.no_grad():
            expected = distiller.teacher(inputs)
        for is_fast in (False, True):  # the pass after the change runs the network as it is
            again = read(distiller, inputs, 'logit')['logit']
            assert again.dtype == expected.dtype
            torch.testing.assert_close(again, expected, rtol=0, atol=TOLERANCE)
            assert not torch.equal(again.float(), first)
            assert bool(norms(ready(distiller))) != is_fast

    @pytest.mark.parametrize('precision', [None, 'bf16'])
    def test_one_that_moves_in_each_step_is_tried_once(self, precision, monkeypatch):
        """As a moving average of the student; the trials would take longer than the pass."""
        trials = []
        difference = fast.largest_difference
        monkeypatch.setattr(fast, 'largest_difference', lambda *given: trials.append(1) or difference(*given))
        distiller = with_statistics(build(NKD, teacher_precision=precision))
        inputs = images()
        read(distiller, inputs, 'logit')
        tried = len(trials)
        assert tried
        for _ in range(3):
            for weight in distiller.teacher.parameters():
                weight.data.mul_(0.9)
            logit = read(distiller, inputs, 'logit')['logit']
            with torch.no_grad():
                expected = distiller.teacher(inputs)
            assert (logit - expected).abs().max() < (0.05 if precision else TOLERANCE) * expected.abs().max()
        assert len(trials) == tried
        read(distiller, inputs, 'logit')
        assert len(trials) == 2 * tried

    def test_without_change_it_is_made_once(self):
        distiller = build(NKD)
        read(distiller, images(), 'logit')
        made = ready(distiller)
        read(distiller, images(seed=1), 'logit')
        assert ready(distiller) is made

    def test_the_trial_holds_one_copy_in_float64_at_a_time(self):
        in_float64, most = weakref.WeakSet(), []

        class Watched(nn.Sequential):
            def forward(self, inputs):
                if inputs.dtype == torch.float64:
                    in_float64.add(self)
                    most.append(len(in_float64))
                return super().forward(inputs)

        network = Watched(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval().requires_grad_(False)
        with torch.no_grad():
            FastNetwork(network)(images(), {'last': Tap(('1',), lambda output: output[0])})
        assert most == [1, 1]

    @pytest.mark.parametrize('backbone', [NormFirst, WidthsCrossed])
    def test_folding_that_would_be_wrong_is_left_out(self, backbone):
        teacher = resnet(8)
        teacher['backbone'], teacher['head']['in_channels'] = dict(type=backbone.__name__), 3
        distiller = with_statistics(built_of(backbone, teacher))
        inputs = images()
        with torch.no_grad():
            expected = distiller.teacher(inputs)
        torch.testing.assert_close(read(distiller, inputs, 'logit')['logit'], expected, rtol=0, atol=1e-6)
        assert norms(ready(distiller))

    def test_a_norm_without_scale_is_not_folded(self):
        assert can_fold(nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)))
        assert not can_fold(nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, affine=False)))
        assert not can_fold(nn.Linear(1, 1))

    @pytest.mark.filterwarnings('ignore:.*weight_norm. is deprecated')
    @pytest.mark.parametrize(
        'computes',
        [
            nn.utils.parametrizations.weight_norm,
            nn.utils.weight_norm,
            nn.utils.spectral_norm,
            lambda layer: prune.l1_unstructured(layer, 'weight', 0.5),
        ],
    )
    def test_nor_a_convolution_that_computes_its_weight(self, computes):
        network = nn.Sequential(*(computes(nn.Conv2d(1, 1, 1)) for _ in range(2)), nn.BatchNorm2d(1)).eval()
        assert not can_fold(network)
        with torch.no_grad():
            network(torch.ones(1, 1, 2, 2))
            ready = FastNetwork(network)
            for scale in (1, 2):  # the first pass, and that after a change of the weights
                [*network.parameters()][-1].mul_(scale)
                read = ready(torch.ones(1, 1, 2, 2), {'last': Tap(('2',), lambda tensors: tensors[0])})
                torch.testing.assert_close(read['last'], network(torch.ones(1, 1, 2, 2)))

    @pytest.mark.parametrize('before', [True, False])
    @pytest.mark.parametrize('kind', ['register_forward_hook', 'register_forward_pre_hook'])
    def test_nor_one_with_a_hook(self, kind, before):
        distiller = with_statistics(build(NKD))
        inputs = images()
        if not before:
            read(distiller, inputs, 'logit')
            assert not norms(ready(distiller))
        halve = (lambda *given: given[-1] / 2) if kind == 'register_forward_hook' else (lambda _, given: given[0] / 2)
        handle = getattr(distiller.teacher.backbone.layer2[0].conv1, kind)(halve)
        with torch.no_grad():
            expected = distiller.teacher(inputs)
        torch.testing.assert_close(read(distiller, inputs, 'logit')['logit'], expected, rtol=0, atol=1e-6)
        assert norms(ready(distiller))
        handle.remove()
        read(distiller, inputs, 'logit')
        assert not norms(ready(distiller))


class TestChannelsLast:
    """On a CPU: convolutions of the twin, but neither the teacher's own nor what is read."""

    @staticmethod
    def laid_out(network):
        """Whether all convolutions with several places and channels have channels-last weights."""
        weights = [m.weight for m in network.modules() if isinstance(m, nn.Conv2d) and m.kernel_size > (1, 1)]
        return all(w.is_contiguous(memory_format=torch.channels_last) and not w.is_contiguous() for w in weights)

    @pytest.mark.parametrize('precision', [None, 'bf16'])
    def test_the_twin_is_and_the_teacher_is_not(self, precision):
        distiller = with_statistics(build(MGD, teacher_precision=precision))
        inputs = images()
        tensors = read(distiller, inputs, 'feat', 'logit')
        assert self.laid_out(ready(distiller))
        assert not self.laid_out(distiller.teacher)
        assert all(tensor.is_contiguous() for tensor in tensors.values())
        with torch.no_grad():
            expected = distiller.teacher(inputs)
        assert (tensors['logit'] - expected).abs().max() < (0.05 if precision else TOLERANCE) * expected.abs().max()

    def test_so_are_several_stages(self):
        distiller = build(method('ReviewKDLoss'))
        stages = read(distiller, images(), 'stages')['stages']
        assert len(stages) > 1
        assert all(stage.is_contiguous() for stage in stages)

    def test_of_images_channels_last_maps_are_too(self):
        distiller = build(MGD)
        feat = read(distiller, images().contiguous(memory_format=torch.channels_last), 'feat')['feat']
        assert feat.is_contiguous(memory_format=torch.channels_last)

    def test_a_network_that_flattens_maps_by_view_keeps_its_own(self):
        teacher = resnet(8)
        teacher.pop('neck')
        teacher['backbone'], teacher['head']['in_channels'] = dict(type='Flattening'), 4 * 32 * 32
        distiller = with_statistics(built_of(Flattening, teacher))
        inputs = images()
        logit = read(distiller, inputs, 'logit')['logit']
        assert not self.laid_out(ready(distiller))
        assert not norms(ready(distiller))
        with torch.no_grad():
            torch.testing.assert_close(logit, distiller.teacher(inputs), rtol=0, atol=1e-5)

    def test_one_convolution_stays(self):
        distiller = build(NKD, student=vit(16), teacher=vit(32))
        read(distiller, images(), 'logit')
        path = next(name for name, m in distiller.teacher.named_modules() if isinstance(m, nn.Conv2d))
        assert ready(distiller).get_submodule(path).weight is distiller.teacher.get_submodule(path).weight


class Preactivated(nn.Sequential):
    """A block's sum goes into an activation and into the next sum."""

    def forward(self, x):
        for conv, act in zip(self[::2], self[1::2], strict=True):
            x = x + conv(act(x))
        return x


class Gated(nn.Module):
    """An activation of a parameter."""

    def __init__(self):
        super().__init__()
        self.conv, self.gate, self.act = nn.Conv2d(3, 3, 1), nn.Parameter(torch.tensor(-1.0)), nn.SiLU()

    def forward(self, x):
        return self.conv(x) * self.act(self.gate)


class TestInPlace:
    """Activations of the twin write over their input where nothing reads it."""

    @staticmethod
    def plain(*parts, kind=nn.Sequential):
        torch.manual_seed(0)
        return kind(*(nn.Conv2d(3, 3, 3, padding=1) if part == 'conv' else part() for part in parts)).requires_grad_(False)

    @staticmethod
    def twin(network, *paths):
        """The twin that reads these modules' outputs from four images, which stay and agree with the network's own."""
        twin, inputs = FastNetwork(network), images(4)
        given, expected = inputs.clone(), {}
        hooks = [
            network.get_submodule(path).register_forward_hook(
                lambda *had, path=path: expected.update({path: had[2].clone()})
            )
            for path in paths
        ]
        network(inputs.clone())
        for hook in hooks:
            hook.remove()
        found = twin(inputs, {path: Tap((path,), lambda output: output[0]) for path in paths})
        for path, value in expected.items():
            torch.testing.assert_close(found[path], value, rtol=0, atol=1e-6)
        assert torch.equal(inputs, given)
        return twin._ready

    @pytest.mark.parametrize(
        'kind', [nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Hardsigmoid]
    )
    def test_they_are_and_the_networks_own_are_not(self, kind):
        network = self.plain('conv', kind, 'conv')
        assert self.twin(network, '2')[1].inplace
        assert not network[1].inplace

    def test_of_a_distiller_too(self):
        teacher = dict(type='CifarClassifier', model_name='resnet8', num_classes=10)
        distiller = build(NKD, teacher=teacher)
        read(distiller, images(), 'logit')
        acting = [m for m in ready(distiller).modules() if isinstance(m, nn.ReLU)]
        assert acting
        assert all(m.inplace for m in acting)

    @pytest.mark.parametrize(
        ('parts', 'paths', 'kind'),
        [
            (('conv', nn.ReLU, 'conv'), ('0', '2'), nn.Sequential),  # what is read is what goes in
            (('conv', nn.SiLU, 'conv', nn.SiLU), ('2', '3'), Preactivated),
            ((nn.LeakyReLU, 'conv', nn.ReLU), ('2',), nn.Sequential),  # the images are what goes in
        ],
        ids=['read', 'used twice', 'images'],
    )
    def test_they_stay_where_what_goes_in_is_needed(self, parts, paths, kind):
        ready = self.twin(self.plain(*parts, kind=kind), *paths)
        assert not any(module.inplace for module in ready.modules() if hasattr(module, 'inplace'))

    def test_a_weight_is_not_written_over(self):
        network = Gated().requires_grad_(False)
        assert not self.twin(nn.Sequential(network), '0')[0].act.inplace
        assert network.gate == -1

    def test_what_a_hook_holds_stays(self):
        network, held = nn.Sequential(self.plain('conv'), nn.ReLU(), self.plain('conv')), []
        inputs, taps = images(4), {'last': Tap(('2',), lambda output: output[0])}
        twin = FastNetwork(network)
        twin(inputs, taps)
        handle = network[0].register_forward_hook(lambda _module, _args, output: held.append(output))
        twin(inputs, taps)
        handle.remove()
        assert torch.equal(held[0], network[0](inputs))
        twin(inputs, taps)
        assert twin._ready[1].inplace


class TestNothingUnread:
    @pytest.mark.parametrize(
        ('names', 'run'),
        [(['feat_mid'], ['layer3']), (['feat'], ['layer3', 'layer4']), (['feat', 'logit'], ['layer3', 'layer4', 'head'])],
    )
    def test_the_pass_ends_when_all_is_read(self, names, run):
        distiller, called = build(NKD), []
        for name in ('backbone.layer3', 'backbone.layer4', 'head'):
            part = distiller.teacher.get_submodule(name)
            part.register_forward_hook(lambda *_, name=name: called.append(name.split('.')[-1]))
        for _ in range(2):
            called.clear()
            tensors = read(distiller, images(), *names)
            assert called == run
        assert sorted(tensors) == sorted(names)

    def test_a_vit_ends_after_its_second_block(self):
        distiller, called = build(VITKD, student=vit(16), teacher=vit(32)), []
        for i, block in enumerate(distiller.teacher.backbone.layers):
            block.register_forward_hook(lambda *_, i=i: called.append(i))
        read(distiller, images(), 'tokens_low')
        assert called == [0, 1]

    def test_hooks_set_later_are_called_too(self):
        distiller, called = build(NKD), []
        read(distiller, images(), 'logit')
        handle = distiller.teacher.backbone.register_forward_hook(lambda *_: called.append('backbone'))
        read(distiller, images(), 'logit')
        handle.remove()
        read(distiller, images(), 'logit')
        assert called == ['backbone']

    def test_a_hook_with_keywords_too(self):
        distiller, called = build(NKD), []
        read(distiller, images(), 'logit')
        hook = lambda module, args, kwargs: called.append(sorted(kwargs))  # noqa: E731
        distiller.teacher.head.register_forward_pre_hook(hook, with_kwargs=True)
        read(distiller, images(), 'logit')
        assert called == [[]]


class TestPrecision:
    @pytest.mark.parametrize(('precision', 'error'), [('bf16', 0.05), ('fp16', 0.01)])
    @pytest.mark.parametrize('teacher', [resnet(8), vit(32)], ids=['cnn', 'vit'])
    def test_the_tensors_are_float32_of_lower_precision(self, precision, error, teacher):
        given = dict(student=vit(16), teacher=teacher) if 'VisionTransformer' in str(teacher) else dict(teacher=teacher)
        distiller = build(NKD, teacher_precision=precision, **given)
        inputs = images()
        with torch.no_grad():
            expected = distiller.teacher(inputs)
        logit = read(distiller, inputs, 'logit')['logit']
        assert logit.dtype == torch.float32
        assert 0 < (logit - expected).abs().max() < error * expected.abs().max()
        assert distiller.teacher.head.state_dict()[next(iter(distiller.teacher.head.state_dict()))].dtype == torch.float32

    def test_a_network_that_makes_float32_on_its_way(self):
        """Swin's mask of shifted windows."""
        arch = dict(embed_dims=8, depths=[2, 2], num_heads=[1, 2])
        backbone = dict(type='SwinTransformer', arch=arch, img_size=32, patch_size=2, window_size=4, out_indices=(1,))
        head = dict(type='LinearClsHead', num_classes=10, in_channels=16)
        teacher = dict(type='ImageClassifier', backbone=backbone, neck=dict(type='GlobalAveragePooling'), head=head)
        distiller = build(NKD, teacher=teacher, teacher_precision='bf16')
        with torch.no_grad():
            expected = distiller.teacher(images())
        logit = read(distiller, images(), 'logit')['logit']
        assert 0 < (logit - expected).abs().max() < 0.05 * expected.abs().max()

    def test_without_one_autocast_decides(self):
        distiller, inputs = build(NKD), images()
        exact = read(distiller, inputs, 'logit')['logit']
        with torch.autocast('cpu', dtype=torch.bfloat16):
            assert read(distiller, inputs, 'logit')['logit'].dtype == torch.bfloat16
        assert read(distiller, inputs, 'logit')['logit'].equal(exact)

    def test_it_holds_under_autocast(self):
        distiller, inputs = build(NKD, teacher_precision='bf16'), images()
        outside = read(distiller, inputs, 'logit')['logit']
        with torch.autocast('cpu', dtype=torch.float16):
            assert read(distiller, inputs, 'logit')['logit'].equal(outside)

    def test_others_are_refused(self):
        with pytest.raises(ValueError, match="teacher_precision='int8': choose one of 'bf16', 'fp16', or None"):
            build(NKD, teacher_precision='int8')
        with pytest.raises(ValueError, match="teacher_precision is for teacher_mode='eval'"):
            build(NKD, teacher_precision='bf16', teacher_mode='train')


def losses_of(distiller, inputs):
    torch.manual_seed(0)
    losses = distiller(inputs, samples(len(inputs)), mode='loss')
    total, _ = distiller.parse_losses(losses)
    distiller.zero_grad()
    total.backward()
    return losses, {name: p.grad.clone() for name, p in distiller.named_parameters() if p.grad is not None}


def assert_same_step(first, second, inputs):
    for value, expected in zip(losses_of(first, inputs), losses_of(second, inputs), strict=True):
        assert list(value) == list(expected)
        for name in value:
            torch.testing.assert_close(value[name], expected[name], rtol=1e-3, atol=1e-5)


SETUPS = {
    'logits': dict(methods=[NKD]),
    'features': dict(methods=[MGD, SRRL]),
    'tokens': dict(methods=[VITKD, NKD], student=vit(16), teacher=vit(32)),
}


#: For convolutions that are channels-last: see docs/performance.md for why a student has sixteen channels at least.
WIDE = resnet(16)
CHANNELS_LAST = {
    'logits': dict(student=WIDE),
    'features': dict(student=WIDE, methods=[method('MGDLoss'), method('SRRLLoss')]),
    'tokens': {},
}


each_setup = pytest.mark.parametrize('setup', SETUPS)


class TestWholeDistiller:
    def make(self, setup, **changes):
        keywords = {**SETUPS[setup], **changes}
        return build(*keywords.pop('methods'), **keywords)

    @pytest.mark.parametrize(
        ('processor', 'width', 'refused'), [('AVX2', 4, 1), ('AVX2', 8, 0), ('AVX512', 8, 1), ('AVX512', 16, 0)]
    )
    def test_what_would_damage_memory_channels_last_is_refused(self, processor, width, refused, monkeypatch):
        monkeypatch.setattr(torch.backends.cpu, 'get_cpu_capability', lambda: processor)
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
        if refused:
            with pytest.raises(ValueError, match=r'channels_last: .* of backbone\.layer1\.0\.downsample\.0, .* \d channels'):
                self.make('logits', student=resnet(width), channels_last=True)
        else:
            self.make('logits', student=resnet(width), channels_last=True)

    @each_setup
    def test_channels_last_changes_the_layout_alone(self, setup):
        torch.manual_seed(0)  # of 60 others, 4 put a ReLU so near to 0 that rounding switches it
        wide = CHANNELS_LAST[setup]
        plain, other = self.make(setup, **wide), self.make(setup, **wide, channels_last=True)
        names = list(plain.state_dict())
        assert list(other.state_dict()) == names
        for part in (other.student, other.teacher):
            weights = [p for p in part.parameters() if p.dim() == 4]
            assert weights
            assert all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)
        other.load_state_dict(plain.state_dict())
        other.teacher.load_state_dict(plain.teacher.state_dict())
        seen = []
        other.student.backbone.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        assert_same_step(other, plain, images())
        other.forward(images(), samples(), mode='predict')
        assert all(x.is_contiguous(memory_format=torch.channels_last) for x in seen)
        assert len(seen) == 2

    @pytest.mark.slow
    @pytest.mark.parametrize('setup', SETUPS)
    @in_child
    def test_compiled_it_takes_the_same_steps_under_the_same_names(self, setup):
        plain, other = self.make(setup), self.make(setup, compile=dict(backend='aot_eager'))
        assert list(other.state_dict()) == list(plain.state_dict())
        other.load_state_dict(plain.state_dict())
        other.teacher.load_state_dict(plain.teacher.state_dict())
        for seed in range(3):
            assert_same_step(other, plain, images(seed=seed))
        for network in (other.student, ready(other)):
            assert all(part._compiled_call_impl for name, part in network.named_children() if name != 'data_preprocessor')
        with torch._dynamo.config.patch(error_on_recompile=True):
            assert_same_step(other, plain, images(seed=3))
        other.eval(), plain.eval()
        torch.testing.assert_close(other(images()), plain(images()), rtol=1e-3, atol=1e-5)

    @pytest.mark.slow
    @in_child
    def test_the_moving_average_of_a_compiled_one_is_one_of_its_own(self):
        distiller = self.make('logits', compile=dict(backend='aot_eager')).eval()
        average = ExponentialMovingAverage(distiller)
        before = average(images())
        torch.testing.assert_close(before, distiller(images()))
        nn.init.zeros_(distiller.student.head.fc.weight)
        assert torch.equal(average(images()), before)
        assert not torch.allclose(distiller(images()), before)
        assert [k.removeprefix('module.') for k in average.state_dict() if k != 'steps'] == list(distiller.state_dict())


@pytest.mark.slow
@in_child
def test_a_training_step_with_all_of_it():
    keywords = dict(channels_last=True, teacher_precision='bf16', compile=dict(backend='aot_eager'))
    distiller = build(NKD, student=WIDE, **keywords)
    wrapper = CPUAmpOptimWrapper(optimizer=torch.optim.SGD(distiller.student.parameters(), lr=0.1))
    distiller.train()
    values = [distiller.train_step(batch(8), wrapper)['loss'] for _ in range(8)]
    assert all(value.dtype == torch.float32 for value in values)
    assert values[-1] < values[0]
