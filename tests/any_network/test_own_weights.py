"""Weights of other libraries: their files and folders, under their names, loaded strictly; what they load themselves."""

import copy
import json
import shutil

import libraries
import pytest
import safetensors.torch
import timm
import torch
import torchvision
import towers
from mmpretrain.models.classifiers import HuggingFaceClassifier, TimmClassifier
from mmpretrain.registry import MODELS
from networks import build, images, method, resnet
from torch import nn

from mmcls_kd.distiller import load_network
from mmcls_kd.files.checkpoint import read_checkpoint
from mmcls_kd.networks import TorchvisionClassifier
from mmcls_kd.networks.loading import fetch, load_strictly
from mmcls_kd.networks.sources import network_cfg

NKD = method('NKDLoss')


def classifier(cfg, seed=1):
    """A classifier with other random weights than those it shall load."""
    torch.manual_seed(seed)
    return MODELS.build(network_cfg(cfg)).eval()


def same_scores(first, second):
    with torch.no_grad():
        torch.testing.assert_close(first(images()), second(images()), rtol=0, atol=0)


class LogitsOf(torch.nn.Module):
    """A Hugging Face network as a function of images."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, inputs):
        return self.network(inputs).logits


@pytest.fixture(scope='module')
def vit(tmp_path_factory):
    """A folder of Hugging Face's, and the network in it."""
    folder = tmp_path_factory.mktemp('hf') / 'vit'
    return folder, LogitsOf(libraries.hugging_face(folder))


def timm_network():
    torch.manual_seed(0)
    return timm.create_model('test_resnet', num_classes=10).eval()


def torchvision_network():
    torch.manual_seed(0)
    return torchvision.models.shufflenet_v2_x0_5(num_classes=10).eval()


def plain_network():
    torch.manual_seed(0)
    return libraries.Plain().eval()


ALONE = {
    'timm': (libraries.timm_resnet(), timm_network),
    'torchvision': (libraries.torchvision_cnn(), torchvision_network),
    'plain': (dict(type='libraries.Plain'), plain_network),
}
each = pytest.mark.parametrize('library', ALONE)


class TestFiles:
    @each
    @pytest.mark.parametrize('ending', ['pth', 'safetensors'])
    def test_saved_by_the_library_loaded_by_the_classifier(self, library, ending, tmp_path):
        cfg, make = ALONE[library]
        alone, path = make(), tmp_path / f'a.{ending}'
        save = torch.save if ending == 'pth' else safetensors.torch.save_file
        save(alone.state_dict(), path)
        network = classifier(cfg)
        load_strictly(network, str(path), 'teacher')
        same_scores(network, alone)

    @each
    def test_saved_by_the_classifier_loaded_by_it(self, library, tmp_path):
        cfg, _ = ALONE[library]
        first, second = classifier(cfg, 1), classifier(cfg, 2)
        torch.save(dict(state_dict=first.state_dict(), meta=dict(epoch=1)), tmp_path / 'a.pth')
        assert load_strictly(second, str(tmp_path / 'a.pth'), 'teacher') == dict(epoch=1)
        same_scores(first, second)

    def test_saved_by_the_classifier_loaded_by_timm(self, tmp_path):
        first = classifier(libraries.timm_resnet())
        torch.save(first.state_dict(), tmp_path / 'a.pth')
        alone = timm_network()
        alone.load_state_dict(torch.load(tmp_path / 'a.pth'), strict=True)
        same_scores(first, alone)

    @each
    @pytest.mark.parametrize('change', ['missing', 'unexpected', 'other shapes', 'NaN'])
    def test_what_does_not_fit_is_named(self, library, change, tmp_path):
        cfg, make = ALONE[library]
        weights = make().state_dict()
        last = list(weights)[-1]
        if change == 'missing':
            weights.pop(last)
        elif change == 'unexpected':
            weights[last := 'extra.weight'] = torch.zeros(1)
        else:
            weights[last] = torch.zeros(3) if change == 'other shapes' else weights[last] * float('nan')
        torch.save(weights, tmp_path / 'a.pth')
        with pytest.raises(ValueError, match=rf'teacher weights .*a\.pth .*{change}.*{last}'):
            load_strictly(classifier(cfg), str(tmp_path / 'a.pth'), 'teacher')

    def test_another_networks_weights(self, tmp_path):
        torch.save(plain_network().state_dict(), tmp_path / 'a.pth')
        for cfg in (libraries.timm_resnet(), libraries.torchvision_cnn(), resnet(4)):
            with pytest.raises(ValueError, match=r'do not fit this \w+; missing: .*; unexpected: .*stem'):
                load_strictly(classifier(cfg), str(tmp_path / 'a.pth'), 'teacher')

    def test_torchvisions_auxiliary_classifiers_are_left_out(self, tmp_path):
        torch.manual_seed(0)
        alone = torchvision.models.googlenet(num_classes=10, init_weights=False).eval()
        weights = alone.state_dict()
        assert [name for name in weights if name.startswith('aux1.')]
        torch.save(weights, tmp_path / 'a.pth')
        network = classifier(dict(type='TorchvisionClassifier', model_name='googlenet', num_classes=10))
        load_strictly(network, str(tmp_path / 'a.pth'), 'teacher')
        same_scores(network, alone)
        torch.save({**weights, 'aux3.conv.weight': torch.zeros(1)}, tmp_path / 'a.pth')
        with pytest.raises(ValueError, match=r'unexpected: .*aux3'):
            load_strictly(network, str(tmp_path / 'a.pth'), 'teacher')

    def test_a_damaged_file_of_safetensors(self, tmp_path):
        path = tmp_path / 'a.safetensors'
        safetensors.torch.save_file(plain_network().state_dict(), path)
        for content in (path.read_bytes()[:-100], b'', b'no safetensors at all'):
            path.write_bytes(content)
            with pytest.raises(ValueError, match=r'a\.safetensors is truncated, or no file of safetensors'):
                read_checkpoint(path)


class TestHuggingFaceFolders:
    def copied(self, vit, tmp_path, **save):
        folder = tmp_path / 'copy'
        return folder, LogitsOf(libraries.hugging_face(folder, **save))

    def loaded(self, folder):
        network = classifier(f'hf:{folder}')
        load_strictly(network, str(folder), 'teacher')
        return network

    def test_one_file(self, vit):
        folder, alone = vit
        assert fetch(str(folder), 'teacher').name == 'model.safetensors'
        same_scores(self.loaded(folder), alone)

    def test_several_files(self, vit, tmp_path):
        folder, alone = self.copied(vit, tmp_path, max_shard_size='10KB')
        assert fetch(str(folder), 'teacher').name == 'model.safetensors.index.json'
        assert len(list(folder.glob('*.safetensors'))) > 1
        same_scores(self.loaded(folder), alone)
        lost = sorted(folder.glob('*.safetensors'))[0]
        lost.unlink()
        with pytest.raises(FileNotFoundError, match=rf'{lost.name}: no such file'):
            self.loaded(folder)

    def test_pytorchs_format(self, vit, tmp_path):
        folder, alone = self.copied(vit, tmp_path)
        torch.save(safetensors.torch.load_file(folder / 'model.safetensors'), folder / 'pytorch_model.bin')
        (folder / 'model.safetensors').unlink()
        assert fetch(str(folder), 'teacher').name == 'pytorch_model.bin'
        same_scores(self.loaded(folder), alone)

    def test_pytorchs_format_in_several_files(self, vit, tmp_path):
        folder, alone = self.copied(vit, tmp_path)
        weights = list(safetensors.torch.load_file(folder / 'model.safetensors').items())
        (folder / 'model.safetensors').unlink()
        parts = {'pytorch_model-1.bin': dict(weights[::2]), 'pytorch_model-2.bin': dict(weights[1::2])}
        for name, part in parts.items():
            torch.save(part, folder / name)
        index = dict(weight_map={key: name for name, part in parts.items() for key in part})
        (folder / 'pytorch_model.bin.index.json').write_text(json.dumps(index))
        same_scores(self.loaded(folder), alone)

    @pytest.mark.parametrize('content', ['', '{}', '[]', '{"weight_map": 3}', '{"weight_map": {"a":'])
    def test_a_damaged_index(self, vit, tmp_path, content):
        (tmp_path / 'model.safetensors.index.json').write_text(content)
        with pytest.raises(ValueError, match=r'index\.json is no index of weights in several files'):
            read_checkpoint(fetch(str(tmp_path), 'teacher'))

    def test_a_folder_without_weights(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r'teacher weights .*the folder has none of model\.safetensors, pytorch'):
            fetch(str(tmp_path), 'teacher')

    def test_saved_by_the_classifier(self, vit, tmp_path):
        first, second = self.loaded(vit[0]), classifier(f'hf:{vit[0]}', 2)
        torch.save(dict(state_dict=first.state_dict()), tmp_path / 'a.pth')
        load_strictly(second, str(tmp_path / 'a.pth'), 'teacher')
        same_scores(second, vit[1])

    def test_in_half_precision(self, vit, tmp_path):
        folder = shutil.copytree(vit[0], tmp_path / 'half')
        weights = safetensors.torch.load_file(folder / 'model.safetensors')
        safetensors.torch.save_file({k: v.half() for k, v in weights.items()}, folder / 'model.safetensors')
        network = self.loaded(folder)
        assert {p.dtype for p in network.parameters()} == {torch.float32}
        torch.testing.assert_close(network(images()), vit[1](images()), rtol=0.01, atol=0.01)

    @pytest.mark.parametrize('origin', ['folder', 'classifier'])
    @pytest.mark.parametrize('change', ['missing', 'unexpected', 'other shapes'])
    def test_what_does_not_fit_is_named(self, vit, tmp_path, origin, change):
        network = self.loaded(vit[0])
        file = vit[0] / 'model.safetensors'
        weights = dict(safetensors.torch.load_file(file) if origin == 'folder' else network.state_dict())
        name = 'classifier.bias'
        if change == 'missing':
            del weights[name]
        elif change == 'unexpected':
            weights[name := 'extra.weight'] = torch.zeros(1)
        else:
            weights[name] = torch.zeros(3)
        torch.save(weights, tmp_path / 'a.pth')
        with pytest.raises(ValueError, match=rf'do not fit this ViTForImageClassification; {change}: .*{name}') as error:
            load_strictly(network, str(tmp_path / 'a.pth'), 'teacher')
        assert str(error.value).count(': ') == (1 if change != 'other shapes' else 2)  # nothing else is said not to fit

    def test_random_numbers_go_on_as_before(self, vit):
        network = classifier(f'hf:{vit[0]}')
        state = torch.get_rng_state()
        load_strictly(network, str(vit[0]), 'teacher')
        assert torch.equal(torch.get_rng_state(), state)


def of_half(network, folder, dtype):
    """Save a network in half precision, as transformers does: its config says so, too."""
    folder.mkdir()
    network.to(dtype).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
class TestFilesOfHalfPrecision:
    """transformers 5 makes a network in the precision of its file or config; a training would fail or lose its updates."""

    @pytest.mark.parametrize('pretrained', [True, False])
    def test_classifiers_compute_in_float32(self, dtype, pretrained, tmp_path):
        network = libraries.hugging_face(tmp_path / 'whole')
        folder = of_half(network, tmp_path / 'half', dtype)
        made = MODELS.build(dict(type='HuggingFaceClassifier', model_name=folder, pretrained=pretrained)).eval()
        assert made(images()).dtype == torch.float32
        assert load_network(f'hf:{folder}')(images()).logits.dtype == torch.float32
        if pretrained:
            same_scores(made, LogitsOf(network.float()))

    @pytest.mark.parametrize('pretrained', [True, False])
    def test_towers_compute_in_float32(self, dtype, pretrained, tmp_path):
        network = towers.made('dinov2')
        folder = of_half(network, tmp_path / 'half', dtype)
        made = MODELS.build(dict(type='HuggingFaceTower', model_name=folder, pretrained=pretrained)).eval()
        assert made(images()).dtype == load_network(f'hf:{folder}')(images()).dtype == torch.float32
        if pretrained:
            torch.testing.assert_close(made(images()), network.float()(images()).pooler_output, rtol=0, atol=0)

    def test_weights_of_a_file_are_not_rounded(self, dtype, tmp_path):
        """Those of a training, in the place of those that the network was made with; by names that need converting, too."""
        network = libraries.hugging_face(tmp_path / 'whole')
        made = MODELS.build(network_cfg(f'hf:{of_half(copy.deepcopy(network), tmp_path / "half", dtype)}')).eval()
        load_strictly(made, str(tmp_path / 'whole'), 'student')
        same_scores(made, LogitsOf(network))


@pytest.mark.parametrize('pretrained', [True, False])
@pytest.mark.parametrize('kind', ['MobileNetV1', 'MobileNetV2', 'EfficientNet'])
def test_batch_norms_go_by_more_than_the_last_batch(kind, pretrained, tmp_path):
    """transformers gives them TensorFlow's momentum, which is torch's the other way round."""
    import transformers

    sizes = dict(num_labels=libraries.CLASSES, image_size=32, depth_multiplier=0.25)
    sizes = dict(num_labels=libraries.CLASSES, width_coefficient=0.1) if kind == 'EfficientNet' else sizes
    config = getattr(transformers, f'{kind}Config')(**sizes)
    getattr(transformers, f'{kind}ForImageClassification')(config).save_pretrained(tmp_path)
    made = MODELS.build(dict(type='HuggingFaceClassifier', model_name=str(tmp_path), pretrained=pretrained))
    for network in (made, load_network(f'hf:{tmp_path}')):
        assert {part.momentum for part in network.modules() if isinstance(part, nn.BatchNorm2d)} == {0.1}


class TestLibrarysOwn:
    """``teacher_pretrained=True``, without a network."""

    def test_hugging_face(self, vit):
        folder, alone = vit
        distiller = build(NKD, teacher=f'hf:{folder}', teacher_pretrained=True)
        assert type(distiller.teacher) is HuggingFaceClassifier
        same_scores(distiller.teacher, alone)

    def test_hugging_face_without_a_head_is_refused(self, vit, tmp_path):
        folder = shutil.copytree(vit[0], tmp_path / 'headless')
        weights = safetensors.torch.load_file(folder / 'model.safetensors')
        kept = {k: v for k, v in weights.items() if not k.startswith('classifier')}
        safetensors.torch.save_file(kept, folder / 'model.safetensors', metadata=dict(format='pt'))
        with pytest.raises(ValueError, match=r'pretrained weights do not cover the teacher: classifier\.bias'):
            build(NKD, teacher=f'hf:{folder}', teacher_pretrained=True)
        build(NKD, student=f'hf:{folder}', student_pretrained=True)  # a student may begin with a new classifier

    @pytest.fixture
    def timm_file(self, tmp_path, monkeypatch):
        """Lets timm find its weights for ``test_resnet`` on this disk."""
        torch.manual_seed(0)
        network = timm.create_model('test_resnet').eval()
        path = tmp_path / 'test_resnet.pth'
        torch.save(network.state_dict(), path)
        create = timm.models.create_model

        def with_file(model_name, pretrained=False, **keywords):
            overlay = dict(pretrained_cfg_overlay=dict(file=str(path))) if pretrained else {}
            return create(model_name, pretrained, **overlay, **keywords)

        monkeypatch.setattr('timm.models.create_model', with_file)
        return network

    def test_timm(self, timm_file):
        distiller = build(NKD, teacher='timm:test_resnet', teacher_pretrained=True, student=resnet(4, 1000))
        assert type(distiller.teacher) is TimmClassifier
        same_scores(distiller.teacher, timm_file)

    def test_timm_with_other_classes_is_refused(self, timm_file, tmp_path):
        cfg = libraries.timm_resnet()
        with pytest.raises(
            ValueError, match=r'the classifier of 10 classes, where the weights have 1000 would stay randomly'
        ):
            build(NKD, teacher=cfg, teacher_pretrained=True)
        with pytest.raises(ValueError, match='would stay randomly initialised'):
            build(NKD, teacher={**cfg, 'pretrained': True}, teacher_pretrained=None)
        student = build(NKD, student=cfg, student_pretrained=True).student
        same_stem = dict(student.model.named_parameters())['conv1.0.weight']
        torch.testing.assert_close(same_stem, dict(timm_file.named_parameters())['conv1.0.weight'])
        torch.save(timm_network().state_dict(), tmp_path / 'a.pth')
        own = build(NKD, teacher={**cfg, 'pretrained': True}, teacher_pretrained=str(tmp_path / 'a.pth')).teacher
        same_scores(own, timm_network())

    def test_torchvision(self, monkeypatch):
        torch.manual_seed(0)
        alone = torchvision.models.shufflenet_v2_x0_5().eval()
        monkeypatch.setattr(
            'torchvision.models._api.load_state_dict_from_url', lambda url, *args, **keywords: alone.state_dict()
        )
        distiller = build(NKD, teacher='torchvision:shufflenet_v2_x0_5', teacher_pretrained=True, student=resnet(4, 1000))
        assert type(distiller.teacher) is TorchvisionClassifier
        same_scores(distiller.teacher, alone)

    @pytest.mark.parametrize('weights', ['IMAGENET1K_V1', 'ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1', 'DEFAULT'])
    def test_torchvision_by_each_name(self, weights, monkeypatch):
        seen = []

        def load(url, *args, **keywords):
            seen.append(url)
            return torchvision.models.shufflenet_v2_x0_5().state_dict()

        monkeypatch.setattr('torchvision.models._api.load_state_dict_from_url', load)
        network = classifier(dict(type='TorchvisionClassifier', model_name='shufflenet_v2_x0_5', weights=weights))
        assert network.weights is torchvision.models.ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1
        assert seen == [network.weights.url]

    def test_the_zoo(self, monkeypatch, tmp_path):
        cfg = network_cfg('mobilenet-v2_8xb32_in1k')
        first = classifier(cfg)
        torch.save(dict(state_dict=first.state_dict()), tmp_path / 'mobilenet.pth')
        seen = []

        def found(source, role):
            seen.append(source)
            return tmp_path / 'mobilenet.pth'

        monkeypatch.setattr('mmcls_kd.networks.loading.fetch', found)
        distiller = build(NKD, teacher='mobilenet-v2_8xb32_in1k', teacher_pretrained=True, student=resnet(4, 1000))
        assert seen[0].startswith('https://')
        assert 'mobilenet_v2' in seen[0]
        same_scores(distiller.teacher, first)


class TestStudent:
    def test_it_starts_from_a_folder(self, vit):
        folder, alone = vit
        same_scores(build(NKD, student=f'hf:{folder}', student_pretrained=str(folder)).student.eval(), alone)

    @pytest.mark.parametrize('student', ['file', 'library', 'keyword', 'by itself'])
    def test_the_runner_does_not_initialise_it_again(self, student, vit, tmp_path):
        folder, _ = vit
        cfg, pretrained = libraries.timm_vit(), None
        if student == 'library':
            cfg, pretrained = f'hf:{folder}', True
        elif student == 'by itself':
            cfg = dict(type='libraries.SelfMade')
        else:
            torch.manual_seed(0)
            torch.save(timm.create_model(cfg['model_name'], **_sizes(cfg)).state_dict(), tmp_path / 'a.pth')
            if student == 'file':
                pretrained = str(tmp_path / 'a.pth')
            else:
                cfg['checkpoint_path'] = str(tmp_path / 'a.pth')
        distiller = build(NKD, student=cfg, student_pretrained=pretrained)
        before = {name: value.clone() for name, value in distiller.student.state_dict().items()}
        distiller.init_weights()
        assert all(torch.equal(value, before[name]) for name, value in distiller.student.state_dict().items())

    def test_without_weights_it_does(self):
        distiller = build(NKD, student=libraries.timm_vit())
        before = distiller.student.model.cls_token.clone()
        distiller.init_weights()
        assert not torch.equal(distiller.student.model.cls_token, before)


def _sizes(cfg):
    return {key: value for key, value in cfg.items() if key not in ('type', 'model_name')}
