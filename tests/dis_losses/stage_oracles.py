"""The later losses on maps and stages again, slowly, as feature_oracles.py: formulas as loops over single numbers."""

import math
from itertools import pairwise

import torch
from dis_losses.feature_oracles import averaged, cells, dot, flat, length, mean, minus, pairs, smaller, squares
from dis_losses.oracles import batch_norm, convolution, linear, numbers, relu, softmax


def correlations(image):
    """Of each channel with each; a row has length 1."""
    channels = [flat([plane]) for plane in image]
    rows = [[dot(a, b) for b in channels] for a in channels]
    return [[x / length(row) for x in row] for row in rows]


def ickd(params, feat_s, feat_t, student_channels, teacher_channels):
    images = [convolution(image, params['projector.0.weight']) for image in numbers(feat_s)]
    images = batch_norm(images, params['projector.1.weight'], params['projector.1.bias'])
    total = 0
    for image, other in zip(images, numbers(feat_t), strict=True):
        for row, row_t in zip(correlations(image), correlations(other), strict=True):
            total += sum(squares(row, row_t))
    return total / (len(images) * teacher_channels)


def flow(image, deeper):
    image, deeper = smaller(image, deeper)
    return [mean(x * y for x, y in zip(flat([a]), flat([b]), strict=True)) for a in image for b in deeper]


def fsp(params, stages_s, stages_t):
    total = 0
    for pair_s, pair_t in zip(pairwise(stages_s), pairwise(stages_t), strict=True):
        terms = []
        for s, deep_s, t, deep_t in zip(*map(numbers, (*pair_s, *pair_t)), strict=True):
            terms += squares(flow(s, deep_s), flow(t, deep_t))
        total += mean(terms)
    return total


def powers(image, p1):
    """The mean over channels of each place's p1-th power, as a vector of length 1."""
    places = [mean(x**p1 for x in place) for place in zip(*(flat([plane]) for plane in image), strict=True)]
    return [x / length(places) for x in places]


def ft(factor_s, factor_t, p1=2, p2=1):
    terms = []
    for s, t in pairs(factor_s, factor_t):
        terms += [abs(x) ** p2 for x in minus(powers(s, p1), powers(t, p1))]
    return mean(terms)


def norm_rows(rows, weight, bias):
    images = batch_norm([[[[x]] for x in row] for row in rows], weight, bias)
    return [flat(image) for image in images]


def linear_norm(params, name, rows):
    rows = [linear(row, params[f'{name}.linear.weight'], params[f'{name}.linear.bias']) for row in rows]
    return norm_rows(rows, params[f'{name}.bn.weight'], params[f'{name}.bn.bias'])


def pooled(feat):
    return [[mean(flat([plane])) for plane in image] for image in numbers(feat)]


def strength(image, height, width):
    """The mean square over channels of each place, averaged to another size, as a vector of length 1."""
    rows, columns = range(len(image[0])), range(len(image[0][0]))
    square = [[mean(plane[y][x] ** 2 for plane in image) for x in columns] for y in rows]
    places = [
        mean(square[y][x] for y in ys for x in xs) for ys in cells(len(rows), height) for xs in cells(len(columns), width)
    ]
    return [x / length(places) for x in places]


def afd(params, stages_s, stages_t, student_channels, teacher_channels, qk_dim=128):
    n, n_s, n_t = len(stages_s[0]), len(stages_s), len(stages_t)
    keys = [linear_norm(params, f'key.{i}', pooled(feat)) for i, feat in enumerate(stages_s)]
    queries = [linear_norm(params, f'query.{j}', pooled(feat)) for j, feat in enumerate(stages_t)]
    each = linear_norm(params, 'bilinear', [[x * (x > 0) for x in keys[i][m]] for m in range(n) for i in range(n_s)])
    p_s, p_t = numbers(params['p_s']), numbers(params['p_t'])
    total = 0
    for m in range(n):
        for j in range(n_t):
            scores = []
            for i in range(n_s):
                key = each[m * n_s + i][j * qk_dim : (j + 1) * qk_dim]
                scores.append((dot(key, queries[j][m]) + dot(p_t[j], p_s[i])) / math.sqrt(qk_dim))
            weights = softmax(scores)
            image = numbers(stages_t[j][m])
            size = len(image[0]), len(image[0][0])
            for i in range(n_s):
                own = strength(numbers(stages_s[i][m]), *size)
                total += weights[i] * mean(squares(own, strength(image, *size)))
    return total / n


def embedded(params, name, rows):
    result = []
    for row in rows:
        hidden = linear(row, params[f'{name}.linear1.weight'], params[f'{name}.linear1.bias'])
        out = linear([x * (x > 0) for x in hidden], params[f'{name}.linear2.weight'], params[f'{name}.linear2.bias'])
        result.append([x / length(out) for x in out])
    return result


def similarities(feat, batch_size):
    rows = [flat(image) for image in numbers(feat)]
    return [[dot(a, b) for b in rows] + [torch.zeros_like(a[0])] * (batch_size - len(rows)) for a in rows]


def semckd(params, stages_s, stages_t, student_channels, teacher_channels, batch_size):
    n, n_s, n_t = len(stages_s[0]), len(stages_s), len(stages_t)
    queries = [embedded(params, f'query.{i}', similarities(feat, batch_size)) for i, feat in enumerate(stages_s)]
    keys = [embedded(params, f'key.{j}', similarities(feat, batch_size)) for j, feat in enumerate(stages_t)]
    distance = {}
    for i, feat_s in enumerate(stages_s):
        for j, feat_t in enumerate(stages_t):
            sizes = pairs(feat_s, feat_t)
            images = [s for s, _ in sizes]
            name = f'regressor.{i}.{j}'
            for layer in (0, 3):
                images = [convolution(image, params[f'{name}.{layer}.weight']) for image in images]
                images = batch_norm(images, params[f'{name}.{layer + 1}.weight'], params[f'{name}.{layer + 1}.bias'])
                images = [relu(image) for image in images]
            images = [convolution(image, params[f'{name}.6.weight']) for image in images]
            for m, (image, (_, t)) in enumerate(zip(images, sizes, strict=True)):
                distance[m, i, j] = mean(squares(flat(image), flat(t)))
    total = 0
    for m in range(n):
        for i in range(n_s):
            weights = softmax([dot(queries[i][m], keys[j][m]) for j in range(n_t)])
            total += sum(weights[j] * distance[m, i, j] for j in range(n_t))
    return total / (n * n_s)


def ab(params, stages_preact_s, stages_preact_t, student_channels, teacher_channels, margin=1.0):
    total = 0
    for i, (feat_s, feat_t) in enumerate(zip(stages_preact_s, stages_preact_t, strict=True)):
        images = [convolution(image, params[f'connectors.{i}.0.weight']) for image in numbers(feat_s)]
        images = batch_norm(images, params[f'connectors.{i}.1.weight'], params[f'connectors.{i}.1.bias'])
        costs = 0
        for image, other in zip(images, numbers(feat_t), strict=True):
            for s, t in zip(*map(flat, smaller(image, other)), strict=True):
                if t > 0:
                    costs += (s - margin) ** 2 if s <= margin else 0 * s
                else:
                    costs += (s + margin) ** 2 if s > -margin else 0 * s
        total += 0.003 * costs / len(images) / 2 ** (len(stages_preact_s) - 1 - i)
    return total


def highest(image, height, width):
    """A map of another size, each of its places the largest of a piece of the map."""
    rows, columns = cells(len(image[0]), height), cells(len(image[0][0]), width)
    return [[[max(plane[y][x] for y in ys for x in xs) for xs in columns] for ys in rows] for plane in image]


def norm(params, feat_s, feat_t, student_channels, teacher_channels, parts=8):
    terms = []
    for image, other in zip(numbers(feat_s), numbers(feat_t), strict=True):
        image = convolution(image, params['expand.weight'])
        size = min(len(image[0]), len(other[0])), min(len(image[0][0]), len(other[0][0]))
        image, other = averaged(image, *size), highest(other, *size)
        terms += [(x - other_x) ** 2 for x, other_x in zip(flat(image), flat(other) * parts, strict=True)]
    return mean(terms) * parts


def ofd(params, stages_preact_s, stages_preact_t, student_channels, teacher_channels, margins):
    total = 0
    for i, (feat_s, feat_t) in enumerate(zip(stages_preact_s, stages_preact_t, strict=True)):
        images = [convolution(image, params[f'connectors.{i}.0.weight']) for image in numbers(feat_s)]
        images = batch_norm(images, params[f'connectors.{i}.1.weight'], params[f'connectors.{i}.1.bias'])
        costs = 0
        for image, other in zip(images, numbers(feat_t), strict=True):
            for plane, plane_t, margin in zip(*smaller(image, other), margins[i], strict=True):
                for s, t in zip(flat([plane]), flat([plane_t]), strict=True):
                    goal = max(t.item(), margin)
                    costs += (s - goal) ** 2 if s > goal or goal > 0 else 0 * s
        total += costs / len(images) / 2 ** (len(stages_preact_s) - 1 - i)
    return total
