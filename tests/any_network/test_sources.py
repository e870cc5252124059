"""What a config may give as a network: each form builds it, what is wrong is named, and it is the same when dumped."""

import copy
import sys

import libraries
import pytest
import torch
from commands import DISTILLER
from mmengine.config import Config
from mmpretrain.apis.model import ModelHub
from mmpretrain.models.classifiers import HuggingFaceClassifier, ImageClassifier, TimmClassifier
from mmpretrain.registry import MODELS
from networks import build, images, method, resnet, samples
from PIL import Image

from mmcls_kd.command.from_folder.predictor import Predictor
from mmcls_kd.configs.reading import read_config
from mmcls_kd.distillers.recipe import Recipe
from mmcls_kd.errors import MissingLibraryError
from mmcls_kd.export import load_classifier
from mmcls_kd.features.dry_run import dry_run
from mmcls_kd.networks import ModuleClassifier, TorchvisionClassifier
from mmcls_kd.networks.sources import brings_weights, find_network, network_cfg, own_weights
from mmcls_kd.networks.trial import pipeline_images

NKD = method('NKDLoss')
CONFIG = 'configs/fashion_mnist/resnet18-w4_3e.py'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp('hf') / 'vit'
    libraries.hugging_face(path)
    return path


FORMS = {
    'timm:test_resnet': (TimmClassifier, 1000),
    'torchvision:shufflenet_v2_x0_5': (TorchvisionClassifier, 1000),
    'hf:FOLDER': (HuggingFaceClassifier, 10),
    CONFIG: (ImageClassifier, 10),
    'mmpretrain::mobilenet_v2/mobilenet-v2_8xb32_in1k.py': (ImageClassifier, 1000),
    'mobilenet_v2/mobilenet-v2_8xb32_in1k.py': (ImageClassifier, 1000),
    'mobilenet-v2_8xb32_in1k': (ImageClassifier, 1000),
}
DICTS = {
    'mmpretrain': (resnet(4), ImageClassifier),
    'timm': (libraries.timm_vit(), TimmClassifier),
    'timm with a scope': ({**libraries.timm_vit(), 'type': 'mmpretrain.TimmClassifier'}, TimmClassifier),
    'timm by its class': ({**libraries.timm_vit(), 'type': TimmClassifier}, TimmClassifier),
    'torchvision': (libraries.torchvision_cnn(), TorchvisionClassifier),
    'a class': (dict(type='libraries.Plain', width=6), ModuleClassifier),
    'a function': (dict(type='libraries.make_plain', width=6), ModuleClassifier),
    "another library's class": (libraries.torchvision_vit(), ModuleClassifier),
    'a module in the classifier': (dict(type='ModuleClassifier', model=dict(type='libraries.Plain')), ModuleClassifier),
}


class TestForms:
    @pytest.mark.parametrize('name', FORMS)
    def test_a_name_builds_the_network(self, name, folder):
        kind, classes = FORMS[name]
        network = MODELS.build(network_cfg(name.replace('FOLDER', str(folder)))).eval()
        assert type(network) is kind
        assert network(images(2)[:, : dry_run(network, 'network').channels]).shape == (2, classes)

    @pytest.mark.parametrize('name', DICTS)
    def test_a_dict_builds_it_and_stays_as_it_is(self, name):
        given, kind = DICTS[name]
        before = copy.deepcopy(given)
        network = MODELS.build(network_cfg(given)).eval()
        assert type(network) is kind
        assert network(images(2, 32)).shape == (2, 10)
        assert given == before

    @pytest.mark.parametrize('name', DICTS)
    def test_it_teaches_and_learns(self, name):
        cfg = DICTS[name][0]
        losses = build(NKD, teacher=cfg, student=cfg).loss(images(), samples())
        assert set(losses) == {'ori_loss', 'loss_nkd'}
        assert all(torch.isfinite(value) for value in losses.values())

    def test_a_whole_config_as_a_dict_or_an_object(self):
        cfg = Config(dict(model=resnet(4), data_preprocessor=dict(mean=[1.0], std=[2.0])))
        for given in (cfg, cfg.to_dict()):
            source = find_network(given)
            assert source.cfg.type == 'ImageClassifier'
            assert source.cfg.data_preprocessor == dict(mean=[1.0], std=[2.0])

    def test_what_surrounds_the_module_goes_to_the_classifier(self):
        loss = dict(type='LabelSmoothLoss', label_smooth_val=0.1)
        cfg = network_cfg(dict(type='libraries.Plain', width=6, loss=loss, data_preprocessor=dict(mean=[3.0], std=[4.0])))
        assert cfg.model == dict(type='libraries.Plain', width=6)
        network = MODELS.build(cfg)
        assert type(network.head.loss_module).__name__ == 'LabelSmoothLoss'
        assert network.data_preprocessor.mean.flatten().tolist() == [3.0]

    def test_a_folder_is_known_by_its_absolute_path(self, folder, monkeypatch):
        monkeypatch.chdir(folder.parent)
        for name in ('vit', './vit'):
            assert network_cfg(f'hf:{name}').model_name == str(folder)
        assert network_cfg(dict(type='HuggingFaceClassifier', model_name='vit')).model_name == str(folder)

    def test_a_folder_of_timm_is_known_by_its_absolute_path(self, tmp_path, monkeypatch):
        (tmp_path / 'net').mkdir()
        monkeypatch.chdir(tmp_path)
        for name in ('net', './net', tmp_path / 'net'):
            assert network_cfg(f'timm:local-dir:{name}').model_name == f'local-dir:{tmp_path}/net'
        with pytest.raises(FileNotFoundError, match='timm:local-dir:none: no such folder'):
            network_cfg('timm:local-dir:none')

    def test_a_student_whose_folder_was_moved(self, tmp_path):
        network = libraries.hugging_face(tmp_path / 'old')
        weights, config, moved = (tmp_path / name for name in ('student.pth', 'student.py', 'moved.py'))
        torch.save(dict(state_dict={f'model.{key}': value for key, value in network.state_dict().items()}), weights)
        pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(32, 32)), dict(type='PackInputs')]
        config.write_text(
            f"model = dict(type='HuggingFaceClassifier', model_name='{tmp_path}/old', num_classes=10)\n"
            f"test_dataloader = dict(dataset=dict(type='CustomDataset', pipeline={pipeline}))\n"
        )
        moved.write_text(f"_base_ = '{config}'\nmodel = dict(model_name='{tmp_path}/new')\n")
        (tmp_path / 'old').rename(tmp_path / 'new')
        with pytest.raises(
            FileNotFoundError, match=r'old: no such folder; if it was moved, .*--cfg-options model.model_name='
        ):
            Predictor(weights, config)
        Image.new('RGB', (32, 32)).save(tmp_path / 'a.png')
        assert len(Predictor(weights, moved)(tmp_path / 'a.png')) == 10
        cfg = read_config(str(config))
        cfg.merge_from_dict({'model.model_name': str(tmp_path / 'new')})
        load_classifier(cfg, str(weights))

    def test_auxiliary_classifiers_are_left_out(self):
        network = MODELS.build(network_cfg(dict(type='TorchvisionClassifier', model_name='googlenet', num_classes=10)))
        assert not [name for name in network.state_dict() if 'aux' in name]
        assert network.train()(images(2, 64)).shape == (2, 10)


class TestErrors:
    @pytest.mark.parametrize(
        ('given', 'message'),
        [
            ('timm:test_resnt', r"timm has no model 'test_resnt'; did you mean .*'test_resnet'"),
            ('timm:test_resnet.r160', r"timm has no weights 'test_resnet.r160', but test_resnet.r160_in1k"),
            ('torchvision:resnt50', r"torchvision has no classifier 'resnt50'; did you mean .*'resnet50'"),
            (dict(type='TimClassifier'), r"unknown network type 'TimClassifier'; did you mean 'TimmClassifier'"),
            (dict(type='libraries.Plane'), r"unknown network type 'libraries.Plane'; did you mean 'Plain'"),
            (dict(type='no_library.Plain'), r"unknown network type 'no_library.Plain'"),
            (dict(backbone=dict(type='ResNet')), 'the config has neither `type`, .*, nor `model`, .*, but backbone'),
            (dict(type='ClassificationDistiller', student_cfg=resnet(4)), 'the config of a distiller: give that of its'),
            (DISTILLER, 'the config of a distiller'),
            (3, 'a network is given by a path, a name or a dict, not by 3'),
            (
                dict(type='TorchvisionClassifier', model_name='resnet18', weights='IMAGENET1K_V3'),
                r"torchvision has no weights 'IMAGENET1K_V3' for resnet18, but DEFAULT, IMAGENET1K_V1; did you mean",
            ),
        ],
    )
    def test_a_wrong_name_is_named_with_close_ones(self, given, message):
        with pytest.raises(ValueError, match=message):
            MODELS.build(network_cfg(given))

    @pytest.mark.parametrize(
        ('given', 'message'),
        [
            ('mobilenet-v2_8xb32_in1', r"has no model of that name; did you mean 'mobilenet-v2_8xb32_in1k'"),
            ('configs/nowhere.py', r'config configs/nowhere\.py: neither in the working directory'),
            ('hf:./nowhere', r'hf:\./nowhere: no such folder'),
            ('hf:/no/such/folder', 'hf:/no/such/folder: no such folder'),
        ],
    )
    def test_what_is_nowhere(self, given, message):
        with pytest.raises(FileNotFoundError, match=message):
            network_cfg(given)

    @pytest.mark.parametrize(('name', 'library', 'extra'), [('timm:x', 'timm', 'timm'), ('hf:x', 'transformers', 'hf')])
    def test_a_missing_library_names_the_extra(self, name, library, extra, monkeypatch):
        monkeypatch.setitem(sys.modules, library, None)
        kind = dict(timm='TimmClassifier', hf='HuggingFaceClassifier')[extra]
        for given in (name, dict(type=kind, model_name='x'), dict(type=f'mmpretrain.{kind}', model_name='x')):
            with pytest.raises(MissingLibraryError, match=rf"needs {library}, .*pip install 'mmcls_kd\[{extra}\]'"):
                find_network(given)

    def test_a_network_without_scores(self):
        with pytest.raises(ValueError, match=r'the teacher does not run .*has to return a tensor of class scores'):
            build(NKD, teacher=dict(type='libraries.Answer'))


class TestInFull:
    def distiller(self, teacher, **model):
        method = dict(type='NKDLoss', name='loss_nkd')
        given = dict(student_cfg=resnet(4), distill_cfg=[dict(methods=[method])], teacher_cfg=teacher, **model)
        return Config(dict(model=dict(type='ClassificationDistiller', **given)))

    @pytest.mark.parametrize('name', ['timm:test_resnet', 'hf:vit', CONFIG, 'mobilenet-v2_8xb32_in1k', 'libraries.Plain'])
    def test_the_dumped_config_builds_the_same_teacher_anywhere(self, name, folder, tmp_path, monkeypatch):
        monkeypatch.chdir(folder.parent)
        given = dict(type=name) if name.startswith('libraries') else name
        expected = find_network(given)
        cfg = self.distiller(given, teacher_pretrained='vit' if name == 'hf:vit' else True)
        Recipe(cfg.model).complete({})
        cfg.dump(tmp_path / 'dumped.py')
        monkeypatch.chdir(tmp_path)
        again = Config.fromfile(tmp_path / 'dumped.py')
        found = find_network(again.model.teacher_cfg)
        assert not isinstance(again.model.teacher_cfg, str)
        assert (found.cfg, found.pixels, found.weights) == (expected.cfg, expected.pixels, expected.weights)
        assert again.model.teacher_pretrained == (str(folder) if name == 'hf:vit' else True)
        once_more = copy.deepcopy(again)
        Recipe(once_more.model).complete({})
        assert once_more.model == again.model

    def test_size_and_weights_of_the_zoo_are_in_it(self):
        source = find_network('mobilenet-v2_8xb32_in1k')
        assert source.in_full.published.weights == ModelHub.get('mobilenet-v2_8xb32_in1k').weights
        assert source.in_full.published.weights.startswith('https://')
        assert source.in_full.published.pixels == dict(
            to_rgb=True, size=(224, 224), interpolation='bilinear', backend='pillow'
        )
        assert 'published' not in source.cfg
        assert 'published' not in find_network(source.in_full).cfg

    def test_several_teachers(self, folder):
        cfg = self.distiller(['timm:test_resnet', f'hf:{folder}', resnet(8)], teacher_pretrained=[True, str(folder), False])
        Recipe(cfg.model).complete({})
        assert [one.type for one in cfg.model.teacher_cfg] == ['TimmClassifier', 'HuggingFaceClassifier', 'ImageClassifier']
        assert cfg.model.teacher_pretrained == [True, str(folder), False]

    def test_an_unfound_one_stays(self):
        cfg = self.distiller('hf:/no/such/folder')
        Recipe(cfg.model).complete({})
        assert cfg.model.teacher_cfg == 'hf:/no/such/folder'


class TestImageSize:
    def size(self, pipeline):
        return pipeline_images(dict(pipeline=pipeline)).pixels.get('size')

    @pytest.mark.parametrize(
        ('pipeline', 'size'),
        [
            ([dict(type='ResizeEdge', scale=256, edge='short'), dict(type='CenterCrop', crop_size=224)], (224, 224)),
            ([dict(type='Resize', scale=(48, 32))], (32, 48)),  # mmcv's is (width, height)
            ([dict(type='Resize', scale=64), dict(type='PackInputs')], (64, 64)),
            ([dict(type='mmpretrain.CenterCrop', crop_size=(24, 40))], (40, 24)),
            ([dict(type='Resize', scale=256), dict(type='EfficientNetCenterCrop', crop_size=240)], (240, 240)),
            ([dict(type='ResizeEdge', scale=256, edge='short')], None),
            ([dict(type='PackInputs')], None),
            ([], None),
        ],
    )
    def test_of_the_test_pipeline(self, pipeline, size):
        assert self.size(pipeline) == size

    def test_of_classes_in_the_place_of_names(self):
        from mmpretrain.datasets.transforms import CenterCrop

        assert self.size([dict(type=CenterCrop, crop_size=24)]) == (24, 24)

    def test_of_no_test_data(self):
        assert pipeline_images({}).pixels.get('size') is None
        assert find_network(dict(model=resnet(4), test_dataloader=None)).pixels == {}


class TestOwnWeights:
    @pytest.mark.parametrize(
        ('given', 'keyword', 'value'),
        [
            ('timm:test_resnet', 'pretrained', True),
            ('torchvision:shufflenet_v2_x0_5', 'weights', 'DEFAULT'),
            (dict(type=TimmClassifier, model_name='test_resnet'), 'pretrained', True),
            (dict(type='TorchvisionClassifier', model_name='resnet50', weights='IMAGENET1K_V1'), 'weights', 'IMAGENET1K_V1'),
        ],
    )
    def test_the_keyword_of_the_library(self, given, keyword, value):
        cfg = network_cfg(given)
        assert own_weights(cfg, 'teacher')[keyword] == value
        assert brings_weights(own_weights(cfg, 'teacher'))
        assert brings_weights(cfg) == (value == 'IMAGENET1K_V1')

    @pytest.mark.parametrize('given', [resnet(4), dict(type='libraries.Plain')])
    def test_others_have_none(self, given):
        with pytest.raises(ValueError, match=r'teacher_pretrained=True means .*: give a file or an address'):
            build(NKD, teacher=given, teacher_pretrained=True)
        with pytest.raises(ValueError, match=r'student_pretrained=True means'):
            build(NKD, student=given, student_pretrained=True)

    def test_a_file_by_a_keyword_of_timm(self):
        assert brings_weights(libraries.timm_vit(checkpoint_path='a.pth'))
        assert not brings_weights(libraries.timm_vit())
