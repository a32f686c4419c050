"""CCFR's multi-level loss over classes and their super-classes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike
from jaxtyping import Float, Integer

from fgjax.losses import common


def multi_level_loss(
    child_logits: Float[ArrayLike, "B C"],
    parent_logits: Float[ArrayLike, "B F"],
    labels: Integer[ArrayLike, " B"],
    parents: Integer[ArrayLike, " C"],
    *,
    parent_weight: float = 1.0,
) -> Float[jax.Array, " B"]:
    """Cross-entropy of class and super-class, and their order (CCFR Eq. 1, 2, 3, 4).

    ℓ = ℓ₁ + λ ℓ₂ + ℓ_h: ℓ₁ and ℓ₂ are softmax cross-entropies of the child and of its parent, and
    ℓ_h = max(0, p̄ − p_parent), p̄ the mean probability of the children of the true super-class.

    Args:
      child_logits: of the classes.
      parent_logits: of the super-classes.
      labels: child class.
      parents: super-class of every child class; −1 for a class that never occurs, which then is
        nobody's child.
      parent_weight: λ, 1 in the paper.

    Returns:
      At least 0.

    Raises:
      ValueError: shapes do not fit, labels or parents are not integers, or a parent is none of the
        super-classes.

    >>> print(multi_level_loss(
    ...     jnp.zeros((1, 4)), jnp.zeros((1, 2)), jnp.array([0]), jnp.array([0, 0, 1, 1])
    ... ).round(4))
    [2.0794]
    """
    name = "multi_level_loss"
    common.check_rank(name, 2, child_logits=child_logits, parent_logits=parent_logits)
    labels = common.check_labels(name, labels)
    common.check_batch(name, child_logits=child_logits, parent_logits=parent_logits, labels=labels)
    common.check_not_negative(name, parent_weight=parent_weight)
    # Values can be looked at where they are no tracers.
    highest = parents.max(initial=-1) if isinstance(parents, np.ndarray) else -1
    parents = common.check_labels(name, parents)
    child_logits, parent_logits = common.as_float(child_logits), common.as_float(parent_logits)
    if parents.shape[0] != child_logits.shape[1]:
        raise ValueError(
            f"{name}: parents name {parents.shape[0]} classes, the logits {child_logits.shape[1]}."
        )
    if highest >= parent_logits.shape[1]:
        raise ValueError(f"{name}: a parent is not among {parent_logits.shape[1]} super-classes.")
    own_parent = parents[labels]
    entropy = optax.softmax_cross_entropy_with_integer_labels
    fine, coarse = entropy(child_logits, labels), entropy(parent_logits, own_parent)  # Eq. 1, 2
    siblings = parents[None] == own_parent[:, None]
    children = common.masked_mean(jax.nn.softmax(child_logits), siblings, axis=1)
    parent = jnp.take_along_axis(jax.nn.softmax(parent_logits), own_parent[:, None], axis=1)[:, 0]
    return fine + parent_weight * coarse + jax.nn.relu(children - parent)  # Eq. 3, 4
