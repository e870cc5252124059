"""Tensors that a config taps: by path, form and index, under known names and new ones; what cannot be is refused."""

import inspect

import pytest
import torch
from kit import assert_close
from mmpretrain.registry import MODELS
from networks import build, images, method, resnet, samples, vit
from torch import nn

from mmcls_kd.features.dry_run import dry_run
from mmcls_kd.features.layouts import parts
from mmcls_kd.features.taps import check_names, given_taps, record

NKD, MGD, USKD = method('NKDLoss'), method('MGDLoss'), method('USKDLoss')


class Relay(nn.Module):
    """A loss that keeps what it gets."""

    def __init__(self):
        super().__init__()
        self.seen = {}


@pytest.fixture
def asking():
    """Makes the method of a loss, registered for this test, that asks for tensors of some names."""
    made = []

    def make(*names):
        def forward(self, **tensors):
            self.seen = tensors
            return sum(tensor.mean() for read in tensors.values() for tensor in parts(read))

        parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ('self', *names)]
        forward.__signature__ = inspect.Signature(parameters)
        kind = type('WonderingLoss', (Relay,), dict(forward=forward))
        MODELS.register_module(module=kind, force=True)
        made.append(kind.__name__)
        return method('WonderingLoss', 'loss_asking')

    yield make
    for name in set(made):
        MODELS.module_dict.pop(name)


def seen(distiller, inputs=None):
    """What the asking loss got of a batch."""
    with torch.no_grad():  # a loss of the teacher's tensors alone has no gradient
        distiller.loss(images() if inputs is None else inputs, samples())
    return distiller.distill_losses['loss_asking'].seen


def part(network, path, inputs):
    """What a part of a network returns."""
    found = []
    handle = network.get_submodule(path).register_forward_hook(lambda _m, _a, output: found.append(output))
    with torch.no_grad():
        network(inputs)
    handle.remove()
    return found[-1]


class TestWhatIsRead:
    @pytest.mark.parametrize('side', ['_s', '_t'])
    def test_a_path_in_the_form_of_its_name(self, asking, side):
        taps = {
            f'feat{side}': 'backbone.layer2',
            f'feat_mid{side}': 'backbone.layer1',
            f'tokens_high{side}': 'backbone.layer4',
        }
        distiller = build(asking(*taps), taps=taps).eval()
        network, tensors = distiller.student if side == '_s' else distiller.teacher, seen(distiller)
        one, two, four = (part(network, f'backbone.layer{i}', images()) for i in (1, 2, 4))
        assert_close(tensors[f'feat{side}'], two)  # the teacher's norms are folded
        assert_close(tensors[f'feat_mid{side}'], one.mean((2, 3)))
        assert_close(tensors[f'tokens_high{side}'], four.flatten(2).transpose(1, 2))

    def test_the_short_name_is_the_students(self, asking):
        distiller = build(asking('feat_mid'), taps=dict(feat_mid='backbone.layer1')).eval()
        assert seen(distiller)['feat_mid'].equal(part(distiller.student, 'backbone.layer1', images()).mean((2, 3)))

    def test_new_names_and_forms(self, asking):
        taps = dict(
            early_s=dict(path='backbone.layers.0', form='class_token'),
            blocks_s=dict(path=['backbone.layers.0', 'backbone.layers.2'], form='tokens'),
            grid_s=dict(path='backbone.layers.1', form='map'),
            all_s=dict(path='backbone.layers.1'),
            fewer_s=dict(path='backbone.layers.1', form='tokens', extra=8),
            picture_t=dict(path='backbone.layer1', form='pooled'),
        )
        distiller = build(asking(*taps), student=vit(16), taps=taps).eval()
        tensors = seen(distiller)
        zero, one, two = (part(distiller.student, f'backbone.layers.{i}', images()) for i in range(3))
        assert tensors['early_s'].equal(zero[:, 0])
        assert tensors['blocks_s'].equal(torch.stack([zero[:, 1:], two[:, 1:]], dim=1))
        assert tensors['grid_s'].equal(one[:, 1:].reshape(4, 4, 4, 16).permute(0, 3, 1, 2))
        assert tensors['all_s'].equal(one)
        assert tensors['fewer_s'].equal(one[:, 8:])
        assert_close(tensors['picture_t'], part(distiller.teacher, 'backbone.layer1', images()).mean((2, 3)))

    @pytest.mark.parametrize('index', [0, 1, -1])
    def test_one_of_several_tensors(self, asking, index):
        student = resnet(4)
        student['backbone']['out_indices'] = (1, 3)
        distiller = build(asking('low_s'), student=student, taps=dict(low_s=dict(path='backbone', index=index))).eval()
        assert seen(distiller)['low_s'].equal(part(distiller.student, 'backbone', images())[index])

    @pytest.mark.parametrize('side', ['_s', '_t'])
    @pytest.mark.parametrize('paths', [['backbone.layer1', 'backbone.layer3'], 'backbone.layer2'])
    def test_a_tuple_of_maps(self, asking, paths, side):
        distiller = build(asking(f'stages{side}'), taps={f'stages{side}': paths}).eval()
        network, maps = distiller.student if side == '_s' else distiller.teacher, seen(distiller)[f'stages{side}']
        assert isinstance(maps, tuple)
        for read, path in zip(maps, [paths] if isinstance(paths, str) else paths, strict=True):
            assert_close(read, part(network, path, images()))  # the teacher's norms are folded

    def test_a_tuple_of_tokens_as_maps_and_a_vector_of_a_map(self, asking):
        paths = ['backbone.layers.0', 'backbone.layers.2']
        taps = dict(stages_s=dict(path=paths, extra=1), vector_t='backbone.layer2')
        distiller = build(asking(*taps), student=vit(16), taps=taps).eval()
        tensors = seen(distiller)
        assert_close(tensors['vector_t'], part(distiller.teacher, 'backbone.layer2', images()).mean((2, 3)))
        for read, path in zip(tensors['stages_s'], paths, strict=True):
            tokens = part(distiller.student, path, images())
            assert read.equal(tokens[:, 1:].reshape(4, 4, 4, 16).permute(0, 3, 1, 2))

    def test_stages_that_are_no_maps(self):
        found = dry_run(MODELS.build(resnet(4)), 'student')
        message = 'taps: stages_s: backbone.layer1 and head.fc: .*neither a feature map nor tokens'
        with pytest.raises(ValueError, match=message):
            given_taps(dict(stages_s=['backbone.layer1', 'head.fc']), '_s', found)

    def test_a_method_of_the_toolbox_reads_it(self):
        distiller = build(MGD, taps=dict(feat_s='backbone.layer2', feat_t='backbone.layer2')).eval()
        loss = distiller.distill_losses['loss_mgd']
        assert (loss.student_channels, loss.teacher_channels) == (8, 16)
        torch.manual_seed(5)
        value = distiller.loss(images(), samples())['loss_mgd']
        given = [part(network, 'backbone.layer2', images()) for network in (distiller.student, distiller.teacher)]
        torch.manual_seed(5)
        torch.testing.assert_close(value, loss(*given))

    def test_gradients_reach_the_student_up_to_there(self):
        distiller = build(USKD, taps=dict(feat_mid='backbone.layer2'))
        distiller.distill_losses['loss_uskd'].alpha = distiller.distill_losses['loss_uskd'].beta = 0
        distiller.loss(images(), samples())['loss_uskd'].backward()
        assert distiller.student.backbone.layer2[0].conv1.weight.grad.any()
        assert not distiller.student.backbone.layer3[0].conv1.weight.grad.any()

    def test_what_a_module_returned_before_it_was_changed_in_place(self, asking):
        distiller = build(asking('raw_s', 'raw_t'), taps=dict(raw_s='backbone.bn1', raw_t='backbone.bn1')).eval()
        assert distiller.student.backbone.relu.inplace
        for name, network in dict(raw_s=distiller.student, raw_t=distiller.teacher).items():
            before = network.backbone.bn1(network.backbone.conv1(images()))
            assert (before < 0).any()
            assert_close(seen(distiller)[name], before.detach())


class TestCheckpointed:
    """Parts that are computed anew in the backward pass."""

    def test_inside_of_one_nothing_would_be_learnt_so_it_is_refused(self):
        student = resnet(4)
        student['backbone']['with_cp'] = True
        taps = dict(feat_s='backbone.layer3.0.conv2')
        with pytest.raises(ValueError, match=r"feat_s: module 'backbone.layer3.0.conv2' runs where no gradients are kept"):
            build(MGD, student=student, taps=taps)
        build(MGD, student=student, taps=dict(feat_s='backbone.layer3.0'))
        build(MGD, teacher=student, taps=dict(feat_t='backbone.layer3.0.conv2'))  # a teacher needs none

    def test_also_where_that_shows_only_in_training(self):
        class Saving(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv, self.fc = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 10)

            def forward(self, images):
                with torch.set_grad_enabled(not self.training):
                    feat = self.conv(images)
                return self.fc(feat.mean(dim=(2, 3)))

        network = Saving()
        taps = given_taps(dict(feat_s='conv'), '_s', dry_run(network, 'student'))
        with pytest.raises(ValueError, match="module 'conv' runs where no gradients are kept"), record(network, taps):
            network(torch.zeros(2, 3, 8, 8))


class TestOtherModules:
    @pytest.fixture
    def network(self):
        class Odd(nn.Module):
            """A part that runs twice, one that returns several tensors, one that returns none, one that never runs."""

            def __init__(self):
                super().__init__()
                self.conv, self.fc, self.idle = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 10), nn.ReLU()
                self.twice, self.many, self.nothing = nn.ReLU(), Many(), Nothing()

            def forward(self, images):
                feat = self.twice(self.twice(self.conv(images)))
                self.nothing(feat)
                return self.fc(self.many(feat)['pooled'])

        return Odd()

    @pytest.mark.parametrize(
        ('tap', 'message'),
        [
            ('twice', r"a_s: module 'twice' runs 2 times in a forward pass; take one that runs once"),
            ('many', r"a_s: module 'many' returns 2 tensors \(\(2, 8, 16, 16\), \(2, 8\)\): say which by index=0, 1"),
            (dict(path='many', index=2), r"'many' returns 2 tensors"),
            (dict(path='many', index=-3), r"'many' returns 2 tensors"),
            ('nothing', r"'nothing' returns 0 tensors \(none\)"),
            ('idle', "no module 'idle' runs in this network; the nearest paths: "),
            (
                'convv',
                r"no module 'convv' runs in this network; the nearest paths: conv.*`python -m mmcls_kd inspect CONFIG`",
            ),
            ('', "no module '' runs"),
            ([], 'a_s: it has no path of a module'),
            (dict(form='map'), 'a_s takes path, form, index, extra, but has no path'),
            (dict(path='conv', pool=True), 'a_s takes path, form, index, extra, but has pool'),
            (
                dict(path='conv', form='mapp'),
                r"a_s: form='mapp': choose one of 'map', 'tokens', 'pooled', 'class_token', 'flat', 'raw'",
            ),
            (dict(path='conv', form='class_token'), r'a_s: conv: a tensor of shape \(2, 8, 16, 16\) has no class token'),
            (dict(path='fc', form='map'), r'a_s: fc: a tensor of shape \(2, 10\) has neither a feature map nor tokens'),
            (dict(path='conv', extra=1), r'extra=1 does not fit a tensor of shape \(2, 8, 16, 16\)'),
            (dict(path=['conv', 'fc']), 'a_s: conv and fc: .*stack'),
        ],
    )
    def test_refused(self, network, tap, message):
        with pytest.raises(ValueError, match=message):
            given_taps(dict(a_s=tap), '_s', dry_run(network, 'student'))

    @pytest.mark.parametrize(('index', 'shape'), [(0, (2, 8, 16, 16)), (1, (2, 8)), (-1, (2, 8))])
    def test_one_of_several(self, network, index, shape):
        taps = given_taps(dict(a_s=dict(path='many', index=index)), '_s', dry_run(network, 'student'))
        with record(network, taps) as tensors:
            network(torch.zeros(2, 3, 64, 64))
        assert tensors['a'].shape == shape

    def test_extra_tokens_that_cannot_be(self):
        found = dry_run(MODELS.build(vit(16)), 'student')
        for extra in (-1, 17):
            with pytest.raises(ValueError, match=rf'extra={extra} does not fit a tensor of shape \(2, 17, 16\)'):
                given_taps(dict(a_s=dict(path='backbone.layers.0', form='tokens', extra=extra)), '_s', found)
        with pytest.raises(ValueError, match='15 patch tokens lie on no grid'):
            given_taps(dict(a_s=dict(path='backbone.layers.0', form='map', extra=2)), '_s', found)


class Many(nn.Module):
    """Returns a dict."""

    def forward(self, feat):
        return dict(feat=feat, loss=None, pooled=feat.mean(dim=(2, 3)))


class Nothing(nn.Module):
    """Returns nothing."""

    def forward(self, feat):
        pass


class TestNames:
    def test_full_ones_by_aliases(self):
        assert check_names(dict(mid='a', feat_t='b'), dict(mid='mid_s')) == dict(mid_s='a', feat_t='b')

    def test_one_that_does_not_say_whose_it_is(self):
        with pytest.raises(ValueError, match="'feat' has to say whose tensor it is: feat_s is the student’s"):
            build(NKD, taps=dict(feat='backbone.layer1'))

    def test_taps_that_are_no_dict(self):
        with pytest.raises(ValueError, match='taps is a dict of paths by name'):
            build(NKD, taps=['backbone.layer1'])

    def test_an_unknown_path_of_the_teacher(self):
        with pytest.raises(
            ValueError, match=r"taps: feat_t: no module 'backbone.layer5' runs .*nearest paths: backbone.layer\d"
        ):
            build(MGD, taps=dict(feat_t='backbone.layer5'))

    def test_a_loss_that_asks_for_what_no_tap_names(self, asking):
        with pytest.raises(ValueError, match=r"unknown input 'early_t'.*define others with taps"):
            build(asking('early_t'), taps=dict(early_s='backbone.layer1'))

    def test_a_tap_that_nobody_asks_for_is_not_read(self):
        distiller = build(NKD, taps=dict(early_s='backbone.layer1', early_t='backbone.layer1'))
        assert set(distiller.student_taps) == {'logit'}
        assert distiller.teacher_names == ['logit']


class TestRecord:
    def test_it_ends_as_soon_as_all_is_read(self):
        network, ran = MODELS.build(resnet(4)).eval(), []
        taps = given_taps(dict(a_s='backbone.layer2', b_s='backbone.layer1'), '_s', dry_run(network, 'student'))
        network.backbone.layer3.register_forward_hook(lambda *_: ran.append(3))
        with record(network, taps, stop=True) as tensors:
            network(images())
        assert not ran
        assert set(tensors) == {'a', 'b'}
        with record(network, taps) as tensors:
            network(images())
        assert ran

    def test_no_hook_stays_where_the_pass_fails(self):
        network = MODELS.build(resnet(4))
        taps = given_taps(dict(a_s='backbone.layer2'), '_s', dry_run(network, 'student'))
        with pytest.raises(RuntimeError), record(network, taps):
            network(torch.zeros(1, 5, 8, 8))
        assert not any(module._forward_hooks for module in network.modules())
