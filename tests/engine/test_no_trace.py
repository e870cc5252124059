"""A trial of a model leaves no trace in it."""

import torch
from networks import build, method

from mmcls_kd.engine.first_batch import without_a_trace


def test_a_trial_leaves_the_batch_statistics_of_a_teacher_in_train_mode_as_they_were():
    """Processes try different images, and then compare their teachers."""
    distiller = build(method('KDLoss'), teacher_mode='train')
    before = [buffer.clone() for buffer in distiller.teacher.buffers()]
    images = torch.randn(2, 3, 32, 32)
    with without_a_trace(distiller):
        distiller.teacher_holder(images, None, ['logit'])
        tried = [buffer.clone() for buffer in distiller.teacher.buffers()]
    assert any(not torch.equal(old, new) for old, new in zip(before, tried, strict=True))
    assert all(torch.equal(old, now) for old, now in zip(before, distiller.teacher.buffers(), strict=True))
