"""How well a classifier tells that a thing is of none of its classes."""

import numpy as np
from jaxtyping import Float, Integer

from fgjax.errors import UserError

FALSE_ACCEPTS = 0.1  # share of unknown things that is let in, where nobody says otherwise


def largest_logits(
    logits: Float[np.ndarray, "N K"], labels: Integer[np.ndarray, " N"]
) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """Scores of the same images as things that are known, and as things that are not.

    Known: max_k z_k, which tells the two apart better than the largest probability (Vaze et al.
    2022). Unknown: max over k ≠ label, as if the image's class had never been given. The classifier
    has seen that class, so the second are somewhat lower than those of a thing that it has not.

    Args:
      logits: of images that did not train, z.
      labels: their classes.

    Raises:
      UserError: there is only one class, and nothing is left without it.
    """
    if logits.shape[1] < 2:
        raise UserError("what is unknown can be told only where there are two classes or more.")
    without = np.array(logits)
    without[np.arange(len(labels)), labels] = -np.inf
    return np.max(logits, axis=1), np.max(without, axis=1)


def auroc(known: Float[np.ndarray, " N"], unknown: Float[np.ndarray, " M"]) -> float:
    """Chance that a known thing scores above an unknown one, equal scores counting half.

    The area under the ROC curve, of N M pairs; NaN where any score is.

    Raises:
      UserError: there are none of either.
    """
    _some(known, unknown)
    if np.isnan(known).any() or np.isnan(unknown).any():
        return float("nan")
    ordered = np.sort(unknown)
    below, not_above = (np.searchsorted(ordered, known, side) for side in ("left", "right"))
    return float(np.mean((below + not_above) / 2) / len(unknown))


def false_accepts_at(
    known: Float[np.ndarray, " N"], unknown: Float[np.ndarray, " M"], *, accepted: float = 0.95
) -> float:
    """Share of unknown things among those let in, if that share of known ones is to be ("FPR@95").

    Args:
      known: scores of known things.
      unknown: scores of unknown things.
      accepted: share of the known, at least; the threshold is one of their scores.

    Raises:
      UserError: there are none of either.
    """
    _some(known, unknown)
    ordered = np.sort(known)[::-1]
    threshold = ordered[int(np.ceil(accepted * len(known))) - 1]
    return float(np.mean(unknown >= threshold))


def false_accepts(
    scores: Float[np.ndarray, " B"], unknown: Float[np.ndarray, " M"]
) -> Float[np.ndarray, " B"]:
    """Of each score, the share of unknown things that would be let in if it is: score ≥ its own.

    A thing is accepted at a wanted rate of false accepts where this is at most that rate.

    Args:
      scores: of new things.
      unknown: of things that were known to be of no class.

    Raises:
      UserError: there are no unknown things.
    """
    _some(unknown)
    ordered = np.sort(unknown)
    return (len(ordered) - np.searchsorted(ordered, scores, side="left")) / len(ordered)


def _some(*scores: np.ndarray) -> None:
    if not all(map(len, scores)):
        raise UserError("known and unknown things are compared by scores, but there are none.")
