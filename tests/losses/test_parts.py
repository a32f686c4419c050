"""MA-CNN's grouping losses."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fgjax import losses
from tests.oracles import macnn as oracle


def maps(seed=0, parts=3):
    raw = np.random.default_rng(seed).uniform(size=(4, 5, 6, parts)) ** 4
    return (raw / raw.sum(axis=(1, 2), keepdims=True)).astype(np.float32)


def test_distance_matches_the_formula():
    wanted = [oracle.distance(m) for m in maps()]
    np.testing.assert_allclose(losses.part_distance(maps()), wanted, rtol=1e-5)


def test_diversity_matches_the_formula():
    wanted = [oracle.diversity(m, 0.02) for m in maps()]
    np.testing.assert_allclose(losses.part_diversity(maps(), margin=0.02), wanted, rtol=1e-4,
                               atol=1e-7)  # fmt: skip


def test_the_strongest_other_part_is_a_constant():
    m = jnp.asarray(maps())
    gradient = jax.grad(lambda x: jnp.sum(losses.part_diversity(x, margin=0.0)))(m)
    same = jnp.eye(3, dtype=bool)
    others = jnp.max(jnp.where(same, -jnp.inf, m[..., None, :]), axis=-1)
    chex.assert_trees_all_close(gradient, others, rtol=1e-5)


def test_compact_and_separate_parts_cost_less():
    spread = jnp.full((1, 5, 5, 2), 1 / 25)
    compact = jnp.zeros((1, 5, 5, 2)).at[0, 1, 1, 0].set(1).at[0, 3, 3, 1].set(1)
    assert losses.part_distance(compact)[0] < losses.part_distance(spread)[0]
    assert losses.part_diversity(compact)[0] < losses.part_diversity(spread)[0]


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize("loss", [losses.part_distance, losses.part_diversity])
def test_wrong_rank_is_refused(loss):
    with pytest.raises(ValueError, match="must be"):
        loss(np.ones((3, 3, 2)))
    with pytest.raises(ValueError, match="two parts"):
        losses.part_diversity(np.ones((1, 3, 3, 1)))
