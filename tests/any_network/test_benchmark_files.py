"""Files of weights as the CIFAR benchmark's toolboxes write them: each loads as a teacher, as it is."""

import argparse

import pytest
import torch
from mmpretrain.registry import MODELS
from torch.nn import functional as F

from mmcls_kd.analysis.preflight import stated_in
from mmcls_kd.backbones.cifar_benchmark import build

NAME = 'wrn_16_1'


@pytest.fixture(scope='module')
def trained():
    """A network with statistics of its own, images, and labels of which it predicts three quarters."""
    torch.manual_seed(0)
    network, images = build(NAME, 10), torch.randn(32, 3, 32, 32)
    network(images)
    with torch.no_grad():
        label = network.eval()(images).argmax(1)
    label[::4] = (label[::4] + 1) % 10
    return network, images, label


def optimizer_of(network):
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    F.cross_entropy(network(torch.zeros(2, 3, 32, 32)), torch.tensor([0, 1])).backward()
    optimizer.step()
    return optimizer.state_dict()


def old(weights):
    """Weights of torch 0.4, without counters."""
    return {key: value for key, value in weights.items() if not key.endswith('num_batches_tracked')}


def in_distiller(weights, other):
    """Names in a DataParallel distiller: student, teacher, modules of the method."""
    inside = {f'student.{k}': v for k, v in weights.items()} | {f'teacher.{k}': v for k, v in other.items()}
    return {f'module.{k}': v for k, v in inside.items()} | {'module.conv_reg.conv.weight': torch.zeros(3, 3)}


#: The layouts, by the name of the file; each makes the content from weights, optimizer state and another network's weights.
LAYOUTS = {
    'ckpt_epoch_240.pth': lambda w, o, _: dict(epoch=240, model=w, accuracy=torch.tensor(75.0), optimizer=o),
    'wrn_16_1_best.pth': lambda w, o, _: dict(epoch=231, model=w, best_acc=torch.tensor(75.0), optimizer=o),
    'wrn_16_1_last.pth': lambda w, o, _: dict(opt=argparse.Namespace(model=NAME, lr=0.05), model=w, optimizer=o),
    'ckpt_epoch_40.pth': lambda w, _o, _: dict(epoch=40, model=w, accuracy=75.0),
    'old.pth': lambda w, o, _: dict(epoch=240, model=old(w), accuracy=torch.tensor(75.0), optimizer=o),
    'student_best': lambda w, _o, _: dict(model=w),
    'student_latest': lambda w, _o, _: dict(model=old(w)),
    'latest': lambda w, o, t: dict(epoch=240, model=in_distiller(w, t), optimizer=o, best_acc=75.0),
}


@pytest.mark.parametrize(('layout', 'trust'), [*((layout, False) for layout in LAYOUTS), ('wrn_16_1_last.pth', True)])
def test_teacher_has_the_accuracy_that_it_had(layout, trust, trained, tmp_path, monkeypatch):
    network, images, label = trained
    monkeypatch.setattr('mmcls_kd.files.plain_data.trusted', trust)
    other = build('resnet8', 10)
    file = tmp_path / layout
    torch.save(LAYOUTS[layout](network.state_dict(), optimizer_of(other), other.state_dict()), file)
    distiller = MODELS.build(
        dict(
            type='ClassificationDistiller',
            student_cfg=dict(type='CifarClassifier', model_name='resnet8', num_classes=10),
            teacher_cfg=dict(type='CifarClassifier', model_name=NAME, num_classes=10),
            teacher_pretrained=str(file),
            distill_cfg=[dict(methods=[dict(type='KDLoss', name='loss_kd', use_this=True)])],
        )
    )
    read = distiller.teacher_holder(images, None, ['logit'])['logit']
    torch.testing.assert_close(read, network(images).detach(), rtol=1e-4, atol=1e-4)
    assert (read.argmax(1) == label).double().mean() == 0.75
    assert stated_in(str(file)) == (None if layout.startswith(('student', 'wrn_16_1_last')) else 0.75)


def test_weights_of_another_network_are_refused(trained, tmp_path):
    torch.save(dict(model=build('wrn_16_2', 10).state_dict(), accuracy=torch.tensor(75.0)), tmp_path / 'ckpt.pth')
    with pytest.raises(ValueError, match='do not fit'):
        MODELS.build(
            dict(
                type='ClassificationDistiller',
                student_cfg='cifar:resnet8',
                teacher_cfg=f'cifar:{NAME}',
                teacher_pretrained=str(tmp_path / 'ckpt.pth'),
                distill_cfg=[dict(methods=[dict(type='KDLoss', name='loss_kd', use_this=True)])],
            )
        )


@pytest.mark.parametrize('content', [{}, dict(accuracy='high'), dict(accuracy=torch.zeros(2)), dict(best_acc=True)])
def test_no_accuracy(content, tmp_path):
    torch.save(dict(model=build('resnet8').state_dict(), **content), tmp_path / 'ckpt.pth')
    assert stated_in(str(tmp_path / 'ckpt.pth')) is None
    assert stated_in(None) is stated_in(True) is stated_in(['a', 'b']) is None
