"""How far a classifier's probabilities can be believed: temperature and calibration error."""

import numpy as np
import scipy  # its parts are imported where they are used: together they take a second
from jaxtyping import Float, Integer, Real

from fgjax.errors import UserError

_RANGE = 0.01, 100.0  # of temperatures


def negative_log_likelihood(
    logits: Float[np.ndarray, "N K"], labels: Integer[np.ndarray, " N"], *, temperature: float = 1.0
) -> float:
    """Mean of −log p(label), p = softmax(logits / temperature)."""
    scaled = np.asarray(logits, np.float64) / temperature
    own = np.take_along_axis(scaled, np.asarray(labels)[:, None], axis=1)[:, 0]
    return float(np.mean(np.asarray(scipy.special.logsumexp(scaled, axis=1)) - own))


def fit_temperature(logits: Float[np.ndarray, "N K"], labels: Integer[np.ndarray, " N"]) -> float:
    """The temperature with the highest likelihood of these labels (Guo et al. 2017).

    One number, found on images that did not train: it changes probabilities and no decision.

    Args:
      logits: of held-out images.
      labels: their true classes.

    Returns:
      T in [0.01, 100]; above 1 where the classifier was too sure.

    Raises:
      UserError: there are no images.
    """
    if not len(labels):
        raise UserError(
            "a temperature is fitted on held-out images, but none are held out: set "
            "data.held_out above 0."
        )
    found = scipy.optimize.minimize_scalar(
        lambda x: negative_log_likelihood(logits, labels, temperature=float(np.exp(x))),
        bounds=tuple(np.log(_RANGE)), method="bounded", options={"xatol": 1e-4},
    )  # fmt: skip
    return float(np.exp(found.x))


def expected_calibration_error(
    probabilities: Float[np.ndarray, "N K"], labels: Integer[np.ndarray, " N"], *, bins: int = 15
) -> float:
    """Σ over bins of share · |accuracy − confidence| (Guo et al. 2017), in [0, 1].

    Images go into bins of equal width by the probability p of their first choice: bin b holds
    (b − 1) / bins < p ≤ b / bins.

    Args:
      probabilities: each row sums to 1.
      labels: true classes.
      bins: how many.
    """
    found = reliability(probabilities, labels, bins=bins)
    gap = found["images"] * np.abs(found["accuracy"] - found["confidence"])
    return float(np.nansum(gap) / max(found["images"].sum(), 1))


def reliability(
    probabilities: Float[np.ndarray, "N K"], labels: Integer[np.ndarray, " N"], *, bins: int = 15
) -> dict[str, Real[np.ndarray, " bins"]]:
    """A reliability diagram's bins, as `expected_calibration_error` sums them.

    Args:
      probabilities: each row sums to 1.
      labels: true classes.
      bins: how many.

    Returns:
      `images` [bins], and of those with images the mean `confidence` and `accuracy`; NaN elsewhere.
    """
    confidence = np.max(probabilities, axis=1)
    hit = np.argmax(probabilities, axis=1) == np.asarray(labels)
    which = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(which, minlength=bins)
    some = np.where(counts > 0, counts, np.nan)
    return {
        "images": counts,
        "confidence": np.bincount(which, confidence, minlength=bins) / some,
        "accuracy": np.bincount(which, hit, minlength=bins) / some,
    }
