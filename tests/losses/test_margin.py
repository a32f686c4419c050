"""LAPM's losses against the float64 oracle, and their properties."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from fgjax import losses
from tests.oracles import lapm as oracle


def features(seed, *, count=4, batch=5, depth=7):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(batch, depth)).astype(np.float32) * 3 for _ in range(count)]


def margins(seed=0):
    rng = np.random.default_rng(seed + 99)
    pairs = ("ref_dcdi1", "ref_dcdi2", "dcdi1_dcdi2", "ref_dcdic")
    numbers = {p: (float(rng.uniform(5, 12)), float(rng.uniform(0.5, 2))) for p in pairs}
    stats = {
        p: losses.MarginStatistics(m1=jnp.float32(m), sigma=jnp.float32(s))
        for p, (m, s) in numbers.items()
    }
    return numbers, losses.PairMargins(**stats)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 9))
def test_positive_relationship_matches_eq_9(seed, batch, depth):
    r, one, two = features(seed, count=3, batch=batch, depth=depth)
    wanted = [oracle.positive_relationship(*rows) for rows in zip(r, one, two)]
    np.testing.assert_allclose(losses.positive_relationship(r, one, two), wanted, rtol=1e-5)


@pytest.mark.parametrize("additional", [True, False])
@pytest.mark.parametrize("alpha", [0.0, 1.0, 1.2])
def test_negative_relationship_matches_eq_14(alpha, additional):
    numbers, stats = margins()
    rows = features(3)
    wanted = [oracle.negative_relationship(*row, numbers, alpha, additional) for row in zip(*rows)]
    found = losses.negative_relationship(*rows, stats, alpha=alpha, additional_term=additional)
    assert np.std(wanted) > 0.1  # the data tells the examples apart
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_margins_may_differ_by_reference():
    rows = features(5)
    numbers, stats = margins()
    per_row = jax.tree.map(lambda x: jnp.broadcast_to(x, (5,)) + jnp.arange(5.0), stats)
    wanted = [
        oracle.negative_relationship(
            *row, {p: (m + i, s + i) for p, (m, s) in numbers.items()}, 1.0
        )
        for i, row in enumerate(zip(*rows))
    ]
    found = losses.negative_relationship(*rows, per_row)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(0, 100, width=32), min_size=1, max_size=40))
def test_margin_statistics_match_eq_10_and_12(distances):
    found = losses.margin_statistics(jnp.array(distances, jnp.float32))
    np.testing.assert_allclose(found.m1, oracle.m1(distances), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.sigma, oracle.sigma(distances), rtol=1e-3, atol=2e-3)


def test_masked_statistics_equal_removed():
    distances = np.random.default_rng(0).uniform(size=(3, 6)).astype(np.float32)
    where = np.array([1, 0, 1, 1, 0, 1], bool)
    masked = losses.margin_statistics(distances, where=where[None], axis=1)
    removed = losses.margin_statistics(distances[:, where], axis=1)
    chex.assert_trees_all_close(masked, removed, rtol=1e-5)
    empty = losses.margin_statistics(distances, where=np.zeros((3, 6), bool), axis=1)
    chex.assert_trees_all_equal(empty.m1, jnp.zeros(3))


def test_statistics_are_constants():
    gradient = jax.grad(lambda d: losses.margin_statistics(d).m1)(jnp.arange(4.0))
    chex.assert_trees_all_equal(gradient, jnp.zeros(4))


def test_conventional_loss_matches_eq_7():
    one, other = features(1, count=2)
    positive = np.array([1, 0, 1, 0, 0])
    wanted = [oracle.conventional(a, b, p, 12.0) for a, b, p in zip(one, other, positive)]
    found = losses.pairwise_margin_loss(one, other, positive, margin=12.0)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_whole_loss_matches_eq_17():
    rng = np.random.default_rng(2)
    cls, pos, neg = rng.uniform(size=(3, 6)).astype(np.float32)
    s = np.array([1, 0, 0, 1, 1, 0])
    wanted = [oracle.loss(*row, 0.8) for row in zip(cls, pos, neg, s)]
    np.testing.assert_allclose(losses.lapm_loss(cls, pos, neg, s, lambda_=0.8), wanted, rtol=1e-6)


def test_the_branch_left_out_gets_no_gradient():
    def total(pos):
        return jnp.sum(losses.lapm_loss(jnp.ones(2), pos, jnp.ones(2), jnp.array([1, 0])))

    gradient = jax.grad(total)(jnp.array([1.0, jnp.inf]))
    np.testing.assert_allclose(gradient, [0.25, 0.0])


def test_inside_the_band_nothing_moves():
    value = jax.vmap(jax.value_and_grad(lambda d: losses.dissimilarity(d, 1.0, 2.0)))(
        jnp.array([1.0 + 1e-4, 1.5, 2.0 - 1e-4])
    )
    chex.assert_trees_all_equal(value, (jnp.zeros(3), jnp.zeros(3)))
    outside = jax.vmap(jax.grad(lambda d: losses.dissimilarity(d, 1.0, 2.0)))(jnp.array([0.5, 2.5]))
    np.testing.assert_allclose(outside, [-1.0, 1.0])


def test_identical_embeddings_have_finite_gradients():
    same = jnp.ones((3, 4))
    _, stats = margins()

    def total(x):
        positive = losses.positive_relationship(x, x, x)
        negative = losses.negative_relationship(x, x, x, x, stats)
        return jnp.sum(positive + negative)

    value, gradient = jax.value_and_grad(total)(same)
    assert np.isfinite(value)
    chex.assert_tree_all_finite(gradient)


def test_rigid_motion_changes_nothing():
    rows = features(7)
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(7, 7)))
    moved = [(row @ rotation + 4).astype(np.float32) for row in rows]
    _, stats = margins()
    np.testing.assert_allclose(
        losses.negative_relationship(*moved, stats),
        losses.negative_relationship(*rows, stats),
        rtol=1e-3, atol=1e-4,
    )  # fmt: skip


def test_gradients_away_from_kinks():
    rows = [jnp.asarray(row) for row in features(11, batch=2)]
    _, stats = margins()
    check_grads(
        lambda *r: losses.negative_relationship(*r, stats), rows, order=1, modes=["rev"],
        atol=2e-2, rtol=2e-2,
    )  # fmt: skip
    check_grads(losses.positive_relationship, rows[:3], order=1, modes=["rev"], atol=2e-2,
                rtol=2e-2)  # fmt: skip


@pytest.mark.parametrize(
    "call",
    [
        lambda: losses.positive_relationship(np.ones(3), np.ones(3), np.ones(3)),
        lambda: losses.positive_relationship(np.ones((2, 3)), np.ones((3, 3)), np.ones((2, 3))),
        lambda: losses.pairwise_margin_loss(
            np.ones((2, 3)), np.ones((2, 3)), np.ones(2), margin=-1
        ),
        lambda: losses.lapm_loss(np.ones(2), np.ones(3), np.ones(2), np.ones(2)),
        lambda: losses.lapm_loss(np.ones(2), np.ones(2), np.ones(2), np.ones(2), lambda_=2),
    ],
)
@pytest.mark.usefixtures("unchecked_types")
def test_wrong_input_is_refused_at_trace_time(call):
    with pytest.raises(ValueError, match=r"\.$"):
        call()


class Variants(chex.TestCase, parameterized.TestCase):
    """Jitted, on a device or not, and under pmap: the same numbers."""

    @chex.variants(with_jit=True, without_jit=True, with_device=True, without_device=True)
    def test_values(self):
        rows = features(13)
        _, stats = margins()
        found = self.variant(lambda *r: losses.negative_relationship(*r, stats))(*rows)
        wanted = losses.negative_relationship(*rows, stats)
        chex.assert_trees_all_close(found, wanted, rtol=1e-5)

    def test_pmap_with_pmean_equals_jit(self):
        rows = [jnp.asarray(row) for row in features(17, batch=8)]
        _, stats = margins()

        def mean(*r):
            return jnp.mean(losses.negative_relationship(*r, stats))

        wanted = jax.jit(jax.value_and_grad(mean))(*rows)

        def per_device(*r):
            value, gradient = jax.value_and_grad(mean)(*r)
            return jax.lax.pmean(value, "i"), gradient / jax.device_count()

        split = [row.reshape(4, 2, -1) for row in rows]
        value, gradient = jax.pmap(per_device, axis_name="i")(*split)
        np.testing.assert_allclose(value[0], wanted[0], rtol=1e-5)
        np.testing.assert_allclose(gradient.reshape(8, -1), wanted[1], rtol=1e-4, atol=1e-6)
