"""How far a measured share can be believed, and whether two runs differ."""

import numpy as np
import scipy
from jax.typing import ArrayLike
from jaxtyping import Real, Shaped

from fgjax.errors import UserError


def wilson_interval(
    hits: Real[ArrayLike, ""], total: int, *, confidence: float = 0.95
) -> tuple[float, float]:
    """Where a share of so many images lies, Wilson's score interval (1927).

    (p + z²/2n ± z √(p(1 − p)/n + z²/4n²)) / (1 + z²/n), p = hits / total.

    Args:
      hits: how many, in [0, total].
      total: n, at least 1.
      confidence: in (0, 1); z is the normal distribution's (1 + confidence) / 2 quantile.

    Returns:
      Both ends, in [0, 1].

    Raises:
      UserError: there is nothing to count.
    """
    hits = float(np.asarray(hits))
    if total < 1 or not 0 <= hits <= total:
        raise UserError(
            f"an interval wants hits in [0, total], total at least 1, not {hits:g} of {total}."
        )
    z = float(scipy.special.ndtri((1 + confidence) / 2))
    share, extra = hits / total, z**2 / total
    middle = share + extra / 2
    half = z * np.sqrt(share * (1 - share) / total + extra / (4 * total))
    low, high = (middle - half) / (1 + extra), (middle + half) / (1 + extra)
    return float(max(low, 0)), float(min(high, 1))


def paired_bootstrap(
    one: Shaped[np.ndarray, " N"],
    other: Shaped[np.ndarray, " N"],
    *,
    draws: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Mean of one − other over images, and the interval that resampling the images gives it.

    The same image is compared with itself, so what makes images hard for both cancels. It says
    nothing about other seeds of training.

    Args:
      one: a value for each image, such as whether it was right.
      other: of the same images in the same order.
      draws: how many samples of N images, with replacement.
      confidence: the interval's; its ends are percentiles of the samples' means.
      seed: of the samples.

    Returns:
      Mean difference, low, high.

    Raises:
      UserError: the two are not of the same images.
    """
    if len(one) != len(other) or not len(one):
        raise UserError(
            f"runs are compared image by image, but one has {len(one)} images and the other "
            f"{len(other)}: compare runs of the same dataset."
        )
    difference = np.asarray(one, np.float64) - np.asarray(other, np.float64)
    rng, means = np.random.default_rng(seed), np.empty(draws)
    each = max(min(draws, 2_000_000 // len(difference)), 1)  # 16 MB at a time
    for begin in range(0, draws, each):
        rows = rng.integers(len(difference), size=(min(each, draws - begin), len(difference)))
        means[begin : begin + len(rows)] = difference[rows].mean(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(difference.mean()), float(low), float(high)
