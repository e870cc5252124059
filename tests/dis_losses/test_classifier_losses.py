"""CAT-KD and SDD, losses of the map and the linear classifier behind it: oracles, and what holds for every input."""

from itertools import product

import pytest
import torch
from dis_losses.oracles import dkd, kd, kl, nkd, numbers, softmax
from kit import assert_close, labels, seeded

from mmcls_kd.dis_losses import CATKDLoss, DKDLoss, KDLoss, NKDLoss, SDDLoss, cat_loss
from mmcls_kd.dis_losses.sdd import cells_of

CLASSES = 5


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def tensors(n=3, size_s=(8, 8), size_t=(8, 8), classes=CLASSES, bias=True):
    """Both maps and both classifiers; what training changes requires a gradient."""
    given = dict(
        feat_s=normal(n, 3, *size_s, seed=1),
        feat_t=normal(n, 4, *size_t, seed=2),
        student_weight=normal(classes, 3, seed=3),
        student_bias=normal(classes, seed=4) * bias,
        teacher_weight=normal(classes, 4, seed=5),
        teacher_bias=normal(classes, seed=6) * bias,
    )
    for name in ('feat_s', 'student_weight', 'student_bias'):
        given[name].requires_grad_()
    return given


def of_cat(given):
    return {name: tensor for name, tensor in given.items() if not name.endswith('_bias')}


def assert_same(value, expected, given):
    """Both values agree, and so do the gradients of what training changes."""
    assert_close(value.detach(), expected.detach())
    trained = [tensor for tensor in given.values() if tensor.requires_grad]
    ours, theirs = (torch.autograd.grad(of, trained, materialize_grads=True) for of in (value, expected))
    for one, other in zip(ours, theirs, strict=True):
        assert_close(one, other)


# ---- oracles: loops over single numbers


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def cell(plane, row, column, cells):
    """The mean of a cell of a plane [row][column]: from the floor of its first place to the ceiling of its last."""
    height, width = len(plane), len(plane[0])
    rows = range(row * height // cells, -(-(row + 1) * height // cells))
    columns = range(column * width // cells, -(-(column + 1) * width // cells))
    return mean(plane[i][j] for i, j in product(rows, columns))


def pooled(image, cells):
    return [[[cell(plane, i, j, cells) for j in range(cells)] for i in range(cells)] for plane in image]


def at(image, i, j):
    return [plane[i][j] for plane in image]


def scores(weight, bias, vector):
    return [sum(w * x for w, x in zip(row, vector, strict=True)) + b for row, b in zip(weight, bias, strict=True)]


def catkd_by_loops(given, resolution, normalize):
    """Activation maps of the whole map first, then their cells."""
    total, count = 0, 0
    sides = [
        (numbers(given['feat_s']), numbers(given['student_weight'])),
        (numbers(given['feat_t']), numbers(given['teacher_weight'])),
    ]
    for n in range(len(sides[0][0])):
        maps = []
        for feat, weight in sides:
            places = [(i, j) for i in range(len(feat[n][0])) for j in range(len(feat[n][0][0]))]
            width = len(feat[n][0][0])
            flat = [[sum(w * x for w, x in zip(row, at(feat[n], i, j), strict=True)) for i, j in places] for row in weight]
            cam = pooled([[row[k : k + width] for k in range(0, len(row), width)] for row in flat], resolution)
            lengths = [torch.sqrt(sum(x * x for line in plane for x in line)) if normalize else 1 for plane in cam]
            maps.append([[x / size for line in plane for x in line] for plane, size in zip(cam, lengths, strict=True)])
        for one, other in zip(*maps, strict=True):
            total += sum((a - b) ** 2 for a, b in zip(one, other, strict=True))
            count += len(one)
    return total / count


def sdd_by_loops(given, gt_label, of_cell, scales, direct):
    """Cell by cell, the loss of each a batch of its own."""
    weights = [numbers(given[name]) for name in ('student_weight', 'student_bias', 'teacher_weight', 'teacher_bias')]
    total = 0
    for image_s, image_t, label in zip(numbers(given['feat_s']), numbers(given['feat_t']), gt_label, strict=True):
        if not direct:
            image_s, image_t = pooled(image_s, 4), pooled(image_t, 4)

        def right(vector, label=label):
            found = torch.stack(scores(*weights[2:], vector)).argmax().item()
            return found == (label.argmax().item() if label.dim() else label.item())

        whole = right(at(pooled(image_t, 1), 0, 0))
        for scale in scales:
            cells_s, cells_t = pooled(image_s, scale), pooled(image_t, scale)
            for i, j in product(range(scale), repeat=2):
                z_s = torch.stack(scores(*weights[:2], at(cells_s, i, j)))
                z_t = torch.stack(scores(*weights[2:], at(cells_t, i, j)))
                factor = 1 if right(at(cells_t, i, j)) == whole else 2
                total = total + factor * of_cell(z_s[None], z_t[None], label[None])
    return total / (len(gt_label) * sum(s * s for s in scales))


def kl_of(logit_s, logit_t, _):
    return 9 * mean(
        kl(softmax(t, 3.0).values(), softmax(s, 3.0).values())
        for s, t in zip(numbers(logit_s), numbers(logit_t), strict=True)
    )


def nkd_with_target(logit_s, logit_t, gt_label):
    s, t, label = numbers(logit_s)[0], numbers(logit_t)[0], int(gt_label)
    soft = sum(p * torch.log(q) for p, q in zip(softmax(t, 2.0).values(), softmax(s, 2.0).values(), strict=True))
    return -softmax(t)[label].item() * torch.log(softmax(s)[label]) - 1.5 * 4 * soft


BASES = {
    'kl': (dict(type='KDLoss', temp=3.0, alpha=1.0, divergence=True), kl_of),
    'kd': (dict(type='KDLoss', temp=2.0, alpha=0.5), lambda s, t, _: kd(s, t, temp=2.0, alpha=0.5)),
    'dkd': (dict(type='DKDLoss', temp=2.0, beta=3.0), lambda s, t, y: dkd(s, t, y, temp=2.0, beta=3.0)),
    'nkd': (dict(type='NKDLoss', temp=2.0), lambda s, t, y: nkd(s, t, y, temp=2.0)),
}


#: Cells and sizes of both maps.
CELLS = [(2, (4, 4), (7, 7)), (4, (7, 5), (4, 4)), (2, (1, 2), (2, 2)), (3, (2, 2), (7, 7))]


@pytest.mark.parametrize(
    ('resolution', 'size_s', 'size_t', 'normalize'),
    [(*case, normalize) for case in CELLS for normalize in (True, False)] + [(2, (1, 1), (2, 2), False)],
)
def test_catkd_is_its_oracle(resolution, size_s, size_t, normalize):
    given = tensors(2, size_s, size_t)
    value = CATKDLoss(resolution, normalize)(**of_cat(given))
    assert_same(value, catkd_by_loops(given, resolution, normalize), of_cat(given))


@pytest.mark.parametrize('base', BASES)
@pytest.mark.parametrize(
    ('scales', 'size_s', 'size_t', 'direct'),
    [
        ((1, 2), (4, 4), (8, 8), False),
        ((1, 2), (7, 7), (7, 7), False),
        ((1, 3), (7, 7), (5, 7), True),
        ((2,), (2, 2), (1, 1), False),
    ],
)
def test_sdd_is_its_oracle(base, scales, size_s, size_t, direct):
    loss, of_cell = BASES[base]
    given, gt_label = tensors(2, size_s, size_t), torch.tensor([1, 3])
    value = SDDLoss(loss, scales, direct_pool=direct)(**given, gt_label=gt_label)
    assert_same(value, sdd_by_loops(given, gt_label, of_cell, scales, direct), given)


def test_sdd_around_nkd_as_released_is_its_oracle():
    given, gt_label = tensors(2, (4, 4), (4, 4)), torch.tensor([1, 3])
    value = SDDLoss(dict(type='NKDLoss', temp=2.0), (1, 2), released=True)(**given, gt_label=gt_label)
    assert_same(value, sdd_by_loops(given, gt_label, nkd_with_target, (1, 2), False), given)


# ---- what holds for every input


@pytest.mark.parametrize('base', [KDLoss(), KDLoss(divergence=True, standardize=True), DKDLoss(), NKDLoss(standardize=True)])
@pytest.mark.parametrize('kind', ['hard', 'mixup'])
def test_of_the_whole_map_alone_sdd_is_its_base(base, kind):
    given, gt_label = tensors(4, (4, 4), (4, 4)), labels(kind, 4, CLASSES)
    names = ('temp', 'alpha', 'beta', 'gamma', 'standardize', 'divergence')
    loss = dict(type=type(base).__name__, **{name: getattr(base, name) for name in names if hasattr(base, name)})
    logit_s, logit_t = (
        torch.nn.functional.linear(given[f'feat_{side[0]}'].mean(dim=(2, 3)), given[f'{side}_weight'], given[f'{side}_bias'])
        for side in ('student', 'teacher')
    )
    expected = base(logit_s, logit_t, *([] if isinstance(base, KDLoss) else [gt_label]))
    assert_same(SDDLoss(loss, scales=(1,))(**given, gt_label=gt_label), expected, given)


def test_cells_are_pooled_from_the_four_by_four_or_from_the_map():
    feat = normal(2, 3, 7, 7)
    assert_close(cells_of(feat, (1,), direct_pool=True)[:, 0], feat.mean(dim=(2, 3)))
    assert (cells_of(feat, (1,))[:, 0] - feat.mean(dim=(2, 3))).abs().max() > 1e-3
    assert_close(cells_of(feat[..., :4, :4], (1, 2, 4)), cells_of(feat[..., :4, :4], (1, 2, 4), direct_pool=True))


def test_a_cells_weight_is_two_where_cell_and_map_disagree_about_the_label():
    feat = torch.zeros(1, 2, 4, 4)
    feat[0, 0], feat[0, 0, :2, :2], feat[0, 1, :2, :2] = 1.0, 0.0, 1.0  # one cell of four is of the other class
    student = torch.zeros(1, 2, 4, 4)
    weight, bias = torch.eye(2), torch.zeros(2)
    for label in (0, 1):
        args = (student, feat, weight, bias, weight, bias, torch.tensor([label]))
        each = KDLoss(temp=1.0, alpha=1.0, divergence=True)
        terms = [each(torch.zeros(1, 2), torch.tensor([z])) for z in ([0.0, 1.0], [1.0, 0.0])]
        value = SDDLoss(dict(type='KDLoss', temp=1.0, alpha=1.0, divergence=True), scales=(2,))(*args)
        assert_close(value, (2 * terms[0] + 3 * terms[1]) / 4)


@pytest.mark.parametrize('size', [(1, 1), (2, 2), (1, 3)])
def test_of_one_image_with_a_small_map_both_are_finite(size):
    given = tensors(1, size, (7, 7))
    cat = CATKDLoss(normalize=size != (1, 1))  # normalised, a single place has no gradient: refused
    for value in (cat(**of_cat(given)), SDDLoss()(**given, gt_label=torch.tensor([2]))):
        assert value.isfinite()
        found = torch.autograd.grad(value, [t for t in given.values() if t.requires_grad], materialize_grads=True)
        assert all(gradient.isfinite().all() for gradient in found)


def test_a_map_of_zeros_has_no_gradient_and_no_nan():
    cam = torch.zeros(2, 3, 4, 4, requires_grad=True)
    value = cat_loss(cam, torch.ones(2, 3, 4, 4))
    (gradient,) = torch.autograd.grad(value, cam)
    assert_close(value.detach(), torch.tensor(0.25))
    assert gradient.count_nonzero() == 0


def test_catkd_is_0_for_equal_maps_blind_to_scale_and_to_order():
    cam, other, order = normal(3, 5, 4, 4), normal(3, 5, 8, 8, seed=1), torch.tensor([2, 0, 1])
    assert cat_loss(cam, cam) == 0
    assert_close(cat_loss(3 * cam, cam), torch.zeros((), dtype=torch.float64), scale=1.0)
    assert_close(cat_loss(cam[order], other[order]), cat_loss(cam, other))
    assert cat_loss(cam, -cam) == pytest.approx(4 / 4)


def test_sdds_task_loss_keeps_its_weight():
    assert SDDLoss(dict(type='KDLoss', alpha=0.9)).task_weight == 1


@pytest.mark.parametrize(
    ('make', 'said'),
    [
        (lambda: CATKDLoss(resolution=0), r'CATKDLoss\(resolution=0\): choose 1 or more'),
        (lambda: SDDLoss(dict(type='DISTLoss')), "type='DISTLoss' is none of KDLoss, DKDLoss, NKDLoss"),
        (lambda: SDDLoss(dict(temp=4.0)), 'type=None is none of'),
        (lambda: SDDLoss(scales=(1, 3)), r'SDDLoss\(scales=\(1, 3\)\): choose from 1, 2 and 4'),
        (lambda: SDDLoss(scales=()), r'SDDLoss\(scales=\(\)\)'),
        (lambda: SDDLoss(scales=(0,), direct_pool=True), r'SDDLoss\(scales=\(0,\)\)'),
        (
            lambda: CATKDLoss()(**of_cat(tensors()) | dict(feat_t=normal(3, 9, 4, 4))),
            'CATKDLoss reads the map behind which the teacher classifies: feat_t has 9 channels, and the classifier 4',
        ),
        (
            lambda: SDDLoss()(**tensors() | dict(feat_s=normal(3, 9, 4, 4)), gt_label=torch.tensor([0, 1, 2])),
            'feat_s has 9 channels, and the classifier 3 inputs',
        ),
    ],
)
def test_what_does_not_fit_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()
