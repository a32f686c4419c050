"""The same equations over whole batches in float64, for programs of the sizes that are met."""

import numpy as np


def distances(x):
    norms = np.sum(x * x, axis=1)
    squared = np.maximum(norms[:, None] + norms[None] - 2 * x @ x.T, 0)
    np.fill_diagonal(squared, 0)
    return np.sqrt(squared)


def unit(x):
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def relu(x):
    return np.maximum(x, 0)


def logsumexp(x, axis=-1):
    peak = x.max(axis=axis, keepdims=True)
    return np.log(np.exp(x - peak).sum(axis=axis)) + np.squeeze(peak, axis)


def softmax(x):
    return np.exp(x - logsumexp(x)[..., None])


def pairs(y):
    same = y[:, None] == y[None]
    return same & ~np.eye(len(y), dtype=bool), ~same


def mean(values, where):
    return values[where].sum() / max(where.sum(), 1)


def euclidean(a, b):
    return np.sqrt(np.sum((a - b) ** 2, axis=-1))


def hard_softmax(o, y, k=2):
    return logsumexp(np.sort(o, axis=1)[:, -k:]) - o[np.arange(len(y)), y]


def decorrelation(w):
    products = np.abs(w.T @ w)
    count = w.shape[1]
    return (products.sum() - np.trace(products)) / (count * count - count)


def centralized_ranking(f, c, y, margin=0.5):
    d = np.stack([euclidean(f, row) for row in c], axis=1)
    own = d[np.arange(len(y)), y][:, None]
    return (relu(margin + own - d) * (np.arange(len(c)) != y[:, None])).sum(axis=1)


def proxy_anchor(x, p, y, alpha=32.0, margin=0.1):
    cosines, own = unit(x) @ unit(p).T, y[:, None] == np.arange(len(p))
    pull = np.log1p((np.exp(-alpha * (cosines - margin)) * own).sum(axis=0))
    push = np.log1p((np.exp(alpha * (cosines + margin)) * ~own).sum(axis=0))
    return pull[own.any(axis=0)].mean() + push.mean()


def pairwise_margin(a, b, s, margin):
    d = euclidean(a, b)
    return np.where(s == 1, d, relu(margin - d))


def negative_relationship(r, one, two, other, m1, sigma):
    band = lambda d: relu(m1 - d) + relu(d - m1 - sigma)  # noqa: E731
    pulled = band(euclidean(r, one)) + band(euclidean(r, two)) + band(euclidean(one, two))
    return pulled + relu(m1 - euclidean(r, other))


def triplet(a, p, n, margin=0.2):
    return 0.5 * relu(euclidean(a, p) ** 2 - euclidean(a, n) ** 2 + margin)


def cosine_triplet(a, p, n, margin=0.2):
    a, p, n = unit(a), unit(p), unit(n)
    return relu(margin - np.sum(a * p, axis=1) + np.sum(a * n, axis=1))


def ranking(scores, losses, margin=1.0):
    total = np.zeros(len(scores))
    for i in range(scores.shape[1]):
        better = losses > losses[:, i : i + 1]
        total += (better * relu(margin - (scores[:, i : i + 1] - scores))).sum(axis=1)
    return total


def multi_level(child, parent, y, parents):
    own, rows = parents[y], np.arange(len(y))
    p, q = softmax(child), softmax(parent)
    siblings = parents[None] == own[:, None]
    children = (p * siblings).sum(axis=1) / siblings.sum(axis=1)
    return -np.log(p[rows, y]) - np.log(q[rows, own]) + relu(children - q[rows, own])


def part_distance(maps):
    batch, height, width, parts = maps.shape
    flat = maps.reshape(batch, -1, parts)
    rows, columns = np.divmod(np.arange(height * width), width)
    peak = flat.argmax(axis=1)
    squared = ((rows[None, :, None] - rows[peak][:, None]) / height) ** 2
    squared = squared + ((columns[None, :, None] - columns[peak][:, None]) / width) ** 2
    return (flat * squared).sum(axis=(1, 2))


def part_diversity(maps, margin=0.02):
    total = np.zeros(len(maps))
    for part in range(maps.shape[-1]):
        others = np.delete(maps, part, axis=-1).max(axis=-1)
        total += (maps[..., part] * (others - margin)).sum(axis=(1, 2))
    return total


def contrastive(x, y, margin=1.0):
    positive, negative = pairs(y)
    squared = distances(x) ** 2
    return (mean(squared, positive) + mean(relu(margin - squared), negative)) / 2


def batch_all_triplet(x, y, margin=0.2):
    positive, negative = pairs(y)
    d = distances(x)
    gap = 0.5 * relu(margin + d[:, :, None] - d[:, None, :])
    return mean(gap, positive[:, :, None] & negative[:, None] & (gap > 0))


def batch_hard_cosine_triplets(x, y, margin=0.2):
    positive, negative = pairs(y)
    cosines = unit(x) @ unit(x).T
    hardest = np.where(positive, cosines, np.inf).min(axis=1)
    nearest = np.where(negative, cosines, -np.inf).max(axis=1)
    return relu(margin - hardest + nearest)


def batch_hard_cosine_triplet(x, y, margin=0.2):
    return batch_hard_cosine_triplets(x, y, margin).mean()


def lifted_structure(x, y, margin=1.0):
    positive, negative = pairs(y)
    d = distances(x)
    lifted = logsumexp(np.where(negative, margin - d, -np.inf))
    terms = relu(np.logaddexp(lifted[:, None], lifted[None]) + d)
    return 0.5 * mean(terms**2, positive)


def n_pairs(x, y, weight=0.002):
    order = np.argsort(y, kind="stable")
    _, first = np.unique(y[order], return_index=True)
    a, p = x[order[first]], x[order[first + 1]]
    logits = a @ p.T
    norms = (a * a).sum(axis=1) + (p * p).sum(axis=1)
    return np.mean(logsumexp(logits) - np.diag(logits) + 0.25 * weight * norms)


def binomial_deviance(x, y):
    positive, negative = pairs(y)
    offset = unit(x) @ unit(x).T - 0.5
    pulled = mean(np.logaddexp(0, -2 * offset), positive)
    return pulled + mean(np.logaddexp(0, 20 * offset), negative)


def histogram(x, y, nodes=151):
    place = (np.clip(unit(x) @ unit(x).T, -1, 1) + 1) * (nodes - 1) / 2
    lower = np.clip(np.floor(place), 0, nodes - 2).astype(int)
    share = place - lower

    def counts(mask):
        low, part = lower[mask], share[mask]
        found = np.bincount(low, 1 - part, nodes) + np.bincount(low + 1, part, nodes)
        return found / mask.sum()

    positive, negative = map(counts, pairs(y))
    return np.sum(negative * np.cumsum(positive))


def pddm(x, s, y):
    positive, negative = pairs(y)
    i, j = np.unravel_index(np.argmin(np.where(positive, s, np.inf)), s.shape)
    nearest = np.argmax(np.where(negative, s, -np.inf), axis=1)
    near, total = euclidean(x[i], x[j]) ** 2, 0.0
    for one in (i, j):
        other = nearest[one]
        far = euclidean(x[one], x[other]) ** 2
        total += relu(0.5 + s[one, other] - s[i, j]) + 0.5 * relu(1 + near - far)
    return total


def collapse(x):
    d = distances(x)
    values = np.linalg.svd(x - x.mean(axis=0), compute_uv=False)
    p = values[values > 1e-3 * values.max()] / values.sum()
    size = len(x)
    return np.array([d.sum() / (size * (size - 1)), np.exp(-np.sum(p * np.log(p)))])


def iou(one, other):
    side = lambda b: relu(b[..., 2:] - b[..., :2]).prod(axis=-1)  # noqa: E731
    one, other = one[:, None], other[None]
    low, high = np.maximum(one[..., :2], other[..., :2]), np.minimum(one[..., 2:], other[..., 2:])
    common = relu(high - low).prod(axis=-1)
    return common / (side(one) + side(other) - common)


def nms(boxes, scores, threshold, count):
    chosen, left = [], np.ones(len(boxes), bool)
    for _ in range(count):
        best = int(np.argmax(np.where(left, scores, -np.inf)))
        chosen.append(best)
        left &= iou(boxes[best : best + 1], boxes)[0] < threshold
        left[best] = False
        assert left.any()
    return np.array(chosen)


def crops(images, boxes, size):
    share = (np.arange(size) + 0.5) / size

    def along(low, high, pixels):
        place = np.clip((low + share * (high - low)) * pixels - 0.5, 0, pixels - 1)
        before = np.minimum(np.floor(place).astype(int), pixels - 2)
        return before, (place - before)[:, None]

    found = np.empty((*boxes.shape[:2], size, size, images.shape[-1]))
    for b, r in np.ndindex(boxes.shape[:2]):
        (y, dy), (x, dx) = (along(boxes[b, r, i], boxes[b, r, i + 2], images.shape[1 + i])
                            for i in (0, 1))  # fmt: skip
        rows = images[b, y] * (1 - dy)[..., None] + images[b, y + 1] * dy[..., None]
        found[b, r] = rows[:, x] * (1 - dx) + rows[:, x + 1] * dx
    return found


def attention(scores):
    low, high = (f(scores, axis=(1, 2), keepdims=True) for f in (np.min, np.max))
    pooled = np.log1p(np.exp(np.tanh(2 * (scores - low) / (high - low) - 1))) ** 8
    return pooled / pooled.sum(axis=(1, 2), keepdims=True)
