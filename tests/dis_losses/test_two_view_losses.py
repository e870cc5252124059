"""MLKD and CRLD against their formulas as loops over single numbers, and the losses' settings."""

import math
from statistics import median

import pytest
import torch
from kit import assert_close, logits

from mmcls_kd.dis_losses import CRLDLoss, MLKDLoss, crld_loss, mlkd_loss
from mmcls_kd.recipe.methods import method_of


def softmax(row, temp=1.0):
    shares = [math.exp((z - max(row)) / temp) for z in row]
    return [share / sum(shares) for share in shares]


def divergence(row_s, row_t, temp):
    q, p = softmax(row_s, temp), softmax(row_t, temp)
    return temp**2 * sum(b * math.log(b / a) for a, b in zip(q, p, strict=True))


def mlkd_by_hand(weak, strong, temps, mask):
    """The sum over temperatures of instance, batch and class terms."""
    (s, t), n, c = weak, len(weak[0]), len(weak[0][0])
    sure = [max(softmax(row)) for row in t]
    mass = [sum(softmax(row)[k] for row in t) for k in range(c)]
    m = [float(value <= median(sure)) for value in sure]
    k = [float(value <= median(mass)) for value in mass]
    if mask == 'released':
        m, k = [sum(m) / n] * n, [sum(k) / c] * c
    total = 0.0
    for place, temp in enumerate(temps):
        q, p = [softmax(row, temp) for row in s], [softmax(row, temp) for row in t]
        for i in range(n):
            total += m[i] * divergence(s[i], t[i], temp) / n
            for j in range(n):
                total += m[i] * (sum(q[i][x] * q[j][x] - p[i][x] * p[j][x] for x in range(c))) ** 2 / n
        for a in range(c):
            for b in range(c):
                total += k[a] * (sum(q[i][a] * q[i][b] - p[i][a] * p[i][b] for i in range(n))) ** 2 / c
        if strong is not None:
            read = weak if mask == 'released' and place >= len(temps) - 2 else strong
            total += sum(divergence(x, y, temp) for x, y in zip(*read, strict=True)) / n
    return total


def crld_by_hand(s, t, s2, t2, temp, within, cross, tau_weak, tau_strong):
    total = 0.0
    for i in range(len(s)):
        if max(softmax(t[i])) >= tau_weak:
            total += within * (divergence(s[i], t[i], temp) + divergence(s2[i], t2[i], temp))
        if max(softmax(t2[i])) >= tau_strong:
            total += cross * (divergence(s2[i], t[i], temp) + divergence(s[i], t2[i], temp))
    return total / len(s)


def four(n, c, scale=2.0):
    return [logits(n, c, scale, seed=seed) for seed in range(4)]


def numeric_gradient(function, given, place, step=1e-6):
    """The derivative of a function of lists by one number of its first tensor."""
    values = []
    for sign in (1, -1):
        moved = [tensor.tolist() for tensor in given]
        moved[0][place[0]][place[1]] += sign * step
        values.append(function(*moved))
    return (values[0] - values[1]) / (2 * step)


@pytest.mark.parametrize('mask', ['sample', 'released'])
@pytest.mark.parametrize('views', [1, 2])
@pytest.mark.parametrize(('n', 'c', 'temps'), [(1, 2, (1.0,)), (5, 3, (2.0, 7.0, 1.0)), (4, 7, (4.0, 3.0, 5.0, 2.0, 6.0))])
def test_mlkd_is_its_formula(n, c, temps, views, mask):
    given = four(n, c)
    s = given[0]
    loss = MLKDLoss(temps=temps, views=views, mask=mask)
    s.requires_grad_()
    value = loss(*given[: 2 * views])
    (gradient,) = torch.autograd.grad(value, s)

    def by_hand(rows, *others):
        teacher, *strong = others
        return mlkd_by_hand((rows, teacher), strong if views == 2 else None, temps, mask)

    lists = [tensor.detach() for tensor in given]
    assert_close(value.detach(), torch.tensor(by_hand(*(tensor.tolist() for tensor in lists)), dtype=torch.float64))
    assert gradient[n - 1, c - 1].item() == pytest.approx(
        numeric_gradient(by_hand, lists, (n - 1, c - 1)), rel=1e-5, abs=1e-8
    )


@pytest.mark.parametrize(('n', 'c'), [(1, 2), (5, 3), (4, 7)])
@pytest.mark.parametrize('settings', [(4.0, 2.0, 0.5, 0.9, 0.2), (1.0, 0.3, 1.5, 0.6, 0.7)])
def test_crld_is_its_formula(n, c, settings):
    given = four(n, c)
    given[0].requires_grad_()
    value = crld_loss(*given, *settings)
    lists = [tensor.detach() for tensor in given]
    expected = crld_by_hand(*(tensor.tolist() for tensor in lists), *settings)
    assert_close(value.detach(), torch.tensor(expected, dtype=torch.float64), scale=1.0)
    (gradient,) = torch.autograd.grad(value, given[0])
    numeric = numeric_gradient(lambda *rows: crld_by_hand(*rows, *settings), lists, (0, 1))
    assert gradient[0, 1].item() == pytest.approx(numeric, rel=1e-5, abs=1e-8)


def test_masks_choose_the_samples_and_classes_of_which_the_teacher_is_least_sure():
    logit_t = torch.tensor([[9.0, 0.0, 0.0], [1.0, 0.0, 0.0], [5.0, 0.0, 0.0]], dtype=torch.float64)
    logit_s = logit_t.clone()
    logit_s[0] = torch.tensor([0.0, 9.0, 0.0])  # the surest sample, whose instance term does not count
    only_instances = mlkd_loss(logit_s[:1], logit_t[:1], temps=[1.0])
    assert only_instances > 5  # alone it is its own median
    both = mlkd_loss(logit_s, logit_t, temps=[1.0])
    assert both < only_instances


@pytest.mark.parametrize('views', [1, 2])
def test_nothing_is_left_to_learn_where_student_equals_teacher(views):
    _, t, _, t2 = four(4, 5)
    s, s2 = t.clone().requires_grad_(), t2.clone().requires_grad_()
    value = MLKDLoss(views=views)(*(s, t, s2, t2)[: 2 * views])
    assert value == 0
    assert torch.autograd.grad(value, s)[0].abs().max() < 1e-12
    assert CRLDLoss(cross_weight=0.0)(s, t, s2, t2) == 0


def test_views_decide_on_the_inputs_and_on_the_task_loss():
    one, two = method_of(dict(type='mlkd', views=1)), method_of('mlkd')
    assert one.inputs == ('logit_s', 'logit_t')
    assert two.inputs == method_of('crld').inputs == ('logit_s', 'logit_t', 'logit_s_strong', 'logit_t_strong')
    assert method_of(MLKDLoss(views=1)).inputs == one.inputs
    assert method_of(MLKDLoss()).inputs == two.inputs
    assert MLKDLoss(views=1).task_views == ('weak',)
    assert MLKDLoss().task_views == CRLDLoss().task_views == ('weak', 'strong')


@pytest.mark.parametrize(
    ('keywords', 'message'),
    [
        (dict(views=3), r'views=3: choose 2'),
        (dict(mask='batch'), r"mask='batch': choose one of 'sample', 'released'"),
        (dict(temps=()), r'temps=\(\): give at least one'),
        (dict(temps=(0.0,)), r'temps=\(0.0,\): give at least one temperature, each above 0'),
    ],
)
def test_mlkd_refuses_wrong_settings(keywords, message):
    with pytest.raises(ValueError, match=message):
        MLKDLoss(**keywords)


def test_mlkd_of_two_views_refuses_one():
    with pytest.raises(ValueError, match='got the logits of one view'):
        MLKDLoss()(*four(3, 4)[:2])
