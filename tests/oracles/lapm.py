"""LAPM's equations, one example at a time, in float64."""

import math


def sim(f_i, f_j):
    """Eq. 8."""
    return math.sqrt(sum((float(a) - float(b)) ** 2 for a, b in zip(f_i, f_j)))


def conventional(r, other, positive, m):
    """Eq. 7."""
    d = sim(r, other)
    return d if positive else max(0.0, m - d)


def positive_relationship(ref, scdi1, scdi2):
    """Eq. 9."""
    return sim(ref, scdi1) + sim(ref, scdi2) + sim(scdi1, scdi2)


def m1(distances):
    """Eq. 10."""
    return sum(map(float, distances)) / len(distances)


def sigma(distances):
    """The spread in Eq. 12."""
    mean = m1(distances)
    return math.sqrt(sum((float(d) - mean) ** 2 for d in distances) / len(distances))


def dissim(d, low, high):
    """Eq. 13, of which Eq. 11 is the second term."""
    return max(0.0, low - d) + max(0.0, d - high)


def negative_relationship(ref, dcdi1, dcdi2, dcdic, margins, alpha, additional=True):
    """Eq. 14; margins: {pair: (m1, sigma)}."""
    total = 0.0
    for one, other, pair in (
        (ref, dcdi1, "ref_dcdi1"),
        (ref, dcdi2, "ref_dcdi2"),
        (dcdi1, dcdi2, "dcdi1_dcdi2"),
    ):
        low, spread = margins[pair]
        high = low + alpha * spread if additional else math.inf
        total += dissim(sim(one, other), low, high)
    return total + max(0.0, margins["ref_dcdic"][0] - sim(ref, dcdic))


def loss(cls, positive, negative, s, lambda_):
    """Eq. 16 and 17."""
    pair = s * positive + (1 - s) * negative
    return lambda_ * cls + (1 - lambda_) * pair
