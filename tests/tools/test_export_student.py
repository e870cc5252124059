"""Exported networks: raw images in, the logits of testing out; a file that would be wrong is not written."""

import copy
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from commands import run
from kit import assert_close
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain import ImageClassificationInferencer
from mmpretrain.models import BaseClassifier
from mmpretrain.registry import MODELS
from networks import resnet, vit
from onnx_files import about_onnx, onnx_session, run_onnx
from PIL import Image

import mmcls_kd.export.exporting as exporting
from mmcls_kd.export import FORMATS, Deployable, check_libraries, image_format, targets

pytestmark = pytest.mark.filterwarnings(
    'ignore:`torch.jit:FutureWarning',  # torch's word on TorchScript
    'ignore:Fail to import',
)

PREPROCESSOR = dict(type='ClsDataPreprocessor', mean=[120.0, 110.0, 100.0], std=[60.0, 61.0, 62.0], to_rgb=True)
READ = dict(type='LoadImageFromFile')
PACK = dict(type='PackInputs')
PIPELINE = [
    READ,
    dict(type='ResizeEdge', scale=36, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=32),
    dict(type='PackInputs'),
]


def classifier(backbone, channels):
    head = dict(type='LinearClsHead', num_classes=10, in_channels=channels, loss=dict(type='CrossEntropyLoss'))
    return dict(type='ImageClassifier', backbone=backbone, neck=dict(type='GlobalAveragePooling'), head=head)


SWIN = dict(
    type='SwinTransformer',
    arch=dict(embed_dims=8, depths=[1, 2], num_heads=[1, 2]),
    img_size=32,
    window_size=2,
    out_indices=(1,),
)
NETWORKS = dict(
    resnet=resnet(),
    vit=vit(),
    deit=vit(kind='DistilledVisionTransformer') | dict(head=dict(type='DeiTClsHead', num_classes=10, in_channels=16)),
    mobilenet=classifier(dict(type='MobileNetV2', widen_factor=0.25), 1280),
    timm=dict(type='TimmClassifier', model_name='resnet10t', num_classes=10),
    swin=classifier(SWIN, 16),
)


@MODELS.register_module()
class CountingClassifier(BaseClassifier):
    """Colours times the number of images: a trace takes that number for constant."""

    def __init__(self, data_preprocessor=None):
        super().__init__(data_preprocessor=data_preprocessor)
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return inputs.mean((2, 3)) * self.weight * int(inputs.shape[0])

    extract_feat = loss = predict = None


@torch.no_grad()
def liven(network, images):
    """Give a random network batch statistics that fit, and logits that differ between images by about one."""
    parameters = list(network.parameters())
    for parameter in parameters:
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, parameter.mean().item(), 0.1)
        elif parameter.ndim == 4:
            torch.nn.init.kaiming_normal_(parameter)
    for module in network.eval().modules():
        module.training = isinstance(module, torch.nn.BatchNorm2d)
    for _ in range(20):
        network(images, mode='tensor')
    logits = network.eval()(images, mode='tensor')
    if len(parameters) > 1:
        head, bias = parameters[-2:]
        bias -= logits.mean(dim=0)
        for parameter in (head, bias):
            parameter /= logits.std(dim=0).mean()


def write(folder, model, pipeline=PIPELINE, dataset='CustomDataset', preprocessor=PREPROCESSOR):
    """A config for a network and its weights, random but not those that a network starts with."""
    loader = dict(
        batch_size=2, num_workers=0, dataset=dict(type=dataset, data_root='nowhere', test_mode=True, pipeline=pipeline)
    )
    cfg = Config(dict(model=model, data_preprocessor=preprocessor, test_dataloader=loader, default_scope='mmpretrain'))
    cfg.dump(folder / 'config.py')
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        network = MODELS.build(copy.deepcopy({**model, 'data_preprocessor': preprocessor}))
    liven(network, images=torch.randn(16, 3, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3))
    meta = dict(dataset_meta=dict(classes=list('abcdefghij')))
    torch.save(dict(state_dict=network.state_dict(), meta=meta), folder / 'w.pth')
    return SimpleNamespace(config=str(folder / 'config.py'), weights=str(folder / 'w.pth'), folder=folder)


def pictures(folder, count=8):
    """Image files of the size after resizing, and what a user who reads them by Pillow has: (N, 3, 32, 32), RGB."""
    random, paths = np.random.RandomState(0), []
    for i in range(count):
        image = np.kron(random.randint(0, 256, (4, 4, 3)), np.ones((8, 8, 1))).astype(np.uint8)
        paths.append(str(folder / f'{i}.png'))
        Image.fromarray(np.pad(image, ((2, 2), (2, 2), (0, 0)), mode='edge')).save(paths[-1])  # 36 × 36
    cropped = [np.asarray(Image.open(path).convert('RGB'))[2:-2, 2:-2] for path in paths]
    return paths, torch.from_numpy(np.stack(cropped).transpose(0, 3, 1, 2).astype(np.float32))


def scores(inferencer, paths):
    return torch.from_numpy(np.stack([result['pred_scores'] for result in inferencer(paths)]))


def about_torchscript(path):
    files = {'metadata.json': ''}
    torch.jit.load(str(path), _extra_files=files)
    return json.loads(files['metadata.json'])


def left_behind(folder):
    return sorted(path.name for path in folder.iterdir() if path.name not in ('config.py', 'w.pth'))


@pytest.mark.slow
@pytest.mark.own_process
@pytest.mark.parametrize('name', ['resnet', 'vit', 'deit', 'mobilenet', 'timm'])
def test_predictions_are_those_of_the_platform(name, tmp_path):
    at = write(tmp_path, NETWORKS[name])
    done = run('tools/export_student.py', at.config, at.weights, '--format', 'onnx', 'torchscript')
    assert done.stdout.count('takes any batch size') == 2
    paths, images = pictures(tmp_path)
    expected = scores(ImageClassificationInferencer(at.config, at.weights), paths)
    assert expected.std(dim=0).max() > 0.01  # the images do differ
    session, traced = onnx_session(tmp_path / 'w.onnx'), torch.jit.load(str(tmp_path / 'w.pt'))
    for part in (slice(0, 1), slice(1, 3), slice(3, 8)):
        assert_close(run_onnx(session, images[part]).softmax(1), expected[part])
        assert_close(traced(images[part]).detach().softmax(1), expected[part])
    about = about_onnx(session)
    assert about == about_torchscript(tmp_path / 'w.pt')
    assert about['classes'] == list('abcdefghij')
    assert about['input_shape'] == [3, 32, 32]
    assert about['input_order'] == about['mean_std_order'] == 'RGB'
    assert (about['mean'], about['std']) == (PREPROCESSOR['mean'], PREPROCESSOR['std'])
    assert about['batch_size'] is None
    assert about['test_pipeline'][1]['scale'] == 36


@pytest.mark.slow
@pytest.mark.own_process
def test_swin_is_pinned(tmp_path):
    at = write(tmp_path, NETWORKS['swin'])
    done = run('tools/export_student.py', at.config, at.weights, '--format', 'onnx', 'torchscript')
    assert done.stdout.count('takes batches of 1 alone') == done.stdout.count('the batch size is pinned') == 2
    paths, images = pictures(tmp_path)
    expected = scores(ImageClassificationInferencer(at.config, at.weights), paths)
    session, traced = onnx_session(tmp_path / 'w.onnx'), torch.jit.load(str(tmp_path / 'w.pt'))
    for i in range(len(paths)):
        assert_close(run_onnx(session, images[i : i + 1]).softmax(1), expected[i : i + 1])
        assert_close(traced(images[i : i + 1]).detach().softmax(1), expected[i : i + 1])
    assert about_onnx(session)['batch_size'] == about_torchscript(tmp_path / 'w.pt')['batch_size'] == 1
    assert 'differ' in about_onnx(session)['why_pinned']
    with pytest.raises(Exception, match='Got: 2 Expected: 1'):  # of onnxruntime's own kind
        run_onnx(session, images[:2])
    with pytest.raises(RuntimeError, match='expand'):
        traced(images[:2])


class TestWithoutClasses:
    MMPRETRAIN = dict(type='BackboneNetwork', backbone=resnet()['backbone'])
    TIMM = dict(type='TimmClassifier', model_name='test_resnet', num_classes=0)

    @pytest.mark.parametrize(('model', 'width'), [(MMPRETRAIN, 32), (TIMM, 96)], ids=['mmpretrain', 'timm'])
    def test_the_output_is_an_embedding(self, model, width, tmp_path, main):
        at = write(tmp_path, model)
        said = main(at.config, at.weights, '--format', 'torchscript')
        assert 'batch of 1 and 3: embedding differs by up to ' in said
        assert said.splitlines()[-1] == f'output: `embedding`, float32 (N, {width})'
        about = about_torchscript(tmp_path / 'w.pt')
        assert (about['output'], about['output_shape']) == ('embedding', [width])
        assert (about['num_classes'], about['classes']) == (0, None)

    @pytest.mark.slow
    @pytest.mark.own_process
    def test_its_name_in_an_onnx_file_and_in_8_bits(self, tmp_path):
        at, (_, images) = write(tmp_path, self.MMPRETRAIN), pictures(tmp_path)
        done = run('tools/export_student.py', at.config, at.weights, '--int8', '--calibrate', tmp_path)
        outputs = []
        for name in ('w.onnx', 'w.int8.onnx'):
            session = onnx_session(tmp_path / name)
            assert [output.name for output in session.get_outputs()] == ['embedding']
            outputs.append(torch.from_numpy(session.run(['embedding'], {'images': images.numpy()})[0]))
        alike = 100 * torch.nn.functional.cosine_similarity(*outputs).mean()
        row = next(line for line in done.stdout.splitlines() if line.startswith('int8')).split()
        assert (row[1], float(row[2])) == ('–', pytest.approx(float(alike), abs=0.01))


class TestBatchSize:
    def test_one_that_is_wrong_elsewhere_is_pinned(self, tmp_path, main):
        at = write(tmp_path, dict(type='CountingClassifier'))
        said = main(at.config, at.weights, '--format', 'torchscript')
        assert 'takes batches of 1 alone' in said
        assert 'with any size it would be wrong (torch.jit, batch of 1: logits differ by up to' in said
        traced = torch.jit.load(str(tmp_path / 'w.pt'))
        images = pictures(tmp_path)[1]
        mean, std = (torch.tensor(PREPROCESSOR[key]) for key in ('mean', 'std'))
        assert_close(traced(images[:1]).detach(), (images[:1].mean((2, 3)) - mean) / std)
        with pytest.raises(RuntimeError, match='expand'):
            traced(images[:2])

    def test_one_that_is_asked_for(self, tmp_path, main):
        at = write(tmp_path, dict(type='CountingClassifier'))
        said = main(at.config, at.weights, '--format', 'torchscript', '--batch-size', 3)
        assert 'takes batches of 3 alone' in said
        assert 'would be wrong' not in said
        assert about_torchscript(tmp_path / 'w.pt')['batch_size'] == 3
        images = pictures(tmp_path)[1]
        assert len(torch.jit.load(str(tmp_path / 'w.pt'))(images[:3])) == 3
        with pytest.raises(RuntimeError, match='expand'):
            torch.jit.load(str(tmp_path / 'w.pt'))(images[:2])


class TestImages:
    @pytest.mark.parametrize('to_rgb', [True, False])
    def test_are_rgb_whatever_the_network_takes(self, to_rgb, tmp_path, main):
        at = write(tmp_path, resnet(), preprocessor=PREPROCESSOR | dict(to_rgb=to_rgb))
        assert 'RGB' in main(at.config, at.weights, '--format', 'torchscript')
        assert about_torchscript(tmp_path / 'w.pt')['mean_std_order'] == ('RGB' if to_rgb else 'BGR')
        paths, images = pictures(tmp_path)
        logits = torch.jit.load(str(tmp_path / 'w.pt'))(images).detach()
        assert_close(logits.softmax(1), scores(ImageClassificationInferencer(at.config, at.weights), paths))

    @pytest.mark.parametrize('to_rgb', [True, False])
    def test_of_cifar_are_read_in_rgb(self, to_rgb, tmp_path, main):
        pack = [dict(type='PackInputs')]
        at = write(tmp_path, resnet(), pack, 'CIFAR100', PREPROCESSOR | dict(to_rgb=to_rgb))
        main(at.config, at.weights, '--format', 'torchscript')
        assert about_torchscript(tmp_path / 'w.pt')['mean_std_order'] == ('BGR' if to_rgb else 'RGB')
        images = pictures(tmp_path)[1]
        array = images.permute(0, 2, 3, 1).numpy().astype(np.uint8)  # as mmpretrain's CIFAR100 has them
        expected = scores(ImageClassificationInferencer(at.config, at.weights), list(array))
        assert_close(torch.jit.load(str(tmp_path / 'w.pt'))(images).detach().softmax(1), expected)

    def test_without_normalisation(self, tmp_path, main):
        at = write(tmp_path, dict(type='CountingClassifier'), preprocessor=dict(type='ClsDataPreprocessor', to_rgb=True))
        main(at.config, at.weights, '--format', 'torchscript', '--batch-size', 1)
        images = pictures(tmp_path)[1][:1]
        assert_close(torch.jit.load(str(tmp_path / 'w.pt'))(images).detach(), images.mean((2, 3)))

    def test_of_another_shape_are_refused(self, tmp_path, main):
        at = write(tmp_path, resnet())
        main(at.config, at.weights, '--format', 'torchscript')
        with pytest.raises(RuntimeError, match='expand'):
            torch.jit.load(str(tmp_path / 'w.pt'))(torch.zeros(2, 3, 64, 64))

    def test_any_size_has_to_be_chosen(self, tmp_path, main):
        at = write(tmp_path, resnet(), [READ, dict(type='PackInputs')])
        words = (at.config, at.weights, '--format', 'torchscript')
        assert '--size HEIGHT WIDTH' in main(*words)
        main(*words, '--size', 24, 40)
        assert about_torchscript(tmp_path / 'w.pt')['input_shape'] == [3, 24, 40]
        assert torch.jit.load(str(tmp_path / 'w.pt'))(torch.zeros(2, 3, 24, 40)).shape == (2, 10)

    def test_a_size_that_the_pipeline_does_not_give(self, tmp_path, main):
        at = write(tmp_path, resnet())
        assert '--size 64 64: the test pipeline of the config gives 32 32' in main(at.config, at.weights, '--size', 64)

    def test_that_the_pipeline_normalises_are_refused(self, tmp_path, main):
        normalise = dict(type='Normalize', mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], to_rgb=False)
        at = write(tmp_path, resnet(), [*PIPELINE[:-1], normalise, PIPELINE[-1]])
        message = main(at.config, at.weights)
        assert 'normalises by mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0)' in message
        assert 'leave normalisation to the data_preprocessor' in message

    def test_that_no_transform_gives_are_refused(self, tmp_path, main):
        at = write(tmp_path, resnet(), [READ, dict(type='ResizeEdge', scale=36, edge='shortest'), PACK])
        assert 'the test pipeline: a transform of the pipeline cannot be built' in main(at.config, at.weights)

    def test_of_padded_arrays(self):
        found = image_format(Config.fromfile('configs/fashion_mnist_32/resnet8.py'))
        assert (found.channels, found.height, found.width, found.order) == (3, 32, 32, 'RGB')

    def test_grey_files(self, tmp_path):
        cfg = Config.fromfile(write(tmp_path, resnet(), [READ | dict(color_type='grayscale'), *PIPELINE[1:]]).config)
        found = image_format(cfg)
        assert (found.channels, found.height, found.width, found.order) == (1, 32, 32, 'grey')


class TestRefusals:
    """One line, and no file but those that were there."""

    @pytest.fixture
    def at(self, tmp_path):
        made = write(tmp_path, resnet())
        (tmp_path / 'w.pt').write_bytes(b'of before')
        yield made
        assert (tmp_path / 'w.pt').read_bytes() == b'of before'
        assert left_behind(tmp_path) == ['w.pt']

    def test_wrong_logits(self, at, main, monkeypatch):
        forward = Deployable.forward
        monkeypatch.setattr(Deployable, 'forward', lambda self, images: forward(self, images) * 1.001)
        said = main(at.config, at.weights, '--format', 'torchscript')
        assert said.startswith(
            f'export_student.py: error: {at.folder / "w.pt"} is not written: torch.jit, batch of 1: logits'
        )
        assert len(said.splitlines()) == 1

    def test_logits_that_are_no_numbers(self, at, main, monkeypatch):
        monkeypatch.setattr(Deployable, 'forward', lambda self, images: self.classifier(images, mode='tensor') * torch.nan)
        assert 'logits differ by up to nan' in main(at.config, at.weights, '--format', 'torchscript')

    def test_wrong_channels(self, at, main, monkeypatch):
        forward = Deployable.forward
        monkeypatch.setattr(Deployable, 'forward', lambda self, images: forward(self, images.flip(1)))
        assert 'logits differ' in main(at.config, at.weights, '--format', 'torchscript')

    def test_a_file_that_does_not_open(self, at, main, monkeypatch):
        broken = FORMATS['torchscript']._replace(write=lambda *arguments: arguments[4].write_bytes(b'nothing'))
        monkeypatch.setitem(FORMATS, 'torchscript', broken)
        assert 'is not written: torch.jit: ' in main(at.config, at.weights, '--format', 'torchscript')

    def test_a_network_that_cannot_be_exported(self, at, main, monkeypatch):
        def forward(self, images):
            raise KeyError('no graph of this')

        monkeypatch.setattr(Deployable, 'forward', forward)
        assert 'is not written: export: KeyError' in main(at.config, at.weights, '--format', 'torchscript')

    def test_missing_checkpoint(self, at, main):
        said = main(at.config, at.folder / 'none.pth', '--format', 'torchscript')
        assert said.startswith('export_student.py: error: student weights ')
        assert 'none.pth: no such file' in said

    def test_weights_of_another_network(self, at, main):
        torch.save(dict(state_dict=MODELS.build(resnet(8)).state_dict()), at.folder / 'w.pth')
        assert 'do not fit this ResNet_CIFAR; other shapes' in main(at.config, at.weights, '--format', 'torchscript')

    def test_missing_config(self, at, main):
        assert main('nowhere.py', at.weights, '--format', 'torchscript').startswith(
            'export_student.py: error: config nowhere.py'
        )

    def test_no_test_data(self, at, main):
        (at.folder / 'config.py').write_text('model = dict(type="ImageClassifier")')
        assert 'has no `test_dataloader`' in main(at.config, at.weights, '--format', 'torchscript')

    @pytest.mark.parametrize('output', ['folder', 'file/inside'])
    def test_output_that_cannot_be_written(self, output, at, main, tmp_path_factory):
        place = tmp_path_factory.mktemp('place')
        (place / 'folder.pt').mkdir()
        (place / 'file').touch()
        said = main('nowhere.py', 'nowhere.pth', '--format', 'torchscript', '--output', place / output)
        assert f'{place / output}.pt cannot be written: ' in said
        assert 'config' not in said  # looked at before all else

    def test_the_checkpoint_as_output(self, at, main):
        said = main(at.config, at.folder / 'w.pt', '--format', 'torchscript')
        assert 'w.pt is the checkpoint itself; name another file by --output' in said

    @pytest.mark.parametrize('library', exporting.LIBRARIES)
    def test_a_library_that_is_missing(self, library, at, main, monkeypatch):
        monkeypatch.setitem(sys.modules, library, None)
        said = main('nowhere.py', 'nowhere.pth')
        assert said == f"export_student.py: error: export to ONNX needs {library}: pip install 'mmcls_kd[onnx]'"
        check_libraries(['torchscript'])  # which needs none of them

    def test_a_preprocessor_that_pads(self, at, main):
        words = ('--format', 'torchscript', '--cfg-options', 'data_preprocessor.pad_size_divisor=32')
        assert 'data preprocessor ClsDataPreprocessor cannot be exported' in main(at.config, at.weights, *words)


def test_where_the_files_go(tmp_path):
    def names(*arguments):
        return [str(path) for path in targets(*arguments).values()]

    assert names('runs/res18.v2.pth', ['onnx', 'torchscript'], None) == ['runs/res18.v2.onnx', 'runs/res18.v2.pt']
    assert names('runs/a.pth', ['onnx', 'torchscript'], 'b.onnx') == ['b.onnx', 'b.pt']
    assert names('https://somewhere/far/a-0123abcd.pth', ['onnx'], None) == ['a-0123abcd.onnx']
    assert names('runs/a.pth', ['onnx'], str(tmp_path)) == [str(tmp_path / 'a.onnx')]
    assert names('runs/a.pth', ['onnx'], f'{tmp_path}/new/') == [str(tmp_path / 'new' / 'a.onnx')]
    assert not list(tmp_path.iterdir())
