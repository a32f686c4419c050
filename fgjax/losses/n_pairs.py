"""The N-pairs loss, an in-batch loss that looks at two rows of each class."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Integer

from fgjax.losses import common
from fgjax.losses.in_batch import _checked


def _put(
    embeddings: Float[jax.Array, "B D"],
    places: Integer[jax.Array, " B"],
    which: Bool[jax.Array, " B"],
    slots: int,
) -> Float[jax.Array, "S D"]:
    """Some rows at places of their own; any row where there is none."""
    numbers = jnp.arange(len(places))
    rows = (
        jnp.zeros(slots, places.dtype).at[jnp.where(which, places, slots)].set(numbers, mode="drop")
    )
    return _taken(embeddings, rows, places, which)


@jax.custom_vjp
def _taken(embeddings, rows, places, which):
    """`embeddings[rows]`. Each row is taken once, so that its gradient is read, not added up."""
    del places, which
    return embeddings[rows]


def _taken_forward(embeddings, rows, places, which):
    return embeddings[rows], (places, which)


def _taken_backward(kept, gradient):
    places, which = kept
    return jnp.where(which[:, None], gradient[places], 0), None, None, None


_taken.defvjp(_taken_forward, _taken_backward)


def n_pairs_loss(
    embeddings: Float[ArrayLike, "B D"],
    labels: Integer[ArrayLike, " B"],
    *,
    l2_weight: float = 0.002,
) -> Float[jax.Array, ""]:
    """N-pairs loss, one pair per class (HDCL Table 1; Sohn 2016).

    Mean softmax cross-entropy of aᵢ · pₖ over the pairs' positives pₖ, with target k = i, plus
    ¼ λ (mean ‖a‖² + mean ‖p‖²). A class's first row in the batch is its anchor a, its second the
    positive p; further rows and classes with a single row take no part. Reverse mode only.

    Args:
      embeddings: not normalised in the method.
      labels: classes of the rows.
      l2_weight: λ, not negative.

    Returns:
      At least 0.

    Raises:
      ValueError: shapes do not fit, labels are not integers, or the weight is negative.

    >>> x = jnp.zeros((4, 2))
    >>> round(float(n_pairs_loss(x, jnp.array([0, 0, 1, 1]))), 4)
    0.6931
    """
    embeddings, labels = _checked("n_pairs_loss", embeddings, labels)
    common.check_not_negative("n_pairs_loss", l2_weight=l2_weight)
    same = labels[:, None] == labels[None]
    earlier = jnp.sum(jnp.tril(same, k=-1), axis=1)  # of its class
    is_anchor, is_positive = (earlier == 0) & (jnp.sum(same, axis=1) > 1), earlier == 1
    slots = max(len(labels) // 2, 1)  # there cannot be more pairs
    valid = jnp.arange(slots) < jnp.sum(is_anchor)
    place = (jnp.cumsum(is_anchor) - 1)[jnp.argmax(same, axis=1)]  # the slot of a row's class
    anchors = _put(embeddings, place, is_anchor, slots)
    positives = _put(embeddings, place, is_positive, slots)
    logits = jnp.matmul(anchors, positives.T, precision=jax.lax.Precision.HIGHEST)
    own = jnp.diagonal(logits)
    # Empty slots see themselves alone, so that no row is all −∞.
    columns = valid[None] | jnp.eye(slots, dtype=bool)
    normaliser = jax.nn.logsumexp(jnp.where(columns, logits, -jnp.inf), axis=1)
    norms = jnp.sum(jnp.square(anchors), axis=1) + jnp.sum(jnp.square(positives), axis=1)
    return common.masked_mean(normaliser - own + 0.25 * l2_weight * norms, valid)
