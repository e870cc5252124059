"""DeiT's distillation token: its head, its tap, what trains which classifier, and the loss against an oracle."""

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from dis_losses.oracles import kl, numbers, softmax
from kit import assert_close, logits
from mmpretrain.registry import MODELS
from networks import build, images, method, resnet, samples, vit

from mmcls_kd.dis_losses import DeiTTokenLoss, deit_token_loss

TEACHER = resnet(8)


def distilled(head='DistilledDeiTClsHead'):
    network = vit(16, 'DistilledVisionTransformer')
    network['head']['type'] = head
    return network


def classifier(head):
    torch.manual_seed(0)
    network = MODELS.build(copy.deepcopy(distilled(head)))
    for name in ('head', 'head_dist'):
        getattr(network.head.layers, name).weight.data.normal_(generator=torch.Generator().manual_seed(len(name)))
    return network


def test_the_head_returns_both_in_training_and_mmpretrains_mean_in_testing():
    ours, theirs = classifier('DistilledDeiTClsHead'), classifier('DeiTClsHead')
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    theirs.load_state_dict(ours.state_dict())
    inputs = images(3)
    assert torch.equal(ours.eval()(inputs), theirs.eval()(inputs))
    feats = ours.extract_feat(inputs)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        of_class, of_token = ours.head.train()(feats)
    assert torch.equal(of_class, ours.head.layers.head(feats[-1][0]))
    assert torch.equal(of_token, ours.head.layers.head_dist(feats[-1][1]))
    assert_close(ours.head.eval()(feats).detach(), ((of_class + of_token) / 2).detach())


@pytest.mark.parametrize('keywords', [dict(kind='hard'), dict(kind='soft', temp=3.0)])
def test_a_step_trains_the_class_token_by_labels_and_the_other_by_the_teacher(keywords):
    token = method('DeiTTokenLoss', task_weight=0.5, loss_weight=0.5)
    token['methods'][0].update(keywords)
    distiller = build(token, student=distilled(), teacher=TEACHER).train()
    data = distiller.data_preprocessor(dict(inputs=images(4), data_samples=samples(4)), training=True)
    losses = distiller(**data, mode='loss')
    assert {*losses} == {'ori_loss', 'loss_deittoken'}

    feats = distiller.student.extract_feat(data['inputs'])
    layers = distiller.student.head.layers
    labels = torch.cat([sample.gt_label for sample in data['data_samples']])
    logit_t = distiller.teacher_holder(data['inputs'], data['data_samples'], ['logit'])['logit']
    assert_close(losses['ori_loss'].detach(), 0.5 * F.cross_entropy(layers.head(feats[-1][0]), labels).detach())
    expected = 0.5 * deit_token_loss(layers.head_dist(feats[-1][1]), logit_t, **keywords)
    assert_close(losses['loss_deittoken'].detach(), expected.detach())

    weights = [layers.head.weight, layers.head_dist.weight]
    of_task = torch.autograd.grad(losses['ori_loss'], weights, retain_graph=True, allow_unused=True)
    of_token = torch.autograd.grad(losses['loss_deittoken'], weights, retain_graph=True, allow_unused=True)
    assert [gradient is None for gradient in (*of_task, *of_token)] == [False, True, True, False]
    distiller.parse_losses(losses)[0].backward()
    assert all(p.grad is not None for p in distiller.parameters() if p.requires_grad)
    (first, *_) = distiller.eval()(**data, mode='predict')
    assert_close(first.pred_score, distiller.student(data['inputs']).softmax(dim=1)[0].detach())


def test_logit_is_the_class_tokens():
    distiller = build(
        method('KDLoss', alpha=0.5, temp=1.0), method('DeiTTokenLoss'), student=distilled(), teacher=TEACHER
    ).train()
    data = distiller.data_preprocessor(dict(inputs=images(4), data_samples=samples(4)), training=True)
    value = distiller(**data, mode='loss')['loss_kd']
    logit = distiller.student.head.layers.head(distiller.student.extract_feat(data['inputs'])[-1][0])
    logit_t = distiller.teacher_holder(data['inputs'], data['data_samples'], ['logit'])['logit']
    assert_close(value.detach(), 0.5 * F.cross_entropy(logit, logit_t.softmax(dim=1)).detach())


def test_a_student_without_that_token_is_refused_by_a_sentence():
    with pytest.raises(ValueError, match="unknown input 'logit_token_s', a feature that is not found in this student"):
        build(method('DeiTTokenLoss'), student=vit(16), teacher=TEACHER)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match=r"kind='warm'\): choose one of 'hard', 'soft'"):
        DeiTTokenLoss(kind='warm')


@pytest.mark.parametrize(('n', 'c', 'scale'), [(1, 2, 1.0), (5, 4, 20.0), (3, 7, 3.0)])
@pytest.mark.parametrize('keywords', [{}, dict(kind='soft'), dict(kind='soft', temp=3.0, batchmean=True)])
def test_the_oracles_loops_over_single_numbers(keywords, n, c, scale):
    logit_s, logit_t = logits(n, c, scale, seed=1).requires_grad_(), logits(n, c, scale, seed=2)
    total, temp = 0.0, keywords.get('temp', 1.0)
    for z_s, z_t in zip(numbers(logit_s), numbers(logit_t), strict=True):
        if keywords.get('kind') == 'soft':
            divided = 1 if keywords.get('batchmean') else c
            total += temp**2 * kl(softmax(z_t, temp).values(), softmax(z_s, temp).values()) / divided
        else:
            total -= torch.log(softmax(z_s)[max(range(c), key=lambda i, z=z_t: z[i].item())])
    value = DeiTTokenLoss(**keywords)(logit_s, logit_t)
    assert_close(value.detach(), (total / n).detach())
    assert_close(torch.autograd.grad(value, logit_s)[0], torch.autograd.grad(total / n, logit_s)[0])
