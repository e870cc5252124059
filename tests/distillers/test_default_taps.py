"""What networks of each family offer without being told where it is, against the library's own words."""

import pytest
import torch
from families import FAMILIES, built, expected, hugging_face, mmpretrain, module, timm
from kit import assert_close, seeded
from mmpretrain.registry import MODELS
from torch import nn

from mmcls_kd.features.dry_run import dry_run
from mmcls_kd.features.families import default_taps, drop_unread_outputs
from mmcls_kd.features.layouts import parts
from mmcls_kd.features.taps import given_taps, read, record

each_family = pytest.mark.parametrize('name', FAMILIES)


def images(*size):
    return torch.randn(3, 3, *size, generator=seeded(0), dtype=torch.float64)


def offered(network, inputs):
    """What a network offers of images."""
    taps = default_taps(network, dry_run(network, 'student', tuple(inputs.shape[2:])))
    with torch.no_grad(), record(network, taps) as tensors:
        network(inputs)
    return tensors


def shapes(tensor, start=0):
    """The shape of a tensor, or of each of a tuple, from a dimension on."""
    return [part.shape[start:] for part in parts(tensor)]


@each_family
def test_the_names_their_values_and_the_shapes_that_were_foretold(name):
    network = built(name).double()
    found = dry_run(network, 'student')
    inputs = images(*found.size)
    tensors, wanted = offered(network, inputs), expected(name, network, inputs)
    assert set(tensors) == set(wanted)
    foretold = default_taps(network, found)
    for key, tensor in tensors.items():
        assert shapes(tensor) == shapes(wanted[key]), key
        assert shapes(tensor, 1) == shapes(read(foretold[key], found), 1), key
        for one, its in zip(parts(tensor), parts(wanted[key]), strict=True):
            assert_close(one, its)
    if found.linear_path:
        linear = network.get_submodule(found.linear_path)  # the rows of which losses may ask for
        assert_close((tensors['vector'] @ linear.weight.flatten(1).T + linear.bias).detach(), tensors['logit'])
    else:
        assert 'istilled' in name  # which has two


@pytest.mark.parametrize('name', [name for name in FAMILIES if 'Distilled' not in name])  # mmpretrain cannot train it
def test_a_student_that_trains_is_read_at_the_same_places(name):
    network = built(name)
    found = dry_run(network, 'student')
    taps = default_taps(network, found)
    with record(network.train(), taps) as tensors:
        network(images(*found.size).float())
    assert {key: shapes(t, 1) for key, t in tensors.items()} == {key: shapes(read(t, found), 1) for key, t in taps.items()}
    assert all(t.requires_grad and t.isfinite().all() for tensor in tensors.values() for t in parts(tensor))


def test_images_that_are_not_square_have_patches_on_a_grid_of_their_ratio():
    network = timm('vit_small_patch14_reg4_dinov2', img_size=(64, 32), patch_size=8, embed_dim=16, depth=4, num_heads=2)()
    network = network.eval().double()
    inputs = images(64, 32)
    tensors = offered(network, inputs)
    last = network.model.forward_features(inputs).detach()[:, 5:]
    assert_close(tensors['tokens_high'], last)
    assert_close(tensors['feat'], last.reshape(3, 8, 4, 16).permute(0, 3, 1, 2))
    assert tensors['tokens_low'].shape == (3, 2, 32, 16)


class Blocks(nn.Module):
    """Blocks of one token, which is no grid of 2 to 1."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 8, 8)
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))
        self.head = nn.Linear(8, 10)

    def forward(self, images):
        tokens = self.stem(images).flatten(2).transpose(1, 2)[:, :1]
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(tokens.mean(dim=1))


class Pairs(nn.Module):
    """Stages that return no tensor, but a tuple in a tuple."""

    def __init__(self):
        super().__init__()
        self.stem, self.stages = nn.Conv2d(3, 8, 8, 8), nn.ModuleList(Pair() for _ in range(3))
        self.head = nn.Linear(8, 10)

    def forward(self, images):
        value = self.stem(images)
        for stage in self.stages:
            ((value,), _) = stage(value)
        return self.head(value.mean(dim=(2, 3)))


class Pair(nn.Conv2d):
    """A convolution that returns so."""

    def __init__(self):
        super().__init__(8, 8, 1)

    def forward(self, images):
        return (super().forward(images),), 3


class Plain(nn.Sequential):
    """No family."""

    def __init__(self):
        super().__init__(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))


@pytest.mark.parametrize(('kind', 'names'), [(Pairs, set()), (Plain, {'feat', 'tokens_high'})])
def test_a_network_of_no_family_offers_what_is_there_without_names(kind, names):
    network = module(kind)().double()
    inputs = images(32, 32)
    tensors = offered(network, inputs)
    assert set(tensors) == {'logit', 'vector'} | names  # what is in a tuple in a tuple cannot be read
    linear = [layer for layer in network.modules() if isinstance(layer, nn.Linear)][-1]
    assert_close(linear(tensors['vector']).detach(), tensors['logit'])
    if names:
        assert_close(tensors['feat'], network.model[0](inputs).detach())


def test_tokens_on_no_grid_are_no_map_but_the_rest_is_there():
    found = dry_run(module(Blocks)(), 'student', (64, 32))
    assert set(default_taps(module(Blocks)(), found)) == {'logit', 'vector'}


class Branches(nn.Module):
    """Two branches of features, put together where ``joined``; else each has a classifier."""

    def __init__(self, joined):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 4, 4)
        self.stage1, self.stage2 = nn.Conv2d(4, 8, 1), nn.Conv2d(4, 8, 2, 2)
        self.last = nn.Conv2d(8, 12, 1) if joined else None
        self.head, self.other = nn.Linear(12 if joined else 8, 10), nn.Linear(8, 10)

    def forward(self, images):
        fine, coarse = self.stage1(self.stem(images)), self.stage2(self.stem(images[..., ::2, ::2]))
        if self.last:
            return self.head(self.last(nn.functional.max_pool2d(fine, 4) + coarse).mean(dim=(2, 3)))
        return self.head(fine.mean(dim=(2, 3))) + self.other(coarse.mean(dim=(2, 3)))


class TestSeveralBranches:
    """A branch is never taken for the whole."""

    def test_what_joins_them_is_the_last_map(self):
        network = module(lambda: Branches(joined=True))()
        taps = default_taps(network, dry_run(network, 'student'))
        assert taps['feat'].modules == taps['tokens_high'].modules == ('model.last',)
        assert taps['stages'].modules == ('model.stage1', 'model.stage2')  # all goes through one or the other
        assert 'feat_mid' not in taps

    def test_there_is_none_where_nothing_does(self):
        network = module(lambda: Branches(joined=False))()
        assert not {'feat', 'tokens_high', 'feat_mid'} & set(default_taps(network, dry_run(network, 'student')))

    def test_of_a_network_that_keeps_four(self):
        network = timm('hrnet_w18_small')().eval()
        inputs = images(64, 64).float()
        tensors = offered(network, inputs)
        with torch.no_grad():
            last = network.model.forward_features(inputs)
        assert_close(tensors['feat'], last)
        assert [part.shape[1:] for part in tensors['stages']] == [(128, 16, 16), (256, 8, 8), (512, 4, 4), (1024, 2, 2)]


def test_a_sequence_that_ends_with_a_pooling_is_looked_into():
    class Necked(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(12, 10)
            self.neck = nn.Sequential(nn.Conv2d(8, 12, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())

        def forward(self, images):
            return self.head(self.neck(self.stem(images)))

    assert default_taps(network := module(Necked)(), dry_run(network, 'student'))['feat'].modules == ('model.neck.0',)


@pytest.mark.filterwarnings('ignore:Unnecessary conv bias')
def test_channels_before_tokens_are_no_map():
    arch = dict(layers=[1, 1, 1, 2], embed_dims=[8, 16, 24, 48], downsamples=[False, True, True, True], vit_num=1)
    parts = dict(backbone=dict(type='EfficientFormer', arch=arch), neck=dict(type='GlobalAveragePooling', dim=1))
    network = MODELS.build(
        dict(type='ImageClassifier', **parts, head=dict(type='LinearClsHead', num_classes=10, in_channels=48))
    )
    found = dry_run(network, 'student', (224, 224))
    assert found.outputs['backbone'][0].shape == (2, 48, 49)
    assert 'feat' not in default_taps(network, found)


def test_tokens_that_stand_in_another_order_than_the_rows_are_no_map():
    hiera = dict(embed_dim=8, image_size=[64, 64], depths=[1, 1, 2, 1], num_heads=[1, 1, 2, 2])
    network = hugging_face('Hiera', **hiera)().eval()
    assert 'stages' not in default_taps(network, dry_run(network, 'student'))


class TestVector:
    """What goes into the classifier."""

    @pytest.mark.parametrize('inplace', [False, True])
    def test_before_a_dropout(self, inplace):
        class Dropping(nn.Module):
            def __init__(self):
                super().__init__()
                self.stem, self.pool = nn.Conv2d(3, 8, 8, 8), nn.AdaptiveAvgPool2d(1)
                self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.9, inplace), nn.Linear(8, 10))

            def forward(self, images):
                return self.head(self.pool(self.stem(images)))

        network = module(Dropping)().double()
        inputs = images(32, 32)
        wanted = network.model.stem(inputs).mean(dim=(2, 3)).detach()
        taps = default_taps(network, dry_run(network, 'student'))
        with torch.no_grad(), record(network.train(), taps) as tensors:
            network(inputs)
        assert_close(tensors['vector'], wanted)

    @pytest.mark.parametrize('inplace', [False, True])
    def test_after_an_activation(self, inplace):
        network = module(lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 8), nn.ReLU(inplace), nn.Linear(8, 10)))()
        inputs = images(32, 32).float()
        taps = default_taps(network, dry_run(network, 'student', (32, 32)))
        with torch.no_grad(), record(network, taps) as tensors:
            logit = network(inputs)
        assert (tensors['vector'] >= 0).all()
        assert_close(network.model[3](tensors['vector']).detach(), logit)

    @pytest.mark.parametrize('kind', ['tokens', 'twice'])
    def test_there_is_none_where_the_classifier_sees_more_than_one_vector(self, kind):
        class Many(nn.Module):
            def __init__(self):
                super().__init__()
                self.stem, self.head = nn.Conv2d(3, 8, 8, 8), nn.Linear(8, 10)

            def forward(self, images):
                tokens = self.stem(images).flatten(2).transpose(1, 2)
                if kind == 'tokens':
                    return self.head(tokens)[:, 0]
                self.head(tokens[:, 0])
                return self.head(tokens.mean(dim=1))

        network = module(Many)()
        assert set(default_taps(network, dry_run(network, 'student'))) == {'logit', 'feat', 'tokens_high'}

    def test_of_a_swin_whose_earlier_outputs_nobody_reads(self):
        network = FAMILIES['mmpretrain Swin'][0]().eval()
        taps = default_taps(network, dry_run(network, 'student'))
        inputs = images(32, 32).float()
        wanted = network.backbone(inputs)[-1].mean(dim=(2, 3)).detach()
        read = {'vector': taps['vector']}
        drop_unread_outputs(network, read.values())
        assert tuple(network.backbone.out_indices) == (3,)
        with torch.no_grad(), record(network, read) as tensors:
            network(inputs)
        assert_close(tensors['vector'], wanted)


class TestEachOfItsKind:
    def test_a_map_of_class_scores_is_no_feature(self):
        network = module(lambda: __import__('torchvision').models.squeezenet1_1(num_classes=10))()
        taps = default_taps(network, dry_run(network, 'student'))
        assert taps['feat'].modules == ('model.features',)
        assert 'vector' not in taps  # what goes into that classifier are places

    @pytest.mark.parametrize('indices', [(3,), (0, 3)])
    def test_a_swin_gives_its_middle_feature_only_behind_the_norm_of_that_stage(self, indices):
        swin = dict(type='SwinTransformer', img_size=32, patch_size=2, window_size=2, out_indices=indices)
        network = mmpretrain({**swin, 'arch': dict(embed_dims=8, depths=[1] * 4, num_heads=[1] * 4)}, 64)()
        assert set(default_taps(network, dry_run(network, 'student'))) == {
            'logit',
            'vector',
            'stages',
            'feat',
            'tokens_high',
        }

    def test_a_teacher_of_two_classifiers_gives_the_logits_that_it_returns(self):
        make = hugging_face('DeiT', hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8)
        from transformers import DeiTForImageClassificationWithTeacher

        network = module(lambda: DeiTForImageClassificationWithTeacher(make().model.config))().eval().double()
        inputs = images(32, 32)
        output = network.model(inputs)
        assert not output.logits.equal(output.cls_logits)
        assert_close(offered(network, inputs)['logit'], output.logits.detach())


class TestUnreadOutputs:
    """mmpretrain's backbones put a norm before each output."""

    def network(self):
        swin = dict(type='SwinTransformer', img_size=32, patch_size=2, window_size=2, out_indices=(0, 1, 2, 3))
        return mmpretrain({**swin, 'arch': dict(embed_dims=8, depths=[1] * 4, num_heads=[1] * 4)}, 64)().eval()

    def test_a_tap_on_what_stands_beside_them_is_none_of_them(self):
        network = self.network()
        taps = given_taps(dict(low_s=dict(path='backbone', index=1)), '_s', dry_run(network, 'student'))
        network.backbone.out_indices = ()
        drop_unread_outputs(network, taps.values())

    @pytest.mark.parametrize('index', [0, 1, 2, 3, -1, -2])
    def test_a_tap_on_one_place_of_the_outputs_reads_that_one(self, index):
        network = self.network()
        given = dict(low_s=dict(path='backbone', index=index, form='map'))
        taps = given_taps(given, '_s', dry_run(network, 'student'))
        inputs = images(32, 32).float()
        outputs = network.backbone(inputs)
        drop_unread_outputs(network, taps.values())
        with record(network, taps) as tensors:
            network(inputs)
        assert tensors['low'].equal(outputs[index])

    def test_norms_of_other_outputs_have_no_gradient_to_wait_for(self):
        network = self.network()
        taps = given_taps(dict(low_s=dict(path='backbone', index=1)), '_s', dry_run(network, 'student'))
        drop_unread_outputs(network, taps.values())
        with record(network, taps) as tensors:
            logit = network(images(32, 32).float())
        (tensors['low'].sum() + logit.sum()).backward()
        assert not [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None]
        assert network.backbone.norm1.weight.grad is not None
        assert not network.backbone.norm0.weight.requires_grad
