"""Where the object is: class activation maps (Zhou et al. 2016) and SCDA (Wei et al. 2017)."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, Float32, Float64, Integer, Real

from fgjax.localization import boxes


def class_activation_map(
    features: Float[ArrayLike, "B H W D"],
    weights: Float[ArrayLike, "D K"],
    labels: Integer[ArrayLike, " B"],
) -> Float32[jax.Array, "B H W"]:
    """CAM of one class per image: M_c = Σ_k w_k^c f_k.

    Args:
      features: last feature map.
      weights: classifier weights.
      labels: the class of each image.

    Returns:
      A map for each image; may be negative.
    """
    chosen = jnp.asarray(weights, jnp.float32)[:, labels]
    return jnp.einsum("bhwd,db->bhw", jnp.asarray(features, jnp.float32), chosen)


def channel_sum(features: Float[ArrayLike, "B H W D"]) -> Float32[jax.Array, "B H W"]:
    """SCDA's aggregation map A = Σ_c F_c."""
    return jnp.sum(jnp.asarray(features, jnp.float32), axis=-1)


def cam_box(
    activation: Float[ArrayLike, "H W"], *, threshold: float = 0.2, size: int = 224
) -> Float32[np.ndarray, "4"]:
    """Object box of a CAM: upsampled, min-max normalised, ≥ threshold, largest region.

    A box of under 5 % of the image, or a constant map, gives the whole image.
    """
    fine = cv2.resize(np.asarray(activation, np.float32), (size, size))
    low, high = fine.min(), fine.max()
    if high - low < 1e-12:
        return boxes.WHOLE.copy()
    return boxes.largest_component((fine - low) / (high - low) >= threshold)


def scda_box(
    activation: Float[ArrayLike, "H W"], *, threshold: float = 1.0, size: int = 224
) -> Float32[np.ndarray, "4"]:
    """Object box of SCDA's aggregation map: the largest region above its mean.

    The map is upsampled first; `threshold` multiplies the mean (1 in the paper, strictly above).
    """
    fine = cv2.resize(np.asarray(activation, np.float32), (size, size))
    return boxes.largest_component(fine > threshold * np.mean(activation))


def density(activation: Float[ArrayLike, "H W"], *, size: int = 56) -> Float64[np.ndarray, "S S"]:
    """A map as shares of attention: upsampled, its least value taken off, brought to a sum of 1.

    As SnapMix (Huang et al. 2021) reads a CAM, which may be negative. A constant map is uniform.

    Args:
      activation: a map of the whole image.
      size: S, cells of the result along a side.
    """
    fine = cv2.resize(np.asarray(activation, np.float32), (size, size)).astype(np.float64)
    fine -= fine.min()
    total = fine.sum()
    if total < 1e-12:
        return np.full((size, size), 1 / size**2)
    return fine / total


def mass(
    shares: Real[np.ndarray, "H W"], boxes: Real[ArrayLike, "*n 4"]
) -> Float64[np.ndarray, "*n"]:
    """How much of a map's sum lies inside boxes; a cell that a border cuts counts in part.

    Args:
      shares: a map of the whole image, constant within a cell.
      boxes: in [0, 1]; what reaches over the border counts nothing.
    """
    box = np.asarray(boxes, np.float64)
    rows = _covered(box[..., 0], box[..., 2], shares.shape[0])
    columns = _covered(box[..., 1], box[..., 3], shares.shape[1])
    wide = np.asarray(shares, np.float64)
    return np.asarray(np.einsum("...h,hw,...w->...", rows, wide, columns))


def _covered(
    low: Real[np.ndarray | np.number, "*n"], high: Real[np.ndarray | np.number, "*n"], cells: int
) -> Float64[np.ndarray, "*n {cells}"]:
    """Which share of each cell of a line lies between two places."""
    edges = np.arange(cells)
    begin = np.maximum(np.asarray(low)[..., None] * cells, edges)
    end = np.minimum(np.asarray(high)[..., None] * cells, edges + 1)
    return np.maximum(end - begin, 0)
