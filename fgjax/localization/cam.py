"""Where the object is: class activation maps (Zhou et al. 2016) and SCDA (Wei et al. 2017)."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from fgjax.localization import boxes


def class_activation_map(features: ArrayLike, weights: ArrayLike, labels: ArrayLike) -> jax.Array:
    """CAM of one class per image: M_c = Σ_k w_k^c f_k.

    Args:
      features: last feature map [B, H, W, D].
      weights: classifier weights [D, K].
      labels: the class of each image, int [B].

    Returns:
      float32 [B, H, W]; may be negative.
    """
    chosen = jnp.asarray(weights, jnp.float32)[:, labels]
    return jnp.einsum("bhwd,db->bhw", jnp.asarray(features, jnp.float32), chosen)


def channel_sum(features: ArrayLike) -> jax.Array:
    """SCDA's aggregation map A = Σ_c F_c: [B, H, W, D] to float32 [B, H, W]."""
    return jnp.sum(jnp.asarray(features, jnp.float32), axis=-1)


def cam_box(activation: np.ndarray, *, threshold: float = 0.2, size: int = 224) -> np.ndarray:
    """Object box [4] of a CAM [H, W]: upsampled, min-max normalised, ≥ threshold, largest region.

    A box of under 5 % of the image, or a constant map, gives the whole image.
    """
    fine = cv2.resize(np.asarray(activation, np.float32), (size, size))
    low, high = fine.min(), fine.max()
    if high - low < 1e-12:
        return boxes.WHOLE.copy()
    return boxes.largest_component((fine - low) / (high - low) >= threshold)


def scda_box(activation: np.ndarray, *, threshold: float = 1.0, size: int = 224) -> np.ndarray:
    """Object box [4] of SCDA's aggregation map [H, W]: the largest region above its mean.

    The map is upsampled first; `threshold` multiplies the mean (1 in the paper, strictly above).
    """
    fine = cv2.resize(np.asarray(activation, np.float32), (size, size))
    return boxes.largest_component(fine > threshold * np.mean(activation))
