"""The losses on relations and features again, slowly: their formulas as loops over single numbers, as in oracles.py.

A vector is a list of numbers; a map is a list map[channel][row][column].
"""

from itertools import product

import torch
from dis_losses.oracles import batch_norm, convolution, kl, linear, numbers, relu, softmax


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def minus(a, b):
    return [x - y for x, y in zip(a, b, strict=True)]


def length(vector):
    return torch.sqrt(dot(vector, vector))


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def flat(image):
    return [value for plane in image for line in plane for value in line]


def squares(a, b):
    return [(x - y) ** 2 for x, y in zip(a, b, strict=True)]


# ---- relations


def smooth_l1(a, b):
    far = abs(a - b)
    return 0.5 * far**2 if far.item() < 1 else far - 0.5


def distances(rows):
    """The distance of each pair i ≠ j, at least 1e-6, in units of their mean."""
    pairs = [(i, j) for i in range(len(rows)) for j in range(len(rows)) if i != j]
    far = {}
    for i, j in pairs:
        squared = dot(minus(rows[j], rows[i]), minus(rows[j], rows[i]))
        far[i, j] = torch.sqrt(squared) if squared.item() > 1e-12 else 1e-6
    middle = mean(far.values())
    return {pair: value / middle for pair, value in far.items()}


def cosine(rows, i, j, k):
    """Of the angle at i between j and k, 0 where one of these is i."""
    if i in (j, k):
        return torch.zeros(())
    one, other = minus(rows[j], rows[i]), minus(rows[k], rows[i])
    return dot(one, other) / (length(one) * length(other))


def rkd(vector_s, vector_t, distance_weight=25.0, angle_weight=50.0):
    s, t = numbers(vector_s), numbers(vector_t)
    n = len(s)
    far_s, far_t = distances(s), distances(t)
    distance_term = sum(smooth_l1(far_s[pair], far_t[pair]) for pair in far_s) / n**2
    angle_term = sum(smooth_l1(cosine(s, *ijk), cosine(t, *ijk)) for ijk in product(range(n), repeat=3)) / n**3
    return distance_weight * distance_term + angle_weight * angle_term


def similarities(rows):
    units = [[x / (length(row) + 1e-7) for x in row] for row in rows]
    alike = [[(dot(a, b) + 1) / 2 for b in units] for a in units]
    return [[x / sum(row) for x in row] for row in alike]


def pkt(vector_s, vector_t):
    q, p = similarities(numbers(vector_s)), similarities(numbers(vector_t))
    n = len(p)
    return mean(p[i][j] * torch.log((p[i][j] + 1e-7) / (q[i][j] + 1e-7)) for i, j in product(range(n), repeat=2))


def cc(params, vector_s, vector_t, student_dims=None, teacher_dims=None, feat_dim=128):
    s, t = numbers(vector_s), numbers(vector_t)
    if student_dims != teacher_dims:
        s, t = (
            [linear(row, params[f'embed_{side}.weight'], params[f'embed_{side}.bias']) for row in rows]
            for side, rows in (('s', s), ('t', t))
        )
        assert len(s[0]) == feat_dim
    far = [[abs(x) for x in minus(a, b)] for a, b in zip(s, t, strict=True)]
    return mean(dot(far[n], far[n + 1]) for n in range(len(far) - 1))


def in_the_batch(rows, eps):
    """Each column in units of its deviation over the rows, without a mean."""
    columns = []
    for column in zip(*rows, strict=True):
        variance = mean((x - mean(column)) ** 2 for x in column)
        columns.append([(x - mean(column)) / torch.sqrt(variance + eps) for x in column])
    return [list(row) for row in zip(*columns, strict=True)]


def projected(params, name, rows):
    return [linear(row, params[f'{name}.weight'], params[f'{name}.bias']) for row in rows]


def srd(params, vector_s, vector_t, logit_s, logit_t, exponent=4.0, temp=1.0, **_):
    s = in_the_batch(projected(params, 'projector', numbers(vector_s)), 1e-4)
    t = in_the_batch(numbers(vector_t), 1e-4)
    total = sum(abs(x - y) ** exponent for a, b in zip(s, t, strict=True) for x, y in zip(a, b, strict=True))
    pairs = zip(numbers(logit_s), numbers(logit_t), strict=True)
    divergence = mean(kl(softmax(z_t, temp).values(), softmax(z_s, temp).values()) for z_s, z_t in pairs)
    return 2 * torch.log(total) + divergence


def srd_correlation(params, vector_s, vector_t, **_):
    s = in_the_batch(projected(params, 'projector', numbers(vector_s)), 1e-12)
    t = in_the_batch(numbers(vector_t), 1e-12)
    columns = zip(zip(*s, strict=True), zip(*t, strict=True), strict=True)
    return torch.log(1e-5 + sum((dot(a, b) / len(a) - 1) ** 4 for a, b in columns))


def pefd(params, vector_s, vector_t, num_projectors=3, **_):
    rows, targets = numbers(vector_s), numbers(vector_t)
    all_of_them = [projected(params, f'projectors.{i}', rows) for i in range(num_projectors)]
    far = []
    for n, target in enumerate(targets):
        entries = zip(*([x if x.item() > 0 else 0 * x for x in p[n]] for p in all_of_them), strict=True)
        middle = [mean(of_one) for of_one in entries]
        far.append(1 - dot(middle, target) / (length(middle) * length(target)))
    return mean(far)


def vkd(weight, vector_s, vector_t):
    """``weight`` is the projector's whole matrix, (D_t, D_s)."""
    terms = []
    for row, target in zip(numbers(vector_s), numbers(vector_t), strict=True):
        variance = mean((x - mean(target)) ** 2 for x in target)
        normal = [(x - mean(target)) / torch.sqrt(variance + 1e-5) for x in target]
        terms += [smooth_l1(dot(line, row), y) for line, y in zip(numbers(weight), normal, strict=True)]
    return mean(terms)


# ---- maps


def cells(size, parts):
    """From where to where each of ``parts`` pieces of ``size`` places goes: every place is in one at least."""
    return [range(i * size // parts, -((-(i + 1) * size) // parts)) for i in range(parts)]


def averaged(image, height, width):
    """A map of another size, each of its places the mean of a piece of the map."""
    rows, columns = cells(len(image[0]), height), cells(len(image[0][0]), width)
    return [[[mean(plane[y][x] for y in ys for x in xs) for xs in columns] for ys in rows] for plane in image]


def smaller(image, other):
    height, width = min(len(image[0]), len(other[0])), min(len(image[0][0]), len(other[0][0]))
    return averaged(image, height, width), averaged(other, height, width)


def pairs(feat_s, feat_t):
    """The maps of each sample, both of the smaller size."""
    return [smaller(s, t) for s, t in zip(numbers(feat_s), numbers(feat_t), strict=True)]


def attention(image):
    strength = [mean(x**2 for x in place) for place in zip(*map(flat, ([plane] for plane in image)), strict=True)]
    return [x / length(strength) for x in strength]


def at(feat_s, feat_t):
    return mean(x for s, t in pairs(feat_s, feat_t) for x in squares(attention(s), attention(t)))


def sp(feat_s, feat_t):
    grams = []
    for feat in (feat_s, feat_t):
        rows = [flat(image) for image in numbers(feat)]
        gram = [[dot(a, b) for b in rows] for a in rows]
        grams.append([[x / length(row) for x in row] for row in gram])
    return mean(x for a, b in zip(*grams, strict=True) for x in squares(a, b))


def kernel(channels, others):
    return mean(dot(a, b) ** 2 for a in channels for b in others)


def nst(feat_s, feat_t):
    total = 0
    for maps in pairs(feat_s, feat_t):
        s, t = ([flat([plane]) for plane in image] for image in maps)
        s, t = ([[x / length(channel) for x in channel] for channel in channels] for channels in (s, t))
        total += kernel(t, t) + kernel(s, s) - 2 * kernel(s, t)
    return total / len(feat_s)


def vid(params, feat_s, feat_t, student_channels, teacher_channels, mid_channels=None, init_pred_var=5.0):
    variance = [torch.log(1 + torch.exp(x)) + 1e-5 for x in numbers(params['log_scale'])]
    assert len(params['regressor.2.weight']) == (mid_channels or teacher_channels)
    terms = []
    for s, t in pairs(feat_s, feat_t):
        for i in (0, 2, 4):
            s = convolution(relu(s) if i else s, params[f'regressor.{i}.weight'])
        for channel, v in enumerate(variance):
            terms += [0.5 * (x / v + torch.log(v)) for x in squares(flat([s[channel]]), flat([t[channel]]))]
    return mean(terms)


def fitnet(params, feat_s, feat_t, student_channels, teacher_channels):
    weight, bias = params['regressor.weight'], params['regressor.bias']
    return mean(x for s, t in pairs(feat_s, feat_t) for x in squares(flat(convolution(s, weight, bias)), flat(t)))


def statistics(plane, grid):
    """Mean and standard deviation of each cell of a channel."""
    result = []
    for ys, xs in product(cells(len(plane), grid), cells(len(plane[0]), grid)):
        values = [plane[y][x] for y in ys for x in xs]
        middle = mean(values)
        result.append((middle, torch.sqrt(sum((v - middle) ** 2 for v in values) / (len(values) - 1) + 1e-5)))
    return result


def wkd_feature(
    params, feat_s, feat_t, grid=1, mean_weight=1.0, std_weight=1.0, student_channels=None, teacher_channels=None
):
    images = numbers(feat_s)
    if student_channels != teacher_channels:
        images = [convolution(image, params['project.0.weight']) for image in images]
        images = batch_norm(images, params['project.1.weight'], params['project.1.bias'])
    total = 0
    for image, other in zip(images, numbers(feat_t), strict=True):
        for plane, plane_t in zip(image, other, strict=True):
            for (mean_s, std_s), (mean_t, std_t) in zip(statistics(plane, grid), statistics(plane_t, grid), strict=True):
                total += mean_weight * (mean_s - mean_t) ** 2 + std_weight * (std_s - std_t) ** 2
    return total / (grid**2 * len(images))


# ---- ReviewKD


def mse(images, others):
    return mean(x for image, other in zip(images, others, strict=True) for x in squares(flat(image), flat(other)))


def hcl(images, others):
    height = len(images[0][0])
    parts = [(1.0, mse(images, others))]
    for places in (4, 2, 1):
        if places < height:
            coarse = [[averaged(image, places, places) for image in batch] for batch in (images, others)]
            parts.append((0.5 ** len(parts), mse(*coarse)))
    return sum(weight * value for weight, value in parts) / sum(weight for weight, _ in parts)


def enlarged(image, height, width):
    """A map of more places, each with the value of the place it lies in."""
    rows, columns = len(image[0]), len(image[0][0])
    return [
        [[plane[y * rows // height][x * columns // width] for x in range(width)] for y in range(height)] for plane in image
    ]


def conv_norm(params, name, images):
    images = [convolution(image, params[f'{name}.0.weight']) for image in images]
    return batch_norm(images, params[f'{name}.1.weight'], params[f'{name}.1.bias'])


def fused(params, name, image, deeper):
    """Both maps, weighted place by place by the attention that is read off both."""
    height, width = len(image[0]), len(image[0][0])
    deeper = enlarged(deeper, height, width)
    score = convolution(image + deeper, params[f'{name}.weight'], params[f'{name}.bias'])
    own, others = [[[1 / (1 + torch.exp(-x)) for x in line] for line in plane] for plane in score]
    return [
        [[own[y][x] * a[y][x] + others[y][x] * b[y][x] for x in range(width)] for y in range(height)]
        for a, b in zip(image, deeper, strict=True)
    ]


def reviewkd(
    params,
    stages_s,
    stages_t,
    vector_s,
    vector_t,
    student_channels,
    teacher_channels,
    student_dims,
    teacher_dims,
    mid_channels=None,
):
    def levels(stages, vector):
        """The vector as a map of one place, then the stages from the last one on."""
        return [[[[[value]] for value in row] for row in numbers(vector)], *(numbers(stage) for stage in stages[::-1])]

    total, handed_on = 0, None
    for i, (images, images_t) in enumerate(zip(levels(stages_s, vector_s), levels(stages_t, vector_t), strict=True)):
        images = conv_norm(params, f'fusions.{i}.reduce', images)
        if handed_on:
            both = zip(images, handed_on, strict=True)
            images = [fused(params, f'fusions.{i}.attend', image, deeper) for image, deeper in both]
        handed_on = images
        predicted = conv_norm(params, f'fusions.{i}.expand', images)
        sizes = [smaller(image, image_t) for image, image_t in zip(predicted, images_t, strict=True)]
        total += hcl([s for s, _ in sizes], [t for _, t in sizes])
    return total
