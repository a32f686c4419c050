"""The simplex, the fused score, and the search for its weights."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgjax.errors import UserError
from fgjax.evaluation import fusion


def test_the_grid_is_the_papers():
    grid = fusion.simplex(3, step=0.05)
    assert grid.shape == (231, 3)
    assert {tuple(Fraction(w).limit_denominator(20) for w in row) for row in grid} == {
        (Fraction(a, 20), Fraction(b, 20), Fraction(20 - a - b, 20))
        for a in range(21)
        for b in range(21 - a)
    }
    for published in ((0.3, 0.3, 0.4), (0.5, 0.2, 0.3), (0.4, 0.4, 0.2), (0.35, 0.3, 0.35)):
        assert np.isclose(grid, published).all(axis=1).any()
    with pytest.raises(UserError, match=r"0\.3, but must divide 1"):
        fusion.simplex(2, step=0.3)


def test_the_fused_score_is_eq_11_by_hand():
    scores = np.array([[[0.75, 0.25]], [[0.5, 0.5]], [[0.0, 1.0]]])
    assert fusion.fuse(scores, np.array([0.5, 0.25, 0.25])).tolist() == [[0.5, 0.5]]
    many = fusion.fuse(scores, np.array([[1, 0, 0], [0, 0, 1]]))
    assert many.tolist() == [[[0.75, 0.25]], [[0.0, 1.0]]]


def test_the_search_finds_what_a_loop_over_all_weights_finds():
    rng = np.random.default_rng(0)
    scores = rng.dirichlet(np.ones(4), (3, 40))
    labels = rng.integers(0, 4, 40)
    best, where, how = -1.0, None, np.inf
    for a in range(21):
        for b in range(21 - a):
            weights = np.array([a, b, 20 - a - b]) / 20
            fused = sum(w * s for w, s in zip(weights, scores))
            hits = np.mean(fused.argmax(1) == labels)
            surprise = -np.mean(np.log(fused[np.arange(40), labels]))
            if (hits, -surprise) > (best, -how):
                best, where, how = hits, weights, surprise
    found, accuracy = fusion.search_weights(scores, labels)
    assert accuracy == best
    np.testing.assert_allclose(found, where)


def test_among_equals_it_takes_the_more_certain_and_not_a_corner():
    """Two classifiers that are right with certainty on different halves; every mixture is right."""
    labels = np.array([0, 1])
    scores = np.array([[[0.9, 0.1], [0.48, 0.52]], [[0.52, 0.48], [0.1, 0.9]]])
    weights, accuracy = fusion.search_weights(scores, labels)
    assert accuracy == 1
    np.testing.assert_allclose(weights, [0.5, 0.5])


@given(st.integers(0, 1000), st.integers(2, 4))
def test_fusion_is_never_worse_on_its_own_images_than_the_best_alone(seed, count):
    rng = np.random.default_rng(seed)
    scores, labels = rng.dirichlet(np.ones(3), (count, 12)), rng.integers(0, 3, 12)
    _, accuracy = fusion.search_weights(scores, labels, step=0.25)
    assert accuracy >= max(np.mean(s.argmax(1) == labels) for s in scores)


def test_no_held_out_images_is_an_error():
    with pytest.raises(UserError, match="none are held out"):
        fusion.search_weights(np.zeros((3, 0, 4)), np.zeros(0, int))


def test_refusals_word_for_word():
    with pytest.raises(UserError) as found:
        fusion.simplex(2, step=0.3)
    assert str(found.value) == "the fusion's step is 0.3, but must divide 1, as 0.05 does."
    with pytest.raises(UserError) as found:
        fusion.search_weights(np.zeros((3, 0, 4)), np.zeros(0, int))
    assert str(found.value) == (
        "fusion weights are searched on held-out images, but none are held out: set "
        "data.held_out above 0 or fusion=preset."
    )


def test_defaults_and_ties_by_hand():
    assert len(fusion.simplex(3)) == 231 and len(fusion.simplex(2, step=1)) == 2
    scores = np.array([[[0.6, 0.4], [0.2, 0.8]], [[0.4, 0.6], [0.8, 0.2]]])
    weights = np.array([[1, 0], [0.5, 0.5], [0, 1]])
    found = fusion.accuracies(scores, np.array([0, 1]), weights)
    assert found.tolist() == [1, 0.5, 0]  # (½, ½) ties everywhere: class 0
    assert fusion.fuse(scores, np.array([1, 0])).dtype == np.float64
    narrow = fusion.fuse(np.float32(scores), np.float32([0.25, 0.75]))
    assert narrow.dtype == np.float64
    best, accuracy = fusion.search_weights(scores, np.array([0, 1]))
    assert best.tolist() == [1, 0] and accuracy == 1 and type(accuracy) is float
    coarse, _ = fusion.search_weights(scores, np.array([0, 1]), step=1)
    assert coarse.tolist() == [1, 0]


def test_certain_mistakes_cost_a_finite_amount():
    """Of two that are wrong on one image each, the one that is less certain elsewhere loses."""
    scores = np.array([[[1.0, 0.0], [0.4, 0.6]], [[1.0, 0.0], [0.1, 0.9]]])
    weights, accuracy = fusion.search_weights(scores, np.array([1, 1]), step=0.5)
    assert accuracy == 0.5 and weights.tolist() == [0, 1]


def test_a_product_by_hand():
    scores = np.array([[[0.8, 0.2]], [[0.5, 0.5]], [[0.2, 0.8]]])
    # (0.8² · 0.5 · 0.2) to (0.2² · 0.5 · 0.8)
    found = fusion.pool(scores, np.array([2.0, 1.0, 1.0]))
    np.testing.assert_allclose(found, [[0.8, 0.2]])
    np.testing.assert_allclose(fusion.pool(scores, np.zeros(3)), [[0.5, 0.5]])
    assert np.isfinite(fusion.pool(np.array([[[1.0, 0.0]]]), np.ones(1))).all()


def test_stacked_weights_are_at_the_minimum_of_the_surprise():
    """A sharp classifier, its blunted twin, one that knows nothing, and one that is wrong."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 300)
    logits = 2.0 * np.eye(4)[labels] + rng.normal(size=(300, 4))
    of = lambda x: np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)  # noqa: E731
    scores = np.stack([of(logits), of(0.1 * rng.normal(size=(300, 4))), of(-logits)])
    found = fusion.stack_weights(scores, labels)
    assert (found >= 0).all() and found[2] == pytest.approx(0, abs=1e-3)

    def surprise(weights):
        return -np.mean(np.log(fusion.pool(scores, weights)[np.arange(300), labels]))

    best = surprise(found)
    for delta in 0.05 * rng.normal(size=(200, 3)):
        assert best <= surprise(np.maximum(found + delta, 0)) + 1e-9
    with pytest.raises(UserError, match="none are held out"):
        fusion.stack_weights(scores[:, :0], labels[:0])
