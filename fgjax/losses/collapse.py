"""Is the embedding collapsing? Numbers that any method can log beside its loss."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Float

from fgjax.losses import common


def collapse_alarm(
    embeddings: Float[ArrayLike, "B D"], tuple_losses: Float[ArrayLike, "..."] | None = None
) -> dict[str, Float[jax.Array, ""]]:
    """Mean pair distance, effective rank, and share of active tuples of a batch.

    The effective rank is exp(H(p)), p the singular values of the centred embeddings normalised to
    sum 1 (Roy & Vetterli 2007): 1 when all points lie on a line, 0 when they coincide, at most
    min(B − 1, D).

    Args:
      embeddings: of a batch.
      tuple_losses: unreduced losses of the batch's tuples; a tuple is active above 0.

    Returns:
      {"mean_pair_distance", "effective_rank", and with losses "active_share"}, without gradient.

    Raises:
      ValueError: embeddings are not [B, D].

    >>> alarm = collapse_alarm(jnp.array([[0.0, 0.0], [3.0, 4.0]]), jnp.array([0.0, 2.0]))
    >>> {name: round(float(value), 3) for name, value in alarm.items()}
    {'mean_pair_distance': 5.0, 'effective_rank': 1.0, 'active_share': 0.5}
    """
    common.check_rank("collapse_alarm", 2, embeddings=embeddings)
    embeddings = jax.lax.stop_gradient(common.as_float(embeddings))
    size = len(embeddings)
    centered = embeddings - jnp.mean(embeddings, axis=0)
    gram = jnp.matmul(centered, centered.T, precision=jax.lax.Precision.HIGHEST)
    squares = jnp.diagonal(gram)
    squared = jnp.maximum(squares[:, None] + squares[None] - 2 * gram, 0)
    distances = jnp.where(jnp.eye(size, dtype=bool), 0, common.safe_sqrt(squared))
    values = common.safe_sqrt(jnp.maximum(jnp.linalg.eigvalsh(gram), 0))
    total = jnp.sum(values)
    # Singular values under a millionth of the largest are rounding.
    p = jnp.where(values > 1e-3 * jnp.max(values), values, 0) / jnp.where(total > 0, total, 1)
    entropy = -jnp.sum(jnp.where(p > 0, p * jnp.log(jnp.where(p > 0, p, 1)), 0))
    alarm = {
        "mean_pair_distance": jnp.sum(distances) / max(size * (size - 1), 1),
        "effective_rank": jnp.where(total > 1e-6, jnp.exp(entropy), 0.0),
    }
    if tuple_losses is not None:
        active = jax.lax.stop_gradient(common.as_float(tuple_losses)) > 0
        alarm["active_share"] = jnp.mean(active.astype(embeddings.dtype))
    return alarm
