"""The logit methods beyond the first nine again, slowly, as loops over single numbers: see oracles.py."""

import torch
from dis_losses.oracles import kl, numbers, softmax, target_class


def mean(values):
    return sum(values) / len(values)


def pearson(a, b):
    """Correlation of two lists with 1e-8 beside the norms; 0 without gradient where one of them is constant."""
    a, b = [x - mean(a) for x in a], [x - mean(b) for x in b]
    if all(x == 0 for x in a) or all(x == 0 for x in b):
        return 0.0
    norms = torch.sqrt(sum(x * x for x in a)) * torch.sqrt(sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / (norms + 1e-8)


def dist(logit_s, logit_t, temp=1.0, beta=1.0, gamma=1.0):
    q = [list(softmax(z, temp).values()) for z in numbers(logit_s)]
    p = [list(softmax(z, temp).values()) for z in numbers(logit_t)]
    over_classes = mean([pearson(a, b) for a, b in zip(q, p, strict=True)])
    over_samples = mean([pearson(a, b) for a, b in zip(zip(*q, strict=True), zip(*p, strict=True), strict=True)])
    return temp**2 * (beta * (1 - over_classes) + gamma * (1 - over_samples))


def standardized(logit):
    """Logits (N, C) of mean 0 and deviation 1 over the classes, whose unbiased deviation has 1e-7 beside it."""
    rows = []
    for z in numbers(logit):
        deviation = torch.sqrt(sum((x - mean(z)) ** 2 for x in z) / (len(z) - 1))
        rows.append(torch.stack([(x - mean(z)) / (1e-7 + deviation) for x in z]))
    return torch.stack(rows)


def lskd(logit_s, logit_t, temp=2.0):
    pairs = zip(numbers(standardized(logit_s)), numbers(standardized(logit_t)), strict=True)
    return temp**2 * mean([kl(softmax(z_t, temp).values(), softmax(z_s, temp).values()) for z_s, z_t in pairs])


def transformed(logit, gamma):
    """A teacher's powers of probabilities, and their sum."""
    powers = [p**gamma for p in softmax(logit).values()]
    return [power / sum(powers) for power in powers], sum(powers)


def ttm(logit_s, logit_t, gamma=0.1):
    pairs = zip(numbers(logit_s), numbers(logit_t), strict=True)
    return mean([kl(transformed(z_t, gamma)[0], softmax(z_s).values()) for z_s, z_t in pairs])


def wttm(logit_s, logit_t, gamma=0.1):
    terms = []
    for z_s, z_t in zip(numbers(logit_s), numbers(logit_t), strict=True):
        soft, weight = transformed(z_t, gamma)
        terms.append(weight * kl(soft, softmax(z_s).values()))
    return mean(terms)


def ofa(logit_s, logit_t, gt_label, eps=1.5, temp=1.0):
    terms = []
    for z_s, z_t, label in zip(numbers(logit_s), numbers(logit_t), gt_label.tolist(), strict=True):
        y = target_class(label)
        q, p = softmax(z_s, temp), softmax(z_t, temp)
        terms.append(-sum(((p[i] + 1) ** eps - 1 if i == y else p[i] ** eps) * torch.log(q[i]) for i in q))
    return mean(terms)


def wkd_logit(logit_s, logit_t, gt_label, cost, temp=2.0, gamma=1.0, sinkhorn_reg=0.05, sinkhorn_iter=10):
    """The target's row and column are deleted from the cost; ``cost`` is (C, C)."""
    target_term, moved = [], []
    for z_s, z_t, label in zip(numbers(logit_s), numbers(logit_t), gt_label.tolist(), strict=True):
        y = target_class(label)
        target_term.append(-softmax(z_t)[y].item() * torch.log(softmax(z_s)[y]))
        others = [i for i in range(len(z_s)) if i != y]
        w1 = list(softmax(z_s, temp, leave_out=[y]).values())
        w2 = list(softmax(z_t, temp, leave_out=[y]).values())
        price = [[max(cost[i, j].item(), 0.0) + 1e-8 for j in others] for i in others]
        moved.append(sinkhorn(w1, w2, price, sinkhorn_reg, sinkhorn_iter))
    return mean(target_term) + gamma * mean(moved)


def sinkhorn(w1, w2, price, reg, iterations):
    """The cost of the flow from w1 (rows) to w2 (columns)."""
    places = range(len(w1))
    kernel = [[torch.exp(torch.tensor(-c / reg, dtype=torch.float64)) for c in row] for row in price]
    u = [1 / len(w1)] * len(w1)
    for _ in range(iterations):
        v = [w2[j] / (sum(kernel[i][j] * u[i] for i in places) + 1e-8) for j in places]
        u = [w1[i] / (sum(kernel[i][j] * v[j] for j in places) + 1e-8) for i in places]
    return sum(u[i] * kernel[i][j] * v[j] * price[i][j] for i in places for j in places)


# ---- the second set


def spread(z):
    """The unbiased standard deviation of some numbers."""
    return torch.sqrt(sum((x - mean(z)) ** 2 for x in z) / (len(z) - 1))


def normkd(logit_s, logit_t, temp=2.0):
    terms = []
    for z_s, z_t in zip(numbers(logit_s), numbers(logit_t), strict=True):
        tau_s, tau_t = temp * spread(z_s), temp * spread(z_t)
        terms.append(tau_t**2 * kl(softmax(z_t, tau_t).values(), softmax(z_s, tau_s).values()))
    return mean(terms)


def normdkd(logit_s, logit_t, gt_label, temp=2.0, alpha=1.0, beta=8.0):
    terms = []
    for z_s, z_t, label in zip(numbers(logit_s), numbers(logit_t), gt_label.tolist(), strict=True):
        y, tau_s, tau_t = target_class(label), temp * spread(z_s), temp * spread(z_t)
        q, p = softmax(z_s, tau_s), softmax(z_t, tau_t)
        of_others = kl(softmax(z_t, tau_t, leave_out=[y]).values(), softmax(z_s, tau_s, leave_out=[y]).values())
        terms.append(tau_t**2 * (alpha * binary(p, y, q, y) + beta * of_others))
    return mean(terms)


def binary(p, i, q, j):
    """KL of (p_i, the others) and (q_j, the others); the others are summed, not subtracted from 1."""
    sums = [[x[k], sum(value for place, value in x.items() if place != k)] for x, k in ((p, i), (q, j))]
    return kl(*sums)


def rld(logit_s, logit_t, gt_label, temp=4.0, tau_alpha=1.0, alpha=1.0, beta=8.0, standardize=False):
    if standardize:
        logit_s, logit_t = standardized(logit_s), standardized(logit_t)
    terms = []
    for z_s, z_t, label in zip(numbers(logit_s), numbers(logit_t), gt_label.tolist(), strict=True):
        y, classes = target_class(label), range(len(z_t))
        largest = max(classes, key=lambda i, z=z_t: z[i].item())
        of_target = binary(softmax(z_t, tau_alpha), largest, softmax(z_s, tau_alpha), y)
        out = [i for i in classes if not z_t[i].item() < z_t[y].item()]
        below = 0.0
        if len(out) < len(z_t):
            below = kl(softmax(z_t, temp, leave_out=out).values(), softmax(z_s, temp, leave_out=out).values())
        terms.append(alpha * tau_alpha**2 * of_target + beta * temp**2 * below)
    return mean(terms)


def abkd(logit_s, logit_t, alpha=0.8, beta=0.3, temp=4.0):
    """The general formula; at a limit each summand is its own one, from the derivative by the exponent."""
    terms = []
    for z_s, z_t in zip(numbers(logit_s), numbers(logit_t), strict=True):
        for q, p in zip(softmax(z_s, temp).values(), softmax(z_t, temp).values(), strict=True):
            if alpha and beta and alpha + beta:
                whole = alpha + beta
                inner = p**alpha * q**beta - alpha / whole * p**whole - beta / whole * q**whole
                terms.append(-inner / (alpha * beta))
            elif alpha and beta:
                terms.append((torch.log(q**alpha / p**alpha) + p**alpha / q**alpha - 1) / alpha**2)
            elif alpha:
                terms.append((p**alpha * torch.log(p**alpha / q**alpha) - p**alpha + q**alpha) / alpha**2)
            elif beta:
                terms.append((q**beta * torch.log(q**beta / p**beta) - q**beta + p**beta) / beta**2)
            else:
                terms.append((torch.log(p) - torch.log(q)) ** 2 / 2)
    return sum(terms) / len(logit_s)


def luminet(logit_s, logit_t, temp=4.0, alpha=None):
    def in_the_batch(logit):
        columns = [list(column) for column in zip(*numbers(logit), strict=True)]
        changed = []
        for column in columns:
            variance = mean([(z - mean(column)) ** 2 for z in column])
            changed.append([(z - mean(column)) / (variance + 1e-5) ** 0.5 for z in column])
        return list(zip(*changed, strict=True))

    pairs = zip(in_the_batch(logit_s), in_the_batch(logit_t), strict=True)
    return (temp if alpha is None else alpha) ** 2 * mean(
        [kl(softmax(u_t, temp).values(), softmax(u_s, temp).values()) for u_s, u_t in pairs]
    )
