"""Losses of given triplets and quadruplets: GHNS (its Eq. 2, 6, 9) and CCFR (its Eq. 5, 6)."""

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Float, Shaped

from fgjax.losses import common


def _distance(
    one: Float[ArrayLike, "B D"], other: Float[ArrayLike, "B D"], *, squared: bool
) -> Float[jax.Array, " B"]:
    if squared:
        return jnp.sum(jnp.square(common.as_float(one) - common.as_float(other)), axis=-1)
    return common.euclidean(one, other)


def triplet_loss(
    anchor: Float[ArrayLike, "B D"],
    positive: Float[ArrayLike, "B D"],
    negative: Float[ArrayLike, "B D"],
    *,
    margin: float = 0.2,
    squared: bool = True,
) -> Float[jax.Array, " B"]:
    """Triplet loss with the papers' ½ (GHNS Eq. 2; HDCL Eq. 2 with `squared=False`).

    L = ½ max(0, d(a, p) − d(a, n) + m), d = ‖·‖₂² or ‖·‖₂.

    Args:
      anchor: embeddings.
      positive: of the anchor's class.
      negative: of another class.
      margin: m, not negative; the papers give none, 0.2 is FaceNet's.
      squared: squared Euclidean distances (GHNS) or plain ones (HDCL).

    Returns:
      At least 0.

    Raises:
      ValueError: shapes differ or the margin is negative.

    >>> a, p, n = jnp.zeros((1, 1)), jnp.ones((1, 1)), jnp.full((1, 1), 0.5)
    >>> triplet_loss(a, p, n, margin=0.25).tolist()
    [0.5]
    """
    common.check_embeddings("triplet_loss", anchor=anchor, positive=positive, negative=negative)
    common.check_not_negative("triplet_loss", margin=margin)
    near = _distance(anchor, positive, squared=squared)
    far = _distance(anchor, negative, squared=squared)
    return 0.5 * jax.nn.relu(near - far + margin)


def shuffle_loss(
    logits: Float[ArrayLike, "B 2"], is_shuffled: Shaped[ArrayLike, " B"]
) -> Float[jax.Array, " B"]:
    """Tells whether the three parts are of one image or shuffled (GHNS Eq. 6, L_adv).

    Softmax cross-entropy of the two-way linear discriminator D on the parts' features; class 1
    means shuffled, as in the paper's example.

    Args:
      logits: of D.
      is_shuffled: 1 or True where a part comes from another image.

    Returns:
      At least 0.

    Raises:
      ValueError: logits are not [B, 2] or the batches differ.

    >>> print(shuffle_loss(jnp.zeros((1, 2)), jnp.array([True])).round(4))
    [0.6931]
    """
    common.check_rank("shuffle_loss", 2, logits=logits)
    common.check_rank("shuffle_loss", 1, is_shuffled=is_shuffled)
    common.check_batch("shuffle_loss", logits=logits, is_shuffled=is_shuffled)
    if jnp.shape(logits)[1] != 2:
        raise ValueError(
            f"shuffle_loss: logits have shape {jnp.shape(logits)}, but must be [B, 2]."
        )
    labels = jnp.asarray(is_shuffled).astype(jnp.int32)
    return optax.softmax_cross_entropy_with_integer_labels(common.as_float(logits), labels)


def quadruplet_loss(
    reference: Float[ArrayLike, "B D"],
    positive: Float[ArrayLike, "B D"],
    hard_negative: Float[ArrayLike, "B D"],
    negative: Float[ArrayLike, "B D"],
    *,
    m1: float = 0.4,
    m2: float = 0.2,
) -> Float[jax.Array, " B"]:
    """Positive before hard negative before negative (GHNS Eq. 9, from Eq. 8).

    L = ½ max(0, d(r, p) − d(r, n⁺) + m₁ − m₂) + ½ max(0, d(r, n⁺) − d(r, n) + m₂), d = ‖·‖₂².

    Args:
      reference: r.
      positive: p, of the reference's class.
      hard_negative: n⁺, generated.
      negative: n, of another class.
      m1: margin of the whole order; larger than m2.
      m2: margin between n⁺ and n, above 0.

    Returns:
      At least 0.

    Raises:
      ValueError: shapes differ, or not m1 > m2 > 0.

    >>> zero, one = jnp.zeros((1, 1)), jnp.ones((1, 1))
    >>> quadruplet_loss(zero, zero, one, one, m1=0.5, m2=0.25).tolist()
    [0.125]
    """
    name = "quadruplet_loss"
    common.check_embeddings(
        name, reference=reference, positive=positive, hard_negative=hard_negative, negative=negative
    )
    if not m1 > m2 > 0:
        raise ValueError(f"{name}: needs m1 > m2 > 0, got m1 = {m1} and m2 = {m2}.")
    return triplet_loss(reference, positive, hard_negative, margin=m1 - m2) + triplet_loss(
        reference, hard_negative, negative, margin=m2
    )


def cosine_triplet_loss(
    anchor: Float[ArrayLike, "B D"],
    positive: Float[ArrayLike, "B D"],
    negative: Float[ArrayLike, "B D"],
    *,
    margin: float = 0.2,
) -> Float[jax.Array, " B"]:
    """Triplet loss of cosine similarities (CCFR Eq. 5, 6).

    L = max(0, a − cos(A, P) + cos(A, N)).

    Args:
      anchor: embeddings.
      positive: of the anchor's class.
      negative: of another class.
      margin: a, not negative; the paper gives none.

    Returns:
      In [0, a + 2]. The cosine with a zero vector is 0, without a gradient.

    Raises:
      ValueError: shapes differ or the margin is negative.

    >>> a, n = jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 1.0]])
    >>> cosine_triplet_loss(a, n, a, margin=0.25).tolist()
    [1.25]
    """
    name = "cosine_triplet_loss"
    common.check_embeddings(name, anchor=anchor, positive=positive, negative=negative)
    common.check_not_negative(name, margin=margin)
    unit = [common.normalize(x) for x in (anchor, positive, negative)]
    near = optax.losses.cosine_distance(unit[0], unit[1], epsilon=1e-12)
    far = optax.losses.cosine_distance(unit[0], unit[2], epsilon=1e-12)
    return jax.nn.relu(margin + near - far)
