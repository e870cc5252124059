"""Distiller and ClassificationDistiller compute the same: losses and gradients of equal weights and batches, to the bit."""

import networks
import pytest
import torch
from mmpretrain.registry import MODELS
from small_networks import batch

from mmcls_kd import Distiller
from mmcls_kd.dis_losses import LOSSES

KEYWORDS = {'CRDLoss': dict(nce_k=3)}


def configs(kind, name):
    """Configs of a student and a teacher."""
    widths = (4, 4) if name == 'FSPLoss' else (4, 8) if kind == 'CNN' else (8, 16)
    return [dict(type=f'small_networks.{kind}', width=width) for width in widths]


def adapter(kind, name):
    """A distiller of mmpretrain's kind around small networks of plain PyTorch."""
    student, teacher = (dict(type='ModuleClassifier', model=model) for model in configs(kind, name))
    return MODELS.build(
        dict(
            type='ClassificationDistiller',
            student_cfg=student,
            teacher_cfg=teacher,
            teacher_pretrained=False,
            distill_cfg=[dict(methods=[dict(type=name, name=f'loss_{name}', **KEYWORDS.get(name, {}))])],
            num_samples=8,
            batch_size=8,
        )
    )


@pytest.mark.parametrize(
    ('kind', 'name'),
    [('CNN', name) for name in LOSSES if name not in ('ViTKDLoss', 'DeiTTokenLoss')]
    + [('ViT', n) for n in ('ViTKDLoss', 'MGDLoss', 'USKDLoss')],
)
def test_losses_and_gradients_are_the_same(kind, name):
    torch.manual_seed(0)
    theirs = adapter(kind, name)
    student, teacher = map(MODELS.build, configs(kind, name))
    student.load_state_dict(theirs.student.model.state_dict())
    if theirs.teacher:
        teacher.load_state_dict(theirs.teacher.model.state_dict())
    ours = Distiller(
        student, teacher, {f'loss_{name}': dict(type=name, **KEYWORDS.get(name, {}))}, num_samples=8, batch_size=8
    )
    ours.distill_losses.load_state_dict(theirs.distill_losses.state_dict())

    images, labels = batch()
    images = (images, images.flip(3)) if ours.needs_strong else images  # whose cross entropies round alike
    torch.manual_seed(1)
    total, expected = theirs.parse_losses(theirs.loss(images, networks.samples(8)))
    total.backward()
    torch.manual_seed(1)
    out = ours(images, labels, torch.arange(8))
    out['loss'].backward()

    assert torch.equal(out['task'], expected['ori_loss'])
    assert torch.equal(out[f'loss_{name}'], expected[f'loss_{name}'])
    assert torch.equal(out['loss'], total)
    gradients = {name.replace('student.model.', 'student.'): p.grad for name, p in theirs.named_parameters()}
    assert gradients.keys() == dict(ours.named_parameters()).keys()
    for parameter_name, parameter in ours.named_parameters():
        other = gradients[parameter_name]
        assert (parameter.grad is None) == (other is None), parameter_name
        assert other is None or torch.equal(parameter.grad, other), parameter_name
