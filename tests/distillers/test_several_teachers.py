"""Several teachers as one: the mean of their probabilities, each with its own images and classes."""

import copy

import pytest
import torch
import torch.nn.functional as F
from families import built
from kit import assert_close
from mmengine.model import ExponentialMovingAverage
from mmpretrain.registry import MODELS
from networks import build, images, method, resnet, samples, vit
from stores import make, train, write_config

from mmcls_kd.dis_losses import kd_loss, nkd_loss
from mmcls_kd.distillers.teacher import Teacher
from mmcls_kd.files.paths import TOOLBOX
from mmcls_kd.networks.sources import network_cfg
from mmcls_kd.teacher_store import TeacherStore
from mmcls_kd.teachers.several import TeacherGroup

NKD, KD, TFNKD = method('NKDLoss'), method('KDLoss'), method('TFNKDLoss')
TWO = [resnet(8), vit(16)]
NONE = [False, False]


def group(*methods, teacher=None, **keywords):
    """A distiller with two teachers, whose scores say something, in eval mode."""
    distiller = build(*(methods or [NKD]), teacher=teacher or TWO, **keywords).eval()
    for network in distiller.teachers:
        classifier = [module for module in network.modules() if isinstance(module, torch.nn.Linear)][-1]
        torch.nn.init.normal_(classifier.weight, std=0.5)
    return distiller


def joint(logits, weights):
    """The logarithm of the weighted mean of probabilities."""
    probabilities = [z.double().exp() / z.double().exp().sum(1, keepdim=True) for z in logits]
    return sum(w * p for w, p in zip(weights, probabilities, strict=True)).div(sum(weights)).log()


def logits_of(distiller, inputs=None):
    return distiller.teacher_holder(images() if inputs is None else inputs, samples(), ['logit'])['logit']


class TestJointLogits:
    @pytest.mark.parametrize('weights', [None, [1, 1], [3, 1], [0.2, 0.6]])
    def test_the_logarithm_of_the_weighted_mean_of_probabilities(self, weights):
        distiller = group(teacher_weights=weights)
        with torch.no_grad():
            parts = [network(images()) for network in distiller.teachers]
        found = logits_of(distiller)
        assert_close(found.double(), joint(parts, weights or [1, 1]).float().double(), scale=10.0)
        assert_close(found.exp().sum(1), torch.ones(4))
        assert not torch.allclose(found, joint(parts, [1, 5]).float(), atol=1e-3)

    def test_three_and_one_in_a_list(self):
        distiller = group(teacher=[*TWO, resnet(4)], teacher_weights=[1, 2, 3])
        with torch.no_grad():
            parts = [network(images()) for network in distiller.teachers]
        torch.testing.assert_close(logits_of(distiller), joint(parts, [1, 2, 3]).float())
        alone = build(NKD, teacher=[resnet(8)], teacher_pretrained=[False]).eval()
        assert isinstance(alone.teacher_holder, Teacher)
        torch.testing.assert_close(logits_of(alone), alone.teacher(images()).detach(), rtol=1e-4, atol=1e-5)

    def test_extreme_logits(self):
        distiller = group()
        for network, sign in zip(distiller.teachers, (1, -1), strict=True):
            classifier = [module for module in network.modules() if isinstance(module, torch.nn.Linear)][-1]
            with torch.no_grad():
                classifier.weight.zero_()
                classifier.bias.copy_(sign * torch.linspace(-1000, 1000, 10))
        found = logits_of(distiller)
        assert found.isfinite().all()
        assert_close(found[:, [0, 9]].exp(), torch.full((4, 2), 0.5))

    def test_through_the_losses(self):
        distiller = group(NKD, method('KDLoss', temp=2.0, alpha=0.3), teacher_weights=[3, 1])
        with torch.no_grad():
            logit_t = joint([network(images()) for network in distiller.teachers], [3, 1]).float()
        losses, logit_s = distiller.loss(images(), samples()), distiller.student(images())
        torch.testing.assert_close(losses['loss_nkd'], nkd_loss(logit_s, logit_t, torch.arange(4)))
        torch.testing.assert_close(losses['loss_kd'], kd_loss(logit_s, logit_t, temp=2.0, alpha=0.3))

    def test_of_several_libraries(self):
        networks = [built(name) for name in ('timm ResNet', 'hf ViT', 'torchvision ConvNeXt')]
        teachers = [dict(type='ModuleClassifier', model=network.model) for network in networks]
        distiller = build(NKD, teacher=teachers).eval()
        with torch.no_grad():
            parts = [network(images()) for network in networks]
        torch.testing.assert_close(logits_of(distiller), joint(parts, [1, 1, 1]).float(), rtol=1e-4, atol=1e-5)


class TestEachOfThem:
    def test_gets_its_own_images(self):
        pixels = [dict(mean=100, std=50), dict(size=64, interpolation='nearest', to_rgb=True)]
        distiller = group(teacher=[resnet(8), resnet(4)], teacher_pixels=pixels)
        inputs = torch.randint(256, (4, 3, 32, 32)).float()
        with torch.no_grad():
            first = distiller.teachers[0]((inputs - 100) / 50)
            second = distiller.teachers[1](F.interpolate(inputs.flip(1), (64, 64)))
        torch.testing.assert_close(
            logits_of(distiller, inputs), joint([first, second], [1, 1]).float(), rtol=1e-4, atol=1e-4
        )

    def test_speaks_its_own_classes(self):
        order = [9, 8, 7, 6, 5, 14, 13, 12, 11, 10]
        distiller = group(teacher=[resnet(8), resnet(4, classes=20)], teacher_classes=[None, order])
        with torch.no_grad():
            parts = [distiller.teachers[0](images()), distiller.teachers[1](images())[:, order]]
        torch.testing.assert_close(logits_of(distiller), joint(parts, [1, 1]).float(), rtol=1e-4, atol=1e-5)
        assert distiller.num_classes == 10

    def test_is_frozen_in_eval_mode_and_outside(self):
        distiller = group().train()
        assert len(distiller.teachers) == 2
        assert distiller.teacher is None
        ours = {id(parameter) for parameter in distiller.parameters()}
        for network in distiller.teachers:
            assert not any(module.training for module in network.modules())
            assert not any(parameter.requires_grad or id(parameter) in ours for parameter in network.parameters())
        assert {name.split('.')[0] for name in distiller.state_dict()} == {'student'}
        sum(distiller.loss(images(), samples()).values()).backward()

    def test_is_shared_by_a_copy_and_a_moving_average(self):
        distiller = group()
        assert copy.deepcopy(distiller).teachers == distiller.teachers
        assert ExponentialMovingAverage(distiller, momentum=0.1).module.teachers == distiller.teachers

    def test_moves_with_the_distiller(self):
        distiller = group().to(torch.bfloat16)
        assert {parameter.dtype for network in distiller.teachers for parameter in network.parameters()} == {torch.bfloat16}

    def test_in_float64_the_mean_is_one_in_float64(self):
        distiller = group().double()
        inputs = images().double()
        with torch.no_grad():
            parts = [network(inputs) for network in distiller.teachers]
        found = logits_of(distiller, inputs)
        assert found.dtype == torch.float64
        assert_close(found, joint(parts, [1, 1]), scale=10.0)

    def test_under_autocast_the_mean_is_taken_in_float32(self):
        distiller = group(KD)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            losses = distiller.loss(images(), samples())
        assert losses['loss_kd'].dtype == torch.float32
        assert logits_of(distiller).dtype == torch.float32

    def test_is_loaded_from_its_own_file(self, tmp_path):
        first = group()
        files = [str(tmp_path / f'{i}.pth') for i in range(2)]
        for network, path in zip(first.teachers, files, strict=True):
            torch.save(network.state_dict(), path)
        second = build(NKD, teacher=TWO, teacher_pretrained=files).eval()
        assert logits_of(second).equal(logits_of(first))
        with pytest.raises(ValueError, match='teacher weights .*1.pth do not fit this ResNet_CIFAR'):
            build(NKD, teacher=TWO, teacher_pretrained=files[::-1])

    def test_a_checkpoint_of_one_loads_into_the_other(self):
        first, second = group(), group()
        second.load_state_dict(first.state_dict())
        assert second.student(images()).equal(first.student(images()))


class TestRefused:
    @pytest.mark.parametrize('loss', ['MGDLoss', 'SRRLLoss', 'ViTKDLoss'])
    def test_features(self, loss):
        with pytest.raises(ValueError, match=r"several teachers have no common features, and loss_x needs '\w+': choose"):
            build(method(loss, 'loss_x'), teacher=TWO)

    @pytest.mark.parametrize(
        ('keyword', 'value'),
        [
            ('teacher_weights', [1.0]),
            ('teacher_weights', [1, 2, 3]),
            ('teacher_weights', 0.5),
            ('teacher_classes', [None]),
            ('teacher_classes', [list(range(10))]),
            ('teacher_pixels', dict(size=64)),
            ('teacher_pixels', [dict(size=64)] * 3),
            ('teacher_pretrained', 'weights.pth'),
            ('teacher_pretrained', [False]),
        ],
    )
    def test_lists_of_another_length(self, keyword, value):
        with pytest.raises(
            ValueError, match=f'{keyword} has to be a list with one entry for each of the 2 teachers, but is'
        ):
            build(NKD, teacher=TWO, **{keyword: value})

    @pytest.mark.parametrize('weights', [[0, 1], [-1, 2], [float('nan'), 1], [float('inf'), 1], ['a', 1]])
    def test_weights_that_are_not_positive(self, weights):
        with pytest.raises(ValueError, match=r'teacher_weights=\[.*\]: each has to be a number above 0'):
            build(NKD, teacher=TWO, teacher_weights=weights)

    def test_other_numbers_of_classes(self):
        with pytest.raises(ValueError, match=r'the teachers have \[10, 20\] classes: set model.teacher_classes'):
            build(NKD, teacher=[resnet(8), resnet(4, classes=20)])
        with pytest.raises(ValueError, match='the student has 10 classes and the teacher 20'):
            build(NKD, teacher=[resnet(8, classes=20)] * 2)

    @pytest.mark.parametrize('keyword', ['teacher_weights', 'teacher_pixels', 'teacher_pretrained'])
    def test_a_list_for_one_teacher(self, keyword):
        with pytest.raises(ValueError, match=f'{keyword} is a list, but teacher_cfg is one teacher'):
            build(NKD, **{keyword: [1, 2]})

    def test_no_teacher_in_the_list(self):
        cfg = dict(type='ClassificationDistiller', teacher_cfg=[], student_cfg=resnet(), distill_cfg=[NKD])
        with pytest.raises(ValueError, match='teacher_cfg is an empty list'):
            MODELS.build(cfg)

    def test_one_of_them_without_weights(self):
        with pytest.raises(ValueError, match=r'no weights: set model\.teacher_pretrained'):
            build(NKD, teacher=TWO, teacher_pretrained=[False, None])

    def test_none_is_built_where_no_method_asks(self):
        distiller = build(TFNKD, teacher=['nowhere.py', 'nowhere_else.py'])
        assert (distiller.teacher_holder, list(distiller.teachers)) == (None, [])


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore:.*instance named of')
def test_their_mean_can_be_stored_and_trained_from(data, tmp_path, monkeypatch):
    first = network_cfg(f'{TOOLBOX}/configs/fashion_mnist/resnet18-w16_9e.py')
    second = copy.deepcopy(first)
    second.backbone.update(base_channels=4, stem_channels=4)
    second.head.in_channels = 32
    files = [str(tmp_path / f'{i}.pth') for i in range(2)]
    for cfg, path in zip((first, second), files, strict=True):
        torch.save(MODELS.build(copy.deepcopy(cfg)).state_dict(), path)
    keywords = dict(teacher_cfg=[first.to_dict(), second.to_dict()], teacher_pretrained=files, teacher_weights=[1, 3])
    config = write_config(
        tmp_path / 'config.py', data, f'model = dict({", ".join(f"{k}={v!r}" for k, v in keywords.items())})'
    )

    seen = []
    live = TeacherGroup.__call__

    def watched(self, *arguments):
        tensors = live(self, *arguments)
        seen.append(tensors['logit'])
        return tensors

    monkeypatch.setattr(TeacherGroup, '__call__', watched)
    make(config, tmp_path / 'store', 1)
    store = TeacherStore(str(tmp_path / 'store'))
    assert len(store.manifest.teacher['weights']) == 2
    stored = store.read(0, range(101))['logit']
    torch.testing.assert_close(torch.from_numpy(stored).float(), torch.cat(seen)[-101:], rtol=1e-3, atol=1e-3)
    seen.clear()
    log = train(config, tmp_path / 'run', tmp_path / 'store', options=['train_cfg.max_epochs=1'])
    assert 'loss_nkd' in log
    assert not seen
