"""A student out of the toolbox in mmpretrain's inferencers and in onnxruntime: the predictions of tools/test.py."""

import mmcv
import mmengine
import numpy as np
import pytest
import torch
from commands import DISTILLER, STUDENT, data_options, run
from kit import assert_close
from mmpretrain import FeatureExtractor, ImageClassificationInferencer
from mmpretrain.datasets import FashionMNIST
from onnx_files import about_onnx, onnx_session, run_onnx
from PIL import Image

from mmcls_kd.files.paths import TOOLBOX

COUNT = 20
pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def predicted(exported, trained, tmp_path_factory):
    """The scores (COUNT, 10) that tools/test.py gives to the first test images."""
    out = tmp_path_factory.mktemp('predicted') / 'pred.pkl'
    run('tools/test.py', STUDENT, exported.path, '--out', out, '--cfg-options', *data_options(trained.data))
    return torch.stack([sample['pred_score'] for sample in mmengine.load(out)[:COUNT]]).cpu()


@pytest.fixture(scope='module')
def images(trained):
    """The first test images, grey arrays (28, 28)."""
    dataset = FashionMNIST(data_root=str(trained.data), split='test', test_mode=True)
    return [dataset.get_data_info(i)['img'] for i in range(COUNT)]


def test_inferencer(exported, predicted, images):
    inferencer = ImageClassificationInferencer(str(TOOLBOX / STUDENT), str(exported.path), device='cpu')
    results = inferencer(images, batch_size=8)
    assert_close(torch.from_numpy(np.stack([result['pred_scores'] for result in results])), predicted)
    assert [result['pred_label'] for result in results] == predicted.argmax(1).tolist()
    assert [result['pred_class'] for result in results] == [FashionMNIST.METAINFO['classes'][i] for i in predicted.argmax(1)]


def test_a_grey_file_is_read_before(exported, predicted, images, tmp_path):
    Image.fromarray(images[3]).save(tmp_path / 'image.png')
    inferencer = ImageClassificationInferencer(str(TOOLBOX / STUDENT), str(exported.path), device='cpu')
    result = inferencer(mmcv.imread(tmp_path / 'image.png', flag='grayscale'))[0]
    assert_close(torch.from_numpy(result['pred_scores']), predicted[3])
    with pytest.raises(RuntimeError, match='to have 1 channels, but got 3'):  # a path is read in colour
        inferencer(str(tmp_path / 'image.png'))


def test_feature_extractor(exported, predicted, images):
    extractor = FeatureExtractor(str(TOOLBOX / STUDENT), str(exported.path), device='cpu')
    pooled = torch.stack([features[-1] for features in extractor(images, batch_size=8)])
    maps = torch.stack([features[-1] for features in extractor(images, batch_size=8, stage='backbone')])
    assert maps.shape == (COUNT, 32, 4, 4)
    assert_close(pooled, maps.mean((2, 3)))
    assert_close(extractor.model.head((pooled,)).softmax(1).detach(), predicted)


@pytest.mark.slow
@pytest.mark.own_process
def test_onnx(exported, predicted, images, tmp_path):
    run('tools/export_student.py', STUDENT, exported.path, '--output', tmp_path / 'student.onnx')
    session = onnx_session(tmp_path / 'student.onnx')
    about = about_onnx(session)
    assert (about['input_shape'], about['input_order'], about['mean']) == ([1, 28, 28], 'grey', [pytest.approx(72.94)])
    assert about['classes'] == list(FashionMNIST.METAINFO['classes'])
    logits = run_onnx(session, torch.from_numpy(np.stack(images)[:, None]).float())
    assert_close(logits.softmax(1), predicted)


@pytest.mark.filterwarnings('ignore:`torch.jit:FutureWarning')
def test_the_distiller_config_exports_the_same(exported, trained, predicted, images, tmp_path):
    run(
        'tools/export_student.py', DISTILLER, trained.checkpoint, '--format', 'torchscript', '--output', tmp_path / 'student'
    )
    logits = torch.jit.load(str(tmp_path / 'student.pt'))(torch.from_numpy(np.stack(images)[:, None]).float())
    assert_close(logits.softmax(1).detach(), predicted)
