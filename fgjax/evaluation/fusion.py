"""Weighted fusion of several classifiers' scores (GHNS Eq. 11) and the search for its weights."""

import itertools

import numpy as np
import scipy  # its parts are imported where they are used: together they take a second
from jax.typing import ArrayLike
from jaxtyping import Float, Float64, Integer, Real

from fgjax.errors import UserError


def simplex(count: int, *, step: float = 0.05) -> Float64[np.ndarray, "M {count}"]:
    """All weights of classifiers, multiples of `step` that sum to 1; 231 for three and 0.05.

    Raises:
      UserError: the step does not divide 1.
    """
    parts = round(1 / step)
    if abs(parts * step - 1) > 1e-9:
        raise UserError(f"the fusion's step is {step}, but must divide 1, as 0.05 does.")
    grid = [
        point for point in itertools.product(range(parts + 1), repeat=count) if sum(point) == parts
    ]
    return np.array(grid) / parts


def fuse(
    scores: Float[ArrayLike, "C N K"], weights: Real[ArrayLike, "*M C"]
) -> Float64[np.ndarray, "*M N K"]:
    """Σ_i w_i score_i (GHNS Eq. 11).

    Args:
      scores: probabilities of each classifier.
      weights: of the classifiers; several rows fuse several times at once.
    """
    return np.tensordot(np.asarray(weights, np.float64), np.asarray(scores, np.float64), axes=1)


def pool(
    scores: Float[ArrayLike, "C N K"], weights: Real[ArrayLike, " C"]
) -> Float64[np.ndarray, "N K"]:
    """softmax_k Σ_i w_i log score_i: a product of the classifiers, and not their sum.

    Args:
      scores: probabilities of each classifier.
      weights: of the classifiers, of any sum.
    """
    logs = np.log(np.maximum(np.asarray(scores, np.float64), 1e-12))
    return scipy.special.softmax(np.tensordot(np.asarray(weights, np.float64), logs, 1), axis=1)


def stack_weights(
    scores: Float[ArrayLike, "C N K"], labels: Integer[ArrayLike, " N"]
) -> Float64[np.ndarray, " C"]:
    """Weights for `pool` with the highest likelihood of the labels, none below 0.

    Multinomial logistic regression on log-probabilities, whose coefficients all classes share: a
    few held-out images a class would not bear one for each. The problem is convex.

    Args:
      scores: probabilities of each classifier.
      labels: true classes of the images.

    Raises:
      UserError: there are no images.
    """
    labels = np.asarray(labels)
    _require_images(labels)
    logs = np.log(np.maximum(np.asarray(scores, np.float64), 1e-12))
    own = logs[:, np.arange(len(labels)), labels]

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        total = np.tensordot(weights, logs, 1)
        likely = scipy.special.softmax(total, axis=1)
        surprise = np.mean(scipy.special.logsumexp(total, axis=1) - weights @ own)
        slope = np.mean(np.sum(likely * logs, axis=2) - own, axis=1)
        return float(surprise), slope

    start = np.full(len(logs), 1 / len(logs))
    bounds = [(0.0, None)] * len(logs)
    found = scipy.optimize.minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B")
    return np.asarray(found.x)


def accuracies(
    scores: Float[ArrayLike, "C N K"],
    labels: Integer[ArrayLike, " N"],
    weights: Float[np.ndarray, "M C"],
) -> Float64[np.ndarray, " M"]:
    """Top-1 accuracy of every row of `weights`; ties go to the lower class."""
    labels = np.asarray(labels)
    return np.array([np.mean(fuse(scores, w).argmax(axis=1) == labels) for w in weights])


def search_weights(
    scores: Float[ArrayLike, "C N K"], labels: Integer[ArrayLike, " N"], *, step: float = 0.05
) -> tuple[Float64[np.ndarray, " C"], float]:
    """The weights with the highest top-1 accuracy; among equals, the lowest cross-entropy.

    Few images leave many weights equally accurate, and the first of them would be a corner.

    Args:
      scores: probabilities of each classifier.
      labels: true classes of the images.
      step: of the grid on the simplex.

    Returns:
      The weights and their accuracy in [0, 1].

    Raises:
      UserError: there are no images, or the step does not divide 1.
    """
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels)
    _require_images(labels)
    grid = simplex(len(scores), step=step)
    found = accuracies(scores, labels, grid)
    own = scores[:, np.arange(len(labels)), labels]
    surprise = [-np.mean(np.log(np.maximum(w @ own, 1e-12))) for w in grid]
    best = min(range(len(grid)), key=lambda m: (-found[m], surprise[m]))
    return grid[best], float(found[best])


def _require_images(labels: np.ndarray) -> None:
    if not len(labels):
        raise UserError(
            "fusion weights are searched on held-out images, but none are held out: set "
            "data.held_out above 0 or fusion=preset."
        )
