"""HDCL's and CRL's equations, GHNS's, CCFR's and NTS-Net's, one example at a time in float64."""

import math

import numpy as np


def hard_softmax(o, y, k):
    """HDCL Eq. 7 and 8."""
    top = sorted((float(v) for v in o), reverse=True)[:k]
    peak = max(top)
    return peak + math.log(sum(math.exp(t - peak) for t in top)) - float(o[y])


def hard_softmax_gradient(o, y, k):
    """HDCL Eq. 10, its four cases."""
    order = sorted(range(len(o)), key=lambda j: -float(o[j]))[:k]
    peak = max(float(o[t]) for t in order)
    total = sum(math.exp(float(o[t]) - peak) for t in order)
    gradient = []
    for j in range(len(o)):
        p = math.exp(float(o[j]) - peak) / total
        if j == y:
            gradient.append(-(1 - p) if j in order else -1.0)
        else:
            gradient.append(p if j in order else 0.0)
    return np.array(gradient)


def decorrelation(w):
    """The regulariser of HDCL Eq. 11; w [D, K]."""
    k = w.shape[1]
    pairs = [(l, j) for l in range(k) for j in range(k) if l != j]
    return sum(abs(float(np.dot(w[:, l], w[:, j]))) for l, j in pairs) / (k * k - k)


def centralized_ranking(f, y, centers, m):
    """HDCL Eq. 3 for one f."""
    own = np.linalg.norm(f - centers[y])
    return sum(max(0.0, m + own - np.linalg.norm(f - c)) for l, c in enumerate(centers) if l != y)


def triplet(a, p, n, m, squared):
    """GHNS Eq. 2, HDCL Eq. 2."""
    power = 2 if squared else 1
    return 0.5 * max(0.0, np.linalg.norm(a - p) ** power - np.linalg.norm(a - n) ** power + m)


def quadruplet(r, p, hard, n, m1, m2):
    """GHNS Eq. 9."""
    rp, rh, rn = (np.linalg.norm(r - other) ** 2 for other in (p, hard, n))
    return 0.5 * max(0.0, rp - rh + m1 - m2) + 0.5 * max(0.0, rh - rn + m2)


def shuffle(logits, shuffled):
    """GHNS Eq. 6 with a softmax D, class 1 = shuffled."""
    total = sum(math.exp(float(o)) for o in logits)
    return -math.log(math.exp(float(logits[int(shuffled)])) / total)


def cosine_triplet(a, p, n, margin):
    """CCFR Eq. 5 and 6: f(y) = max(0, −y) of sim(A, P) − sim(A, N) − a."""
    cos = lambda u, v: float(np.dot(u, v) / (np.linalg.norm(u) * np.linalg.norm(v)))  # noqa: E731
    return max(0.0, -(cos(a, p) - cos(a, n) - margin))


def multi_level(child, parent, y, parents, weight):
    """CCFR Eq. 1-4."""
    softmax = lambda o: np.exp(o - o.max()) / np.exp(o - o.max()).sum()  # noqa: E731
    p, q = softmax(np.float64(child)), softmax(np.float64(parent))
    own = parents[y]
    children = np.mean([p[c] for c in range(len(p)) if parents[c] == own])
    return -math.log(p[y]) - weight * math.log(q[own]) + max(0.0, children - q[own])


def ranking(scores, losses, margin):
    """NTS-Net's pairwise hinge."""
    total = 0.0
    for i in range(len(scores)):
        for j in range(len(scores)):
            if losses[j] > losses[i]:
                total += max(0.0, margin - (float(scores[i]) - float(scores[j])))
    return total
