"""Every equation against its float64 oracle."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgjax import losses
from tests.oracles import baselines
from tests.oracles import softmax as oracle

seeds = st.integers(0, 10_000)
quick = settings(deadline=None, max_examples=25)


def draw(seed, *shapes, scale=1.0):
    rng = np.random.default_rng(seed)
    return [(rng.normal(size=shape) * scale).astype(np.float32) for shape in shapes]


def labels_of(seed, batch, classes):
    return np.random.default_rng([seed, 7]).integers(0, classes, batch).astype(np.int32)


@quick
@given(seeds, st.integers(1, 6), st.integers(2, 7), st.data())
def test_hard_softmax_is_eq_8(seed, batch, classes, data):
    k = data.draw(st.integers(1, classes))
    (o,), y = draw(seed, (batch, classes), scale=3), labels_of(seed, batch, classes)
    wanted = [oracle.hard_softmax(*row, k) for row in zip(o, y)]
    found = losses.hard_softmax_loss(o, y, top_k=k)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert (np.asarray(found) >= -1e-6).all()


def test_all_classes_make_it_softmax():
    (o,), y = draw(0, (9, 6)), labels_of(0, 9, 6)
    np.testing.assert_allclose(
        losses.hard_softmax_loss(o, y, top_k=6),
        optax.softmax_cross_entropy_with_integer_labels(o, y),
        rtol=1e-6,
    )


def test_the_gradient_is_eq_10_in_all_four_cases():
    o = np.array([[3.0, 2.0, 1.0, 0.5], [3.0, 2.0, 1.0, 0.5]], np.float32)
    y = np.array([0, 3], np.int32)  # inside and outside the top 2
    found = jax.grad(lambda o: jnp.sum(losses.hard_softmax_loss(o, y, top_k=2)))(o)
    wanted = [oracle.hard_softmax_gradient(*row, 2) for row in zip(o, y)]
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    cases = {(j == y[b], j < 2) for b in range(2) for j in range(4)}
    assert len(cases) == 4


@quick
@given(seeds)
def test_hdcl_is_eq_11_with_plus(seed):
    o, w = draw(seed, (5, 4), (3, 4))
    y = labels_of(seed, 5, 4)
    found = losses.hdcl_loss(o, y, w, top_k=2, decorrelation_weight=0.3)
    wanted = [oracle.hard_softmax(*row, 2) + 0.3 * oracle.decorrelation(w) for row in zip(o, y)]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@quick
@given(seeds)
def test_centralized_ranking_is_eq_3(seed):
    f, c = draw(seed, (6, 3), (4, 3))
    y = labels_of(seed, 6, 4)
    wanted = [oracle.centralized_ranking(*row, c, 0.5) for row in zip(f, y)]
    np.testing.assert_allclose(
        losses.centralized_ranking_loss(f, y, c, margin=0.5), wanted, rtol=1e-4, atol=1e-5
    )


@quick
@given(seeds, st.booleans())
def test_triplet_is_eq_2(seed, squared):
    rows = draw(seed, (6, 3), (6, 3), (6, 3))
    wanted = [oracle.triplet(*row, 0.5, squared) for row in zip(*rows)]
    found = losses.triplet_loss(*rows, margin=0.5, squared=squared)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@quick
@given(seeds)
def test_quadruplet_is_eq_9(seed):
    rows = draw(seed, *[(6, 3)] * 4)
    wanted = [oracle.quadruplet(*row, 0.9, 0.3) for row in zip(*rows)]
    found = losses.quadruplet_loss(*rows, m1=0.9, m2=0.3)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_shuffle_is_eq_6():
    (o,) = draw(1, (5, 2))
    s = np.array([0, 1, 1, 0, 1])
    wanted = [oracle.shuffle(*row) for row in zip(o, s)]
    np.testing.assert_allclose(losses.shuffle_loss(o, s), wanted, rtol=1e-5)
    np.testing.assert_allclose(losses.shuffle_loss(o, s.astype(bool)), wanted, rtol=1e-5)


@quick
@given(seeds)
def test_cosine_triplet_is_ccfr_eq_5_and_6(seed):
    rows = draw(seed, *[(6, 4)] * 3)
    wanted = [oracle.cosine_triplet(*row, 0.2) for row in zip(*rows)]
    np.testing.assert_allclose(losses.cosine_triplet_loss(*rows), wanted, rtol=1e-4, atol=1e-5)


@quick
@given(seeds)
def test_multi_level_is_ccfr_eq_1_to_4(seed):
    child, parent = draw(seed, (6, 5), (6, 3), scale=2)
    y, parents = labels_of(seed, 6, 5), np.array([0, 0, 1, 2, 1], np.int32)
    wanted = [oracle.multi_level(*row, parents, 0.7) for row in zip(child, parent, y)]
    found = losses.multi_level_loss(child, parent, y, parents, parent_weight=0.7)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_the_order_term_reaches_both_levels():
    child, parent = jnp.array([[1.0, 2.0, -1.0]]), jnp.array([[-2.0, 2.0]])
    arguments = np.array([0], np.int32), np.array([0, 0, 1], np.int32)

    def order(child, parent):
        whole = losses.multi_level_loss(child, parent, *arguments)
        entropy = optax.softmax_cross_entropy_with_integer_labels
        return jnp.sum(whole - entropy(child, arguments[0]) - entropy(parent, jnp.array([0])))

    assert float(order(child, parent)) > 0.1
    for gradient in jax.grad(order, argnums=(0, 1))(child, parent):
        assert float(jnp.abs(gradient).max()) > 1e-4


@quick
@given(seeds, st.booleans())
def test_ranking_is_nts(seed, ties):
    scores, teacher = draw(seed, (4, 5), (4, 5))
    if ties:
        teacher = np.round(teacher)
    wanted = [oracle.ranking(*row, 1.0) for row in zip(scores, teacher)]
    np.testing.assert_allclose(losses.ranking_loss(scores, teacher), wanted, rtol=1e-4, atol=1e-5)
    gradient = jax.grad(lambda t: jnp.sum(losses.ranking_loss(scores, t)))(teacher)
    np.testing.assert_array_equal(gradient, 0)  # none to the teacher


BASELINES = {
    "contrastive": (losses.contrastive_loss, baselines.contrastive),
    "lifted": (losses.lifted_structure_loss, baselines.lifted),
    "n_pairs": (losses.n_pairs_loss, baselines.n_pairs),
    "binomial_deviance": (losses.binomial_deviance_loss, baselines.binomial_deviance),
    "histogram": (losses.histogram_loss, baselines.histogram),
}


@pytest.mark.parametrize("name", BASELINES)
@settings(deadline=None, max_examples=15)
@given(seeds, st.integers(2, 9), st.integers(1, 4))
def test_baselines_match_their_definitions(name, seed, batch, classes):
    ours, wanted = BASELINES[name]
    (x,), y = draw(seed, (batch, 4)), labels_of(seed, batch, classes)
    np.testing.assert_allclose(ours(x, y), wanted(x, y), rtol=2e-4, atol=2e-5)


@quick
@given(seeds, st.integers(2, 9), st.integers(1, 5))
def test_proxy_anchor_matches_its_definition(seed, batch, classes):
    x, proxies = draw(seed, (batch, 4), (5, 4))
    y = labels_of(seed, batch, classes)
    found = losses.proxy_anchor_loss(x, y, proxies)
    np.testing.assert_allclose(found, baselines.proxy_anchor(x, y, proxies), rtol=1e-4, atol=1e-5)


@quick
@given(seeds, st.integers(2, 8))
def test_pddm_matches_its_definition(seed, batch):
    x, s = draw(seed, (batch, 4), (batch, batch))
    y = labels_of(seed, batch, 3)
    found = losses.pddm_quadruplet_loss(x, y, s)
    np.testing.assert_allclose(found, baselines.pddm(x, y, s), rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=15)
@given(seeds)
def test_facility_location_finds_nearly_the_best_medoids(seed):
    """Greedy and swaps against all subsets: never above the maximum, mostly equal to it."""
    (x,), y = draw(seed, (7, 3)), labels_of(seed, 7, 3)
    found, best = float(losses.facility_location_loss(x, y)), baselines.facility_location(x, y)
    assert found <= best + 1e-4


def test_facility_location_reaches_the_maximum_in_most_batches():
    gaps = []
    for seed in range(20):
        (x,), y = draw(seed, (7, 3)), labels_of(seed, 7, 3)
        best = baselines.facility_location(x, y)
        gaps.append(best - float(losses.facility_location_loss(x, y)))
    assert np.mean(np.array(gaps) < 1e-3) >= 0.7
    assert np.max(gaps) < 1.0


def test_wrong_distances_would_be_noticed():
    """The oracles tell L2 from squared L2, cosine from dot product, and classes from each other."""
    (x,), y = draw(3, (6, 4)), np.array([0, 0, 1, 1, 2, 2], np.int32)
    values = {name: float(ours(x, y)) for name, (ours, _) in BASELINES.items()}
    scaled = {name: float(ours(2 * x, y)) for name, (ours, _) in BASELINES.items()}
    other = {name: float(ours(x, y[::-1].copy() % 2)) for name, (ours, _) in BASELINES.items()}
    for name in BASELINES:
        invariant = name in ("binomial_deviance", "histogram")
        assert (abs(values[name] - scaled[name]) < 1e-4) == invariant
        assert abs(values[name] - other[name]) > 1e-3


def test_collapse_alarm_by_hand():
    line = jnp.arange(4.0)[:, None] * jnp.array([[1.0, 2.0]])
    assert float(losses.collapse_alarm(line)["effective_rank"]) == pytest.approx(1, abs=1e-2)
    cross = jnp.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    assert float(losses.collapse_alarm(cross)["effective_rank"]) == pytest.approx(2, abs=1e-3)
    point = losses.collapse_alarm(jnp.ones((5, 3)), jnp.zeros(7))
    assert {k: float(v) for k, v in point.items()} == {
        "mean_pair_distance": 0, "effective_rank": 0, "active_share": 0,
    }  # fmt: skip
