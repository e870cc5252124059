"""Two views in mmpretrain's distiller: each network runs once a view, and pipelines that do not fit are told of."""

import pytest
import torch
from mmengine.optim import OptimWrapper
from networks import batch, build, images, method, samples, vit


def count_forwards(network):
    """The images of each forward pass of a network, in order."""
    seen = []
    network.register_forward_pre_hook(lambda _, given, __: seen.append(given[0]), with_kwargs=True)
    return seen


def two_views():
    """A batch as a dataloader gives it, with two views of each image."""
    found = batch()
    return {**found, 'inputs': [found['inputs'], found['inputs'].flip(3)]}


@pytest.mark.parametrize('kind', ['MLKDLoss', 'CRLDLoss'])
def test_a_training_step_runs_each_network_once_a_view(kind):
    distiller = build(method(kind)).train()
    networks = distiller.student, distiller.teacher
    seen = [count_forwards(network.backbone) for network in networks]
    optimizer = OptimWrapper(torch.optim.SGD(distiller.parameters(), lr=0.1))
    views = distiller.data_preprocessor(two_views(), training=True)['inputs']
    distiller.train_step(two_views(), optimizer)  # makes the teacher's fast form
    for given in seen:
        given.clear()
    logged = distiller.train_step(two_views(), optimizer)
    assert {'ori_loss', f'loss_{kind.removesuffix("Loss").lower()}', 'loss'} <= logged.keys()
    for given in seen:
        assert [torch.equal(one, view) for one, view in zip(given, views, strict=True)] == [True, True]


def test_the_task_loss_adds_the_students_own_of_both_views():
    distiller = build(method('CRLDLoss'), student=vit(), teacher=vit(24)).train()
    weak, strong = images(seed=1), images(seed=2)
    losses = distiller.loss((weak, strong), samples())
    each = [distiller.student(view, samples(), mode='loss')['loss'] for view in (weak, strong)]
    assert torch.equal(losses['ori_loss'], each[0] + each[1])


def test_images_without_labels_count_in_neither_view():
    distiller = build(method('CRLDLoss'), student=vit(), teacher=vit(24)).train()
    weak, strong = images(seed=1), images(seed=2)
    known = samples()
    known[1].set_field(True, 'unlabelled', field_type='metainfo')
    rows = [0, 2, 3]
    losses = distiller.loss((weak, strong), known)
    labelled = [samples()[row] for row in rows]
    each = [distiller.student(view[rows], labelled, mode='loss')['loss'] for view in (weak, strong)]
    torch.testing.assert_close(losses['ori_loss'], each[0] + each[1])


def test_a_pipeline_of_one_view_is_refused_by_the_lines_to_add():
    distiller = build(method('MLKDLoss')).train()
    message = (
        r"loss_mlkd reads logit_s_strong, and there is one view of each image: .* such as dict\(type='TwoViews', weak=\[.*"
        r"dict\(type='PackInputs'\)"
    )
    with pytest.raises(ValueError, match=message):
        distiller(**distiller.data_preprocessor(batch(), training=True), mode='loss')


def test_a_second_view_is_not_used_where_no_loss_reads_it():
    torch.manual_seed(0)
    distiller = build(method('KDLoss')).eval()
    pair = distiller.data_preprocessor(two_views(), training=True)
    one = distiller.data_preprocessor(batch(), training=True)
    seen = count_forwards(distiller.student.backbone)
    assert distiller(**pair, mode='loss') == distiller(**one, mode='loss')
    assert len(seen) == 2
    assert torch.equal(distiller(**pair), distiller(**one))  # logits are those of the weak view


def test_a_method_of_one_view_and_one_of_two_share_the_forwards():
    distiller = build(method('NKDLoss'), method('CRLDLoss')).train()
    seen = count_forwards(distiller.student.backbone)
    losses = distiller(**distiller.data_preprocessor(two_views(), training=True), mode='loss')
    assert {'ori_loss', 'loss_nkd', 'loss_crld'} <= losses.keys()
    assert len(seen) == 2


def test_channels_last_is_that_of_both_views():
    distiller = build(method('CRLDLoss', cross_weight=1.0), channels_last=True, student=vit(), teacher=vit(24)).train()
    distiller(**distiller.data_preprocessor(two_views(), training=True), mode='loss')
    seen = count_forwards(distiller.student)
    distiller(**distiller.data_preprocessor(two_views(), training=True), mode='loss')
    assert [given.is_contiguous(memory_format=torch.channels_last) for given in seen] == [True, True]
