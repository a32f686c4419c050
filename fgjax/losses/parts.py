"""Losses of MA-CNN's channel grouping (Zheng et al. 2017), which LAPM and GHNS use for parts."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float

from fgjax.losses import common


def _check(function: str, maps: Float[ArrayLike, "B H W N"]) -> Float[jax.Array, "B H W N"]:
    if jnp.ndim(maps) != 4:
        raise ValueError(
            f"{function}: maps have shape {jnp.shape(maps)}, but must be [B, H, W, parts]."
        )
    return common.as_float(maps)


def part_distance(maps: Float[ArrayLike, "B H W N"]) -> Float[jax.Array, " B"]:
    """Makes each part's attention compact around its peak (MA-CNN, distance loss Dis).

    Dis(M) = Σᵢ Σ_xy mᵢ(x, y) [(x − tₓ)² + (y − t_y)²], where t is the peak of mᵢ (a constant).
    Coordinates are shares of the map's sides, so that the value does not grow with the map.

    Args:
      maps: attention maps of N parts, not negative, summing to 1 over H and W.

    Returns:
      At least 0; 0 when all mass lies on the peaks.

    Raises:
      ValueError: maps are not of rank 4.

    >>> float(part_distance(jnp.zeros((1, 3, 3, 1)).at[0, 1, 1, 0].set(1.0))[0])
    0.0
    """
    maps = _check("part_distance", maps)
    batch, height, width, parts = maps.shape
    flat = maps.reshape(batch, height * width, parts)
    peak = jnp.argmax(flat, axis=1)
    cells = np.arange(height * width)
    rows = jnp.asarray(cells // width / height, maps.dtype)
    columns = jnp.asarray(cells % width / width, maps.dtype)
    squared = jnp.square(rows[None, :, None] - rows[peak][:, None]) + jnp.square(
        columns[None, :, None] - columns[peak][:, None]
    )
    return jnp.sum(flat * squared, axis=(1, 2))


def part_diversity(
    maps: Float[ArrayLike, "B H W N"], *, margin: float = 0.02
) -> Float[jax.Array, " B"]:
    """Keeps parts apart: a part pays where another one is strong (MA-CNN, diversity loss Div).

    Div(M) = Σᵢ Σ_xy mᵢ(x, y) [max_{k≠i} m_k(x, y) − mrg], the maximum being a constant.

    Args:
      maps: attention maps of N parts, not negative, summing to 1 over H and W.
      margin: mrg, strength that costs nothing.

    Returns:
      Negative, down to −N·margin, when the parts do not overlap.

    Raises:
      ValueError: maps are not of rank 4 or have a single part.

    >>> one = jnp.zeros((1, 2, 2, 2)).at[0, 0, 0, 0].set(1.0).at[0, 1, 1, 1].set(1.0)
    >>> round(float(part_diversity(one)[0]), 4)
    -0.04
    """
    maps = _check("part_diversity", maps)
    parts = maps.shape[-1]
    if parts < 2:
        raise ValueError("part_diversity: needs at least two parts.")
    same = jnp.eye(parts, dtype=bool)
    others = jnp.where(same, -jnp.inf, maps[..., None, :])
    strongest = jax.lax.stop_gradient(jnp.max(others, axis=-1))
    return jnp.sum(maps * (strongest - margin), axis=(1, 2, 3))
