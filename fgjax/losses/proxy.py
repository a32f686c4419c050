"""Proxy-Anchor (Kim et al. 2020): a learned proxy of each class is the anchor of a whole batch."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Float, Integer

from fgjax.losses import common

_NOTHING = -1e9  # the exponent of an image that takes no part: its exponential is 0


def proxy_anchor_loss(
    embeddings: Float[ArrayLike, "B D"],
    labels: Integer[ArrayLike, " B"],
    proxies: Float[ArrayLike, "K D"],
    *,
    alpha: float = 32.0,
    margin: float = 0.1,
) -> Float[jax.Array, ""]:
    """Every proxy near the images of its class and far from all others, the hardest first.

    1/|P⁺| Σ_{p ∈ P⁺} log(1 + Σ_{x of p} e^{−α (s(x, p) − δ)})
    + 1/|P| Σ_{p ∈ P} log(1 + Σ_{x of others} e^{α (s(x, p) + δ)})

    s is the cosine, P⁺ the proxies whose class is in the batch (Kim et al. 2020, Eq. 4).

    Args:
      embeddings: x, of any length.
      labels: classes of the rows.
      proxies: p, of any length.
      alpha: α, not negative.
      margin: δ, not negative.

    Returns:
      At least 0.

    Raises:
      ValueError: shapes do not fit, labels are not integers, alpha or the margin is negative.

    >>> x, proxies = jnp.eye(2), jnp.eye(2)  # log(1 + e⁻⁰·⁹) + log(1 + e⁰·¹)
    >>> round(float(proxy_anchor_loss(x, jnp.arange(2), proxies, alpha=1.0)), 4)
    1.0856
    """
    name = "proxy_anchor_loss"
    common.check_rank(name, 2, embeddings=embeddings, proxies=proxies)
    labels = common.check_labels(name, labels)
    common.check_batch(name, embeddings=embeddings, labels=labels)
    common.check_not_negative(name, alpha=alpha, margin=margin)
    x, p = common.as_float(embeddings), common.as_float(proxies)
    if x.shape[1] != p.shape[1]:
        raise ValueError(
            f"{name}: embeddings {x.shape} and proxies {p.shape} must have the same depth."
        )
    unit_x, unit_p = common.normalize(x), common.normalize(p)
    cosines = jnp.matmul(unit_x, unit_p.T, precision=jax.lax.Precision.HIGHEST)
    own = labels[:, None] == jnp.arange(len(p))[None]

    def soft(exponents: jax.Array, where: jax.Array) -> jax.Array:
        total = jax.nn.logsumexp(jnp.where(where, exponents, _NOTHING), axis=0)
        return jnp.logaddexp(jnp.zeros_like(total), total)

    pull, push = soft(-alpha * (cosines - margin), own), soft(alpha * (cosines + margin), ~own)
    return common.masked_mean(pull, jnp.any(own, axis=0)) + jnp.mean(push)
