"""Facility location loss (HDCL Table 1; Song et al. 2017, "clustering"), with `lax` loops alone."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Float, Integer

from fgjax.losses import common
from fgjax.losses.in_batch import _checked, _squared_distances


def facility_location_loss(
    embeddings: Float[ArrayLike, "B D"],
    labels: Integer[ArrayLike, " B"],
    *,
    margin_multiplier: float = 1.0,
    refinements: int = 5,
) -> Float[jax.Array, ""]:
    """Structured margin between the true clustering and the best wrong one.

    L = max(0, max_S {F(S) + γ (1 − NMI(S))} − F_true), F(S) = −Σ_i min_{j ∈ S} D_ij over medoids S
    and F_true = Σ_c −min_{j ∈ c} Σ_{i ∈ c} D_ij. S has as many medoids as the batch has classes; it
    is built greedily with the margin in the score, then refined by swapping medoids inside their
    clusters. NMI is 2 I / (H + H'). The gradient flows through D alone.

    Args:
      embeddings: unit vectors in the method.
      labels: classes of the rows.
      margin_multiplier: γ, not negative; the method's authors give no default.
      refinements: rounds of swapping.

    Returns:
      At least 0.

    Raises:
      ValueError: shapes do not fit, labels are not integers, or γ or refinements is negative.

    >>> x = jnp.array([[0.0], [0.1], [5.0], [5.1]])
    >>> float(facility_location_loss(x, jnp.array([0, 0, 1, 1])))
    0.0
    """
    name = "facility_location_loss"
    embeddings, labels = _checked(name, embeddings, labels)
    common.check_not_negative(name, margin_multiplier=margin_multiplier, refinements=refinements)
    distances = common.safe_sqrt(_squared_distances(embeddings))
    same = labels[:, None] == labels[None]
    # Classes as columns of one-hot rows: a class's column is its first row in the batch.
    first = jnp.argmax(same, axis=1)
    num_classes = jnp.sum(first == jnp.arange(len(labels)))
    truth = jax.nn.one_hot(first, len(labels))
    fixed = jax.lax.stop_gradient(distances)
    medoids = _greedy(fixed, truth, num_classes, margin_multiplier)
    medoids = _refine(fixed, truth, medoids, margin_multiplier, refinements)
    loss_margin = margin_multiplier * (1 - _nmi(_assign(fixed, medoids), truth))

    chosen = _assign(fixed, medoids)
    predicted = -jnp.sum(jnp.take_along_axis(distances, chosen[:, None], axis=1))
    within = jnp.sum(jnp.where(same, distances, 0), axis=1)  # of each row as its class's medoid
    best = jnp.min(jnp.where(same, within[None], jnp.inf), axis=1)
    is_first = first == jnp.arange(len(labels))
    true_score = -jnp.sum(jnp.where(is_first, best, 0))
    return jax.nn.relu(predicted + loss_margin - true_score)


def _assign(distances: jax.Array, medoids: jax.Array) -> jax.Array:
    """Nearest medoid of every row; `medoids` is a bool mask [B]. Ties go to the first."""
    return jnp.argmin(jnp.where(medoids[None], distances, jnp.inf), axis=1)


def _nmi(assigned: jax.Array, truth: jax.Array) -> jax.Array:
    """2 I / (H + H') of clusters, given by medoid rows [B], and one-hot classes [B, B]."""
    size = len(assigned)
    joint = jax.nn.one_hot(assigned, size, dtype=truth.dtype).T @ truth / size

    def entropy(p: jax.Array) -> jax.Array:
        return -jnp.sum(jnp.where(p > 0, p * jnp.log(jnp.where(p > 0, p, 1)), 0))

    clusters, classes = entropy(joint.sum(axis=1)), entropy(joint.sum(axis=0))
    information = clusters + classes - entropy(joint)
    total = clusters + classes
    return jnp.where(total > 0, 2 * information / jnp.where(total > 0, total, 1), 1.0)


def _score(distances, truth, medoids, gamma) -> jax.Array:
    nearest = jnp.min(jnp.where(medoids[None], distances, jnp.inf), axis=1)
    return -jnp.sum(nearest) + gamma * (1 - _nmi(_assign(distances, medoids), truth))


def _greedy(distances, truth, count, gamma) -> jax.Array:
    """Add the medoid with the best score until there are `count`."""
    size = len(distances)
    candidates = jnp.eye(size, dtype=bool)

    def add(_, medoids):
        scores = jax.lax.map(lambda c: _score(distances, truth, medoids | c, gamma), candidates)
        best = jnp.argmax(jnp.where(medoids, -jnp.inf, scores))
        return medoids | candidates[best]

    return jax.lax.fori_loop(0, count, add, jnp.zeros(size, bool))


def _refine(distances, truth, medoids, gamma, rounds: int) -> jax.Array:
    """For every medoid in turn, the member of its cluster that scores best in its place."""
    size = len(distances)
    rows = jnp.eye(size, dtype=bool)

    def swap(medoid, medoids):
        members = _assign(distances, medoids) == medoid
        others = medoids & ~rows[medoid]
        scores = jax.lax.map(lambda c: _score(distances, truth, others | c, gamma), rows)
        best = jnp.argmax(jnp.where(members, scores, -jnp.inf))
        return jnp.where(medoids[medoid], others | rows[best], medoids)

    def turn(_, medoids):
        # A row that becomes a medoid in this round is not visited twice in harm: swapping is
        # idempotent once its cluster's best member holds the place.
        return jax.lax.fori_loop(0, size, swap_if_medoid, medoids)

    def swap_if_medoid(row, medoids):
        return jax.lax.cond(medoids[row], lambda m: swap(row, m), lambda m: m, medoids)

    return jax.lax.fori_loop(0, rounds, turn, medoids)
