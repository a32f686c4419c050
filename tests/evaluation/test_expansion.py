"""Query expansion and k-reciprocal re-ranking, against plain loops over whole tables."""

import numpy as np
import pytest

from fgjax.errors import UserError
from fgjax.evaluation import expand_queries, k_reciprocal, nearest
from fgjax.evaluation.retrieval import normalize_rows


def blobs(classes=6, each=8, width=5, spread=0.35, seed=0):
    rng = np.random.default_rng(seed)
    middles = rng.normal(size=(classes, width))
    labels = np.repeat(np.arange(classes), each)
    return middles[labels] + spread * rng.normal(size=(len(labels), width)), labels


def test_expansion_by_hand():
    database = np.array([[1.0, 0], [0.6, 0.8], [0, 1], [-1, 0]])
    query = np.array([[2.0, 0.0]])
    wanted = np.array([1, 0]) + 1 * np.array([1, 0]) + 0.6**2 * np.array([0.6, 0.8])
    found = expand_queries(query, database, count=2, alpha=2.0)
    np.testing.assert_allclose(found, [wanted / np.linalg.norm(wanted)], rtol=1e-6)
    # Without itself, with one that points away and counts for nothing, and all weights equal.
    wanted = np.array([1, 0]) + np.array([0.6, 0.8])
    found = expand_queries(query, database[[0, 1, 3]], count=9, alpha=0.0, own=np.array([0]))
    np.testing.assert_allclose(found, [wanted / np.linalg.norm(wanted)], rtol=1e-6)


def by_loops(embeddings, k1, k2, weight, count):
    """The paper, with tables of N × N."""
    x = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    total = len(x)
    squared = np.maximum(2 - 2 * x @ x.T, 0)
    np.fill_diagonal(squared, -1)
    order = np.argsort(squared, axis=1, kind="stable")
    np.fill_diagonal(squared, 0)
    far = np.take_along_axis(squared, order, axis=1)[:, max(count, k1)]
    scaled = squared / far[:, None]

    def mutual(i, k):
        return {int(j) for j in order[i, : k + 1] if i in order[j, : k + 1]}

    v = np.zeros((total, total))
    for i in range(total):
        members = mutual(i, k1)
        enlarged = set(members)
        for j in members:
            other = mutual(j, round(k1 / 2))
            if len(other & members) > 2 / 3 * len(other):
                enlarged |= other
        for g in enlarged:
            v[i, g] = np.exp(-min(scaled[i, g], 1.0))
        v[i] /= v[i].sum()
    v = np.stack([v[order[i, :k2]].mean(axis=0) for i in range(total)])
    lists, scores = [], []
    for i in range(total):
        candidates = order[i, 1 : count + 1]
        shared = np.array([np.minimum(v[i], v[j]).sum() for j in candidates])
        union = np.array([np.maximum(v[i], v[j]).sum() for j in candidates])
        distance = (1 - weight) * (1 - shared / union) + weight * scaled[i, candidates]
        best = np.argsort(distance, kind="stable")
        lists.append(candidates[best])
        scores.append(1 - distance[best])
    return np.array(scores), np.array(lists)


@pytest.mark.parametrize(("k1", "k2", "weight"), [(6, 3, 0.3), (4, 1, 0.0), (9, 4, 0.8)])
def test_neighbourhoods_by_loops(k1, k2, weight):
    embeddings, _ = blobs()
    found, rows = k_reciprocal(embeddings, k1=k1, k2=k2, weight=weight, count=20)
    scores, wanted = by_loops(normalize_rows(embeddings), k1, k2, weight, 20)
    np.testing.assert_allclose(found, scores, atol=1e-5)
    assert np.mean(rows == wanted) > 0.98  # but for equal distances


def test_weight_one_changes_nothing_and_less_helps_where_classes_touch():
    embeddings, labels = blobs(spread=0.8, each=12, seed=3)
    _, plain = nearest(*[normalize_rows(embeddings)] * 2, count=11, own=np.arange(len(labels)))
    _, same = k_reciprocal(embeddings, k1=8, weight=1.0, count=11)
    np.testing.assert_array_equal(same, plain)
    _, better = k_reciprocal(embeddings, k1=12, weight=0.3, count=40)
    precision = lambda rows: np.mean(labels[rows[:, :11]] == labels[:, None])  # noqa: E731
    assert precision(better) > precision(plain) + 0.02


@pytest.mark.parametrize(
    ("options", "says"),
    [({"k1": 0}, r"k1 is 0, but must be in 1 … 47"), ({"k2": 30}, r"k2 is 30, but must be in 1"),
     ({"count": 48}, "count is 48"), ({"weight": 2.0}, r"weight is 2\.0, but must be in \[0, 1\]")],
)  # fmt: skip
def test_impossible_numbers_are_refused(options, says):
    with pytest.raises(UserError, match=says):
        k_reciprocal(blobs()[0], **{"count": 20, **options})
    with pytest.raises(UserError, match="alpha is -1"):
        expand_queries(np.eye(2), np.eye(2), alpha=-1)
