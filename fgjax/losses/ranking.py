"""NTS-Net's ranking loss (Yang et al. 2018), which trains CCFR's region proposals."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Float

from fgjax.losses import common


def ranking_loss(
    scores: Float[ArrayLike, "B M"], losses: Float[ArrayLike, "B M"], *, margin: float = 1.0
) -> Float[jax.Array, " B"]:
    """Regions that classify better must score higher (NTS ranking loss).

    L = Σ_i Σ_{j: ℓ_j > ℓ_i} max(0, m − (S_i − S_j)). The losses ℓ enter a comparison alone, so the
    teacher gets no gradient; ties count nothing.

    Args:
      scores: S, proposal scores of M regions.
      losses: ℓ, classification losses of the same regions.
      margin: m, not negative.

    Returns:
      Summed over pairs, at least 0.

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
