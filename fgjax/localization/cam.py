"""Where the object is: class activation maps (Zhou et al. 2016) and SCDA (Wei et al. 2017)."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, Float32, Integer

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
