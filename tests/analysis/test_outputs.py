"""Which images are used, and what is kept of a network's outputs."""

import pytest
import torch
from mmpretrain.registry import MODELS
from networks import batch, build, method, resnet
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from mmcls_kd.analysis.outputs import ClassifierReader, TeacherReader, collect, spread
from mmcls_kd.distillers.labels import without_label


def loader(count, batch_size=4):
    return DataLoader(TensorDataset(torch.arange(count)), batch_size=batch_size)


def images_of(batches):
    return torch.cat([numbers for (numbers,) in batches]).tolist()


def test_images_are_spread_evenly_as_data_may_be_sorted_by_class():
    assert images_of(spread(loader(100), 5)) == [0, 25, 50, 74, 99]
    assert images_of(spread(loader(10), None)) == list(range(10))
    assert images_of(spread(loader(10), 99)) == list(range(10))
    assert [len(numbers) for (numbers,) in spread(loader(10), None)] == [4, 4, 2]


class Batches(list):
    """Stands in for a dataloader of eight images."""

    dataset = range(8)


def batches():
    return Batches(batch(4) for _ in range(2))


def test_what_a_distiller_s_networks_give():
    model = build(method('KDLoss'), teacher_mode='train')
    readers = dict(teacher=TeacherReader(model), student=ClassifierReader(model))
    statistics = model.teacher.backbone.bn1.running_mean.clone()
    found = collect(readers, batches(), model.data_preprocessor, lambda _: None)
    inputs = model.data_preprocessor(batch(4), False)['inputs']
    with torch.no_grad():
        expected = model.teacher.eval()(inputs)
        student = model.student.eval()
        logit, vector = student(inputs), student.extract_feat(inputs)[-1]
    torch.testing.assert_close(found['teacher'].logit[:4], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found['student'].logit[4:], logit)
    torch.testing.assert_close(found['student'].vector[4:], vector)
    assert found['teacher'].vector.shape == (8, 64)
    assert found['student'].label.tolist() == [0, 1, 2, 3] * 2
    assert torch.equal(model.teacher.backbone.bn1.running_mean, statistics)


def test_an_image_without_a_label_has_none():
    model = build(method('KDLoss'))
    given = batch(4)
    without_label(given['data_samples'][1])
    found = collect(dict(student=ClassifierReader(model)), Batches([given]), model.data_preprocessor, lambda _: None)
    assert found['student'].label.tolist() == [0, -1, 2, 3]


def test_simkd_predicts_with_the_teacher_s_head():
    model = build(method('SimKD', 'loss_simkd')).eval()
    found = collect(dict(student=ClassifierReader(model)), batches(), model.data_preprocessor, lambda _: None)
    with torch.no_grad():
        expected = model(model.data_preprocessor(batch(4), False)['inputs'], mode='tensor')
    torch.testing.assert_close(found['student'].logit[:4], expected)


def test_logits_that_are_not_finite_are_refused():
    network = MODELS.build(resnet(4))
    reader = ClassifierReader(network)
    nn.init.constant_(network.head.fc.bias, torch.nan)
    with pytest.raises(ValueError, match='alone: gives logits that are NaN'):
        collect(dict(alone=reader), batches(), network.data_preprocessor, lambda _: None)
