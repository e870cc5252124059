"""Predictions that a loss makes in the place of the student's own head."""

import pytest
import torch
from networks import build, images, method, samples, vit
from torch import nn

TFNKD = method('TFNKDLoss')


class Reusing(nn.Module):
    """Judges by a classifier of its own."""

    sizes = {'width': ('vector_s', 1), 'classes': ('logit_s', 1)}

    def __init__(self, width, classes):
        super().__init__()
        self.fc = nn.Linear(width, classes)

    def forward(self, vector_s, logit_s, gt_label):
        return nn.functional.cross_entropy(self.predict_logit(vector_s), gt_label) + 0 * logit_s.sum()

    def predict_logit(self, vector_s):
        return self.fc(vector_s)


REUSING = method(Reusing, 'loss_reusing')


def vector(student, inputs):
    """What goes into the classifier of a CNN."""
    return student.backbone(inputs)[-1].mean(dim=(2, 3))


class TestAreTheLosses:
    def test_in_each_mode(self):
        distiller = build(REUSING, TFNKD).eval()
        inputs = images()
        with torch.no_grad():
            wanted = distiller.distill_losses['loss_reusing'].fc(vector(distiller.student, inputs))
            assert not torch.allclose(wanted, distiller.student(inputs), atol=1e-3)
            torch.testing.assert_close(distiller(inputs), wanted)
            torch.testing.assert_close(distiller(inputs, samples(), mode='tensor'), wanted)
            predicted = distiller(inputs, samples(), mode='predict')
        torch.testing.assert_close(torch.stack([sample.pred_score for sample in predicted]), wanted.softmax(dim=1))
        assert torch.cat([sample.pred_label for sample in predicted]).equal(wanted.argmax(dim=1))
        assert torch.cat([sample.gt_label for sample in predicted]).tolist() == [0, 1, 2, 3]

    def test_without_samples(self):
        distiller = build(REUSING).eval()
        predicted = distiller(images(), mode='predict')
        assert predicted[3].pred_score.shape == (10,)

    def test_of_a_transformer(self):
        distiller = build(REUSING, student=vit(16)).eval()
        with torch.no_grad():
            wanted = distiller.distill_losses['loss_reusing'].fc(distiller.student.backbone(images())[-1])
            torch.testing.assert_close(distiller(images()), wanted)

    def test_a_step_of_validation(self):
        distiller = build(REUSING).eval()
        data = dict(inputs=torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8), data_samples=samples())
        predicted = distiller.val_step(data)
        with torch.no_grad():
            wanted = distiller(distiller.data_preprocessor(data)['inputs'])
        torch.testing.assert_close(torch.stack([sample.pred_score for sample in predicted]), wanted.softmax(dim=1))

    def test_the_training_is_the_students_as_ever(self):
        distiller = build(REUSING).eval()
        inputs = images()
        losses = distiller.loss(inputs, samples())
        label = torch.arange(4)
        torch.testing.assert_close(losses['ori_loss'], nn.functional.cross_entropy(distiller.student(inputs), label))
        torch.testing.assert_close(losses['loss_reusing'], nn.functional.cross_entropy(distiller(inputs), label))


def test_two_of_them_are_refused():
    with pytest.raises(ValueError, match='loss_reusing and loss_again both make the predictions: choose one of them'):
        build(REUSING, TFNKD, method(Reusing, 'loss_again'))


def test_one_that_is_switched_off_makes_none():
    distiller = build(TFNKD, method(Reusing, 'loss_reusing', use_this=False)).eval()
    inputs = images()
    with torch.no_grad():
        assert distiller(inputs).equal(distiller.student(inputs))
        predicted = distiller(inputs, samples(), mode='predict')
        torch.testing.assert_close(predicted[0].pred_score, distiller.student(inputs).softmax(dim=1)[0])
