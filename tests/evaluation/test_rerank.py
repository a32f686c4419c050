"""Re-ranking: Eq. 8 and 9 by loops, and what must never change."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgjax.errors import UserError
from fgjax.evaluation import rerank
from fgjax.evaluation.rerank import (
    Neighbours,
    Thresholds,
    _descending,
    class_similarities,
    find_neighbours,
    rescore,
    search_thresholds,
)


def world(seed, queries=6, classes=7, database=20, depth=4):
    rng = np.random.default_rng(seed)
    return (
        rng.dirichlet(np.ones(classes) * 0.7, queries),
        rng.normal(size=(queries, depth)).astype(np.float32),
        rng.normal(size=(database, depth)).astype(np.float32),
        rng.integers(0, classes, database),
    )


def by_loops(p, q, x, y, *, top_n, top_m, t_sf, t_sc, alpha, beta, per_class):
    """The order of classes of each query, most likely first."""
    unit = lambda v: v / np.linalg.norm(v)  # noqa: E731
    orders = []
    for i in range(len(p)):
        coarse = sorted(range(p.shape[1]), key=lambda c: (-p[i, c], c))
        sims = sorted(((float(unit(q[i]) @ unit(v)), k) for k, v in enumerate(x)), reverse=True)
        sums = dict.fromkeys(coarse[:top_n], 0.0)
        for sim, k in sims[:top_m]:
            if sim > t_sc and y[k] in sums:
                sums[y[k]] += sim
        total = sum(sums.values())
        if total <= 0 or (not per_class and p[i].max() >= t_sf):
            orders.append(coarse)
            continue
        new = {}
        for c in coarse[:top_n]:
            keeps = per_class and p[i, c] >= t_sf
            new[c] = p[i, c] if keeps else alpha * p[i, c] + beta * sums[c] / total
        first = sorted(coarse[:top_n], key=lambda c: (-new[c], coarse.index(c)))
        orders.append(first + coarse[top_n:])
    return np.array(orders)


def order_of(scores):
    return np.argsort(-scores, axis=1, kind="stable")


@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_the_order_is_that_of_plain_loops(seed, per_class):
    p, q, x, y = world(seed)
    options = {"top_n": 4, "top_m": 9, "alpha": 0.3, "beta": 0.8, "per_class": per_class}
    scores = rerank(p, q, x, y, probability_threshold=0.5, similarity_threshold=0.1, **options)
    wanted = by_loops(p, q, x, y, t_sf=0.5, t_sc=0.1, **options)
    np.testing.assert_array_equal(order_of(scores), wanted)


def test_by_hand():
    """Two of three near images are of class 1: 0.9 + 0.6 against 0.8, of 2.3 in all."""
    p, q = np.array([[0.5, 0.4, 0.1]]), np.array([[1.0, 0.0]])
    angles = np.arccos([0.9, 0.8, 0.6, 0.2])
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    y = np.array([1, 0, 1, 2])
    scores = rerank(p, q, x, y, top_n=2, top_m=4, similarity_threshold=0.5, alpha=0.5, beta=2)
    np.testing.assert_allclose(scores[0, :2], [0.25 + 2 * 0.8 / 2.3, 0.2 + 2 * 1.5 / 2.3])
    assert scores[0, 2] < scores[0, :2].min()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 7), st.booleans())
def test_what_never_changes(seed, top_n, per_class):
    p, q, x, y = world(seed)
    options = {"top_n": top_n, "top_m": 8, "similarity_threshold": 0.0, "per_class": per_class}
    before = order_of(p)
    same = rerank(p, q, x, y, alpha=1, beta=0, probability_threshold=0.9, **options)
    np.testing.assert_array_equal(order_of(same), before)
    nothing = rerank(p, q, x, y, probability_threshold=0, **options)
    np.testing.assert_array_equal(order_of(nothing), before)
    after = order_of(rerank(p, q, x, y, probability_threshold=0.9, **options))
    np.testing.assert_array_equal(after[:, top_n:], before[:, top_n:])
    np.testing.assert_array_equal(np.sort(after[:, :top_n]), np.sort(before[:, :top_n]))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 7))
def test_an_oracle_never_hurts(seed, top_n):
    p, _, _, y = world(seed)
    truth = np.random.default_rng(seed + 1).integers(0, 7, len(p))
    scores = rerank(p, np.eye(7)[truth], np.eye(7)[y], y, top_n=top_n, top_m=20,
                    probability_threshold=1.1)  # fmt: skip
    before, after = order_of(p)[:, 0] == truth, order_of(scores)[:, 0] == truth
    assert (after >= before).all()


def test_ties_keep_the_order_of_the_probabilities():
    p = np.array([[0.1, 0.4, 0.2, 0.3]])
    q, x = np.array([[1.0, 0.0]]), np.array([[1.0, 0.0], [1.0, 0.0]])
    scores = rerank(p, q, x, np.array([1, 3]), top_n=4, top_m=2)
    assert order_of(scores)[0].tolist() == [1, 3, 2, 0]


def test_zero_features_have_no_neighbours_and_missing_classes_no_score():
    p, q, x, y = world(0)
    np.testing.assert_array_equal(rerank(p, 0 * q, x, y, top_m=5, probability_threshold=2), p)
    np.testing.assert_array_equal(rerank(p, q, 0 * x, y, top_m=5, probability_threshold=2), p)
    scores = rerank(p, q, x, np.zeros_like(y), top_n=7, top_m=20, probability_threshold=2,
                    similarity_threshold=0)  # fmt: skip
    assert (order_of(scores)[:, 0] == 0).all() and np.isfinite(scores).all()


@pytest.mark.parametrize(
    ("options", "says"),
    [({"top_n": 8}, "in 1 … 7"), ({"top_n": 0}, "in 1 … 7"), ({"top_m": 21}, "in 1 … 20")],
)
def test_too_much_is_refused(options, says):
    with pytest.raises(UserError, match=says):
        rerank(*world(0), **{"top_m": 5, **options})


def refusal(call):
    with pytest.raises(UserError) as found:
        call()
    return str(found.value)


def test_refusals_word_for_word():
    p, q, x, y = world(0)
    assert refusal(lambda: rerank(p, q, x, y, top_n=8, top_m=5)) == (
        "top_n is 8, but must be in 1 … 7, the number of classes."
    )
    assert refusal(lambda: rerank(p, q, x, y, top_m=0)) == (
        "top_m is 0, but must be in 1 … 20, the images of the database."
    )
    assert refusal(lambda: rerank(p, q * np.inf, x, y, top_m=5)).startswith(
        "6 of 6 queries are not finite"
    )
    assert refusal(lambda: rerank(p, q, x * np.nan, y, top_m=5)).startswith(
        "20 of 20 the database are not finite"
    )
    assert rerank(p, q, x, y, top_n=7, top_m=20).shape == p.shape  # all there are


@pytest.mark.parametrize("name", ["rerank", "rescore"])
def test_defaults_are_those_of_the_docstring(name):
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(8) * 0.1, 200)
    labels = rng.integers(0, 8, 300)
    # Similarities on both sides of 0.7: the first coordinate dominates.
    q = np.concatenate([np.ones((200, 1)), rng.normal(size=(200, 3)) * 0.6], axis=1)
    x = np.concatenate([np.ones((300, 1)), rng.normal(size=(300, 3)) * 0.6], axis=1)
    near = find_neighbours(q, x, labels, count=60)

    def call(**options):
        if name == "rerank":
            return rerank(p, q, x, labels, **options)
        return rescore(p, near, **options)

    defaults = {"top_n": 5, "top_m": 50, "probability_threshold": 0.7,
                "similarity_threshold": 0.7, "alpha": 0.0, "beta": 1.0,
                "per_class": False}  # fmt: skip
    found = call()
    np.testing.assert_array_equal(found, call(**defaults))
    others = {"top_n": 6, "top_m": 51, "probability_threshold": 0.8, "similarity_threshold": 0.8,
              "alpha": 1.0, "beta": 2.0, "per_class": True}  # fmt: skip
    for option, value in others.items():
        assert not np.array_equal(call(**{**defaults, option: value}), found), option


def test_neighbours_are_the_nearest_by_cosine():
    _, q, x, y = world(3)
    found = find_neighbours(5 * q, x, y, count=4)
    cosines = (q @ x.T) / np.linalg.norm(q, axis=1)[:, None] / np.linalg.norm(x, axis=1)
    rows = np.argsort(-cosines, axis=1)[:, :4]
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_array_equal(found.labels, y[rows])
    np.testing.assert_allclose(found.similarities, np.take_along_axis(cosines, rows, 1), rtol=1e-5)


def test_class_similarities_by_hand():
    """Of three looked at, 0.5 is not above the threshold; the fourth is beyond top m."""
    near = Neighbours(
        np.array([[0.875, 0.75, 0.5, 0.5], [0.25, 0.25, 0.25, 0.25]], np.float32),
        np.array([[1, 2, 1, 1], [0, 0, 0, 0]]), np.zeros((2, 4), int),
    )  # fmt: skip
    classes = np.array([[1, 0, 2], [0, 1, 2]])
    share, total = class_similarities(near, classes, top_m=3, similarity_threshold=0.5)
    assert share.tolist() == [[0.875 / 1.625, 0, 0.75 / 1.625], [0, 0, 0]]
    assert total.tolist() == [1.625, 0] and share.dtype == np.float64


def test_thresholds_are_reached_or_passed():
    """T_sf itself is sure enough; a class whose probability reaches it keeps it with per_class."""
    near = Neighbours(np.ones((1, 2), np.float32), np.array([[1, 1]]), np.zeros((1, 2), int))
    p, options = np.array([[0.5, 0.375, 0.125]]), {"top_n": 2, "top_m": 2}
    same = rescore(p, near, probability_threshold=0.5, **options)
    np.testing.assert_array_equal(same, p)
    found = rescore(p, near, probability_threshold=0.51, **options)
    assert found[0, :2].tolist() == [0, 1] and found[0, 2] == 0.125 - 4
    kept = rescore(
        p, near, probability_threshold=0.5, per_class=True, alpha=0.5, beta=0.25, **options
    )
    assert kept[0].tolist() == [0.5, 0.5 * 0.375 + 0.25, 0.125 - 4]
    assert kept.dtype == np.float64


def test_ties_are_broken_by_the_smallest_steps():
    found = _descending(np.array([[1.0, 1.0, 1.0, 0.5], [3.0, 2.0, 2.0, 2.0]]))
    below = lambda x, times: x if not times else below(np.nextafter(x, -np.inf), times - 1)  # noqa: E731
    wanted = [[1, below(1.0, 1), below(1.0, 2), 0.5], [3, 2, below(2.0, 1), below(2.0, 2)]]
    assert found.tolist() == wanted


def test_the_first_of_the_best_thresholds_is_taken():
    near = Neighbours(
        np.ones((2, 2), np.float32), np.array([[1, 1], [0, 0]]), np.zeros((2, 2), int)
    )
    p = np.array([[0.6, 0.4], [0.7, 0.3]])
    tried = [Thresholds(2, 2, sure, 0.5) for sure in (0.5, 0.65, 0.66, 0.1)]
    assert search_thresholds(p, np.array([1, 0]), near, tried) == (tried[1], 1.0)
    assert search_thresholds(p, np.array([0, 0]), near, tried) == (tried[0], 1.0)
    chosen, accuracy = search_thresholds(p, np.array([1, 0]), near, tried, alpha=1.0, beta=0.0)
    assert (chosen, accuracy) == (tried[0], 0.5) and type(accuracy) is float


def test_many_equal_probabilities_keep_the_order_of_the_classes():
    """Forty classes of two probabilities; the only neighbour is of none of the first."""
    p = np.tile([0.04, 0.01], 20)[None]
    near = Neighbours(np.ones((1, 1), np.float32), np.array([[38]]), np.zeros((1, 1), int))
    scores = rescore(p, near, top_n=30, top_m=1)
    first = [38, *range(0, 38, 2), *range(1, 20, 2)]  # the one that is found, then by probability
    assert order_of(scores)[0, :30].tolist() == first
