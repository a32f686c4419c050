"""Softmax losses with hard classes and decorrelated centres: HDCL (Zeng et al.) and DGCRL.

Sign of HDCL's Eq. 11: PLUS. The printed minus would reward collinear class centres, against the
paper's purpose; DGCRL's Eq. 6, from which it is taken, has a plus.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Float, Integer

from fgjax.losses import common


def hard_softmax_loss(
    logits: Float[ArrayLike, "B K"],
    labels: Integer[ArrayLike, " B"],
    *,
    top_k: int | Integer[jax.Array, ""],
) -> Float[jax.Array, " B"]:
    """Cross-entropy against the K̂ strongest classes alone (HDCL Eq. 8, HCL).

    L = log Σ_{k ≤ K̂} exp o(t_k) − o(y), t_k the classes of the K̂ largest logits. It is never
    negative: with y outside the top K̂, o(y) is at most each of them and L ≥ log K̂. The gradient is
    HDCL Eq. 10. `top_k` = K is softmax cross-entropy.

    Args:
      logits: o.
      labels: y.
      top_k: K̂ in 1 … K; the paper's best is 2. An array, for a K̂ that changes without compiling
        anew, is not checked and costs a sort of all classes.

    Returns:
      At least 0.

    Raises:
      ValueError: shapes do not fit, labels are not integers, or top_k lies outside 1 … K.

    >>> print(hard_softmax_loss(jnp.array([[2.0, 2.0, 0.0]]), jnp.array([2]), top_k=2).round(4))
    [2.6931]
    """
    common.check_rank("hard_softmax_loss", 2, logits=logits)
    labels = common.check_labels("hard_softmax_loss", labels)
    common.check_batch("hard_softmax_loss", logits=logits, labels=labels)
    logits = common.as_float(logits)
    classes = logits.shape[1]
    own = jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
    if isinstance(top_k, jax.Array):
        ranked = jax.lax.top_k(logits, classes)[0]
        return jax.nn.logsumexp(ranked, axis=1, where=jnp.arange(classes) < top_k) - own
    if not 1 <= top_k <= classes:
        raise ValueError(f"hard_softmax_loss: top_k is {top_k}, but must be in 1 … {classes}.")
    strongest = logits if top_k == classes else jax.lax.top_k(logits, top_k)[0]
    return jax.nn.logsumexp(strongest, axis=1) - own


def decorrelation(weights: Float[ArrayLike, "D K"]) -> Float[jax.Array, ""]:
    """How far class centres are from orthogonal (regulariser of HDCL Eq. 11 and DGCRL Eq. 6).

    1/|Ω| Σ_{l ≠ j} |w_l · w_j| over the ordered pairs, |Ω| = K² − K.

    Args:
      weights: centres in columns; give unit directions to bound the value by 1.

    Returns:
      At least 0; 0 for a single class.

    Raises:
      ValueError: weights are not of rank 2.

    >>> float(decorrelation(jnp.array([[1.0, 0.6], [0.0, 0.8]]))).__round__(4)
    0.6
    """
    common.check_rank("decorrelation", 2, weights=weights)
    weights = common.as_float(weights)
    classes = weights.shape[1]
    # |x| has gradient 0 at 0 in JAX, so orthogonal centres are at rest.
    products = jnp.abs(weights.T @ weights)
    off_diagonal = jnp.where(jnp.eye(classes, dtype=bool), 0, products)
    return jnp.sum(off_diagonal) / max(classes * classes - classes, 1)


def hdcl_loss(
    logits: Float[ArrayLike, "B K"],
    labels: Integer[ArrayLike, " B"],
    weights: Float[ArrayLike, "D K"],
    *,
    top_k: int = 2,
    decorrelation_weight: float = 0.1,
) -> Float[jax.Array, " B"]:
    """Hard Decorrelated Centralized Loss (HDCL Eq. 11, with plus).

    L = HCL(o, y) + λ · decorrelation(W). `top_k` = K gives DGCRL (HDCL Eq. 6).

    Args:
      logits: o.
      labels: y.
      weights: class centres in columns.
      top_k: K̂, see `hard_softmax_loss`.
      decorrelation_weight: λ; 0.1 in the first author's code.

    Returns:
      At least 0.

    Raises:
      ValueError: as `hard_softmax_loss`; the centres do not fit the logits; λ is negative.

    >>> print(hdcl_loss(jnp.zeros((1, 2)), jnp.array([0]), jnp.eye(2)).round(4))
    [0.6931]
    """
    common.check_not_negative("hdcl_loss", decorrelation_weight=decorrelation_weight)
    hard = hard_softmax_loss(logits, labels, top_k=top_k)
    common.check_rank("hdcl_loss", 2, weights=weights)
    if jnp.shape(weights)[1] != jnp.shape(logits)[1]:
        raise ValueError(
            f"hdcl_loss: weights {jnp.shape(weights)} and logits {jnp.shape(logits)} differ in K."
        )
    return hard + decorrelation_weight * decorrelation(weights)


def centralized_ranking_loss(
    embeddings: Float[ArrayLike, "B D"],
    labels: Integer[ArrayLike, " B"],
    centers: Float[ArrayLike, "K D"],
    *,
    margin: float = 0.5,
) -> Float[jax.Array, " B"]:
    """Every embedding closer to its class centre than to any other (CRL; HDCL Eq. 3).

    L_i = Σ_{l ≠ y} max(0, m + ‖f_i − c_y‖ − ‖f_i − c_l‖).

    Args:
      embeddings: f.
      labels: y.
      centers: c; constants for the loss (wrap them in stop_gradient if they are not).
      margin: m, not negative; 0.5 suits unit vectors.

    Returns:
      Summed over the other centres, at least 0.

    Raises:
      ValueError: shapes do not fit, labels are not integers, or the margin is negative.

    >>> centers = jnp.array([[0.0, 0.0], [1.0, 0.0]])
    >>> centralized_ranking_loss(
    ...     jnp.array([[0.75, 0.0]]), jnp.array([0]), centers, margin=0.5).tolist()
    [1.0]
    """
    name = "centralized_ranking_loss"
    common.check_rank(name, 2, embeddings=embeddings, centers=centers)
    labels = common.check_labels(name, labels)
    common.check_batch(name, embeddings=embeddings, labels=labels)
    common.check_not_negative(name, margin=margin)
    embeddings, centers = common.as_float(embeddings), common.as_float(centers)
    if embeddings.shape[1] != centers.shape[1]:
        raise ValueError(f"{name}: embeddings {embeddings.shape} and centers {centers.shape} "
                         "must have the same depth.")  # fmt: skip
    distances = common.euclidean(embeddings[:, None], centers[None])
    own = jnp.take_along_axis(distances, labels[:, None], axis=1)
    other = labels[:, None] != jnp.arange(centers.shape[0])[None]
    return jnp.sum(jnp.where(other, jax.nn.relu(margin + own - distances), 0), axis=1)
