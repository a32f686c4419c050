"""Facility location's greedy search and its swaps (Song et al. 2017), by loops in float64."""

import math

from tests.oracles.baselines import distance, nmi


def assign(d, medoids):
    """The nearest medoid of each row, the first among equals."""
    return [min(sorted(medoids), key=lambda m: row[m]) for row in d]


def score(d, medoids, y, gamma):
    nearest = sum(min(row[m] for m in medoids) for row in d)
    return -nearest + gamma * (1 - nmi(assign(d, medoids), list(y)))


def search(d, y, gamma, rounds):
    """As many medoids as classes: one after another, then swapped inside their clusters."""
    n, medoids = len(y), set()
    for _ in range(len(set(y))):
        free = [c for c in range(n) if c not in medoids]
        medoids.add(max(free, key=lambda c: score(d, medoids | {c}, y, gamma)))
    for _ in range(rounds):
        for row in range(n):
            if row in medoids:
                cluster = [i for i, m in enumerate(assign(d, medoids)) if m == row]
                others = medoids - {row}
                medoids = others | {max(cluster, key=lambda c: score(d, others | {c}, y, gamma))}
    return medoids


def facility_location(x, y, gamma=1.0, rounds=5):
    d = [[distance(a, b) for b in x] for a in x]
    true = 0.0
    for label in set(y):
        rows = [i for i in range(len(y)) if y[i] == label]
        true -= min(math.fsum(d[i][j] for i in rows) for j in rows)
    return max(0.0, score(d, search(d, list(y), gamma, rounds), y, gamma) - true)
