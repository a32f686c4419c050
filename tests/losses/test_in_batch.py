"""In-batch losses that every method trains with, and facility location's search, by loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fgjax import losses
from fgjax.losses import facility
from tests.oracles import facility as oracle


def draw(seed, batch=7, classes=3, depth=4):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(batch, depth)).astype(np.float32)
    return x, rng.integers(0, classes, batch).astype(np.int32)


ALL = jax.jit(losses.batch_all_triplet_loss, static_argnames=("margin", "squared"))
HARDEST = jax.jit(losses.batch_hard_cosine_triplet_loss, static_argnames="margin")
SEARCH = jax.jit(
    lambda x, y, gamma, rounds: losses.facility_location_loss(
        x, y, margin_multiplier=gamma, refinements=rounds
    )
)


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_all_triplets_by_loops(seed, squared):
    """The mean of those above zero, which are not all here."""
    x, y = draw(seed)
    d = np.linalg.norm(np.float64(x)[:, None] - x[None], axis=2) ** (2 if squared else 1)
    rows = range(len(y))
    terms = [0.5 * max(0.0, 0.3 + d[a, p] - d[a, n]) for a in rows for p in rows for n in rows
             if a != p and y[a] == y[p] and y[a] != y[n]]  # fmt: skip
    assert 0 in terms
    wanted = np.mean([term for term in terms if term > 0])
    found = ALL(x, y, margin=0.3, squared=squared)
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_the_hardest_cosine_triplets_by_loops(seed):
    """Anchors without a positive or without a negative do not count."""
    x, y = draw(seed, batch=6, classes=4)
    unit = np.float64(x) / np.linalg.norm(np.float64(x), axis=1, keepdims=True)
    cos, rows, terms = unit @ unit.T, range(len(y)), []
    for a in rows:
        positives = [cos[a, p] for p in rows if p != a and y[p] == y[a]]
        negatives = [cos[a, n] for n in rows if y[n] != y[a]]
        if positives and negatives:
            terms.append(max(0.0, 0.4 - min(positives) + max(negatives)))
    found = HARDEST(x, y, margin=0.4)
    np.testing.assert_allclose(found, np.mean(terms), rtol=1e-4, atol=1e-5)


def test_the_choice_of_the_hardest_has_no_gradient_of_its_own():
    x, y = draw(5)
    value, gradient = jax.jit(jax.value_and_grad(lambda x: HARDEST(x, y, margin=2.0)))(x)
    step = np.random.default_rng(0).normal(size=x.shape).astype(np.float32) * 1e-2
    change = float(HARDEST(x + step, y, margin=2.0)) - float(HARDEST(x - step, y, margin=2.0))
    assert float(value) > 0.1
    assert change / 2 == pytest.approx(np.sum(np.asarray(gradient) * step), rel=2e-2)


@pytest.mark.parametrize("loss", [ALL, HARDEST])
def test_batches_without_a_triplet_cost_nothing(loss):
    x, _ = draw(0)
    both = jax.jit(jax.value_and_grad(loss))
    for y in (np.arange(7, dtype=np.int32), np.zeros(7, np.int32)):
        value, gradient = both(x, y)
        assert float(value) == 0 and not gradient.any()


@pytest.mark.usefixtures("unchecked_types")  # one program for all of γ and of the rounds
@pytest.mark.parametrize("rounds", [0, 5])
@pytest.mark.parametrize("gamma", [1.0, 3.0])
def test_facility_location_is_the_greedy_search_with_swaps(gamma, rounds):
    values = []
    for seed in range(8):
        x, y = draw(seed, depth=3)
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        found = SEARCH(x, y, gamma, rounds)
        values.append(oracle.facility_location(x, y, gamma, rounds))
        assert float(found) == pytest.approx(values[-1], rel=1e-4, abs=1e-4), seed
    assert np.count_nonzero(values) >= 6


def test_swaps_find_what_greed_misses():
    """The value moves with the rounds of swapping in some batch, and one round is not the same."""
    found = []
    for seed in range(40):
        x, y = draw(seed, depth=3)
        found.append([oracle.facility_location(x, y, 1.0, rounds) for rounds in (0, 1, 5)])
    found = np.array(found)
    assert (found[:, 2] > found[:, 0] + 1e-3).sum() >= 3


def test_nmi_by_hand():
    truth = jax.nn.one_hot(jnp.array([0, 0, 2, 2]), 4)
    compiled = jax.jit(facility._nmi)
    nmi = lambda *medoids: float(compiled(jnp.array(medoids), truth))  # noqa: E731
    assert nmi(0, 0, 2, 2) == pytest.approx(1)
    assert nmi(3, 3, 1, 1) == pytest.approx(1)  # names do not matter
    assert nmi(0, 2, 0, 2) == pytest.approx(0, abs=1e-6)
    # H = log 2 twice, joint: ¼ log 4 · 2 + ½ log 2; I = 2 log 2 − 1.5 log 2.
    three = nmi(0, 0, 2, 3)
    assert three == pytest.approx(2 * np.log(2) / (1.5 * np.log(2) + np.log(2)), rel=1e-5)
    alone = jnp.ones((1, 1))
    assert float(facility._nmi(jnp.array([0]), alone)) == 1  # one cluster, one class


def test_the_nearest_medoid_is_the_first_of_equals():
    distances = jnp.array([[0.0, 1.0, 1.0], [1.0, 0.0, 2.0], [1.0, 2.0, 0.0]])
    assert facility._assign(distances, jnp.array([False, True, True])).tolist() == [1, 1, 2]


def effective_rank(x):
    values = np.linalg.svd(np.float64(x) - np.float64(x).mean(axis=0), compute_uv=False)
    p = values / values.sum()
    return np.exp(-sum(share * np.log(share) for share in p if share > 1e-3 * p.max()))


def test_the_collapse_alarm_in_float64():
    x = np.random.default_rng(0).normal(size=(6, 3)) * [1, 0.2, 0.2] + 3
    x = x.astype(np.float32)
    given = jnp.array([[0.0, 1e-6], [2.0, -1.0]])
    alarm = jax.jit(losses.collapse_alarm)(x, given)
    far = [np.linalg.norm(x[i] - x[j]) for i in range(len(x)) for j in range(i)]
    assert float(alarm["mean_pair_distance"]) == pytest.approx(np.mean(far), rel=1e-4)
    assert float(alarm["effective_rank"]) == pytest.approx(effective_rank(x), rel=1e-3)
    assert float(alarm["active_share"]) == 0.5
    assert set(jax.eval_shape(losses.collapse_alarm, x)) == set(alarm) - {"active_share"}
    total = lambda x: sum(losses.collapse_alarm(x, x).values())  # noqa: E731
    assert not jax.jit(jax.grad(total))(x).any()


def test_the_collapse_alarm_at_its_limits():
    rank = jax.jit(lambda x: losses.collapse_alarm(x)["effective_rank"])
    one = losses.collapse_alarm(jnp.ones((1, 3)))
    assert (float(one["mean_pair_distance"]), float(one["effective_rank"])) == (0, 0)
    nearly = jnp.diag(jnp.array([1.0, 1e-4, 0.0]))[:, :2]  # a singular value of rounding's size
    assert float(rank(jnp.pad(nearly, [(0, 1), (0, 0)]))) == pytest.approx(1, abs=6e-4)
    cross = jnp.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    assert float(rank(1e-5 * cross)) == pytest.approx(2, abs=1e-3)
    assert float(rank(1e-8 * cross)) == 0
