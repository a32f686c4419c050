"""In-batch losses of HDCL's Table 1, pair by pair in float64."""

import itertools
import math

import numpy as np


def distance(a, b):
    return math.sqrt(sum((float(x) - float(y)) ** 2 for x, y in zip(a, b)))


def cosine(a, b):
    return float(np.dot(a, b)) / (np.linalg.norm(a) * np.linalg.norm(b))


def contrastive(x, y, margin=1.0):
    pull, push = [], []
    for i, j in itertools.combinations(range(len(y)), 2):
        squared = distance(x[i], x[j]) ** 2
        if y[i] == y[j]:
            pull.append(squared)
        else:
            push.append(max(0.0, margin - squared))
    return sum(sum(terms) / len(terms) for terms in (pull, push) if terms) / 2


def proxy_anchor(x, y, proxies, alpha=32.0, margin=0.1):
    """Kim et al. 2020, Eq. 4, proxy by proxy."""
    cosine = lambda a, b: float(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))  # noqa: E731
    pull, push = [], []
    for k, p in enumerate(np.asarray(proxies, np.float64)):
        own = [cosine(x[i], p) for i in range(len(y)) if y[i] == k]
        other = [cosine(x[i], p) for i in range(len(y)) if y[i] != k]
        if own:
            pull.append(math.log1p(sum(math.exp(-alpha * (s - margin)) for s in own)))
        push.append(math.log1p(sum(math.exp(alpha * (s + margin)) for s in other)))
    return sum(pull) / max(len(pull), 1) + sum(push) / len(push)


def lifted(x, y, margin=1.0):
    pairs = [p for p in itertools.combinations(range(len(y)), 2) if y[p[0]] == y[p[1]]]
    total = 0.0
    for i, j in pairs:
        inner = 0.0
        for anchor in (i, j):
            for k in range(len(y)):
                if y[k] != y[anchor]:
                    inner += math.exp(margin - distance(x[anchor], x[k]))
        if inner == 0:
            return 0.0
        total += max(0.0, math.log(inner) + distance(x[i], x[j])) ** 2
    return total / (2 * len(pairs)) if pairs else 0.0


def n_pairs(x, y, l2=0.002):
    pairs = []
    for label in dict.fromkeys(y):
        rows = [i for i in range(len(y)) if y[i] == label]
        if len(rows) >= 2:
            pairs.append((rows[0], rows[1]))
    if not pairs:
        return 0.0
    total = 0.0
    for i, p in pairs:
        logits = [float(np.dot(x[i], x[q])) for _, q in pairs]
        total += math.log(sum(map(math.exp, logits))) - float(np.dot(x[i], x[p]))
    anchors = sum(float(np.dot(x[i], x[i])) for i, _ in pairs) / len(pairs)
    positives = sum(float(np.dot(x[p], x[p])) for _, p in pairs) / len(pairs)
    return total / len(pairs) + 0.25 * l2 * (anchors + positives)


def binomial_deviance(x, y, alpha=2.0, beta=0.5, cost=10.0):
    positive, negative = [], []
    for i, j in itertools.combinations(range(len(y)), 2):
        s = cosine(x[i], x[j])
        if y[i] == y[j]:
            positive.append(math.log(1 + math.exp(-alpha * (s - beta))))
        else:
            negative.append(math.log(1 + math.exp(alpha * cost * (s - beta))))
    mean = lambda values: sum(values) / len(values) if values else 0.0  # noqa: E731
    return mean(positive) + mean(negative)


def histogram(x, y, nodes=151):
    step = 2 / (nodes - 1)
    places = [-1 + step * r for r in range(nodes)]
    counts = {True: np.zeros(nodes), False: np.zeros(nodes)}
    totals = {True: 0, False: 0}
    for i, j in itertools.combinations(range(len(y)), 2):
        s, same = cosine(x[i], x[j]), bool(y[i] == y[j])
        totals[same] += 1
        for r, t in enumerate(places):
            counts[same][r] += max(0.0, 1 - abs(s - t) / step)
    if not totals[True] or not totals[False]:
        return 0.0
    positive, negative = counts[True] / totals[True], counts[False] / totals[False]
    return sum(negative[r] * sum(positive[: r + 1]) for r in range(nodes))


def pddm(x, y, s, alpha=0.5, beta=1.0, weight=0.5):
    n = len(y)
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j and y[i] == y[j]]
    pairs = [p for p in pairs if any(y[k] != y[p[0]] for k in range(n))]
    if not pairs:
        return 0.0
    i, j = min(pairs, key=lambda p: s[p])
    k = max((c for c in range(n) if y[c] != y[i]), key=lambda c: s[i, c])
    l = max((c for c in range(n) if y[c] != y[j]), key=lambda c: s[j, c])
    near = distance(x[i], x[j]) ** 2
    e_m = max(0.0, alpha + s[i, k] - s[i, j]) + max(0.0, alpha + s[j, l] - s[i, j])
    e_e = max(0.0, beta + near - distance(x[i], x[k]) ** 2)
    e_e += max(0.0, beta + near - distance(x[j], x[l]) ** 2)
    return e_m + weight * e_e


def nmi(clusters, classes):
    n = len(classes)

    def entropy(groups):
        counts = {}
        for g in groups:
            counts[g] = counts.get(g, 0) + 1
        return -sum(c / n * math.log(c / n) for c in counts.values())

    hu, hv = entropy(clusters), entropy(classes)
    information = hu + hv - entropy(list(zip(clusters, classes)))
    return 2 * information / (hu + hv) if hu + hv > 0 else 1.0


def facility_location(x, y, gamma=1.0):
    """The maximum over S by trying every S: only for tiny batches."""
    n, count = len(y), len(set(y))
    d = [[distance(a, b) for b in x] for a in x]
    true = 0.0
    for label in set(y):
        rows = [i for i in range(n) if y[i] == label]
        true -= min(sum(d[i][j] for i in rows) for j in rows)
    best = -math.inf
    for medoids in itertools.combinations(range(n), count):
        assigned = [min(medoids, key=lambda m, i=i: d[i][m]) for i in range(n)]
        score = -sum(d[i][m] for i, m in enumerate(assigned))
        best = max(best, score + gamma * (1 - nmi(assigned, list(y))))
    return max(0.0, best - true)
