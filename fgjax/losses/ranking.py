"""NTS-Net's ranking loss (Yang et al. 2018), which trains CCFR's region proposals."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from fgjax.losses import common


def ranking_loss(scores: ArrayLike, losses: ArrayLike, *, margin: float = 1.0) -> jax.Array:
    """Regions that classify better must score higher (NTS ranking loss).

    L = Σ_i Σ_{j: ℓ_j > ℓ_i} max(0, m − (S_i − S_j)). The losses ℓ enter a comparison alone, so the
    teacher gets no gradient; ties count nothing.

    Args:
      scores: S, proposal scores of M regions [B, M].
      losses: ℓ, classification losses of the same regions [B, M].
      margin: m, not negative.

    Returns:
      float [B], summed over pairs, at least 0.

    Raises:
      ValueError: shapes differ, are not [B, M], or the margin is negative.

    >>> ranking_loss(jnp.array([[0.0, 0.5]]), jnp.array([[1.0, 2.0]])).tolist()
    [1.5]
    """
    common.check_rank("ranking_loss", 2, scores=scores, losses=losses)
    common.check_not_negative("ranking_loss", margin=margin)
    if jnp.shape(scores) != jnp.shape(losses):
        raise ValueError(
            f"ranking_loss: scores {jnp.shape(scores)} and losses {jnp.shape(losses)} differ."
        )
    scores = common.as_float(scores)
    losses = common.as_float(losses)
    hinge = jax.nn.relu(margin - (scores[:, :, None] - scores[:, None, :]))
    better = losses[:, None, :] > losses[:, :, None]
    return jnp.sum(jnp.where(better, hinge, 0), axis=(1, 2))
